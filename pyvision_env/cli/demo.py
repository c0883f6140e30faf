"""``pyvision-env demo``: real questions, answered by the reference agent's code in an isolated runtime."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyvision_env.cli import console
from pyvision_env.cli.console import ExitCode, JsonFlag, SandboxOption

if TYPE_CHECKING:
    from rich.console import Console

    from pyvision_env.env import PyVisionEnv
    from pyvision_env.rollout import EpisodeResult
    from pyvision_env.sandbox import IsolationReport, SandboxLike
    from pyvision_env.types import Task

# The code is our own and ends; on a busy machine it may take its time.
_CODE_S = 120.0
_PHOTO, _CLIP = "demo-image-mission-patch", "demo-video-bikes-sign"


def demo(
    sandbox: SandboxOption = "auto",
    out: Annotated[Path, typer.Option(help="Folder for the traces and the page.")] = Path("runs/demo"),
    every: Annotated[bool, typer.Option("--all", help="Ask all questions of the demo instead of three.")] = False,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Answer a question about a photo, one about a video and a visual search, and write a page about them.

    No model is needed: the reference agent writes real code, which runs in the sandbox, and answers what it found.
    Exit code 0 only if every answer and reward is as expected; 3 if the sandbox failed.
    """
    from pyvision_env.report import write_page
    from pyvision_env.sandbox import make_sandbox
    from pyvision_env.trace import read_trace

    screen = None if as_json else console.out()
    # The isolation is told below, more kindly than by a warning in the log.
    with console.quiet("pyvision_env.sandbox.isolation"), make_sandbox(sandbox) as runtime:
        console.note(f"Starting the {runtime.kind} sandbox ...")
        isolation = runtime.isolation
        if screen is not None:
            _print_isolation(screen, isolation)
        results = [_run(task, settings, runtime, out, screen) for task, settings in _tasks(every)]
    page = write_page([read_trace(result.trace) for result in results if result.trace is not None], out / "index.html")
    unexpected = [result for result in results if not _as_expected(result)]
    if screen is None:
        console.print_json(_as_json(isolation, results, unexpected, out, page))
    else:
        _print_outcome(screen, results, unexpected, isolation, page)
    if show:
        console.open_in_browser(page)
    if any(not result.counts for result in results):
        raise typer.Exit(ExitCode.INFRASTRUCTURE)
    if unexpected:
        raise typer.Exit(ExitCode.RESULT)


def _tasks(every: bool) -> Iterator[tuple[Task, dict[str, Any]]]:
    """The tasks with their environment's own settings."""
    from pyvision_env.tasks import SearchTasks, VideoTasks, demo_image_tasks, demo_video_tasks
    from pyvision_env.tasks.synthetic_search import THUMBNAIL_PIXELS

    photos, clips = demo_image_tasks(), demo_video_tasks()
    search = SearchTasks(1, difficulty="hard")
    plain = (
        (*photos, *clips, *VideoTasks(1, difficulty="hard")) if every else (photos.by_id(_PHOTO), clips.by_id(_CLIP))
    )
    yield from ((task, {}) for task in plain)
    yield from ((task, {"max_pixels": THUMBNAIL_PIXELS}) for task in search)


def _run(
    task: Task, settings: dict[str, Any], runtime: SandboxLike, out: Path, screen: Console | None
) -> EpisodeResult:
    from pyvision_env.agents import ReferenceAgent
    from pyvision_env.env import PyVisionEnv
    from pyvision_env.rollout import run_episode
    from pyvision_env.trace import RecordTrace

    agent = ReferenceAgent()
    env = RecordTrace(
        PyVisionEnv(tasks=[task], sandbox=runtime, code_timeout_s=_CODE_S, **settings), out, agent=agent.name
    )
    try:
        if screen is None:
            console.note(f"{task.id} ...")
            return run_episode(env, agent, seed=0, options={"task": task})
        from pyvision_env.cli.turns import print_question, print_result, print_turn

        def show(base: PyVisionEnv) -> None:
            if base.turns:
                print_turn(screen, len(base.turns), base.turns[-1])
            else:
                print_question(screen, base)

        result = run_episode(env, agent, seed=0, options={"task": task}, on_turn=show)
        print_result(screen, result, task.answer)
        return result
    finally:
        env.close()


def _as_expected(result: EpisodeResult) -> bool:
    """Answered correctly by code that ran: 1 for the answer and 0.1 for each successful turn of tool calls."""
    tool = result.reward_terms.get("tool", 0.0)
    return result.correct is True and tool > 0 and math.isclose(result.episode_return, 1.0 + tool)


def _print_isolation(screen: Console, isolation: IsolationReport) -> None:
    kept = [name for name, given in isolation.guarantees.items() if given]
    screen.print(f"Sandbox: [bold]{isolation.kind}[/], confinement {isolation.rung}", highlight=False)
    screen.print(f"  keeps apart: {', '.join(kept) or 'nothing'}", highlight=False)
    if isolation.missing:
        screen.print(f"  [yellow]does not give: {', '.join(isolation.missing)}[/]", highlight=False)
    for remark in isolation.notes:
        screen.print(f"  {remark}", style="yellow", highlight=False, markup=False)
    if isolation.kind.startswith("local"):
        screen.print("  `pyvision-env doctor` tells how to get the docker sandbox on this machine.", highlight=False)
    screen.print()


def _print_outcome(
    screen: Console,
    results: list[EpisodeResult],
    unexpected: list[EpisodeResult],
    isolation: IsolationReport,
    page: Path,
) -> None:
    good = len(results) - len(unexpected)
    style = "green" if not unexpected else "red"
    screen.print(f"[bold {style}]{good} of {len(results)} answered as expected[/] in the {isolation.kind} sandbox.")
    for result in unexpected:
        screen.print(f"  not as expected: {result.task_id} ({result.error or result.end_reason})", markup=False)
    screen.print(f"Traces: {page.parent}\nPage to look at: {page.resolve().as_uri()}", highlight=False, markup=False)


def _as_json(
    isolation: IsolationReport, results: list[EpisodeResult], unexpected: list[EpisodeResult], out: Path, page: Path
) -> dict[str, Any]:
    return {
        "ok": not unexpected,
        "sandbox": {
            "kind": isolation.kind,
            "rung": isolation.rung,
            "guarantees": isolation.guarantees,
            "missing": list(isolation.missing),
            "notes": list(isolation.notes),
        },
        "episodes": [{**result.as_dict(), "as_expected": result not in unexpected} for result in results],
        "traces": str(out),
        "page": str(page),
    }
