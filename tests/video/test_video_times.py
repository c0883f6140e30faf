"""Choosing frames by time, number or spread: valid choices resolve, all others get one line naming what is valid."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvision_env.sandbox.worker.video_times import END_TOLERANCE_S, Timeline, VideoError

_TEN_SECONDS = Timeline(np.arange(299) / 30, 299 / 30, 30.0, 1 / 15360)


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    gaps = draw(st.lists(st.integers(1, 400), min_size=1, max_size=60))
    starts = np.concatenate([[0], np.cumsum(gaps[:-1])]) / 1000
    duration = sum(gaps) / 1000
    return Timeline(starts, duration, len(gaps) / duration, 1e-3)


@given(timelines(), st.floats(0, 1))
def test_time_finds_the_last_frame_that_has_begun(timeline: Timeline, share: float) -> None:
    time = share * timeline.duration_s
    number = timeline.time_to_index(time)
    assert timeline.starts[number] <= time + 1e-3
    if number + 1 < timeline.num_frames:
        assert timeline.starts[number + 1] > time


@given(timelines())
def test_start_of_each_frame_finds_it(timeline: Timeline) -> None:
    starts = [float(start) for start in timeline.starts]
    assert timeline.resolve(times=starts) == list(range(timeline.num_frames))


@given(timelines(), st.integers(1, 80), st.floats(0, 1), st.floats(0, 1))
def test_spread_is_ascending_inside_the_span_and_reaches_its_ends(
    timeline: Timeline, num: int, one: float, other: float
) -> None:
    start, end = sorted((one * timeline.duration_s, other * timeline.duration_s))
    first, last = timeline.time_to_index(start), timeline.time_to_index(end)
    chosen = timeline.resolve(start=start, end=end, num=num)
    assert 1 <= len(chosen) <= num
    assert chosen == sorted(set(chosen))
    assert first <= chosen[0]
    assert chosen[-1] <= last
    if len(chosen) > 1:
        assert (chosen[0], chosen[-1]) == (first, last)


@given(
    timelines(),
    st.dictionaries(
        st.sampled_from(["times", "indices", "start", "end", "num", "max_frames"]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=5),
            st.lists(st.one_of(st.integers(-70, 70), st.floats(), st.text(max_size=3), st.none()), max_size=4),
        ),
    ).filter(lambda choice: choice.get("max_frames") is None or type(choice["max_frames"]) is int),
)
def test_any_choice_gives_frames_of_the_video_or_one_line(timeline: Timeline, choice: dict[str, Any]) -> None:
    try:
        chosen = timeline.resolve(**choice)
    except VideoError as error:
        assert len(str(error).splitlines()) == 1
        assert len(str(error)) < 200
    else:
        assert chosen
        assert all(type(number) is int and 0 <= number < timeline.num_frames for number in chosen)


def test_even_spread_covers_the_whole_video() -> None:
    assert _TEN_SECONDS.resolve(num=3) == [0, 149, 298]
    assert _TEN_SECONDS.resolve(num=1) == [149]
    assert _TEN_SECONDS.resolve(num=299) == list(range(299))
    assert _TEN_SECONDS.resolve(num=10_000) == list(range(299))
    assert _TEN_SECONDS.resolve(start=1, end=2, num=3) == [30, 45, 60]
    assert _TEN_SECONDS.resolve(start=9.96, num=4) == [298]


def test_order_and_repetitions_are_kept() -> None:
    assert _TEN_SECONDS.resolve(indices=[5, -1, 5, 3.0, np.int64(2)]) == [5, 298, 5, 3, 2]
    assert _TEN_SECONDS.resolve(times=[2, 1, 1.01]) == [60, 30, 30]


def test_end_of_the_video_and_a_little_past_it_is_the_last_frame() -> None:
    end = _TEN_SECONDS.duration_s
    for time in (end, round(end, 2), end + END_TOLERANCE_S):
        assert _TEN_SECONDS.time_to_index(time) == 298
    with pytest.raises(VideoError):
        _TEN_SECONDS.time_to_index(end + 2 * END_TOLERANCE_S)


_RANGE = r"valid times are 0\.00 to 9\.96 s \(299 frames, 30\.00 fps\)"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"times": [12.5]}, r"^time 12\.5 s is outside the video: " + _RANGE),
        ({"times": [1, -0.5]}, r"^time -0\.5 s is outside the video: " + _RANGE),
        ({"start": 11, "num": 2}, r"^start 11 s is outside the video: " + _RANGE),
        ({"end": 11, "num": 2}, r"^end 11 s is outside the video: " + _RANGE),
        ({"start": 3, "end": 2, "num": 2}, "start 3 s lies after end 2 s"),
        ({"start": 3}, "need num"),
        ({"times": [math.nan]}, "finite"),
        ({"times": [math.inf]}, "finite"),
        ({"times": [10**400]}, "huge number"),
        ({"times": [True]}, "number of seconds, but True"),
        ({"times": ["1:30"]}, "number of seconds, but '1:30'"),
        ({"times": "1.5"}, "times must be a list"),
        ({"times": 1.5}, "times must be a list"),
        ({"times": []}, "times is empty"),
        ({"indices": []}, "indices is empty"),
        ({"indices": [299]}, r"frame 299 is out of range: valid indices are 0 to 298 \(299 frames, 9\.97 s\)"),
        ({"indices": [False]}, "whole number, but False"),
        ({"indices": [1.5]}, r"whole number, but 1\.5"),
        ({"indices": [1, 2, 3, 4], "max_frames": 3}, "4 frames were asked for, but at most 3"),
        ({"num": 4, "max_frames": 3}, "4 frames were asked for, but at most 3"),
        ({"num": 0}, "num must be at least 1"),
        ({"num": True}, "num must be a whole number"),
        ({}, "exactly one way"),
        ({"times": [1], "indices": [1]}, "exactly one way"),
        ({"times": [1], "start": 0}, "exactly one way"),
    ],
)
def test_wrong_choice_says_what_is_valid(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(VideoError, match=message):
        _TEN_SECONDS.resolve(**choice)
