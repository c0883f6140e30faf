"""PyVisionVectorEnv: several environments in one process, each stepped by its own thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from gymnasium import spaces
from gymnasium.error import ClosedEnvironmentError
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from pyvision_env.env import PyVisionEnv
from pyvision_env.errors import ConfigError
from pyvision_env.task_stream import TaskSource
from pyvision_env.types import Task

Observations = tuple[dict[str, Any] | None, ...]

# info values that are None for some sub-environments; a typed array could not hold that.
_NULLABLE = ("end_reason", "action", "tool_error", "answer", "score", "correct", "infrastructure_error")


class StepResult(NamedTuple):
    """What one sub-environment gave back for one action."""

    env_index: int
    observation: dict[str, Any]
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


class PyVisionVectorEnv(VectorEnv[Observations, Sequence[Any], NDArray[Any]]):
    """``num_envs`` environments that share one sandbox and one task set.

    Threads suffice, since the work happens in the sandbox. Observations have no common shape, so a batch is a tuple of
    observation dicts (``observation_space`` is a ``Tuple``), None for a sub-environment that was never reset. Rewards
    and flags are arrays, infos are in Gymnasium's vector form: an array per key with a mask ``_key``.

    Nothing resets by itself (``AutoresetMode.DISABLED``): call ``reset(options={"reset_mask": mask})`` for the episodes
    that ended. So that fast episodes need not wait for slow ones, ``step`` leaves a sub-environment alone whose action
    is None, ``step_some`` steps a few, and ``send`` with ``recv`` hands results over as they come.

    An error in one sub-environment is raised after the others have finished their step. ``failures`` then says which
    one it was, and nothing is lost: what the others gave back can be taken with ``recv``.

    Attributes:
        envs: The sub-environments.
        failures: The error of each sub-environment whose last call raised one, until its next call.

    Args:
        num_envs: Number of sub-environments.
        tasks: As for ``PyVisionEnv``; loaded once for all.
        kind: As for ``PyVisionEnv``.
        num_tasks: As for ``PyVisionEnv``.
        task_seed: As for ``PyVisionEnv``.
        task_args: As for ``PyVisionEnv``.
        media_root: As for ``PyVisionEnv``.
        **keywords: Further arguments of each ``PyVisionEnv``.

    Raises:
        ConfigError: If a setting is unknown or wrong.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        **PyVisionEnv.metadata,
        "autoreset_mode": AutoresetMode.DISABLED,
    }

    def __init__(
        self,
        num_envs: int = 1,
        tasks: str | Path | Sequence[Task] | None = None,
        *,
        kind: str = "image",
        num_tasks: int | None = None,
        task_seed: int | None = None,
        task_args: Mapping[str, Any] | None = None,
        media_root: str | Path | None = None,
        **keywords: Any,
    ) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs must be at least 1, but {num_envs} came")
        source = TaskSource(tasks, kind, num_tasks, task_seed, task_args, media_root)
        self.envs = [PyVisionEnv(source, **keywords) for _ in range(num_envs)]
        self.num_envs = num_envs
        self.render_mode = self.envs[0].render_mode
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.observation_space = spaces.Tuple([deepcopy(self.single_observation_space) for _ in range(num_envs)])
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._pool: ThreadPoolExecutor | None = None
        self._pending: dict[int, Future[StepResult]] = {}
        self._ready: dict[int, StepResult] = {}
        self.failures: dict[int, BaseException] = {}
        self._observations: list[dict[str, Any] | None] = [None] * num_envs
        self._terminated = np.zeros(num_envs, dtype=np.bool_)
        self._truncated = np.zeros(num_envs, dtype=np.bool_)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Reset all sub-environments, or those that ``options["reset_mask"]`` names.

        Args:
            seed: An int seeds sub-environment i with ``seed + i``; a sequence holds one seed each.
            options: ``reset_mask``, a bool array of shape (num_envs,); everything else goes to each sub-environment,
                so that ``{"task_id": ...}`` begins a group of episodes with one task.

        Raises:
            ConfigError: If the seeds or the mask do not fit.
        """
        seeds = self._seeds(seed)
        rest = dict(options or {})
        chosen = self._masked(rest.pop("reset_mask", None))
        self._refuse_pending(chosen)
        infos: dict[str, Any] = {}
        for result in self._all_of({i: self._submit(i, self._reset_one, seeds[i], rest) for i in chosen}):
            infos = self._collect(infos, result.info, result.env_index)
        return tuple(self._observations), infos

    def step(
        self, actions: Sequence[Any]
    ) -> tuple[Observations, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Step every sub-environment whose action is not None.

        The others keep their observation and flags, get reward 0 and no entry in the infos.

        Raises:
            ConfigError: If there is not one action for each sub-environment.
            ResetNeeded: If an episode is over and its action is not None.
        """
        if len(actions) != self.num_envs:
            raise ConfigError(f"Expected {self.num_envs} actions (None leaves one alone), but {len(actions)} came")
        indices = [i for i, action in enumerate(actions) if action is not None]
        rewards = np.zeros(self.num_envs, dtype=np.float64)
        infos: dict[str, Any] = {}
        for result in self.step_some(indices, [actions[i] for i in indices]):
            rewards[result.env_index] = result.reward
            infos = self._collect(infos, result.info, result.env_index)
        return tuple(self._observations), rewards, self._terminated.copy(), self._truncated.copy(), infos

    def step_some(self, indices: Sequence[int], actions: Sequence[Any]) -> list[StepResult]:
        """Step some sub-environments and wait for these only.

        Returns:
            One result for each index, in the order given.
        """
        if len(indices) != len(actions) or len(set(indices)) != len(indices):
            raise ConfigError(
                f"Expected one action for each of distinct indices, but {indices} and {len(actions)} came"
            )
        self._refuse_pending(indices)
        pairs = zip(indices, actions, strict=True)
        return self._all_of({index: self._submit(index, self._step_one, action) for index, action in pairs})

    def send(self, index: int, action: Any) -> None:
        """Begin a step of one sub-environment without waiting for it; ``recv`` hands the result over.

        Raises:
            ConfigError: If there is no such sub-environment, or its last step was not received yet.
        """
        self._refuse_pending([index])
        self._pending[index] = self._submit(index, self._step_one, action)

    def recv(self, timeout: float | None = None) -> list[StepResult]:
        """Wait until at least one step begun by ``send`` is done, and take all that are.

        What sub-environments gave back while another one's error was raised is handed over first.

        Args:
            timeout: Seconds to wait; an empty list is returned when they are over.

        Raises:
            ConfigError: If no step is under way.
            InfrastructureError: If one of the steps failed; the results of the others can still be received.
        """
        if self._ready:
            ready, self._ready = list(self._ready.values()), {}
            return ready
        if not self._pending:
            raise ConfigError("No step is under way; call send(index, action) before recv()")
        done = wait(self._pending.values(), timeout, FIRST_COMPLETED).done
        finished = [index for index, future in self._pending.items() if future in done]
        for index in finished:
            error = self._pending[index].exception()
            if error is not None:
                # What the others gave back stays to be received.
                del self._pending[index]
                self._note_failure(index, error)
                raise error
        return [self._note(self._pending.pop(index).result()) for index in finished]

    def render(self) -> tuple[Any, ...] | None:
        """What each sub-environment renders; None without a render mode."""
        return None if self.render_mode is None else tuple(env.render() for env in self.envs)

    def close_extras(self, **kwargs: Any) -> None:
        """Wait for steps under way, join the threads and close the sub-environments."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()
        self._ready.clear()
        for env in self.envs:
            env.close()

    def _submit(self, index: int, work: Any, *args: Any) -> Future[StepResult]:
        if self.closed:
            raise ClosedEnvironmentError("This vector environment is closed; make a new one.")
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.num_envs, thread_name_prefix="pyvision-env")
        self._ready.pop(index, None)
        self.failures.pop(index, None)
        return self._pool.submit(work, index, *args)

    def _all_of(self, futures: Mapping[int, Future[StepResult]]) -> list[StepResult]:
        """The results of all, in order; at the first error the others' are kept for ``recv``."""
        wait(futures.values())
        errors = {index: error for index, future in futures.items() if (error := future.exception()) is not None}
        results = [self._note(future.result()) for index, future in futures.items() if index not in errors]
        if errors:
            self._ready.update((result.env_index, result) for result in results)
            for index, error in errors.items():
                self._note_failure(index, error)
            raise next(iter(errors.values()))
        return results

    def _note_failure(self, index: int, error: BaseException) -> None:
        self.failures[index] = error
        error.add_note(f"raised in sub-environment {index}")

    def _reset_one(self, index: int, seed: int | None, options: dict[str, Any]) -> StepResult:
        observation, info = self.envs[index].reset(seed=seed, options=dict(options))
        return StepResult(index, observation, 0.0, False, False, info)

    def _step_one(self, index: int, action: Any) -> StepResult:
        return StepResult(index, *self.envs[index].step(action))

    def _note(self, result: StepResult) -> StepResult:
        self._observations[result.env_index] = result.observation
        self._terminated[result.env_index] = result.terminated
        self._truncated[result.env_index] = result.truncated
        return result

    def _collect(self, infos: dict[str, Any], info: Mapping[str, Any], index: int) -> dict[str, Any]:
        for key in _NULLABLE:
            infos.setdefault(key, np.full(self.num_envs, None, dtype=object))
        return self._add_info(infos, dict(info), index)

    def _refuse_pending(self, indices: Sequence[int]) -> None:
        unknown = [i for i in indices if not 0 <= i < self.num_envs]
        if unknown:
            raise ConfigError(f"There is no sub-environment {unknown[0]}; there are {self.num_envs}, counted from 0")
        busy = [i for i in indices if i in self._pending]
        if busy:
            raise ConfigError(f"Sub-environments {busy} have a step under way; take it with recv() first")

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))
            return [int(seed) + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ConfigError(f"Expected one seed for each of {self.num_envs} sub-environments, but {len(seed)} came")
        return list(seed)

    def _masked(self, mask: Any) -> list[int]:
        if mask is None:
            return list(range(self.num_envs))
        if (
            not isinstance(mask, np.ndarray)
            or mask.dtype != np.bool_
            or mask.shape != (self.num_envs,)
            or not mask.any()
        ):
            raise ConfigError(
                f"reset_mask must be a bool array of shape ({self.num_envs},) with at least one True, but {mask!r} came"
            )
        return [int(i) for i in np.flatnonzero(mask)]
