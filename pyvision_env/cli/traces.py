"""``pyvision-env view`` and ``replay``: look at recorded episodes, and run their actions again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from pyvision_env.cli import console
from pyvision_env.cli.console import ExitCode, JsonFlag, SandboxOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvision_env.sandbox import SandboxLike
    from pyvision_env.trace import ReplayReport, Trace


def view(
    directory: Annotated[Path, typer.Argument(help="Folder of traces.", metavar="DIR")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; DIR/index.html by default.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write one self-contained HTML page about all episodes of a folder.

    Exit code 1 if some of the traces cannot be read (the page names them), 2 if there are none or none can be read.
    """
    from pyvision_env.errors import TraceError
    from pyvision_env.report import write_page

    found = len(_find(directory))
    unreadable: list[str] = []
    page = write_page(directory, out or directory / "index.html", on_unreadable=unreadable.append)
    if len(unreadable) == found:
        raise TraceError(f"None of the {found} trace(s) in {directory} can be read: {'; '.join(unreadable[:3])}")
    if as_json:
        report = {"page": str(page), "bytes": page.stat().st_size, "episodes": found - len(unreadable)}
        console.print_json({**report, "unreadable": unreadable})
    else:
        console.out().print(f"{page.resolve().as_uri()}", highlight=False, markup=False)
    for problem in unreadable:
        console.note(f"Left out: {problem}")
    if show:
        console.open_in_browser(page)
    if unreadable:
        raise typer.Exit(ExitCode.RESULT)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of replaying one file: a report, or the reason why there is none."""

    path: Path
    trace: Trace | None = None
    report: ReplayReport | None = None
    error: str | None = None

    @property
    def matches(self) -> bool:
        """Everything that was recorded could be read, and came out the same."""
        return self.report is not None and self.report.matches and self.trace is not None and self.trace.damaged is None


def replay(
    source: Annotated[Path, typer.Argument(help="A trace (.jsonl) or a folder of traces.", metavar="TRACE_OR_DIR")],
    sandbox: SandboxOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Run the actions of recorded episodes again, without a model, and say what comes out otherwise.

    Exit code 1 if anything differs or a trace is damaged, 2 if there are no traces or one cannot be replayed at all.
    """
    from pyvision_env.errors import InfrastructureError, TraceError

    outcomes: list[_Outcome] = []
    failure: InfrastructureError | None = None
    paths = _find(source) if source.is_dir() else [source]
    with _sandboxes(sandbox) as sandbox_for:
        try:
            for path in paths:
                outcomes.append(_replay(path, sandbox_for))
        except InfrastructureError as error:
            failure = error
    if not source.is_dir() and outcomes and outcomes[0].error is not None:
        raise TraceError(outcomes[0].error)
    if as_json:
        console.print_json([_as_json(outcome) for outcome in outcomes])
    else:
        _print(outcomes)
    if failure is not None:
        console.note(f"Stopped after {len(outcomes)} of {len(paths)} trace(s).")
        raise failure
    if any(outcome.error is not None for outcome in outcomes):
        raise typer.Exit(ExitCode.USAGE)
    if not all(outcome.matches for outcome in outcomes):
        raise typer.Exit(ExitCode.RESULT)


def _find(directory: Path) -> list[Path]:
    """The traces of a folder.

    Raises:
        TraceError: If there is no such folder, or there are none in it.
    """
    from pyvision_env.errors import TraceError
    from pyvision_env.trace.read import find_traces

    paths = find_traces(directory)
    if not paths:
        hint = f"; did you mean {directory.parent}?" if directory.name in ("episodes", "images") else ""
        raise TraceError(f"expected traces in {directory / 'episodes'}, found none{hint}")
    return paths


def _replay(path: Path, sandbox_for: Callable[[Trace], str | SandboxLike]) -> _Outcome:
    from pyvision_env.errors import TraceError, UserError
    from pyvision_env.trace import read_trace
    from pyvision_env.trace import replay as run_again

    try:
        trace = read_trace(path)
    except TraceError as error:
        return _Outcome(path, error=str(error))
    console.note(f"{trace.header.episode_id} ...")
    # Outside: a wrong kind of sandbox is wrong for every trace.
    where = sandbox_for(trace)
    try:
        return _Outcome(path, trace, run_again(trace, sandbox=where))
    except UserError as error:
        return _Outcome(path, trace, error=str(error))


@contextmanager
def _sandboxes(kind: str) -> Iterator[Callable[[Trace], str | SandboxLike]]:
    """One sandbox for all traces of equal settings, so that it need not start anew for each."""
    from pydantic import ValidationError

    from pyvision_env.config import EnvConfig
    from pyvision_env.sandbox import make_sandbox

    started: dict[str, SandboxLike] = {}
    with ExitStack() as stack:

        def sandbox_for(trace: Trace) -> str | SandboxLike:
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


def _print(outcomes: Sequence[_Outcome]) -> None:
    from rich.table import Table

    screen = console.out()
    table = Table("episode", "turns", "field", "difference", title=None, show_lines=True)
    for outcome in outcomes:
        name = outcome.path.stem
        for difference in outcome.report.differences if outcome.report is not None else ():
            turn = "start" if difference.turn is None else str(difference.turn + 1)
            table.add_row(escape(name), turn, difference.field, escape(difference.detail))
        if outcome.trace is not None and outcome.trace.damaged is None and outcome.trace.end is None:
            console.note(f"{name} was not recorded to its end; it was replayed as far as it goes.")
    if table.row_count:
        screen.print(table)
    for outcome in outcomes:
        if outcome.error is not None:
            screen.print(f"[red]not replayed[/] {escape(outcome.error)}", highlight=False)
        elif outcome.trace is not None and outcome.trace.damaged is not None:
            screen.print(f"[red]damaged[/] {escape(f'{outcome.path}, {outcome.trace.damaged}')}", highlight=False)
    same = sum(outcome.matches for outcome in outcomes)
    turns = sum(outcome.report.turns for outcome in outcomes if outcome.report is not None)
    screen.print(f"{same} of {len(outcomes)} episode(s) came out as recorded ({turns} turns).", highlight=False)


def _as_json(outcome: _Outcome) -> dict[str, Any]:
    trace, report = outcome.trace, outcome.report
    return {
        "episode_id": outcome.path.stem if trace is None else trace.header.episode_id,
        "trace": str(outcome.path if trace is None else trace.path),
        "complete": trace is not None and trace.complete,
        "damaged": None if trace is None else trace.damaged,
        "turns": 0 if report is None else report.turns,
        "matches": outcome.matches,
        "error": outcome.error,
        "differences": [] if report is None else [asdict(difference) for difference in report.differences],
    }
