"""RecordTrace: a Gymnasium wrapper that writes every episode down, turn by turn."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

import gymnasium
from gymnasium.error import ResetNeeded
from gymnasium.utils import RecordConstructorArgs

import pyvision_env
from pyvision_env.errors import InfrastructureError, MediaError, TaskError
from pyvision_env.trace.format import (
    TASK_ERROR,
    VERSION,
    EndRecord,
    ObservationRecord,
    TraceHeader,
    TurnRecord,
    jsonable,
)
from pyvision_env.trace.store import TraceStore, TraceWriter
from pyvision_env.types import EndReason, Observation, Task

if TYPE_CHECKING:
    from pyvision_env.env import PyVisionEnv

_TOTALS = ("turns", "tool_calls", "failed_calls", "num_images", "visual_tokens")


class RecordTrace(gymnasium.Wrapper[dict[str, Any], Any, dict[str, Any], Any], RecordConstructorArgs):
    """Write a trace of each episode of a ``PyVisionEnv``.

    ``reset`` begins a file and ``step`` appends to it; what was written is on disk when they return, so that a crash
    loses at most the turn in flight. An episode that is left before its end (``reset`` or ``close`` in the middle)
    remains as an unfinished trace. A step that raises ``InfrastructureError``, or ``TaskError`` or ``MediaError``
    because the task is wrong in itself, ends the trace with that error and the action. Observations, rewards and infos
    pass through unchanged.

    Args:
        env: A ``PyVisionEnv``, wrapped or not.
        directory: Folder of traces; may exist and may be shared with other processes.
        agent: Who acts, such as a model's name.
        agent_settings: What else its turns depend on, such as a temperature; JSON-able.
        metadata: Anything JSON-able to keep in each header.
    """

    def __init__(
        self,
        env: gymnasium.Env[dict[str, Any], Any],
        directory: str | Path,
        *,
        agent: str | None = None,
        agent_settings: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        kept, settings = jsonable(metadata or {}), jsonable(agent_settings or {})
        RecordConstructorArgs.__init__(
            self, directory=str(directory), agent=agent, agent_settings=settings, metadata=kept
        )
        gymnasium.Wrapper.__init__(self, env)
        self._store = TraceStore(directory)
        self._agent = agent
        self._agent_settings: dict[str, Any] = settings
        self._extra: dict[str, Any] = kept
        self._writer: TraceWriter | None = None
        self._recorded = False
        self._turns = 0
        self._return = 0.0
        self._info: dict[str, Any] = {}
        self._begun_at = 0.0
        self._observed_at = 0.0

    @property
    def trace_path(self) -> Path | None:
        """The file of the current or last episode; None before the first ``reset``."""
        return None if self._writer is None else self._writer.path

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reset the environment and begin a trace.

        Raises:
            TraceError: If the folder cannot be written.
        """
        self._end_writing()
        self._begun_at = time.perf_counter()
        started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        observation, info = self.env.reset(seed=seed, options=options)
        base = self._base
        self._writer = self._store.begin(
            TraceHeader(
                version=VERSION,
                episode_id="",
                package_version=pyvision_env.__version__,
                started_at=started_at,
                observation=self._observation(observation, base.first_observation),
                seed=seed,
                metadata=self._extra,
                info=jsonable(info),
                **self.describe(base.task),
            )
        )
        self._turns, self._return, self._info = 0, 0.0, jsonable(info)
        self._recorded = True
        self._observed_at = time.perf_counter()
        return observation, info

    def step(self, action: Any) -> tuple[dict[str, Any], SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment and write the turn down.

        Raises:
            ResetNeeded: If no episode is running.
            TraceError: If the trace cannot be written.
        """
        if not self._recorded or self._writer is None:
            raise ResetNeeded("RecordTrace.step needs a running episode; call reset() first")
        acted_at = time.perf_counter()
        plain = action if isinstance(action, str) else jsonable(action)
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except InfrastructureError as error:
            self._end(EndReason.INFRASTRUCTURE.value, error=f"{type(error).__name__}: {error}", action=plain)
            raise
        except (TaskError, MediaError) as error:
            self._end(TASK_ERROR, error=str(error), action=plain)
            raise
        env_s = time.perf_counter() - acted_at
        self._info = jsonable(info)
        self._writer.write(
            TurnRecord(
                index=self._turns,
                action=plain,
                kind=self._info.get("action"),
                observation=self._observation(observation, self._base.turns[-1].observation),
                reward=float(reward),
                terminated=bool(terminated),
                truncated=bool(truncated),
                reward_terms=self._info.get("reward_terms", {}),
                info={key: value for key, value in self._info.items() if key != "reward_terms"},
                timings={"agent_s": round(acted_at - self._observed_at, 6), "env_s": round(env_s, 6)},
            )
        )
        self._turns += 1
        self._return += float(reward)
        if terminated or truncated:
            self._end(self._info.get("end_reason"), error=self._info.get("infrastructure_error"))
        self._observed_at = time.perf_counter()
        return observation, reward, terminated, truncated, info

    def fail(self, error: InfrastructureError) -> None:
        """End the trace of the running episode: who acts cannot go on, and not through its own fault."""
        if self._recorded:
            self._end(EndReason.INFRASTRUCTURE.value, error=f"{type(error).__name__}: {error}")

    def describe(self, task: Task) -> dict[str, Any]:
        """What the header of an episode of ``task`` says of the task, the agent and the configuration.

        The task's media are kept in the store.

        Raises:
            MediaError: If they cannot be read.
        """
        return {
            "task_id": task.id,
            "question": task.question,
            "answer": task.answer,
            "options": tuple(task.options),
            "images": tuple(self._store.put_task_image(source) for source in task.images),
            "videos": tuple(self._store.put_task_video(source) for source in task.videos),
            "grader": task.grader,
            "grader_args": jsonable(task.grader_args),
            "media_in_prompt": task.media_in_prompt,
            "data_source": task.data_source,
            "ability": task.ability,
            "task_metadata": jsonable(task.metadata),
            "config": jsonable(self._base.config),
            "agent": self._agent,
            "agent_settings": self._agent_settings,
        }

    def close(self) -> None:
        """Close the trace and the environment; an episode under way remains as an unfinished trace."""
        self._end_writing()
        super().close()

    @property
    def _base(self) -> PyVisionEnv:
        base: PyVisionEnv = self.env.unwrapped  # type: ignore[assignment]
        return base

    def _observation(self, observation: Mapping[str, Any], seen: Observation) -> ObservationRecord:
        return ObservationRecord(
            text=observation["text"],
            images=tuple(self._store.put_image(image) for image in observation["images"]),
            labels=seen.labels,
            videos=tuple(jsonable(observation["videos"])),
            turns_left=int(observation["turns_left"]),
        )

    def _end(self, reason: str | None, error: str | None, action: Any = None) -> None:
        if self._writer is None:
            return
        self._writer.write(
            EndRecord(
                end_reason=reason,
                episode_return=self._return,
                correct=self._info.get("correct"),
                score=self._info.get("score"),
                answer=self._info.get("answer"),
                totals={name: self._info[name] for name in _TOTALS if name in self._info},
                duration_s=round(time.perf_counter() - self._begun_at, 6),
                error=error,
                action=action,
            )
        )
        self._recorded = False

    def _end_writing(self) -> None:
        self._recorded = False
        if self._writer is not None:
            self._writer.close()
