"""Whether a task can be graded at all, found out before an episode is spent on it."""

from __future__ import annotations

from pyvision_env.errors import UserError
from pyvision_env.grading.dispatch import grade, grader_of
from pyvision_env.types import Task


def ungradable(task: Task) -> str | None:
    """Why no answer to a task could be graded: its grader, the grader's arguments and the reference do not go together.

    Returns:
        The reason in one line, or None for a task that can be graded. Whether there is a judge for a task that needs
        one (``needs_judge``) is not asked here.
    """
    try:
        if not needs_judge(task):
            # Graders check the task before they look at the answer, and the empty one costs no algebra.
            grade(task, "")
    except UserError as error:
        return " ".join(str(error).removeprefix(f"Task {task.id!r}: ").split())
    return None


def needs_judge(task: Task) -> bool:
    """Whether only a judge can grade a task.

    Raises:
        TaskError: If there is no such grader.
    """
    return grader_of(task) == "judge"
