from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvision_env.grading import normalize_text
from pyvision_env.grading.text import text_equal
from pyvision_env.lettered import parse_options as listed_options


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("Red Car", "the  red car."),
        ("yes", "Yes!"),
        ("yes", "The answer is yes."),
        ("STOP", r"\text{stop}"),
        ("stop", "**Stop**"),
        ("café", "cafe\u0301"),
        ("ﬁsh", "FISH"),
        ("straße", "STRASSE"),
        ("don't", "don’t"),
        ("T-shirt", "t shirt"),
        ("New York, USA", "new york usa"),
        ("3.5 km", "3.5 km."),
        ("-5 degrees", "−5 degrees"),
        ("A", "a"),
        ("北京", "北京。".strip("。")),
        ("?!", "?!"),
    ],
)
def test_the_same_words_are_equal(reference: str, answer: str) -> None:
    assert text_equal(reference, answer)


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("red", "blue"),
        ("red", "red blue"),
        ("red", "not red"),
        ("red", ""),
        ("red", "."),
        ("3.5", "35"),
        ("5", "-5"),
        ("50%", "50"),
        ("C++", "C"),
        ("?!", "!"),
        ("yes", "yes or no"),
        ("yes", "The answer is yes. The answer is no."),
    ],
)
def test_other_words_are_not(reference: str, answer: str) -> None:
    assert not text_equal(reference, answer)


@given(st.text(max_size=200))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalize_text(text)
    assert normalize_text(once) == once


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("What?\nA. red\nB. blue\nC. light green\nAnswer with the letter.", ("red", "blue", "light green")),
        ("What?\n(A) red\n(B) blue", ("red", "blue")),
        ("What? (A) red (B) blue (C) green", ("red", "blue", "green")),
        ("What? A) red, B) blue", ("red", "blue")),
        ("What? A: 3 B: 5", ("3", "5")),
        ("In picture A. Smith stands.\nA. yes\nB. no", ("yes", "no")),
    ],
)
def test_options_listed_in_a_question_are_read(question: str, options: tuple[str, ...]) -> None:
    assert listed_options(question) == options


@pytest.mark.parametrize(
    "question", ["", "How many cars?", "Who is A. Smith?", "B. first C. second", "Is A or B taller?"]
)
def test_a_question_without_a_list_has_no_options(question: str) -> None:
    assert listed_options(question) == ()
