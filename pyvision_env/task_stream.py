"""Which task comes next: tasks loaded on first use, drawn without replacement in a seeded order."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyvision_env.errors import ConfigError, TaskError
from pyvision_env.types import Task

if TYPE_CHECKING:
    from pyvision_env.tasks import TaskSet

KINDS = ("image", "video", "search", "synthetic-video")
_DEFAULT_NUM_TASKS = 64
_TASK_OPTIONS = ("task", "task_id", "task_index")


class TaskSource:
    """The tasks of one or several environments, loaded once, on first use, from any thread.

    Args:
        tasks: A path, an iterable of tasks or a task set; None for the kind's own: demo photos (``image``), demo clips
            (``video``) or generated tasks (``search``, ``synthetic-video``).
        kind: One of ``KINDS``.
        num_tasks: Generated tasks (default 64).
        task_seed: Seed of the generated tasks (default 0).
        task_args: Further keyword arguments of the generator, such as ``{"difficulty": "easy"}``.
        media_root: Folder from which relative media paths of a task file start; its own folder by default.

    Raises:
        ConfigError: If the kind is unknown, or settings come that do not go with where the tasks come from.
    """

    def __init__(
        self,
        tasks: str | Path | Iterable[Task] | None = None,
        kind: str = "image",
        num_tasks: int | None = None,
        task_seed: int | None = None,
        task_args: Mapping[str, Any] | None = None,
        media_root: str | Path | None = None,
    ) -> None:
        if kind not in KINDS:
            raise ConfigError(f"kind must be one of {', '.join(KINDS)}, but {kind!r} came")
        given = f"kind={kind!r} and tasks={'None' if tasks is None else 'given'} came; leave them out"
        generated = tasks is None and kind in ("search", "synthetic-video")
        if not generated and not (num_tasks is None and task_seed is None and task_args is None):
            raise ConfigError(
                "num_tasks, task_seed and task_args belong to generated tasks (kind 'search' or 'synthetic-video' "
                f"without tasks=), but {given}"
            )
        if media_root is not None and tasks is None:
            raise ConfigError(f"media_root belongs to tasks that are given with tasks=, but {given}")
        _check_whole("num_tasks", num_tasks, least=1)
        _check_whole("task_seed", task_seed, least=0)
        if task_args is not None and not isinstance(task_args, Mapping):
            raise ConfigError(f"task_args must be a dict of keyword arguments, but {task_args!r} came")
        self._tasks = tasks
        self._kind = kind
        self._num_tasks = _DEFAULT_NUM_TASKS if num_tasks is None else num_tasks
        self._task_seed = 0 if task_seed is None else task_seed
        self._task_args = dict(task_args or {})
        self._media_root = media_root
        self._loaded: TaskSet | None = None
        self._lock = threading.Lock()

    def load(self) -> TaskSet:
        """The tasks.

        Raises:
            TaskError: If they cannot be loaded or there are none.
        """
        with self._lock:
            if self._loaded is None:
                loaded = self._read()
                if len(loaded) == 0:
                    raise TaskError(f"There are no tasks in {self._tasks!r}; at least one is needed")
                self._loaded = loaded
            return self._loaded

    def _read(self) -> TaskSet:
        # Here, because loaders and generators pull in readers that an environment may never need.
        from pyvision_env import tasks

        if self._tasks is not None:
            return tasks.load_tasks(self._tasks, media_root=self._media_root)
        if self._kind in ("search", "synthetic-video"):
            generator = tasks.SearchTasks if self._kind == "search" else tasks.VideoTasks
            try:
                return generator(self._num_tasks, self._task_seed, **self._task_args)
            except TypeError as error:
                raise ConfigError(f"task_args {self._task_args} do not fit {generator.__name__}: {error}") from error
        return tasks.demo_image_tasks() if self._kind == "image" else tasks.demo_video_tasks()


def _check_whole(name: str, value: object, least: int) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise ConfigError(f"{name} must be a whole number of at least {least}, but {value!r} came")


class TaskStream:
    """Draws the next task of a source: every task once a pass, in an order that the seed decides.

    Args:
        source: Where the tasks come from; may be shared between streams.
        shuffle: Draw a new order for every pass (True) or keep the source's order (False).
    """

    def __init__(self, source: TaskSource, shuffle: bool = True) -> None:
        self._source = source
        self._shuffle = shuffle
        self._queue: list[int] = []

    def restart(self) -> None:
        """Forget what was drawn; the next draw begins a new pass."""
        self._queue = []

    def pick(self, options: Mapping[str, Any] | None, rng: np.random.Generator) -> Task:
        """The task that ``options`` name, else the next one.

        Args:
            options: ``{"task": Task}``, ``{"task_id": str}``, ``{"task_index": int}``, or nothing.
            rng: Decides the order of a new pass.

        Raises:
            ConfigError: If an option is unknown, or more than one is given.
            TaskError: If the named task does not exist.
        """
        given = dict(options or {})
        unknown = sorted(set(given) - set(_TASK_OPTIONS))
        if unknown or len(given) > 1:
            what = f"unknown: {', '.join(unknown)}" if unknown else f"several came: {', '.join(sorted(given))}"
            raise ConfigError(f"reset takes one option of {', '.join(_TASK_OPTIONS)}; {what}")
        if "task" in given:
            if not isinstance(given["task"], Task):
                raise ConfigError(f"The option 'task' must be a Task, but {type(given['task']).__name__} came")
            return given["task"]
        tasks = self._source.load()
        if "task_id" in given:
            if not isinstance(given["task_id"], str):
                raise TaskError(f"The option 'task_id' must be a str, but {given['task_id']!r} came")
            return tasks.by_id(given["task_id"])
        if "task_index" in given:
            return self._by_index(tasks, given["task_index"])
        if not self._queue:
            order = rng.permutation(len(tasks)) if self._shuffle else np.arange(len(tasks))
            self._queue = [int(i) for i in order[::-1]]
        return tasks[self._queue.pop()]

    @staticmethod
    def _by_index(tasks: TaskSet, index: Any) -> Task:
        if isinstance(index, bool) or not isinstance(index, int | np.integer) or not 0 <= index < len(tasks):
            raise TaskError(f"The option 'task_index' must be an int from 0 to {len(tasks) - 1}, but {index!r} came")
        return tasks[int(index)]
