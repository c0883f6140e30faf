"""Tasks that no answer could be graded by are known before an episode begins."""

from __future__ import annotations

import pytest

from pyvision_env.errors import TaskError
from pyvision_env.grading.gradable import needs_judge, ungradable
from pyvision_env.types import Task


def task(answer: str, **fields: object) -> Task:
    return Task("t", "Question?", answer, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (task("C", options=("cat", "dog")), "A-B"),
        (task("abc", grader="numeric"), "number"),
        (task("abc", grader="mra"), "number"),
        (task("1", grader="numeric", grader_args={"tol": 1}), "tol"),
        (task("1", grader="mra", grader_args={"correct_at": 2}), "correct_at"),
        (task("x", grader="math", grader_args={"timeout_s": 0}), "timeout_s"),
        (task(" ", grader="exact"), "empty"),
        (task("x", grader="magic"), "magic"),
    ],
)
def test_the_reason_is_told_without_the_task_in_one_line(wrong: Task, says: str) -> None:
    reason = ungradable(wrong)
    assert reason is not None
    assert says in reason
    assert "\n" not in reason and "Task 't'" not in reason


@pytest.mark.parametrize(
    "right",
    [
        task("B", options=("cat", "dog")),
        task("dog", options=("cat", "dog")),
        task("2.5"),
        task("two birds"),
        task(r"\frac{1}{2}"),
        task("1", grader="numeric", grader_args={"tolerance": 0.5}),
        task("whatever", grader="judge"),
    ],
)
def test_a_task_that_can_be_graded_gives_no_reason(right: Task) -> None:
    assert ungradable(right) is None


def test_only_a_judges_task_needs_a_judge() -> None:
    assert needs_judge(task("x", grader="judge"))
    assert not needs_judge(task("x"))
    with pytest.raises(TaskError, match="magic"):
        needs_judge(task("x", grader="magic"))
