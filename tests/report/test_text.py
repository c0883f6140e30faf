"""A model's turn cut into parts, and its code highlighted, without losing or letting through a character."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvision_env.protocol import format_action
from pyvision_env.report.text import Span, highlight, highlight_css, spans, visible
from pyvision_env.types import RunCode

turns = st.lists(
    st.sampled_from(["<code>", "</code>", "```python\n", "```", "x = 1\n", "<answer>", " ", "&<", "é"])
).map("".join)


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


@given(st.one_of(turns, st.text()))
def test_the_parts_of_a_turn_hold_all_of_it(text: str) -> None:
    assert squeezed("".join(span.text for span in spans(text))) == squeezed(text)


def test_code_is_told_from_prose_and_from_its_tags() -> None:
    text = "First.\n<code>```python\n  x = 1\n```</code>\nThen\n<code>y = 2</code> done"
    assert spans(text) == (
        Span("prose", "First."),
        Span("tag", "<code>```python"),
        Span("code", "  x = 1"),
        Span("tag", "```</code>"),
        Span("prose", "Then"),
        Span("tag", "<code>"),
        Span("code", "y = 2"),
        Span("tag", "</code>"),
        Span("prose", "done"),
    )


def test_indentation_inside_a_block_is_kept() -> None:
    source = "for i in range(3):\n    if i:\n        print(i)"
    assert Span("code", source) in spans(format_action(RunCode((source,))))


@pytest.mark.parametrize(
    ("action", "kind", "text"),
    [
        ([0, "print(1)"], "code", "print(1)"),
        ([1, {"video": 0, "times": [1.0]}], "prose", "[1, {'video': 0, 'times': [1.0]}]"),
        ([2, "B"], "prose", "[2, 'B']"),
        ([7], "prose", "[7]"),
        ([], "prose", "[]"),
    ],
)
def test_structured_actions_are_shown_too(action: list[object], kind: str, text: str) -> None:
    (span,) = spans(action)
    assert (span.kind, span.text) == (kind, text)


@given(st.text(st.characters(codec=None, categories=None)))
def test_highlighted_code_holds_no_markup_but_spans_and_no_other_text(source: str) -> None:
    markup = highlight(source)
    assert re.fullmatch(r'(?:<span class="h-[a-z0-9 -]+">|</span>|[^<>])*', markup)
    assert html.unescape(re.sub(r"<[^>]*>", "", markup)) == visible(source)


def test_very_long_code_is_shown_plain() -> None:
    source = "x = 1\n" * 20_000
    assert highlight(source) == source


@given(st.text(st.characters(codec=None, categories=None)))
def test_visible_text_can_be_written_as_utf8_and_hides_nothing(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", shown)


def test_both_colour_schemes_have_rules_for_keywords_strings_and_comments() -> None:
    light, dark = highlight_css().split("@media (prefers-color-scheme: dark)")
    for rules in (light, dark):
        for name in ("h-kn", "h-s2", "h-c1", "h-mi"):
            assert f".{name} " in rules
