"""``pyvision-env run``: an agent answers many tasks at once, every episode recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyvision_env.cli import console
from pyvision_env.cli.console import ExitCode, JsonFlag, SandboxOption
from pyvision_env.cli.run_screen import print_summary, progress

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
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of one turn, for --agent openai.")] = None,
    sandbox: SandboxOption = "auto",
    limit: Annotated[int | None, typer.Option(min=1, help="Take only so many tasks.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Episodes a task.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first sample of each task.")] = 0,
    max_turns: Annotated[int | None, typer.Option(min=1, help="Tool turns of an episode.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another setting, NAME=VALUE, such as max_images=16; may be given several times."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Episodes at once.")] = 4,
    out: Annotated[Path, typer.Option(help="Folder for the traces and summary.json.")] = Path("runs/run"),
    resume: Annotated[
        bool,
        typer.Option(help="Take finished episodes of the same tasks, agent and settings (server included) from --out."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Let an agent answer tasks and sum up how well it did.

    Episodes that the infrastructure ended, or whose task is wrong, do not count and are listed apart; exit code 3 if
    there are any of the former, 2 if only of the latter. Ctrl-C leaves what is finished on disk; run again with
    --resume.
    """
    from pyvision_env.env import PyVisionEnv
    from pyvision_env.rollout import run_episodes, summarize

    config = _config(env, sandbox, max_turns, settings or [])
    chosen = _load(env, tasks, limit)
    make_agent = _agent_maker(agent, model, base_url, temperature, max_tokens, seed)
    _check_out(out, resume)
    results: list[EpisodeResult] = []
    stopped: BaseException | None = None
    with progress(len(chosen) * samples) as advance:

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
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - raised again below, after the summary
            stopped = error
    interrupted = isinstance(stopped, KeyboardInterrupt)
    if stopped is not None and not interrupted and not results:
        raise stopped
    summary = summarize(results)
    # Whatever stopped the run: what was finished before is summed up.
    report = {
        "interrupted": interrupted,
        "error": None if stopped is None or interrupted else str(stopped) or type(stopped).__name__,
        **summary.as_dict(),
        "traces": str(out),
    }
    _write(report, out)
    if as_json:
        console.print_json({**report, "results": [result.as_dict() for result in results]})
    else:
        print_summary(summary, out)
    if stopped is not None:
        console.note("Stopped; what was finished is in the folder. Go on with --resume.")
        if not interrupted:
            raise stopped
        raise typer.Exit(ExitCode.INTERRUPTED)
    if summary.failures:
        raise typer.Exit(_failure_code(summary))


def _check_out(out: Path, resume: bool) -> None:
    """Two runs in one folder would be looked at as one."""
    from pyvision_env.errors import ConfigError
    from pyvision_env.trace.read import find_traces

    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"--out {out} is a file; give a folder for the traces")
    earlier = len(find_traces(out))
    if earlier and not resume:
        raise ConfigError(
            f"--out {out} holds {earlier} episode(s) of an earlier run: go on with it by --resume, or give another "
            "folder, so that the figures of two runs are not mixed"
        )


def _write(report: dict[str, Any], out: Path) -> None:
    from pyvision_env.errors import UserError

    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "summary.json").write_text(console.to_json(report), encoding="utf-8")
    except OSError as error:
        raise UserError(f"The summary cannot be written to {out}: {error}; give a folder that can be") from error


def _failure_code(summary: Summary) -> ExitCode:
    """A wrong task is the user's to mend; where the infrastructure failed too, running again may be enough."""
    from pyvision_env.rollout import TASK_ERROR

    only_tasks = all(failure["end_reason"] == TASK_ERROR for failure in summary.failures)
    return ExitCode.USAGE if only_tasks else ExitCode.INFRASTRUCTURE


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
    from pyvision_env.grading.gradable import needs_judge
    from pyvision_env.task_stream import TaskSource
    from pyvision_env.tasks import load_tasks

    if (env is None) == (tasks is None):
        given = "both" if env is not None else "neither"
        raise ConfigError(f"expected exactly one of --env and --tasks, but {given} came")
    if tasks is not None:
        loaded = load_tasks(tasks, limit=limit)
        judged = [task.id for task in loaded if needs_judge(task)]
        if judged:
            raise ConfigError(
                f"{len(judged)} of {len(loaded)} task(s) of {tasks}, such as {judged[0]!r}, are graded by a judge, and "
                "run has none: give them a grader that is a rule, or leave them out"
            )
        return loaded
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
