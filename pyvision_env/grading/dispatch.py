"""From a task's ``grader`` to the rule that decides, and what each rule makes of reference and answer."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from string import ascii_uppercase
from typing import Any, Protocol

from pyvision_env.errors import ConfigError, JudgeUnavailableError, TaskError
from pyvision_env.grading.choice import DEFAULT_LETTERS, extract_choice
from pyvision_env.grading.numbers import Number, is_number, read_number
from pyvision_env.grading.numeric import best_of_readings, mean_relative_accuracy, numbers_close
from pyvision_env.grading.symbolic import DEFAULT_TIMEOUT_S, looks_like_maths, math_equal
from pyvision_env.grading.symbolic_process import ExpressionTimeoutError
from pyvision_env.grading.text import text_equal
from pyvision_env.lettered import parse_options
from pyvision_env.types import Grade, Task

MAX_ANSWER_CHARS = 4_000
"""A longer answer (or one over twice the reference, if that is more) is wrong by every rule: it is no final answer."""

_LONE_LETTER = re.compile(r"\s*(?:[A-H][.)]?|\([A-H]\))\s*")


class Judge(Protocol):
    """Decides what no rule can, such as a language model behind an API.

    A judge that cannot be reached or gives no usable verdict raises ``JudgeUnavailableError``, after its own retries:
    an outage says nothing of the answer and must not become a score. It must be safe to call from several threads.
    """

    def __call__(self, task: Task, answer: str) -> Grade:
        """The verdict on ``answer``."""
        ...


def grade(task: Task, answer: str, judge: Judge | None = None) -> Grade:
    r"""Grade a final answer.

    Args:
        task: Its ``grader`` chooses the rule and ``grader_args`` sets it: ``numeric`` takes ``tolerance`` and
            ``relative``, ``mra`` takes ``correct_at``, ``math`` takes ``timeout_s``. ``auto`` is resolved by
            ``grader_of``.
        answer: The text of the final answer, as in ``Answer.text``.
        judge: Needed for ``grader="judge"``. It is asked only if the answer is not the reference word for word.

    Returns:
        The verdict. An empty answer is wrong.

    Raises:
        TaskError: If the grader, its arguments or the reference are wrong, whatever the answer.
        ConfigError: If the task needs a judge and there is none.
        InfrastructureError: If the judge or the process for algebra failed.
    """
    name = grader_of(task)
    if name == "judge":
        return _judged(task, answer, judge)
    rule = GRADERS[name]
    try:
        inspect.signature(rule).bind(task, answer, **task.grader_args)
    except TypeError as error:
        raise _task_error(task, f"the grader {name} does not take these grader_args: {error}") from error
    if len(answer) > max(MAX_ANSWER_CHARS, 2 * len(task.answer)):
        answer = ""
    return rule(task, answer, **task.grader_args)


def grader_of(task: Task) -> str:
    """The rule that decides a task: its own grader, or what ``auto`` stands for.

    ``auto`` is ``choice`` for a task with options, or whose question lists lettered options of which the reference is
    one, or whose reference is a lone letter from A to H where no options can be read; ``numeric`` for a reference that
    is a number; ``math`` for one that looks like an expression; else ``exact``.

    Raises:
        TaskError: If there is no such grader.
    """
    if task.grader != "auto":
        if task.grader not in GRADERS and task.grader != "judge":
            raise _task_error(
                task, f"expected a grader among auto, {', '.join(GRADERS)}, judge, but got {task.grader!r}"
            )
        return task.grader
    listed = parse_options(task.question)
    if task.options or (listed and extract_choice(task.answer, listed) is not None):
        return "choice"
    if not listed and _LONE_LETTER.fullmatch(task.answer):
        return "choice"
    if is_number(task.answer):
        return "numeric"
    return "math" if looks_like_maths(task.answer) else "exact"


def _choice(task: Task, answer: str) -> Grade:
    options = task.options or parse_options(task.question)
    if len(options) > len(ascii_uppercase):
        raise _task_error(task, f"expected at most {len(ascii_uppercase)} options, but got {len(options)}")
    # Where nothing says how many options there are, the reference's own letter is one of them at least.
    unknown = DEFAULT_LETTERS if extract_choice(task.answer, (), DEFAULT_LETTERS) else ascii_uppercase
    letters = ascii_uppercase[: len(options)] or unknown
    wanted = extract_choice(task.answer, options, letters)
    if wanted is None:
        raise _task_error(
            task,
            f"expected the reference of a multiple-choice task to be a letter of A-{letters[-1]} or the text of one "
            f"option, but it is {task.answer[:80]!r}; correct the answer, the options or the grader",
        )
    correct = extract_choice(answer, options, letters, task.question) == wanted
    # Without options the letter may be one that is read in an image, said in any words that equality accepts.
    return _binary(correct or (not options and text_equal(task.answer, answer)), "choice")


def _exact(task: Task, answer: str) -> Grade:
    if not task.answer.strip():
        raise _task_error(task, "expected a reference answer, but it is empty")
    return _binary(text_equal(task.answer, answer), "exact")


def _numeric(task: Task, answer: str, tolerance: float | None = None, relative: float = 0.0) -> Grade:
    wanted = _reference_number(task)
    if tolerance is not None:
        _check_number(task, "tolerance", tolerance, upper=1e300)
    _check_number(task, "relative", relative, upper=1e300)
    said = read_number(answer)
    if said is None:
        return _binary(False, "numeric")
    close = best_of_readings(said, wanted, lambda value, target: numbers_close(value, target, tolerance, relative))
    return _binary(close > 0, "numeric")


def _mra(task: Task, answer: str, correct_at: float = 1.0) -> Grade:
    """Score by mean relative accuracy, correct from ``correct_at`` on.

    The default 1.0, an error of at most 5 %, is the paper's gate ``1[R_acc = 1]`` applied to a partial score.
    """
    wanted = _reference_number(task)
    _check_number(task, "correct_at", correct_at, upper=1.0)
    said = read_number(answer)
    score = 0.0 if said is None else best_of_readings(said, wanted, mean_relative_accuracy)
    return Grade(score=score, correct=score > 0 and score >= correct_at, method="mra")


def _math(task: Task, answer: str, timeout_s: int = DEFAULT_TIMEOUT_S) -> Grade:
    if not task.answer.strip():
        raise _task_error(task, "expected a reference expression, but it is empty")
    if not isinstance(timeout_s, int) or isinstance(timeout_s, bool) or timeout_s < 1:
        raise _task_error(task, f"timeout_s must be a whole number of seconds of at least 1, but it is {timeout_s!r}")
    try:
        return _binary(math_equal(task.answer, answer, timeout_s), "math")
    except ExpressionTimeoutError:
        return _binary(False, "math_timeout")


GRADERS: dict[str, Callable[..., Grade]] = {
    "choice": _choice,
    "exact": _exact,
    "numeric": _numeric,
    "mra": _mra,
    "math": _math,
}
"""The rules by name; each takes the task, the answer and its ``grader_args``."""


def _judged(task: Task, answer: str, judge: Judge | None) -> Grade:
    if judge is None:
        raise ConfigError(
            f"Task {task.id!r} is graded by a judge, but none was given: pass judge=, or choose a rule as its grader "
            f"({', '.join(GRADERS)})"
        )
    if not answer.strip():
        return _binary(False, "judge")
    if task.answer.strip() and text_equal(task.answer, answer):
        return _binary(True, "exact")
    verdict = judge(task, answer)
    if not isinstance(verdict, Grade) or not 0.0 <= verdict.score <= 1.0:
        raise JudgeUnavailableError(
            f"The judge was expected to return a Grade with a score in 0..1, but gave {verdict!r}"
        )
    return verdict


def _reference_number(task: Task) -> Number:
    number = read_number(task.answer)
    if number is None:
        raise _task_error(task, f"expected a number as reference answer, but it is {task.answer[:80]!r}")
    return number


def _check_number(task: Task, name: str, value: Any, upper: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= upper:
        raise _task_error(task, f"{name} must be a number in 0..{upper:g}, but it is {value!r}")


def _binary(correct: bool, method: str) -> Grade:
    return Grade(score=1.0 if correct else 0.0, correct=correct, method=method)


def _task_error(task: Task, message: str) -> TaskError:
    return TaskError(f"Task {task.id!r}: {message}")
