from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvision_env.errors import UserError
from pyvision_env.grading import extract_number, mean_relative_accuracy
from pyvision_env.grading.numbers import is_number, read_number
from pyvision_env.grading.numeric import numbers_close


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("−5", -5),
        ("- 5", -5),
        ("+.5", 0.5),
        ("5.", 5),
        ("1,234", 1234),
        ("1,234,567.5", 1234567.5),
        (r"1\,234", 1234),
        ("1{,}234", 1234),
        ("50%", 50),
        (r"50\%", 50),
        ("50 percent", 50),
        ("3/4", 0.75),
        ("-1/2", -0.5),
        ("1 3/4", 1.75),
        ("½", 0.5),
        ("3½", 3.5),
        (r"\frac{3}{4}", 0.75),
        (r"-\dfrac{3}{4}", -0.75),
        (r"\frac34", 0.75),
        ("1.2e-3", 0.0012),
        ("1.2×10^-3", 0.0012),
        (r"1.2 \times 10^{-3}", 0.0012),
        ("10³", 1000),
        ("10^3", 1000),
        ("1 million", 1e6),
        ("five", 5),
        ("Twenty-one", 21),
        ("two hundred", 200),
        ("one", 1),
        ("There is one car", 1),
        ("three cars", 3),
        ("There are 5 cars.", 5),
        ("3 of the red ones", 3),
        ("7 (seven)", 7),
        ("5, that is 5.0", 5),
        ("$5", 5),
        ("**5**", 5),
        (r"$\text{5}$", 5),
        ("12kg", 12),
        (r"30\text{ cm}", 30),
        ("5 m²", 5),
        ("90°", 90),
        (r"90^{\circ}", 90),
        ("90°C", 90),
        ("12 m/s", 12),
        ("3rd", 3),
        ("≈5", 5),
        ("about 7", 7),
        ("x = 7", 7),
        ("3+4=7", 7),
        ("2 + 3 = 5 cars", 5),
        ("The answer is 5", 5),
        ("I see 3 red and 4 blue cars, so the answer is 7", 7),
    ],
)
def test_the_number_that_an_answer_states_is_read(answer: str, value: float) -> None:
    assert extract_number(answer) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "many",
        "3 or 4",
        "between 3 and 5",
        "3-5",
        "3–5",
        "1 2 3 4 5",
        "3,5",
        "1,234,56",
        "1.2.3",
        "10:30",
        "2024-01-05",
        "5 - 5",
        "5-5",
        "2*2",
        "5 +5",
        "2^3",
        "2x",
        "2π",
        r"2\sqrt{3}",
        r"\sqrt{3}",
        "3D",
        "H2O",
        "image_0",
        "the red one",
        "two thirds",
        "more than 5",
        "at least 5",
        "> 5",
        "not 5",
        "5/0",
        "1e999",
        "9" * 5000,
        "nan",
        "inf",
        "The answer is 7. It is not 8",
        "The answer is 7 or 8",
    ],
)
def test_an_answer_that_states_no_single_number_is_none(answer: str) -> None:
    assert extract_number(answer) is None


@pytest.mark.parametrize("text", ["5", "-1,234.5", "3/4", r"\frac{3}{4}", "50%", "$5", "5 cm", "90°", "twelve", "1e-3"])
def test_a_lone_number_is_recognised(text: str) -> None:
    assert is_number(text)


@pytest.mark.parametrize("text", ["", "x", "3 or 4", "5 apples", "Route 66", "7 pm", "10:30", "3D", "the 5", "2x"])
def test_text_around_a_number_is_no_lone_number(text: str) -> None:
    assert not is_number(text)


def test_units_are_read_in_one_spelling() -> None:
    units = {text: getattr(read_number(text), "unit", None) for text in ("5 meters", "5m", "5 cm", "5 cm^2", "5 sheep")}
    assert units == {"5 meters": "m", "5m": "m", "5 cm": "cm", "5 cm^2": "cm2", "5 sheep": None}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_reads_back(value: float) -> None:
    assert extract_number(repr(value)) == value


@given(st.integers(-(10**15), 10**15))
def test_thousands_separators_change_nothing(value: int) -> None:
    assert extract_number(f"{value:,}") == value


@given(st.text(max_size=300))
def test_any_text_gives_a_finite_number_or_none(text: str) -> None:
    value = extract_number(text)
    assert value is None or math.isfinite(value)


def test_tolerance_bounds_are_inclusive() -> None:
    assert numbers_close(0.3, 0.1, tolerance=0.2)
    assert not numbers_close(0.3001, 0.1, tolerance=0.2)
    assert numbers_close(110, 100, tolerance=0, relative=0.1)
    assert not numbers_close(110.01, 100, tolerance=0, relative=0.1)


def test_the_default_tolerance_shrinks_with_the_reference() -> None:
    assert numbers_close(3.1415, 3.141)
    assert not numbers_close(3.143, 3.141)
    assert not numbers_close(0.0, 0.0005)
    assert not numbers_close(0.0004, 0.0)
    assert numbers_close(0.0, 0.0)


@pytest.mark.parametrize(
    ("prediction", "target", "score"),
    [
        (10, 10, 1.0),
        (10.5, 10, 1.0),
        (9.5, 10, 1.0),
        (10.51, 10, 0.9),
        (11, 10, 0.9),
        (12, 10, 0.7),
        (14, 10, 0.3),
        (15, 10, 0.1),
        (5, 10, 0.1),
        (15.01, 10, 0.0),
        (0, 10, 0.0),
        (-10, 10, 0.0),
        (-9.5, -10, 1.0),
        (0, 0, 1.0),
        (1e-9, 0, 0.0),
        (float("nan"), 10, 0.0),
        (float("inf"), 10, 0.0),
        (1.15, 1.0, 0.8),
        (0.33, 0.3, 0.9),
    ],
)
def test_mean_relative_accuracy_counts_the_thresholds_met(prediction: float, target: float, score: float) -> None:
    assert mean_relative_accuracy(prediction, target) == score


@pytest.mark.parametrize("step", range(10))
@pytest.mark.parametrize("target", [0.3, 1.0, 7.0, 123.4, -2.2])
def test_every_threshold_of_mra_is_inclusive(step: int, target: float) -> None:
    error = (50 - 5 * step) / 100
    assert mean_relative_accuracy(target * (1 + error), target) == (step + 1) / 10
    assert mean_relative_accuracy(target * (1 + error + 1e-6), target) == step / 10


def test_mra_refuses_a_target_that_is_not_finite() -> None:
    with pytest.raises(UserError, match="finite target"):
        mean_relative_accuracy(1.0, float("nan"))


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_mra_is_a_tenth_between_0_and_1(a: float, b: float) -> None:
    score = mean_relative_accuracy(a, b)
    assert score in {count / 10 for count in range(11)}
    assert mean_relative_accuracy(b, b) == 1
