from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvision_env.config import RewardConfig
from pyvision_env.reward import NO_TERMS, episode_return, final_terms, step_terms, total
from pyvision_env.types import Grade

RIGHT = Grade(1.0, True, "choice")
WRONG = Grade(0.0, False, "choice")
PAPER = RewardConfig(count="all")


def play(config: RewardConfig, turns: list[tuple[bool, bool]], grade: Grade | None, boxed: bool = False) -> list[float]:
    counted, rewards = 0, []
    for called, ok in turns:
        terms, counted = step_terms(config, called=called, ok=ok, counted_before=counted)
        rewards.append(total(terms))
    if grade is not None:
        rewards.append(total(final_terms(config, grade, counted=counted, well_formed=boxed)))
    return rewards


def test_all_counted_calls_are_paid_at_a_correct_answer() -> None:
    assert play(RewardConfig(), [(True, True)] * 3, RIGHT) == [0.0, 0.0, 0.0, 1.0 + 0.1 * 3]


def test_a_wrong_answer_is_paid_nothing_for_its_calls() -> None:
    assert play(RewardConfig(), [(True, True)] * 3, WRONG) == [0.0] * 4


def test_an_episode_without_answer_is_paid_nothing() -> None:
    assert play(RewardConfig(format_weight=1.0), [(True, True)] * 3, None) == [0.0] * 3


def test_immediate_pays_each_call_at_its_step_whatever_the_answer() -> None:
    config = RewardConfig(gate="immediate")
    assert play(config, [(True, True), (False, False), (True, True)], WRONG) == [0.1, 0.0, 0.1, 0.0]


def test_failed_calls_count_only_when_all_count() -> None:
    turns = [(True, True), (True, False), (False, False)]
    assert play(RewardConfig(), turns, RIGHT)[-1] == 1.1
    assert play(PAPER, turns, RIGHT)[-1] == 1.2


def test_a_malformed_turn_never_counts() -> None:
    for ok in (True, False):
        terms, counted = step_terms(RewardConfig(count="all", gate="immediate"), called=False, ok=ok, counted_before=2)
        assert (terms, counted) == (dict(NO_TERMS), 2)


@pytest.mark.parametrize("gate", ["correct", "immediate"])
def test_calls_beyond_the_cap_earn_nothing(gate: str) -> None:
    config = RewardConfig.model_validate({"gate": gate, "max_counted": 2})
    assert sum(play(config, [(True, True)] * 5, RIGHT)) == pytest.approx(1.2)


def test_partial_scores_earn_accuracy_but_open_no_gate() -> None:
    terms = final_terms(RewardConfig(), Grade(0.6, False, "mra"), counted=4, well_formed=False)
    assert terms == {"accuracy": 0.6, "tool": 0.0, "format": 0.0}


def test_format_is_paid_for_the_expected_form_only() -> None:
    config = RewardConfig(format_weight=0.5)
    assert final_terms(config, WRONG, counted=0, well_formed=True)["format"] == 0.5
    assert final_terms(config, WRONG, counted=0, well_formed=False)["format"] == 0.0


configs = st.builds(
    RewardConfig,
    tool_weight=st.floats(-1, 1),
    gate=st.sampled_from(["correct", "immediate"]),
    count=st.sampled_from(["successful", "all"]),
    max_counted=st.none() | st.integers(1, 6),
    format_weight=st.floats(-1, 1),
)
grades = st.one_of(st.sampled_from([RIGHT, WRONG]), st.builds(Grade, st.floats(0, 1), st.booleans(), st.just("mra")))
turns = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30)


@given(turns, st.sampled_from([RIGHT, WRONG]))
def test_the_return_is_the_papers_formula(played: list[tuple[bool, bool]], grade: Grade) -> None:
    calls = sum(called for called, _ in played)
    assert sum(play(PAPER, played, grade)) == grade.score + 0.1 * calls * (grade.score == 1.0)


@given(configs, turns, st.none() | grades, st.booleans())
def test_steps_add_up_to_the_closed_form(
    config: RewardConfig, played: list[tuple[bool, bool]], grade: Grade | None, boxed: bool
) -> None:
    counted = sum(called and (ok or config.count == "all") for called, ok in played)
    counted = min(counted, config.max_counted or counted)
    expected = episode_return(config, grade, counted=counted, well_formed=boxed)
    assert sum(play(config, played, grade, boxed)) == pytest.approx(expected, abs=1e-9)


@given(configs, turns, grades, st.booleans())
def test_every_step_has_the_same_float_terms(
    config: RewardConfig, played: list[tuple[bool, bool]], grade: Grade, boxed: bool
) -> None:
    counted, steps = 0, []
    for called, ok in played:
        terms, counted = step_terms(config, called=called, ok=ok, counted_before=counted)
        steps.append(terms)
    steps.append(final_terms(config, grade, counted=counted, well_formed=boxed))
    for terms in steps:
        assert list(terms) == ["accuracy", "tool", "format"]
        assert all(type(value) is float for value in terms.values())
        assert total(terms) == (terms["accuracy"] + terms["tool"]) + terms["format"]
