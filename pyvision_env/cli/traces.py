"""``pyvision-env view`` and ``replay``: look at recorded episodes, and run their actions again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from pyvision_env.cli import console
from pyvision_env.cli.console import ExitCode, JsonFlag, SandboxOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvision_env.sandbox import Sandbox
    from pyvision_env.trace import ReplayReport, Trace


def view(
    directory: Annotated[Path, typer.Argument(help="Folder of traces.", metavar="DIR")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; DIR/index.html by default.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write one self-contained HTML page about all episodes of a folder."""
    from pyvision_env.report import write_page

    page = write_page(directory, out or directory / "index.html")
    if as_json:
        console.print_json({"page": str(page), "bytes": page.stat().st_size})
    else:
        console.out().print(f"{page.resolve().as_uri()}", highlight=False, markup=False)
    if show:
        console.open_in_browser(page)


def replay(
    source: Annotated[Path, typer.Argument(help="A trace (.jsonl) or a folder of traces.", metavar="TRACE_OR_DIR")],
    sandbox: SandboxOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Run the actions of recorded episodes again, without a model, and say what comes out otherwise.

    Exit code 1 if anything differs.
    """
    from pyvision_env.trace import read_trace
    from pyvision_env.trace import replay as run_again
    from pyvision_env.trace.read import find_traces

    paths = find_traces(source) if source.is_dir() else [source]
    reports: list[tuple[Trace, ReplayReport]] = []
    with _sandboxes(sandbox) as sandbox_for:
        for path in paths:
            trace = read_trace(path)
            console.note(f"{trace.header.episode_id} ...")
            reports.append((trace, run_again(trace, sandbox=sandbox_for(trace))))
    if as_json:
        console.print_json([_as_json(trace, report) for trace, report in reports])
    else:
        _print(reports)
    if any(not report.matches for _, report in reports):
        raise typer.Exit(ExitCode.RESULT)


@contextmanager
def _sandboxes(kind: str) -> Iterator[Callable[[Trace], str | Sandbox]]:
    """One sandbox for all traces of equal settings, so that it need not start anew for each."""
    from pydantic import ValidationError

    from pyvision_env.config import EnvConfig
    from pyvision_env.sandbox import make_sandbox

    started: dict[str, Sandbox] = {}
    with ExitStack() as stack:

        def sandbox_for(trace: Trace) -> str | Sandbox:
            try:
                config = EnvConfig.model_validate(trace.header.config)
            except ValidationError:
                return kind  # the replay itself says what is wrong with it
            key = config.sandbox.model_dump_json() + config.limits.model_dump_json()
            if key not in started:
                # Validated anew, because the kind comes from the command line.
                settings = {**config.sandbox.model_dump(), "kind": kind}
                started[key] = stack.enter_context(make_sandbox(settings, limits=config.limits))
            return started[key]

        yield sandbox_for


def _print(reports: list[tuple[Trace, ReplayReport]]) -> None:
    from rich.table import Table

    screen = console.out()
    table = Table("episode", "turns", "field", "difference", title=None, show_lines=True)
    for trace, report in reports:
        for difference in report.differences:
            turn = "start" if difference.turn is None else str(difference.turn + 1)
            table.add_row(escape(report.episode_id), turn, difference.field, escape(difference.detail))
        if not trace.complete:
            console.note(f"{report.episode_id} was not recorded to its end; it was replayed as far as it goes.")
    if table.row_count:
        screen.print(table)
    same = sum(report.matches for _, report in reports)
    turns = sum(report.turns for _, report in reports)
    screen.print(f"{same} of {len(reports)} episode(s) came out as recorded ({turns} turns).", highlight=False)


def _as_json(trace: Trace, report: ReplayReport) -> dict[str, Any]:
    return {
        "episode_id": report.episode_id,
        "trace": str(trace.path),
        "complete": trace.complete,
        "turns": report.turns,
        "matches": report.matches,
        "differences": [asdict(difference) for difference in report.differences],
    }
