from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvision_env.grading import extract_choice, grade
from pyvision_env.types import Task

OPTIONS = ("cat", "dog", "red car", "blue car")
ASSERTING = ["{}", "({})", "{}.", "The answer is {}", "I choose {}", "Option {} is correct", "It must be {}"]
REJECTING = [
    "it is not {}",
    "{} is wrong",
    "option {} can be excluded",
    "I ruled out ({})",
    "not {}",
    "{} does not fit",
    "I would not choose {}",
    "the wrong answer is {}",
]
WORDS = [
    "not",
    "no",
    "wait",
    "actually",
    "the",
    "answer",
    "is",
    "option",
    "A",
    "B",
    "C",
    "D",
    "wrong",
    "correct",
    ",",
    ".",
    ";",
    ":",
    "(",
    ")",
    "?",
    "but",
    "and",
    "or",
    "so",
    "if",
    "I",
    "it",
    "choose",
]


@settings(deadline=None)
@given(st.permutations("ABCD"), st.sampled_from(ASSERTING), st.sampled_from(REJECTING), st.sampled_from(["; ", ". "]))
def test_rejecting_another_option_changes_nothing(letters: list[str], said: str, rejected: str, joint: str) -> None:
    chosen, other = letters[:2]
    answer, aside = said.format(chosen), rejected.format(other)
    assert extract_choice(answer, OPTIONS) == chosen
    assert extract_choice(f"{answer.rstrip('.')}{joint}{aside}.", OPTIONS) == chosen
    assert extract_choice(f"{aside}{joint}{answer}", OPTIONS) == chosen


@settings(deadline=None)
@given(
    st.permutations("ABCD"), st.sampled_from(["Wait, ", "Actually, ", "No, ", "No wait, ", "Sorry, ", "Correction: "])
)
def test_a_correction_replaces_the_choice_and_without_one_two_choices_are_none(letters: list[str], word: str) -> None:
    first, second = letters[:2]
    assert extract_choice(f"The answer is {first}. {word}the answer is {second}.", OPTIONS) == second
    assert extract_choice(f"The answer is {first}. The answer is {second}.", OPTIONS) is None


@pytest.mark.parametrize("rejected", REJECTING)
def test_a_rejection_alone_chooses_nothing(rejected: str) -> None:
    for letter in "ABCD":
        assert extract_choice(rejected.format(letter), OPTIONS) is None


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=40))
def test_no_order_of_the_words_that_matter_raises(words: list[str]) -> None:
    task = Task(id="t", question="Which is not wrong?", answer="B", options=OPTIONS)
    assert grade(task, " ".join(words)).score in {0.0, 1.0}


def test_a_question_for_the_wrong_option_is_answered_by_naming_it() -> None:
    question = "Which statement is incorrect?"
    assert extract_choice("The incorrect statement is B", OPTIONS, question=question) == "B"
    assert extract_choice("B is incorrect", OPTIONS, question=question) == "B"
    assert extract_choice("I would not choose B", OPTIONS, question=question) is None
    assert extract_choice("B does not belong", OPTIONS, question="Which one does not belong?") == "B"
    assert extract_choice("B does not belong", OPTIONS) is None


@pytest.mark.parametrize(
    "unit", ["A ", "B. ", "not ", "A, ", "[", "(A", "A)", ": ", "no, ", "A or ", "n't ", "if A ", "can"]
)
def test_long_chains_take_little_time(unit: str) -> None:
    start = time.process_time()
    extract_choice((unit * 4_000)[:4_000], OPTIONS)
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    "question",
    [
        "Which option completes the figure?",
        "Which?\n**A.** cat\n**B.** dog",
        "Which?\na. cat\nb. dog",
        "Which?\nA、cat\nB、dog",
        "Which letter is on the sign?",
    ],
)
def test_a_lone_letter_is_a_choice_whether_or_not_options_can_be_read(question: str) -> None:
    task = Task(id="t", question=question, answer="B")
    for right in ("B", "Option B", "B. dog", "The answer is B because it fits", "The letter is B", "b"):
        assert grade(task, right).correct, right
    for wrong in ("A", "Option A", "not B", "I would not choose B", "A or B"):
        assert not grade(task, wrong).correct, wrong
