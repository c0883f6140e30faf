import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvision_env.lettered import lists_options, parse_options, strip_labels


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("Which?\nA. red\nB. blue", ("red", "blue")),
        ("Which?\n(A) red\n(B) blue\n(C) green", ("red", "blue", "green")),
        ("Which?\nA) red\nB) blue\nAnswer with the option's letter.", ("red", "blue")),
        ("Which? (A) a red car (B) a blue car", ("a red car", "a blue car")),
        ("Which? A. red B. blue C. green", ("red", "blue", "green")),
        ("Which?\n  A: 1.5 m\n  B: 2.5 m", ("1.5 m", "2.5 m")),
        ("Which?\n[A] one line\n that goes on\n[B] two", ("one line that goes on", "two")),
        ("What stands left of A. Smith?", ()),
        ("A dog or B cats?", ()),
        ("Which?\nB. red\nC. blue", ()),
        ("Which?\nA. red\nC. blue", ()),
        ("Is vitamin A. or B. shown?\nA. yes\nB. no", ("yes", "no")),
        ("How many?", ()),
        ("What is it?\n- A. cat\n- B. dog", ("cat", "dog")),
        ("What is it?\n* (A) cat\n* (B) dog", ("cat", "dog")),
        ("What? (A) cat; (B) dog", ("cat", "dog")),
        ("What? (a) cat, or (b) dog", ("cat", "dog")),
        ("What?\n**A.** cat\n**B.** dog", ("cat", "dog")),
        ("What?\n**A. cat**\n**B. dog**", ("cat", "dog")),
        ("What?\na. cat\nb. dog", ("cat", "dog")),
        ("What?\nA、cat\nB、dog", ("cat", "dog")),
        ("What? A.cat B.dog", ("cat", "dog")),
        ("What?\nA. cat\nB. a dog\n   on a mat\nAnswer with the letter.", ("cat", "a dog on a mat")),
        ("Born A.D. or B.C.?", ()),
        ("Is it A. or B.?", ()),
        ("Which?\nA.\nB. blue", ()),
    ],
)
def test_plainly_lettered_options_are_read_and_nothing_else(question, options):
    assert parse_options(question) == options


words = st.text(st.characters(categories=["Ll"]), min_size=1, max_size=8)
texts = st.lists(words, min_size=1, max_size=4).map(" ".join)


@given(st.lists(texts, min_size=2, max_size=8), st.sampled_from(["{}. ", "({}) ", "{}) ", "[{}] ", "{}: "]))
def test_written_options_read_back(options, label):
    lines = [label.format("ABCDEFGH"[i]) + option for i, option in enumerate(options)]
    assert parse_options("What is it?\n" + "\n".join(lines)) == tuple(options)
    assert strip_labels(lines) == tuple(options)


@given(st.text(max_size=60))
def test_any_text_is_read_without_an_error(text):
    assert all(parse_options(text)) or parse_options(text) == ()


def test_labels_are_only_stripped_from_a_fully_lettered_list():
    assert strip_labels(["A. cat", "dog"]) == ("A. cat", "dog")
    assert strip_labels(["B. cat", "A. dog"]) == ("B. cat", "A. dog")
    assert strip_labels([" cat ", "dog"]) == ("cat", "dog")


@pytest.mark.parametrize(
    ("question", "shown"),
    [
        ("What is it?\n- A. cat\n- B. red dog", True),
        ("What is it? (A) cat; (B) red dog", True),
        ("What is it?\nA. cat\nB. red\n  dog", True),
        ("What is it?\nA cat\nB red dog", True),
        ("Is it a cat or a red dog?", False),
        ("What is it?", False),
        ("What is it?\nA. red dog\nB. cat", False),
    ],
)
def test_options_count_as_shown_only_with_their_letters(question, shown):
    assert lists_options(question, ("cat", "red dog")) is shown
