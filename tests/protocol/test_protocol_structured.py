from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvision_env.errors import UserError
from pyvision_env.protocol import from_structured, to_structured
from pyvision_env.spaces import action_space
from pyvision_env.types import Action, Answer, FetchFrames, Invalid, RunCode, ToolCalls

SPACE = action_space("structured")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((0, "print(1)"), RunCode(("print(1)",))),
        ((np.int64(0), "x"), RunCode(("x",))),
        ((0, "```python\nprint(1)\n```"), RunCode(("print(1)",))),
        ((0, "print('```')"), RunCode(("print('```')",))),
        ((1, {"video": 0, "times": (1.5, 3.0)}), FetchFrames(times=(1.5, 3.0))),
        ((1, {"video": np.int64(1), "times": np.array([1, 2])}), FetchFrames(video=1, times=(1.0, 2.0))),
        ((1, {"video": 0, "times": (np.array(1.5), np.array(3.0))}), FetchFrames(times=(1.5, 3.0))),
        ((2, "B"), Answer("B", "B")),
        ((2, "\\boxed{B}"), Answer("B", "\\boxed{B}")),
    ],
)
def test_values_of_the_space_are_read(value: Any, expected: Action) -> None:
    assert from_structured(value) == expected


@pytest.mark.parametrize(
    "value", [(0, " "), (1, {"video": 0, "times": ()}), (1, {"video": 0, "times": [np.nan]}), (2, "")]
)
def test_values_that_ask_for_nothing_are_invalid(value: Any) -> None:
    assert isinstance(from_structured(value), Invalid)


@pytest.mark.parametrize(
    "value",
    [
        "<code>x</code>",
        (0,),
        (3, "x"),
        ("0", "x"),
        (0, 3),
        (1, "x"),
        (1, {"times": [1.0]}),
        (1, {"video": 0.5, "times": [1.0]}),
        (1, {"video": 0, "times": ["a"]}),
        (1, {"video": 0, "times": [1.0], "num": 3}),
    ],
)
def test_values_of_another_shape_are_the_callers_mistake(value: Any) -> None:
    with pytest.raises(UserError, match="xpected"):
        from_structured(value)


times = st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1).map(tuple)
actions = st.one_of(
    st.text(min_size=1).filter(str.strip).map(lambda code: RunCode((code,))),
    st.builds(FetchFrames, video=st.integers(0, 9), times=times),
    st.text(st.characters(exclude_characters="\\"), min_size=1)
    .filter(str.strip)
    .map(lambda text: Answer(text.strip(), text)),
)


@given(actions)
def test_structured_round_trip_stays_inside_the_space(action: Action) -> None:
    value = to_structured(action)
    assert SPACE.contains(value)
    assert from_structured(value) == action


@given(st.integers(0, 2**31))
def test_every_sample_of_the_space_is_read(seed: int) -> None:
    SPACE.seed(seed)
    assert isinstance(from_structured(SPACE.sample()), RunCode | FetchFrames | Answer | Invalid)


@pytest.mark.parametrize(
    "action",
    [RunCode(("a", "b")), FetchFrames(num=3), FetchFrames(indices=(1,)), ToolCalls((RunCode(("a",)),)), Invalid("no")],
)
def test_what_the_space_cannot_carry_is_refused(action: Action) -> None:
    with pytest.raises(UserError, match="action_mode='text'"):
        to_structured(action)
