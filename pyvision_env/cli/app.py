"""The application: its commands, global flags, and how errors become one paragraph and an exit code."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pyvision_env.cli import console
from pyvision_env.cli.console import ExitCode
from pyvision_env.cli.demo import demo
from pyvision_env.cli.doctor import doctor
from pyvision_env.cli.run import run
from pyvision_env.cli.sandbox import sandbox
from pyvision_env.cli.traces import replay, view
from pyvision_env.errors import InfrastructureError, PyVisionError


class _Group(TyperGroup):
    """Turns errors into a message and an exit code, unless ``--debug`` is given."""

    _debug = False

    def main(self, *args: Any, **kwargs: Any) -> Any:
        # Usage errors, exits and interrupts are dealt with inside; what gets out was not raised on purpose.
        try:
            return super().main(*args, **kwargs)
        except Exception as error:
            if self._debug or not kwargs.get("standalone_mode", True):
                raise
            console.internal_error(error)
            sys.exit(ExitCode.INTERNAL)

    def invoke(self, ctx: Any) -> Any:
        self._debug = bool(ctx.params.get("debug"))
        try:
            return super().invoke(ctx)
        except PyVisionError as error:
            if self._debug:
                raise
            console.error(error)
            code = ExitCode.INFRASTRUCTURE if isinstance(error, InfrastructureError) else ExitCode.USAGE
            raise typer.Exit(code) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Vision-language models write Python to look at images and videos: try it, check this machine, run agents.",
    epilog=(
        "Exit codes: 0 all well, 1 the result is not as wanted, 2 wrong usage or input, 3 the infrastructure (sandbox, "
        "engine, model server) failed, 4 internal error, 130 interrupted. With --json, standard output holds JSON only."
    ),
)
app.command()(demo)
app.command()(doctor)
app.add_typer(sandbox, name="sandbox")
app.command()(run)
app.command()(view)
app.command()(replay)


def _version(wanted: bool) -> None:
    if wanted:
        from pyvision_env import __version__

        console.out().print(f"pyvision-env {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and log what is being done.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if debug:
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("pyvision_env").setLevel(logging.DEBUG)
