"""``pyvision-env doctor``: what this machine offers, line by line, and what mends what is missing."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from pyvision_env.cli import console
from pyvision_env.cli.console import ExitCode, JsonFlag

if TYPE_CHECKING:
    from pyvision_env.doctor import Check

_STYLES = {"ok": "green", "warn": "yellow", "missing": "bold red"}


def doctor(
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--sandbox",
            help="Try this kind only; may be given several times. By default all confined ones of this machine; ray "
            "tries the cluster that RAY_ADDRESS names.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell what this machine offers and the command that mends what is missing.

    Opens every kind of confined sandbox and runs a line in it; exit code 0 if at least one works, else 3.
    """
    from pyvision_env.doctor import CLUSTER_KIND, KINDS, examine
    from pyvision_env.errors import ConfigError

    chosen = tuple(kinds) if kinds else KINDS
    known = (*KINDS, CLUSTER_KIND)
    unknown = [kind for kind in chosen if kind not in known]
    if unknown:
        raise ConfigError(f"--sandbox expects {', '.join(known)}, but {', '.join(unknown)} came")

    screen = console.out()

    def show(check: Check) -> None:
        screen.print(
            f"[{_STYLES[check.status]}]{check.status:<8}[/]{check.name:<22}{escape(check.detail)}", highlight=False
        )
        if check.fix and check.status != "ok":
            screen.print(f"{'':<30}-> {escape(check.fix)}", style="cyan", highlight=False)

    with console.quiet("pyvision_env.sandbox"):
        report = examine(chosen) if as_json else examine(chosen, on_check=show)
    if as_json:
        checks = [asdict(check) for check in report.checks]
        console.print_json({"ok": report.ok, "working": list(report.working), "checks": checks})
    elif report.ok:
        screen.print(f"\n[bold green]Ready:[/] code can run in {', '.join(report.working)}.", highlight=False)
    else:
        screen.print("\n[bold red]Not ready:[/] no confined sandbox works here; see the lines above.", highlight=False)
    if not report.ok:
        raise typer.Exit(ExitCode.INFRASTRUCTURE)
