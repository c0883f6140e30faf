"""What the commands print with: standard output for results, standard error for progress and errors."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

JsonFlag = Annotated[bool, typer.Option("--json", help="Write the result as JSON to standard output.")]
SandboxOption = Annotated[
    str,
    typer.Option(
        help="Where code runs: auto (docker if an engine has the image, else local), docker, docker-strict, local or "
        "local-unconfined (no isolation), or ray (one of these on each node of the cluster that RAY_ADDRESS names)."
    ),
]


class ExitCode(IntEnum):
    """Exit codes of all commands."""

    OK = 0
    RESULT = 1
    USAGE = 2
    INFRASTRUCTURE = 3
    INTERNAL = 4
    INTERRUPTED = 130


def out() -> Console:
    """Standard output, as it is now; what it cannot encode is written as an escape."""
    # Tasks and models may hold lone surrogates, and a run must not be lost for the sake of one.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return Console(file=sys.stdout, soft_wrap=not sys.stdout.isatty())


def err() -> Console:
    """Standard error, as it is now."""
    return Console(file=sys.stderr, soft_wrap=not sys.stderr.isatty())


def error(failure: Exception) -> None:
    """One paragraph about what went wrong."""
    err().print(f"[bold red]Error:[/] {escape(str(failure) or type(failure).__name__)}", highlight=False)


def internal_error(failure: Exception) -> None:
    """One paragraph about a fault of this program."""
    what = escape(f"{type(failure).__name__}: {failure}".rstrip(": "))
    err().print(
        f"[bold red]Internal error:[/] {what}. This is a fault of pyvision-env; run again with --debug before the "
        "command (pyvision-env --debug ...) for the traceback, and report it.",
        highlight=False,
    )


def note(text: str) -> None:
    """Say on standard error what is being done."""
    err().print(escape(text), style="dim", highlight=False)


@contextlib.contextmanager
def quiet(name: str) -> Iterator[None]:
    """Leaves out a logger's warnings for as long as the command tells the same itself; ``--debug`` shows them."""
    logger = logging.getLogger(name)
    before = logger.level
    if not logger.isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def print_json(value: Any) -> None:
    """Write JSON to standard output."""
    sys.stdout.write(to_json(value, sys.stdout.encoding or "utf-8"))


def to_json(value: Any, encoding: str = "utf-8") -> str:
    """JSON with a newline, readable by people, and in ASCII where ``encoding`` cannot hold it as it is.

    A lone surrogate, which no encoding holds, is then an escape that JSON's readers know.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, default=_plain)
    return text + "\n"


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else repr(value)


def open_in_browser(path: Path) -> None:
    """Show a page in the user's browser, where there is one."""
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        note(f"No browser could be started; open {path} yourself.")
