"""When the frames of a video are shown: from seconds to frame numbers, and the errors a wrong choice of frames gets."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

END_TOLERANCE_S = 0.05
"""How far past the end a time may lie and still mean the last frame: prompts round durations."""

_CLOCK_ROUNDING_S = 1e-3


class VideoError(ValueError):
    """A video cannot be read, or frames were asked for that it does not have; the message is one line."""


class FrameIndexError(VideoError, IndexError):
    """A frame number lies outside the video."""


@dataclass(frozen=True, eq=False, slots=True)
class Timeline:
    """The frames of one video in the order they are shown.

    Attributes:
        starts: Seconds at which each frame appears, ascending, the first one 0; shape ``(num_frames,)``.
        duration_s: Seconds from the first frame's start to the last frame's end.
        fps: Average frames per second.
        tick_s: Resolution of the file's clock, seconds: its timestamps are rounded to this.
    """

    starts: npt.NDArray[np.float64]
    duration_s: float
    fps: float
    tick_s: float

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.starts)

    def spans(self) -> npt.NDArray[np.float64]:
        """Start and end of every frame, seconds; shape ``(num_frames, 2)``."""
        return np.stack([self.starts, np.append(self.starts[1:], self.duration_s)], axis=1)

    def time_to_index(self, time: float) -> int:
        """The frame shown at ``time``: the last one that does not start after it.

        A time that equals a frame's start up to the rounding of the file's clock finds that frame. The end of the
        video, and up to ``END_TOLERANCE_S`` past it, finds the last frame.

        Raises:
            VideoError: ``time`` is not a number of seconds within the video.
        """
        return self._index_at(time, "time")

    def checked_index(self, index: Any) -> int:
        """``index`` as a plain frame number; negative ones count from the end.

        Raises:
            FrameIndexError: There is no such frame.
            VideoError: ``index`` is not a whole number.
        """
        number = _whole_number(index, "a frame index")
        count = self.num_frames
        if not -count <= number < count:
            raise FrameIndexError(f"frame {_brief(number)} is out of range: {self._valid_indices()}")
        return number % count

    def resolve(
        self,
        *,
        times: Sequence[float] | None = None,
        indices: Sequence[int] | None = None,
        start: float | None = None,
        end: float | None = None,
        num: int | None = None,
        max_frames: int | None = None,
    ) -> list[int]:
        """Frame numbers for one way of choosing frames: ``times``, ``indices``, or ``num`` spread evenly.

        ``num`` frames are spread evenly in time over ``start``..``end`` (the whole video where left out), both ends
        included; one frame alone is taken from the middle. Fewer come back where the span holds fewer frames.

        Args:
            times: Seconds from the start of the video, one frame each, order and repetitions kept.
            indices: Frame numbers, order and repetitions kept; negative ones count from the end.
            start: Seconds.
            end: Seconds.
            num: How many frames to spread.
            max_frames: The most frames that may be asked for at once.

        Returns:
            At least one frame number, each in ``range(num_frames)``.

        Raises:
            VideoError: Nothing, too much or something outside the video was asked for.
        """
        spread = num is not None or start is not None or end is not None
        if (times is not None) + (indices is not None) + spread != 1:
            raise VideoError("choose frames in exactly one way: by times, by indices, or by num with start and end")
        if times is not None:
            wanted = _sequence(times, "times", max_frames)
            return [self._index_at(time, "time") for time in wanted]
        if indices is not None:
            wanted = _sequence(indices, "indices", max_frames)
            return [self.checked_index(index) for index in wanted]
        if num is None:
            raise VideoError("start and end need num, the number of frames to spread between them")
        return self._spread(start, end, _count(num, max_frames))

    def _spread(self, start: float | None, end: float | None, num: int) -> list[int]:
        first = 0 if start is None else self._index_at(start, "start")
        last = self.num_frames - 1 if end is None else self._index_at(end, "end")
        begin = float(self.starts[first]) if start is None else float(start)
        stop = max(begin, float(self.starts[last])) if end is None else float(end)
        if begin > stop:
            raise VideoError(f"start {begin:g} s lies after end {stop:g} s")
        num = min(num, last - first + 1)
        points = [(begin + stop) / 2] if num == 1 else np.linspace(begin, stop, num)
        found = [self._shown_at(float(point)) for point in points]
        return sorted(set(found))

    def _index_at(self, time: Any, name: str) -> int:
        seconds = _seconds(time, name)
        if not 0 <= seconds <= self.duration_s + END_TOLERANCE_S:
            raise VideoError(f"{name} {seconds:g} s is outside the video: {self._valid_times()}")
        return self._shown_at(seconds)

    def _shown_at(self, seconds: float) -> int:
        # Frame 2 of a 30 fps file may be stamped 0.067 s where 2 / 30 = 0.0666: half a tick forgives the rounding.
        forgiven = min(self.tick_s / 2, _CLOCK_ROUNDING_S) + 1e-9
        return max(0, int(np.searchsorted(self.starts, seconds + forgiven, side="right")) - 1)

    def _valid_times(self) -> str:
        end = math.floor(self.duration_s * 100 + 1e-6) / 100
        return f"valid times are 0.00 to {end:.2f} s ({self._size()}, {self.fps:.2f} fps)"

    def _valid_indices(self) -> str:
        return f"valid indices are 0 to {self.num_frames - 1} ({self._size()}, {self.duration_s:.2f} s)"

    def _size(self) -> str:
        return "1 frame" if self.num_frames == 1 else f"{self.num_frames} frames"


def _sequence(values: Any, name: str, most: int | None) -> list[Any]:
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        raise VideoError(f"{name} must be a list of numbers, but {_brief(values)} was given")
    listed = list(values)
    if not listed:
        raise VideoError(f"{name} is empty: name at least one frame")
    _refuse_too_many(len(listed), most)
    return listed


def _count(num: Any, most: int | None) -> int:
    number = _whole_number(num, "num")
    if number < 1:
        raise VideoError(f"num must be at least 1, but {_brief(number)} was given")
    _refuse_too_many(number, most)
    return number


def _refuse_too_many(number: int, most: int | None) -> None:
    if most is not None and number > most:
        raise VideoError(f"{_brief(number)} frames were asked for, but at most {most} can be fetched at once")


def _seconds(value: Any, name: str) -> float:
    if isinstance(value, bool | np.bool_ | str | bytes):
        raise VideoError(f"{name} must be a number of seconds, but {_brief(value)} was given")
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        raise VideoError(f"{name} must be a number of seconds, but {_brief(value)} was given") from None
    if not math.isfinite(seconds):
        raise VideoError(f"{name} must be a finite number of seconds, but {seconds} was given")
    return seconds


def _whole_number(value: Any, name: str) -> int:
    # JSON writers and numpy arithmetic give 3.0 where 3 is meant.
    whole_float = isinstance(value, float | np.floating) and value.is_integer()
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return int(value) if whole_float else operator.index(value)
    except TypeError:
        raise VideoError(f"{name} must be a whole number, but {_brief(value)} was given") from None


def _brief(value: Any) -> str:
    # A number of thousands of digits must not fill the observation (and Python refuses to print it).
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**18:
        return "a huge number"
    shown = repr(value).replace("\n", " ")
    return shown if len(shown) <= 60 else shown[:57] + "..."
