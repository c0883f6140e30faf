from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvision_env.errors import UserError
from pyvision_env.grading import extract_choice

OPTIONS = ("red car", "a blue car", "green truck", "none of them")


@pytest.mark.parametrize(
    "answer",
    [
        "B",
        " b ",
        "(B)",
        "[B]",
        "{B}",
        "B.",
        "B)",
        "b)",
        "B!",
        "'B'",
        "“B”",
        "**B**",
        "*B*",
        "`B`",
        "$B$",
        "Ｂ",
        r"\text{B}",
        r"\mathrm{(B)}",
        r"\boxed{\textbf{B}}",
        r"\(B\)",
        "Option B",
        "option b",
        "option (B)",
        "Choice B.",
        "Answer B",
        "answer: b",
        "Answer:\nB",
        "answer=B",
        "Ans. B",
        "ans: B",
        "### B",
        "**Answer:** B",
        "It is a blue car.",
        "The answer is B",
        "The answer is: **B**.",
        "So the final answer is (B).",
        "My final answer is B",
        "The correct option is B",
        "The correct answer is option B) a blue car",
        "The best choice would be B.",
        "I would choose B",
        "I'd pick (B)",
        "Therefore, B.",
        "It's B",
        "I think it is B.",
        "B is correct",
        "B is the correct answer",
        "I am sure that B is right",
        "B: a blue car",
        "B. a blue car",
        "B - a blue car",
        "B) blue car",
        "B)blue car",
        "B.blue car",
        "(B) a blue car",
        "B (a blue car)",
        "B, a blue car",
        "B a blue car",
        "**B**: a blue car",
        "answer: (B) a blue car",
        "B because the car is blue",
        "B. because it is blue, not red",
        "B\nThe car on the left is blue.",
        "B, not A",
        "The answer is B, not C",
        "It is not A, it is B.",
        "option A is wrong; the answer is B",
        "the blue car (B)",
        "a blue car",
        "A blue car",
        "The Blue Car.",
        "blue car",
        "The answer is a blue car",
        "The answer is A blue car",
    ],
)
def test_an_answer_that_commits_to_b_is_read_as_b(answer: str) -> None:
    assert extract_choice(answer, OPTIONS) == "B"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        ".",
        "E",
        "Z",
        "A man is holding B",
        "A red bus",
        "The answer is A dog",
        "The answer is a dog",
        "I think so",
        "I'm not sure",
        "A's car",
        "C'est la vie",
        "Vitamin C",
        "Plan B",
        "A.M.",
        "B,2",
        "B red car",
        "car",
        "None",
        "The answer is not B",
        "The answer isn't (B)",
        "not A",
        "B is wrong",
        "Option B is wrong",
        "(B) is not right",
        "A or B",
        "A and B",
        "A/B",
        "A, B",
        "A,B",
        "A - B",
        "A; B",
        "A & B",
        "A? B?",
        "A B C D",
        "a b c d",
        "ABCD",
        "A\nB\nC\nD",
        "A, B, C, D",
        "(A)(B)(C)(D)",
        "Option A: red car; Option B: a blue car",
        "The blue car is left of A",
        "(A) (B)",
        "[A] [B]",
        r"\boxed{A} \boxed{B}",
        "Both A and B",
        "either A or B",
        "A and B are both right",
        "The answer is A or B",
        "The answer is (A) or (B)",
        "answers: A, B",
        "option A, option B, option C",
        "A. red car B. a blue car C. green truck D. none of them",
        "A) red car B) a blue car",
        "A: red car\nB: a blue car\nC: green truck",
        "red car or a blue car",
        "red car a blue car green truck none of them",
        "B: green truck",
        "B. red car",
        "The answer is B: green truck",
        "The answer could be any of A, B, C, D",
        "A" * 100_000,
        "A " * 50_000,
    ],
)
def test_an_answer_that_commits_to_no_option_or_to_several_is_read_as_none(answer: str) -> None:
    assert extract_choice(answer, OPTIONS) is None


def test_an_article_before_an_options_text_is_not_the_letter_a() -> None:
    assert extract_choice("A blue car", OPTIONS) == "B"
    assert extract_choice("A red car", OPTIONS) == "A"
    assert extract_choice("A red car", ("red car", "A red car")) == "B"


def test_a_text_that_several_options_share_names_none() -> None:
    assert extract_choice("red", ("red", "Red", "blue")) is None
    assert extract_choice("the red", ("red", "Red", "blue")) is None


def test_a_letter_wins_over_an_option_whose_text_is_that_letter() -> None:
    assert extract_choice("B", ("B", "A", "D", "C")) == "B"


def test_options_may_carry_their_own_letters() -> None:
    options = ("A. red", "B. blue", "C. green")
    assert extract_choice("blue", options) == "B"
    assert extract_choice("B. blue", options) == "B"
    assert extract_choice("B. green", options) is None


def test_i_is_an_option_only_when_it_stands_like_one() -> None:
    options = tuple(f"text {number}" for number in range(10))
    assert extract_choice("I", options) == "I"
    assert extract_choice("(I)", options) == "I"
    assert extract_choice("The answer is I.", options) == "I"
    assert extract_choice("I think so", options) is None
    assert extract_choice("The answer I found", options) is None


def test_letters_bound_what_may_be_named() -> None:
    assert extract_choice("C", letters="AB") is None
    assert extract_choice("C", letters=["A", "B", "C"]) == "C"
    assert extract_choice("H") == "H"
    assert extract_choice("J") is None


def test_letters_other_than_a_to_z_are_the_callers_mistake() -> None:
    with pytest.raises(UserError, match="A to Z"):
        extract_choice("1", letters="12")


@given(st.integers(0, 3), st.sampled_from(["{}", "({})", "{}.", "Option {}", "The answer is {}", "**{}**", "{}: {}"]))
def test_every_letter_is_read_in_every_phrasing(index: int, phrasing: str) -> None:
    letter = "ABCD"[index]
    assert extract_choice(phrasing.format(letter, OPTIONS[index]), OPTIONS) == letter


@given(st.text(max_size=300))
def test_any_text_gives_an_allowed_letter_or_none(answer: str) -> None:
    assert extract_choice(answer, OPTIONS) in {"A", "B", "C", "D", None}


@given(st.permutations("ABCD"), st.sampled_from([" ", ", ", "\n", "/", " or ", "; ", ") ", ". "]))
def test_listing_all_letters_never_scores(letters: list[str], separator: str) -> None:
    assert extract_choice(separator.join(letters), OPTIONS) is None
