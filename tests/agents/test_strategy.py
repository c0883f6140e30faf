"""Notes, placeholders and the choice of an option."""

from __future__ import annotations

import re

import pytest

from pyvision_env.agents import Context, ScriptedAgent
from pyvision_env.agents.strategy import choose, code, frames, read_notes, read_options, strategy
from pyvision_env.errors import UserError
from pyvision_env.protocol import parse
from pyvision_env.types import FetchFrames, Observation, RunCode, Turn

LETTERS = {"A": "the first photo (image_clue_0)", "B": "the second photo (image_clue_1)"}


@pytest.mark.parametrize(
    ("finding", "options", "answer"),
    [
        ("red", {"A": "blue", "B": "red"}, "B"),
        ("Red", {"A": "blue", "B": "red"}, "B"),
        ("violet", {"A": "violet", "B": "violet-blue"}, "A"),
        ("the second photo", LETTERS, "B"),
        ("larger", {"A": "it has become smaller", "B": "it has become larger"}, "B"),
        ("128", {"A": "60", "B": "120", "C": "180"}, "B"),
        ("24", {}, "24"),
        ("pink", {"A": "blue", "B": "red"}, "pink"),
        ("the", LETTERS, "the"),
    ],
)
def test_a_finding_becomes_the_option_that_says_it(finding, options, answer):
    assert choose(finding, options) == answer


def test_notes_come_from_the_question_its_options_and_printed_lines():
    match = re.search(r"a (?P<colour>\w+) frame", "Find a green frame.\n\nA. one\nB. two")
    notes = read_notes(match, ["first: 3\nnoise: without end\nTwo Words: no", "first: 4 \n  indented: no"])
    assert notes == {"colour": "green", "options": '["one", "two"]', "first": "4", "noise": "without end"}


def test_options_are_lettered_lines_only():
    assert read_options("A. x\nand B. y\nC. z w") == {"A": "x", "C": "z w"}


def test_a_turn_whose_note_is_missing_is_not_written():
    plan = strategy("q", "go to $place")
    assert plan.write(0, {}) is None
    assert plan.write(0, {"place": "x"}) == "go to x"


def test_turns_are_actions_of_the_grammar():
    assert parse(code("Look.", "\nprint(1)\n")) == RunCode(("print(1)",))
    assert parse(frames("Look.", '{"video": 0, "num": 6}')) == FetchFrames(video=0, num=6)


def turn(text: str) -> Turn:
    return Turn(text, RunCode(("x",)), Observation("out"), 0.0, {}, {})


def test_a_script_is_said_in_order_and_ends_with_a_clear_error():
    agent = ScriptedAgent(["one", "two"], name="me")
    first = Observation("q")
    assert agent.name == "me"
    assert [agent.act(Context.of("", first, steps)) for steps in ([], [turn("one")])] == ["one", "two"]
    with pytest.raises(UserError, match="end the script with an <answer>"):
        agent.act(Context.of("", first, [turn("one"), turn("two")]))


def test_a_context_holds_what_a_model_sees_and_no_more():
    first = Observation("question", turns_left=4)
    context = Context.of("system", first, [turn("<code>x</code>")], seed=7)
    assert (context.question, context.observation.text, context.turns, context.seed) == (
        "question",
        "out",
        ("<code>x</code>",),
        7,
    )
    assert [message["role"] for message in context.messages] == ["system", "user", "assistant", "user"]
