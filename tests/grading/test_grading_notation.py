from __future__ import annotations

import pytest

from pyvision_env.grading import extract_number, grade, math_equal
from pyvision_env.grading.notation import to_latex
from pyvision_env.grading.symbolic import looks_like_maths
from pyvision_env.types import Task


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (r"3\times10^8", 3e8),
        (r"3\cdot10^8", 3e8),
        (r"3\times 10^{8}", 3e8),
        ("minus 5", -5),
        ("negative 5", -5),
        ("negative five", -5),
        ("The answer is minus 2.5", -2.5),
        ("one hundred twenty", 120),
        ("one hundred and twenty-three", 123),
        ("a hundred", 100),
        ("two thousand and five", 2005),
        ("one thousand two hundred and thirty-four", 1234),
        ("twelve thousand", 12_000),
        ("two hundred thousand", 200_000),
        ("three million four hundred thousand and six", 3_400_006),
    ],
)
def test_signs_powers_and_words_are_read(answer: str, value: float) -> None:
    assert extract_number(answer) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    "answer",
    [
        "5 minus 3",
        "three minus two",
        "one two three",
        "twenty thirty",
        "two and three",
        "two and a half",
        "five twenty",
        "twenty-first",
        "one thousand two thousand",
        "not minus 5",
    ],
)
def test_words_that_are_no_single_number_are_none(answer: str) -> None:
    assert extract_number(answer) is None


def test_a_sign_in_words_decides() -> None:
    for grader in ("numeric", "mra"):
        positive, negative = (Task(id="t", question="?", answer=answer, grader=grader) for answer in ("5", "-5"))
        for answer in ("minus 5", "negative 5", "negative five"):
            assert not grade(positive, answer).correct
            assert grade(negative, answer).correct


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("√2", r"\sqrt{2}"),
        (r"2\sqrt{3}", "2√3"),
        (r"\sqrt{x+1}", "√(x+1)"),
        ("x^2", "x²"),
        ("x^2", "x**2"),
        ("x^{10}", "x¹⁰"),
        (r"[2,\infty)", "[2,∞)"),
        (r"\sin x", "sin x"),
        (r"\sin x", "The answer is sin x."),
        (r"3\times10^8", "3e8"),
        ("3×10⁸", r"3\times10^8"),
    ],
)
def test_notations_of_one_expression_are_equal(reference: str, answer: str) -> None:
    assert math_equal(reference, answer)
    assert math_equal(answer, reference)


@pytest.mark.parametrize(
    ("reference", "answer"), [("√2", "√3"), ("x²", "x2"), (r"[2,\infty)", "(2,∞)"), (r"\sin x", "cos x")]
)
def test_other_expressions_in_unicode_are_not(reference: str, answer: str) -> None:
    assert not math_equal(reference, answer)


def test_words_that_hold_a_functions_name_are_left_alone() -> None:
    assert to_latex("since cosy login **bold**") == "since cosy login **bold**"
    assert looks_like_maths("sin x")
    assert not looks_like_maths("log in")
