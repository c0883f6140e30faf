from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvision_env.errors import ConfigError, JudgeUnavailableError, TaskError
from pyvision_env.grading import grade, grader_of
from pyvision_env.types import Grade, Task

LISTED = "What colour is the car?\nA. red\nB. blue\nC. green"


def task(
    answer: str, grader: str = "auto", question: str = "What?", options: tuple[str, ...] = (), **args: Any
) -> Task:
    return Task(id="t1", question=question, answer=answer, grader=grader, options=options, grader_args=args)


@pytest.mark.parametrize(
    ("given_task", "grader"),
    [
        (task("B", options=("red", "blue")), "choice"),
        (task("blue", options=("red", "blue")), "choice"),
        (task("B", question=LISTED), "choice"),
        (task("(B)", question=LISTED), "choice"),
        (task("B. blue", question=LISTED), "choice"),
        (task("B"), "choice"),
        (task("D", question=LISTED), "exact"),
        (task("12"), "numeric"),
        (task("12%"), "numeric"),
        (task("5 cm"), "numeric"),
        (task(r"\frac{1}{2}"), "numeric"),
        (task(r"\frac{\pi}{2}"), "math"),
        (task("(1, 2)"), "math"),
        (task("red"), "exact"),
        (task("5 apples"), "exact"),
        (task("5", grader="exact"), "exact"),
    ],
)
def test_auto_chooses_the_rule_by_options_and_reference(given_task: Task, grader: str) -> None:
    assert grader_of(given_task) == grader


@pytest.mark.parametrize(
    ("given_task", "right", "wrong"),
    [
        (task("B", options=("red", "blue")), ["B", "(b)", "blue", "B: blue"], ["A", "red", "A B", "", "B: red"]),
        (task("blue", options=("red", "blue")), ["B", "blue"], ["A", "C"]),
        (task("B", question=LISTED), ["B", "blue"], ["C", "green", "A or B", "A. red B. blue C. green"]),
        (task("J", "choice"), ["J", "(J)"], ["A", "I"]),
        (task("12"), ["12", "twelve", "12.0", "12 cars", "12.0005"], ["12.1", "11 12 13", "-12", "1", ""]),
        (task("50%"), ["50%", "50", "0.5"], ["5%", "500"]),
        (task("0.5"), ["50%", "1/2", "0.5%"], ["50"]),
        (task("5 cm"), ["5", "5 cm", "5 centimeters"], ["5 m", "50"]),
        (task("100", "numeric", relative=0.1), ["110", "90"], ["111", "89"]),
        (task("100", "numeric", tolerance=2), ["98", "102"], ["97.9"]),
        (task("red"), ["Red.", "the red", "The answer is red"], ["not red", "red blue", ""]),
        (task(r"\frac{\pi}{2}"), [r"\dfrac{\pi}{2}", "pi/2"], [r"\pi", r"\frac{\pi}{2}, \pi"]),
    ],
)
def test_rules_tell_right_from_wrong(given_task: Task, right: list[str], wrong: list[str]) -> None:
    for answer in right:
        verdict = grade(given_task, answer)
        assert (verdict.score, verdict.correct) == (1.0, True), answer
    for answer in wrong:
        verdict = grade(given_task, answer)
        assert (verdict.score, verdict.correct) == (0.0, False), answer


def test_mra_is_partial_and_correct_from_a_threshold_on() -> None:
    assert grade(task("10", "mra"), "10.5") == Grade(1.0, True, "mra")
    assert grade(task("10", "mra"), "12 m") == Grade(0.7, False, "mra")
    assert grade(task("10", "mra", correct_at=0.5), "12") == Grade(0.7, True, "mra")
    assert grade(task("10", "mra", correct_at=0.0), "100") == Grade(0.0, False, "mra")
    assert grade(task("10", "mra"), "between 9 and 11") == Grade(0.0, False, "mra")
    assert grade(task("50%", "mra"), "0.5") == Grade(1.0, True, "mra")


def test_a_hanging_expression_is_wrong_and_says_so() -> None:
    verdict = grade(task("x^2+1", "math", timeout_s=1), r"10^{10^{10^{10}}}")
    assert verdict == Grade(0.0, False, "math_timeout")


