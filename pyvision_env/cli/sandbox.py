"""``pyvision-env sandbox``: build the image in which code runs, and check it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pyvision_env.cli import console
from pyvision_env.cli.console import JsonFlag

sandbox = typer.Typer(no_args_is_help=True, help="Build and check the sandbox image.")
_NAME = "pyvision-sandbox"
NameOption = Annotated[str, typer.Option(help="Name of the image.")]


@sandbox.command()
def build(
    name: NameOption = _NAME,
    base: Annotated[
        str | None,
        typer.Option(
            help="Base image with Python 3.11; 'auto' pulls python:3.11-slim and falls back to one made from Debian "
            "packages, 'offline' takes that one at once."
        ),
    ] = None,
    extra_package: Annotated[
        list[str] | None, typer.Option(help="Another pip requirement for the image; may be given several times.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Build the sandbox image; with nothing changed it takes a second."""
    from pyvision_env.sandbox.image import build_image

    screen = console.err()
    if screen.is_terminal:
        columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=screen, transient=True) as progress:
            task = progress.add_task("asking the engine")
            info = build_image(
                name,
                base=base,
                extra_packages=extra_package or (),
                progress=lambda line: progress.update(task, description=escape(line[:100])),
            )
    else:
        info = build_image(name, base=base, extra_packages=extra_package or (), progress=console.note)
    if as_json:
        console.print_json(asdict(info))
    else:
        console.out().print(
            f"Built {info.name}: {info.size_bytes / 1e6:,.0f} MB, worker {info.worker[:12]}", highlight=False
        )


@sandbox.command()
def check(name: NameOption = _NAME, as_json: JsonFlag = False) -> None:
    """Check that the engine has the image and that it holds this package's worker."""
    from pyvision_env.sandbox.containers import connect
    from pyvision_env.sandbox.image import check_image

    client = connect(timeout=10)
    try:
        info = check_image(client, name)
    finally:
        client.close()
    if as_json:
        console.print_json(asdict(info))
    else:
        console.out().print(f"{info.name} holds this package's worker ({info.worker[:12]})", highlight=False)
