"""Many episodes at once, by threads: each is on disk when it ends, and what is there already can be taken up again."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pyvision_env.agents.protocol import Agent, settings_of
from pyvision_env.errors import ConfigError, TaskError
from pyvision_env.rollout.episode import Env, run_episode
from pyvision_env.rollout.result import EpisodeResult
from pyvision_env.rollout.resume import FinishedEpisodes
from pyvision_env.trace import RecordTrace
from pyvision_env.trace.format import TASK_ERROR
from pyvision_env.types import Task

if TYPE_CHECKING:
    from pyvision_env.env import PyVisionEnv

_JOIN_S = 15.0


class _StoppedError(Exception):
    """The rollout was told to stop while this episode ran."""


def run_episodes(
    make_env: Callable[[], Env],
    make_agent: Callable[[], Agent],
    tasks: Sequence[Task],
    *,
    samples: int = 1,
    seed: int = 0,
    concurrency: int = 4,
    trace_dir: str | Path | None = None,
    resume: bool = False,
    on_result: Callable[[EpisodeResult], None] | None = None,
) -> list[EpisodeResult]:
    """Run ``samples`` episodes of each task, ``concurrency`` at a time, each worker with an environment and an agent.

    Sample ``k`` of a task is reset with seed ``seed + k``. With ``trace_dir`` every turn is on disk as soon as it is
    taken, so that whatever ends the run, finished episodes remain; ``resume`` takes those that count from there
    instead of running them again. On Ctrl-C the episodes under way are left, and ``KeyboardInterrupt`` goes on to the
    caller, who has had every finished episode by ``on_result``.

    Args:
        make_env: Makes a ``PyVisionEnv``, wrapped or not; called once a worker, in its thread.
        make_agent: Makes an agent; called once a worker. ``lambda: agent`` shares one that allows it.
        tasks: The tasks; made one by one where the sequence is lazy.
        samples: Episodes a task.
        seed: Seed of the first sample.
        concurrency: Episodes at once.
        trace_dir: Folder of traces; None to write none.
        resume: Take finished episodes from ``trace_dir``: of the same task (media, options and grader included), seed,
            agent (with its ``settings``) and configuration; where the code ran does not matter.
        on_result: Called in the calling thread with each result as it comes.

    Returns:
        Results in the order of tasks and samples.

    Raises:
        ConfigError: ``samples`` or ``concurrency`` is below 1, or ``resume`` lacks ``trace_dir``.
        UserError: The environment or the agent is set up wrongly.
    """
    if samples < 1 or concurrency < 1:
        raise ConfigError(f"samples and concurrency must be at least 1, but {samples} and {concurrency} came")
    if resume and trace_dir is None:
        raise ConfigError("resume needs trace_dir, the folder that holds the finished episodes")
    rollout = _Rollout(make_env, make_agent, tasks, seed, samples, trace_dir, resume)
    return rollout.run(concurrency, on_result)


_Job = tuple[int, int]  # index of the task, number of the sample


class _Rollout:
    """One call of ``run_episodes``: threads that take jobs, and the calling thread that gathers results."""

    def __init__(
        self,
        make_env: Callable[[], Env],
        make_agent: Callable[[], Agent],
        tasks: Sequence[Task],
        seed: int,
        samples: int,
        trace_dir: str | Path | None,
        resume: bool,
    ) -> None:
        self._make_env, self._make_agent, self._tasks = make_env, make_agent, tasks
        self._seed, self._samples = seed, samples
        self._trace_dir = trace_dir
        self._earlier = FinishedEpisodes(Path(trace_dir)) if resume and trace_dir is not None else None
        self._jobs: Iterator[_Job] = iter(itertools.product(range(len(tasks)), range(samples)))
        self._jobs_lock = threading.Lock()
        self._stop = threading.Event()
        self._outcomes: queue.Queue[tuple[_Job, EpisodeResult] | BaseException] = queue.Queue()

    def run(self, concurrency: int, on_result: Callable[[EpisodeResult], None] | None) -> list[EpisodeResult]:
        total = len(self._tasks) * self._samples
        results: dict[_Job, EpisodeResult] = {}

        def take(job: _Job, result: EpisodeResult) -> None:
            results[job] = result
            if on_result is not None:
                on_result(result)

        # Daemon threads: one that hangs in a request must not keep the program from ending after Ctrl-C.
        workers = [
            threading.Thread(target=self._work, name=f"rollout-{i}", daemon=True)
            for i in range(min(concurrency, total))
        ]
        for worker in workers:
            worker.start()
        try:
            while len(results) < total:
                outcome = self._outcomes.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                take(*outcome)
        finally:
            self._stop.set()
            deadline = time.monotonic() + _JOIN_S
            for worker in workers:
                worker.join(max(0.0, deadline - time.monotonic()))
            # What ended meanwhile is finished too.
            with contextlib.suppress(queue.Empty):
                while True:
                    outcome = self._outcomes.get_nowait()
                    if not isinstance(outcome, BaseException):
                        take(*outcome)
        return [results[job] for job in sorted(results)]

    def _work(self) -> None:
        env: Env | None = None
        try:
            agent = self._make_agent()
            env = self._make_env()
            if self._trace_dir is not None:
                env = RecordTrace(env, self._trace_dir, agent=agent.name, agent_settings=settings_of(agent))
            while not self._stop.is_set() and (job := self._next_job()) is not None:
                self._outcomes.put((job, self._one(job, env, agent)))
        except _StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 - the calling thread raises it
            self._outcomes.put(error)
        finally:
            if env is not None:
                env.close()

    def _next_job(self) -> _Job | None:
        with self._jobs_lock:
            return next(self._jobs, None)

    def _one(self, job: _Job, env: Env, agent: Agent) -> EpisodeResult:
        index, sample = job
        try:
            task = self._tasks[index]
        except TaskError as error:
            return EpisodeResult(f"task {index}", self._seed + sample, agent.name, TASK_ERROR, error=str(error))
        if self._earlier is not None and isinstance(env, RecordTrace):
            earlier = self._earlier.take(env, task, self._seed + sample)
            if earlier is not None:
                return earlier
        return run_episode(env, agent, seed=self._seed + sample, options={"task": task}, on_turn=self._check_stop)

    def _check_stop(self, _env: PyVisionEnv) -> None:
        if self._stop.is_set():
            raise _StoppedError
