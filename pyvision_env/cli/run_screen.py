"""What ``pyvision-env run`` shows: how far it is, and the figures at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from pyvision_env.cli import console

if TYPE_CHECKING:
    from pyvision_env.rollout import EpisodeResult, Summary


@contextmanager
def progress(total: int) -> Iterator[Callable[[Sequence[EpisodeResult]], None]]:
    """A bar on standard error; on anything but a terminal a line for each tenth of the episodes."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    screen = console.err()
    if not screen.is_terminal:
        step = max(1, total // 10)

        def say(results: Sequence[EpisodeResult]) -> None:
            if len(results) % step == 0 or len(results) == total:
                console.note(f"{len(results)} of {total} episodes, {_standing(results)}")

        yield say
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=screen) as progress:
        task = progress.add_task("starting", total=total)
        yield lambda results: progress.update(task, completed=len(results), description=_standing(results))


def _standing(results: Sequence[EpisodeResult]) -> str:
    counted = [result for result in results if result.counts]
    correct = sum(result.correct is True for result in counted)
    failed = len(results) - len(counted)
    return f"{correct} of {len(counted)} correct" + (f", {failed} failed" if failed else "")


def print_summary(summary: Summary, out: Path) -> None:
    """The figures as a table, and every episode that does not count with its reason."""
    from rich.table import Table

    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    table = Table(show_header=False)
    ends = ", ".join(f"{reason} {count}" for reason, count in summary.end_reasons.items())
    for label, value in (
        ("episodes", f"{summary.episodes}, {summary.counted} counted"),
        ("accuracy", f"{shown(summary.accuracy, '.1%')} ({summary.correct} of {summary.counted})"),
        ("mean score", shown(summary.mean_score, ".3f")),
        ("mean return", shown(summary.mean_return, ".3f")),
        ("mean turns", shown(summary.mean_turns, ".2f")),
        ("mean tool calls", shown(summary.mean_tool_calls, ".2f")),
        ("failed calls", shown(summary.failed_call_ratio, ".1%")),
        ("mean visual tokens", shown(summary.mean_visual_tokens, ",.0f")),
        ("mean seconds", shown(summary.mean_duration_s, ".2f")),
        ("ends", ends or "-"),
    ):
        table.add_row(label, value)
    screen = console.out()
    screen.print(table)
    for failure in summary.failures:
        screen.print(f"[red]not counted[/] {escape(failure['task_id'])}: {escape(str(failure['error']))}")
    screen.print(f"Traces: {out}   look at them: pyvision-env view {out}", markup=False, highlight=False)
