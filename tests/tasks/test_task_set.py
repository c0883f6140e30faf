import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from pyvision_env.errors import TaskError
from pyvision_env.tasks import TaskSet
from pyvision_env.types import Task


class Factory:
    """Makes tasks and remembers for which indices."""

    def __init__(self):
        self.made = []

    def __call__(self, index):
        self.made.append(index)
        return Task(f"t{index}", "q", str(index))


def held(n=5):
    return TaskSet([Task(f"t{i}", "q", str(i)) for i in range(n)])


def lazy(n=5):
    return TaskSet.lazy([f"t{i}" for i in range(n)], Factory())


@pytest.mark.parametrize("make", [held, lazy])
def test_a_set_is_a_sequence(make):
    tasks = make()
    assert len(tasks) == 5
    assert [task.id for task in tasks] == list(tasks.ids) == ["t0", "t1", "t2", "t3", "t4"]
    assert tasks[-1].answer == "4"
    assert tasks.by_id("t2") == tasks[2]
    assert "t3" in tasks and tasks[3] in tasks and "t9" not in tasks and Task("t3", "other", "") not in tasks
    with pytest.raises(IndexError, match="out of range for 5 tasks"):
        tasks[5]


@pytest.mark.parametrize("make", [held, lazy])
def test_slices_are_sets_with_the_same_tasks(make):
    part = make()[3:0:-1]
    assert isinstance(part, TaskSet)
    assert part.ids == ("t3", "t2", "t1")
    assert [task.id for task in part[1:]] == ["t2", "t1"]


def test_an_unknown_id_gets_a_suggestion():
    with pytest.raises(TaskError, match=r"no task has the id 'coin-1' among 1; did you mean 'coins-1'\?"):
        TaskSet([Task("coins-1", "q", "a")]).by_id("coin-1")


def test_repeated_ids_and_other_objects_are_refused():
    with pytest.raises(TaskError, match="ids must be unique, but these repeat: 'a'"):
        TaskSet([Task("a", "q", "1"), Task("a", "q", "2")])
    with pytest.raises(TaskError, match="expected a Task at index 0 of a task set, got dict"):
        TaskSet([{"id": "a"}])


def test_a_lazy_set_makes_tasks_on_access_and_keeps_the_last_few():
    factory = Factory()
    tasks = TaskSet.lazy([f"t{i}" for i in range(100)], factory)
    assert len(tasks) == 100 and "t50" in tasks
    assert factory.made == []
    assert tasks[7] is tasks[7]
    assert factory.made == [7]
    for _ in tasks:
        pass
    assert tasks[7].id == "t7"
    assert factory.made.count(7) == 2  # it had left the cache, which does not grow with the set


def test_a_factory_that_gives_another_id_is_caught():
    tasks = TaskSet.lazy(["a"], lambda index: Task("b", "q", ""))
    with pytest.raises(TaskError, match="has the id 'b', expected 'a'"):
        tasks[0]


@pytest.mark.parametrize("make", [held, lazy])
def test_sets_travel_to_other_processes_and_are_not_copied_in_this_one(make):
    tasks = make()
    assert list(pickle.loads(pickle.dumps(tasks))) == list(tasks)
    assert list(pickle.loads(pickle.dumps(tasks[1:3]))) == list(tasks)[1:3]
    assert copy.deepcopy(tasks) is tasks and copy.copy(tasks) is tasks


def test_threads_may_share_a_lazy_set():
    tasks = lazy(200)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: tasks[i % 200].answer, range(2_000)))
    assert answers == [str(i % 200) for i in range(2_000)]
