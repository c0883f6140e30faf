"""One episode: an agent acts until the environment says it is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium

from pyvision_env.agents.protocol import Agent, Context
from pyvision_env.errors import ConfigError, InfrastructureError, MediaError, TaskError
from pyvision_env.rollout.result import EpisodeResult, sum_terms
from pyvision_env.trace.format import TASK_ERROR
from pyvision_env.types import EndReason, Task

if TYPE_CHECKING:
    from pyvision_env.env import PyVisionEnv

Env = gymnasium.Env[dict[str, Any], Any]


def run_episode(
    env: Env,
    agent: Agent,
    *,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
    on_turn: Callable[[PyVisionEnv], None] | None = None,
) -> EpisodeResult:
    """Let an agent act until the episode ends.

    Args:
        env: A ``PyVisionEnv`` in text mode, wrapped or not; with ``RecordTrace`` around it the episode is on disk when
            this returns.
        agent: Writes the turns.
        seed: Of ``reset``.
        options: Of ``reset``, such as ``{"task": task}``.
        on_turn: Called with the inner environment after ``reset`` and after every step.

    Returns:
        The result; where infrastructure or the task's media failed it says so and does not count.

    Raises:
        UserError: The environment or the agent is set up wrongly.
    """
    base: PyVisionEnv = env.unwrapped  # type: ignore[assignment]
    if base.config.action_mode != "text":
        raise ConfigError(f"agents write text, so action_mode must be 'text', but {base.config.action_mode!r} came")
    began = time.perf_counter()
    task = (options or {}).get("task")
    info: dict[str, Any] = {}
    error: str | None = None
    end: str | None = None
    started = False
    try:
        _, info = env.reset(seed=seed, options=options)
        task, started = base.task, True
        if on_turn is not None:
            on_turn(base)
        over = False
        while not over:
            text = _ask(agent, Context.of(base.system_prompt, base.first_observation, base.turns, seed), env)
            _, _, terminated, truncated, info = env.step(text)
            over = terminated or truncated
            if on_turn is not None:
                on_turn(base)
        end, error = str(info["end_reason"]), info.get("infrastructure_error")
    except InfrastructureError as failure:
        end, error = EndReason.INFRASTRUCTURE.value, f"{type(failure).__name__}: {failure}"
    except (TaskError, MediaError) as failure:
        # A task that nobody can find is the caller's mistake; one that is wrong in itself only spoils its own episode.
        if not isinstance(task, Task):
            raise
        end, error = TASK_ERROR, str(failure)
    turns = base.turns if started else ()
    return EpisodeResult(
        task_id=task.id if isinstance(task, Task) else str((options or {}).get("task_id", "?")),
        seed=seed,
        agent=agent.name,
        end_reason=end,
        correct=info.get("correct"),
        score=info.get("score"),
        answer=info.get("answer"),
        episode_return=sum(turn.reward for turn in turns),
        reward_terms=sum_terms(turn.terms for turn in turns),
        turns=info.get("turns", 0),
        tool_calls=info.get("tool_calls", 0),
        failed_calls=info.get("failed_calls", 0),
        num_images=info.get("num_images", 0),
        visual_tokens=info.get("visual_tokens", 0),
        duration_s=round(time.perf_counter() - began, 6),
        error=error,
        trace=_trace_path(env) if started else None,
        data_source=getattr(task, "data_source", None),
        ability=getattr(task, "ability", None),
    )


def _ask(agent: Agent, context: Context, env: Env) -> str:
    try:
        return agent.act(context)
    except InfrastructureError as error:
        # The environment does not see this failure, so the trace must be told.
        if env.has_wrapper_attr("fail"):
            env.get_wrapper_attr("fail")(error)
        raise


def _trace_path(env: Env) -> Path | None:
    return env.get_wrapper_attr("trace_path") if env.has_wrapper_attr("trace_path") else None
