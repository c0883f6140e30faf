"""``pyvision-env run``: an agent answers many tasks at once, every episode recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from pyvision_env.cli import console
from pyvision_env.cli.console import ExitCode, JsonFlag, SandboxOption

if TYPE_CHECKING:
    from pyvision_env.agents import Agent
    from pyvision_env.config import EnvConfig
    from pyvision_env.rollout import EpisodeResult, Summary
    from pyvision_env.tasks import TaskSet


def run(
    env: Annotated[
        str | None, typer.Option(help="Environment whose own tasks are used, such as PyVision/ImageQA-v0.")
    ] = None,
    tasks: Annotated[
        Path | None, typer.Option(help="Task file (.json, .jsonl, .parquet) or folder, instead of --env.")
    ] = None,
    agent: Annotated[
        str, typer.Option(help="reference, openai, or a class of yours: module:Class or path/to/file.py:Class.")
    ] = "reference",
    model: Annotated[str | None, typer.Option(help="Model name, for --agent openai.")] = None,
    base_url: Annotated[
        str | None, typer.Option(help="OpenAI-compatible server, such as http://127.0.0.1:8000/v1.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature, for --agent openai.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens of one turn, for --agent openai.")] = None,
    sandbox: SandboxOption = "auto",
    limit: Annotated[int | None, typer.Option(min=1, help="Take only so many tasks.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Episodes a task.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the first sample of each task.")] = 0,
    max_turns: Annotated[int | None, typer.Option(min=1, help="Tool turns of an episode.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another setting, NAME=VALUE, such as max_images=16; may be given several times."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Episodes at once.")] = 4,
    out: Annotated[Path, typer.Option(help="Folder for the traces and summary.json.")] = Path("runs/run"),
    resume: Annotated[
        bool, typer.Option(help="Take finished episodes of the same agent and settings from --out.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Let an agent answer tasks and sum up how well it did.

    Episodes that the infrastructure ended do not count and are listed apart; exit code 3 if there are any. Ctrl-C
    leaves what is finished on disk; run again with --resume.
    """
    from pyvision_env.env import PyVisionEnv
    from pyvision_env.rollout import run_episodes, summarize

    config = _config(env, sandbox, max_turns, settings or [])
    chosen = _load(env, tasks, limit)
    make_agent = _agent_maker(agent, model, base_url, temperature, max_tokens, seed)
    results: list[EpisodeResult] = []
    interrupted = False
    with _progress(len(chosen) * samples) as advance:

        def take(result: EpisodeResult) -> None:
            results.append(result)
            advance(results)

        try:
            results[:] = run_episodes(
                lambda: PyVisionEnv(tasks=chosen, config=config),
                make_agent,
                chosen,
                samples=samples,
                seed=seed,
                concurrency=concurrency,
                trace_dir=out,
                resume=resume,
                on_result=take,
            )
        except KeyboardInterrupt:
            interrupted = True
    summary = summarize(results)
    report = {"interrupted": interrupted, **summary.as_dict(), "traces": str(out)}
    out.mkdir(parents=True, exist_ok=True)
    (out / "summary.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if as_json:
        console.print_json({**report, "results": [result.as_dict() for result in results]})
    else:
        _print(summary, out)
    if interrupted:
        console.note("Interrupted; what was finished is in the folder. Go on with --resume.")
        raise typer.Exit(ExitCode.INTERRUPTED)
    if summary.failures:
        raise typer.Exit(ExitCode.INFRASTRUCTURE)


def _config(env: str | None, sandbox: str, max_turns: int | None, settings: Sequence[str]) -> EnvConfig:
    """What the environment is registered with, then what was given."""
    import gymnasium

    from pyvision_env.errors import ConfigError
    from pyvision_env.options import resolve_config

    spec = None if env is None else gymnasium.registry.get(env)
    overrides: dict[str, Any] = {} if spec is None else {k: v for k, v in spec.kwargs.items() if k != "kind"}
    if max_turns is not None:
        overrides["max_turns"] = max_turns
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set expects NAME=VALUE, but {setting!r} came")
        try:
            overrides[name] = json.loads(value)
        except ValueError:
            overrides[name] = value
    return resolve_config(None, sandbox, overrides)


def _load(env: str | None, tasks: Path | None, limit: int | None) -> TaskSet:
    """The tasks of an environment or a file; whatever is wrong with them is told before anything starts."""
    import gymnasium

    from pyvision_env.errors import ConfigError
    from pyvision_env.task_stream import TaskSource
    from pyvision_env.tasks import load_tasks

    if (env is None) == (tasks is None):
        given = "both" if env is not None else "neither"
        raise ConfigError(f"expected exactly one of --env and --tasks, but {given} came")
    if tasks is not None:
        return load_tasks(tasks, limit=limit)
    known = {name: spec.kwargs["kind"] for name, spec in gymnasium.registry.items() if name.startswith("PyVision/")}
    if env not in known:
        raise ConfigError(f"there is no environment {env!r}; known ones: {', '.join(known)}")
    generated = "Synthetic" in env
    source = TaskSource(kind=known[env], num_tasks=limit if generated else None)
    return source.load() if limit is None else source.load()[:limit]


def _agent_maker(
    name: str,
    model: str | None,
    base_url: str | None,
    temperature: float | None,
    max_tokens: int | None,
    seed: int,
) -> Callable[[], Agent]:
    from pyvision_env.agents import OpenAIAgent, ReferenceAgent
    from pyvision_env.cli.own_agent import load_agent_class
    from pyvision_env.errors import ConfigError

    if name == "openai":
        if model is None:
            raise ConfigError("--agent openai needs --model, the name of the model on the server")
        shared = OpenAIAgent(model, base_url, temperature=temperature, max_tokens=max_tokens, seed=seed)
        return lambda: shared
    openai_only = {"--model": model, "--base-url": base_url, "--temperature": temperature, "--max-tokens": max_tokens}
    unused = [option for option, value in openai_only.items() if value is not None]
    if unused:
        raise ConfigError(f"{', '.join(unused)} belong to --agent openai, but --agent {name} came")
    return ReferenceAgent if name == "reference" else load_agent_class(name)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Sequence[EpisodeResult]], None]]:
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


def _print(summary: Summary, out: Path) -> None:
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
