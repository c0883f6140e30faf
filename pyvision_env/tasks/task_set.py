"""An immutable sequence of tasks with unique ids, held in memory or made on access."""

from __future__ import annotations

import difflib
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self, overload

from pyvision_env.errors import TaskError
from pyvision_env.tasks.records import Problem
from pyvision_env.types import Task

_CACHE_SIZE = 32


class TaskSet(Sequence[Task]):
    """An immutable sequence of tasks whose ids are unique.

    Held tasks come from an iterable; ``TaskSet.lazy`` makes tasks on access instead. Both can be pickled (a lazy one
    if its factory can), shared between threads and sliced.

    Args:
        tasks: The tasks in order.
        problems: Records that did not become tasks, kept for the report.

    Raises:
        TaskError: An element is no task or two tasks share an id.
    """

    def __init__(self, tasks: Iterable[Task] = (), *, problems: Iterable[Problem] = ()) -> None:
        held = tuple(tasks)
        for index, task in enumerate(held):
            if not isinstance(task, Task):
                raise TaskError(f"expected a Task at index {index} of a task set, got {type(task).__name__}")
        self._init([task.id for task in held], held.__getitem__, problems, cache=False)

    @classmethod
    def lazy(cls, ids: Iterable[str], make: Callable[[int], Task]) -> TaskSet:
        """Build a set whose tasks are made on access; the last few stay in memory.

        Args:
            ids: The ids in order.
            make: Gives the task at an index. It must be deterministic, and its task must bear the id of that index.
        """
        tasks = TaskSet.__new__(TaskSet)
        tasks._init(list(ids), make, (), cache=True)
        return tasks

    def _init(self, ids: list[str], make: Callable[[int], Task], problems: Iterable[Problem], *, cache: bool) -> None:
        repeated = [task_id for task_id, count in Counter(ids).items() if count > 1]
        if repeated:
            raise TaskError(f"task ids must be unique, but these repeat: {', '.join(map(repr, repeated[:5]))}")
        self._ids = tuple(ids)
        self._index = {task_id: index for index, task_id in enumerate(ids)}
        self._make = make
        self._problems = tuple(problems)
        self._cache: OrderedDict[int, Task] | None = OrderedDict() if cache else None
        self._lock = threading.Lock()

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids in order; no task is made for them."""
        return self._ids

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The records that did not become tasks."""
        return self._problems

    def by_id(self, task_id: str) -> Task:
        """Return the task of an id.

        Raises:
            TaskError: No task bears it; the message names the nearest ids.
        """
        if task_id in self._index:
            return self._at(self._index[task_id])
        close = difflib.get_close_matches(task_id, self._ids, n=3)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"ids look like {self._ids[:3]}"
        raise TaskError(f"no task has the id {task_id!r} among {len(self)}; {hint}")

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> TaskSet: ...
    def __getitem__(self, index: int | slice) -> Task | TaskSet:
        """Return one task, or a set that shares this one's tasks."""
        if isinstance(index, slice):
            chosen = range(len(self))[index]
            return TaskSet.lazy((self._ids[i] for i in chosen), _Part(self, chosen))
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"task index {index} is out of range for {len(self)} tasks")
        return self._at(position)

    def __iter__(self) -> Iterator[Task]:
        return (self._at(index) for index in range(len(self)))

    def __contains__(self, item: object) -> bool:
        """Tell whether an id, or a task equal to the one of its id, is in the set."""
        if isinstance(item, str):
            return item in self._index
        return isinstance(item, Task) and item.id in self._index and self.by_id(item.id) == item

    def __repr__(self) -> str:
        problems = f", {len(self._problems)} problems" if self._problems else ""
        return f"{type(self).__name__}({len(self)} tasks{problems})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Gymnasium copies an environment's keyword arguments deeply; an immutable set of images need not be doubled.
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        del state["_lock"]
        state["_cache"] = None if self._cache is None else OrderedDict()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _at(self, index: int) -> Task:
        cache = self._cache
        if cache is None:
            return self._make(index)
        with self._lock:
            if index in cache:
                cache.move_to_end(index)
                return cache[index]
        # Made outside the lock: two threads may make the same task, which is only wasted work.
        task = self._make(index)
        if task.id != self._ids[index]:
            raise TaskError(f"the task made for index {index} has the id {task.id!r}, expected {self._ids[index]!r}")
        with self._lock:
            cache[index] = task
            if len(cache) > _CACHE_SIZE:
                cache.popitem(last=False)
        return task


class _Part:
    """The tasks of a slice, made by the set it was cut from."""

    def __init__(self, whole: TaskSet, chosen: range) -> None:
        self._whole, self._chosen = whole, chosen

    def __call__(self, index: int) -> Task:
        return self._whole[self._chosen[index]]