@pytest.mark.parametrize(
    ("given_task", "named"),
    [
        (task("B", "letters"), "'letters'"),
        (task("E", options=("red", "blue")), "'E'"),
        (task("purple", options=("red", "blue")), "'purple'"),
        (task("A or B", "choice"), "'A or B'"),
        (task("A", options=tuple(map(str, range(27)))), "27"),
        (task("red", "numeric"), "'red'"),
        (task("3 or 4", "mra"), "'3 or 4'"),
        (task("", "exact"), "empty"),
        (task(" ", "math"), "empty"),
        (task("5", "numeric", margin=1), "margin"),
        (task("5", "numeric", tolerance=-1), "tolerance"),
        (task("5", "numeric", relative="10%"), "relative"),
        (task("5", "mra", correct_at=2), "correct_at"),
        (task("x", "math", timeout_s=0.5), "timeout_s"),
        (task("red", "exact", tolerance=1), "tolerance"),
    ],
)
def test_a_wrong_task_is_reported_whatever_the_answer(given_task: Task, named: str) -> None:
    for answer in ("", "B", "5"):
        with pytest.raises(TaskError, match="Task 't1'") as raised:
            grade(given_task, answer)
        assert named in str(raised.value)


def test_a_judge_decides_only_what_no_rule_does() -> None:
    asked = []

    def judge(task: Task, answer: str) -> Grade:
        asked.append(answer)
        return Grade(0.5, False, "judge")

    judged = task("a red car", "judge")
    assert grade(judged, "Red car.", judge) == Grade(1.0, True, "exact")
    assert grade(judged, " ", judge) == Grade(0.0, False, "judge")
    assert asked == []
    assert grade(judged, "crimson automobile", judge) == Grade(0.5, False, "judge")
    assert asked == ["crimson automobile"]


def test_a_missing_judge_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="pass judge="):
        grade(task("a red car", "judge"), "a red car")


def test_an_outage_of_the_judge_is_never_a_score() -> None:
    def down(task: Task, answer: str) -> Grade:
        raise JudgeUnavailableError("503")

    def broken(task: Task, answer: str) -> Grade:
        return Grade(7.0, True, "judge")

    for judge in (down, broken):
        with pytest.raises(JudgeUnavailableError):
            grade(task("a red car", "judge"), "crimson", judge)


TASKS = [
    task("B", options=("red", "blue", "green", "black")),
    task("12"),
    task("12", "mra"),
    task("red"),
    task("x+1"),
]


@pytest.mark.parametrize(
    "unit", ["A", "A ", "B. ", "1 ", "1,", "1", "(", "\\frac{", "$", "the answer is ", "x=", "-", " "]
)
def test_very_long_answers_are_wrong_at_once(unit: str) -> None:
    for given_task in TASKS:
        start = time.process_time()
        assert not grade(given_task, unit * (1_000_000 // len(unit))).correct
        assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    "unit", ["A", "A ", "(B) ", "1 ", "1,", "1", "(", "\\frac{", "$", "the ", "so ", "-", " ", "\\text{"]
)
def test_answers_of_the_longest_allowed_size_take_no_time(unit: str) -> None:
    for given_task in TASKS:
        start = time.process_time()
        grade(given_task, (unit * 4_000)[:4_000])
        assert time.process_time() - start < 1.0


def test_a_right_answer_buried_in_a_wall_of_others_is_wrong() -> None:
    numbers = " ".join(map(str, range(100)))
    assert not grade(TASKS[1], numbers).correct
    assert not grade(TASKS[1], f"12 {numbers}").correct
    assert grade(TASKS[2], numbers).score == 0.0
    assert not grade(TASKS[3], "red blue green black white").correct
    assert not grade(TASKS[4], "x, x+1, x+2").correct


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(TASKS[:4]), st.text(max_size=100))
def test_any_answer_gets_a_verdict(given_task: Task, answer: str) -> None:
    verdict = grade(given_task, answer)
    assert 0.0 <= verdict.score <= 1.0
    assert verdict.correct == (verdict.score == 1.0)


def test_grading_imports_no_algebra_system() -> None:
    program = "import sys, pyvision_env.grading; sys.exit(any(m in sys.modules for m in ('sympy', 'math_verify')))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
