"""Gymnasium spaces for text of any script and for images of any size, and the environment's spaces made of them."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from pyvision_env.types import Observation, RGBArray

SAMPLE_EDGE = 64
"""Longest edge, in pixels, of a sampled image; samples are for checks, so they stay small."""
SAMPLE_LENGTH = 64
"""Longest sampled text beyond the space's minimum length, in characters."""
MAX_VIDEOS = 64
"""Videos a structured frame request can name."""
MAX_SECONDS = 1e7
"""Bound of a time in a structured frame request and of a video's length, in seconds."""
_MAX_INT = 2**31

# One inclusive range of code points a script: Latin, Greek, Cyrillic, Hebrew, Devanagari, Chinese, kana, Hangul, emoji,
# and the characters that break naive text handling (controls, combining marks).
_SCRIPTS = (
    (0x20, 0x7E),
    (0x3B1, 0x3C9),
    (0x410, 0x44F),
    (0x5D0, 0x5EA),
    (0x905, 0x939),
    (0x4E00, 0x9FA5),
    (0x3041, 0x3096),
    (0xAC00, 0xD7A3),
    (0x1F300, 0x1F5FF),
    (0x00, 0x1F),
    (0x300, 0x36F),
)


class Unicode(spaces.Space[str]):
    """Any ``str`` whose length is within bounds: every script, control characters and lone surrogates included.

    Args:
        min_length: Fewest characters.
        max_length: Most characters; None for no bound.
        seed: Seed of ``sample``.

    Raises:
        ValueError: If the bounds are negative or in the wrong order.
    """

    def __init__(
        self, min_length: int = 0, max_length: int | None = None, seed: int | np.random.Generator | None = None
    ) -> None:
        if min_length < 0 or (max_length is not None and max_length < min_length):
            raise ValueError(
                f"Unicode needs 0 <= min_length <= max_length, but min_length={min_length} and max_length={max_length}"
            )
        self.min_length = int(min_length)
        self.max_length = None if max_length is None else int(max_length)
        super().__init__(shape=None, dtype=None, seed=seed)

    @property
    def is_np_flattenable(self) -> Literal[False]:
        """Text of unbounded length has no flat array."""
        return False

    def sample(self, mask: tuple[int | None, None] | None = None, probability: Any | None = None) -> str:
        """Draw text that mixes scripts.

        Args:
            mask: ``(length, None)`` fixes the length, as the first half of ``gymnasium.spaces.Text``'s mask does.
            probability: The same as ``mask``; there is no character set to weigh.

        Raises:
            ValueError: If both are given, or either is of another form, or the length is outside the bounds.
        """
        length = self._masked_length(mask, probability)
        if length is None:
            longest = self.min_length + SAMPLE_LENGTH
            if self.max_length is not None:
                longest = min(longest, self.max_length)
            length = int(self.np_random.integers(self.min_length, longest + 1))
        scripts = self.np_random.integers(0, len(_SCRIPTS), size=length)
        return "".join(chr(int(self.np_random.integers(_SCRIPTS[s][0], _SCRIPTS[s][1] + 1))) for s in scripts)

    def _masked_length(self, mask: Any, probability: Any) -> int | None:
        given = _one_of_mask_and_probability(mask, probability)
        if given is None:
            return None
        if not isinstance(given, tuple) or len(given) != 2 or given[1] is not None:
            raise ValueError(f"Unicode.sample expects a mask of the form (length or None, None), but got {given!r}")
        length = given[0]
        if length is None:
            return None
        if length < self.min_length or (self.max_length is not None and length > self.max_length):
            raise ValueError(f"Unicode.sample was asked for {length} characters, which is outside {self!r}")
        return int(length)

    def contains(self, x: Any) -> bool:
        """Whether ``x`` is a ``str`` of allowed length."""
        return (
            isinstance(x, str) and self.min_length <= len(x) and (self.max_length is None or len(x) <= self.max_length)
        )

    def __eq__(self, other: object) -> bool:
        """Whether ``other`` allows the same text."""
        return (
            isinstance(other, Unicode) and self.min_length == other.min_length and self.max_length == other.max_length
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """The constructor call that makes an equal space."""
        return f"Unicode(min_length={self.min_length}, max_length={self.max_length})"


class RGBImage(spaces.Space[RGBArray]):
    """Any uint8 array of shape (height, width, 3) with height, width >= 1.

    Args:
        max_pixels: Most pixels (height * width); None for no bound.
        seed: Seed of ``sample``.

    Raises:
        ValueError: If ``max_pixels`` is below 1.
    """

    def __init__(self, max_pixels: int | None = None, seed: int | np.random.Generator | None = None) -> None:
        if max_pixels is not None and max_pixels < 1:
            raise ValueError(f"RGBImage needs max_pixels >= 1 or None, but got {max_pixels}")
        self.max_pixels = None if max_pixels is None else int(max_pixels)
        super().__init__(shape=None, dtype=np.uint8, seed=seed)

    @property
    def is_np_flattenable(self) -> Literal[False]:
        """Images of different sizes have no common flat array."""
        return False

    def sample(self, mask: None = None, probability: None = None) -> RGBArray:
        """Draw noise of a small random size.

        Raises:
            ValueError: If ``mask`` or ``probability`` is given; pixels cannot be masked.
        """
        if _one_of_mask_and_probability(mask, probability) is not None:
            raise ValueError("RGBImage.sample takes neither mask nor probability")
        height = int(self.np_random.integers(1, min(SAMPLE_EDGE, self.max_pixels or SAMPLE_EDGE) + 1))
        widest = SAMPLE_EDGE if self.max_pixels is None else min(SAMPLE_EDGE, self.max_pixels // height)
        width = int(self.np_random.integers(1, widest + 1))
        return self.np_random.integers(0, 256, size=(height, width, 3), dtype=np.uint8)

    def contains(self, x: Any) -> bool:
        """Whether ``x`` is such an array."""
        if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.ndim != 3 or x.shape[2] != 3:
            return False
        pixels = x.shape[0] * x.shape[1]
        return pixels >= 1 and (self.max_pixels is None or pixels <= self.max_pixels)

    def to_jsonable(self, sample_n: Iterable[RGBArray]) -> list[dict[str, Any]]:
        """Turn images into ``{"shape": [height, width, 3], "data": base64 of the raw bytes}``."""
        return [
            {"shape": list(image.shape), "data": base64.b64encode(np.ascontiguousarray(image).tobytes()).decode()}
            for image in sample_n
        ]

    def from_jsonable(self, sample_n: list[dict[str, Any]]) -> list[NDArray[np.uint8]]:
        """Undo ``to_jsonable``."""
        return [
            np.frombuffer(base64.b64decode(item["data"]), dtype=np.uint8).reshape(item["shape"]).copy()
            for item in sample_n
        ]

    def __eq__(self, other: object) -> bool:
        """Whether ``other`` allows the same images."""
        return isinstance(other, RGBImage) and self.max_pixels == other.max_pixels

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """The constructor call that makes an equal space."""
        return f"RGBImage(max_pixels={self.max_pixels})"


class OneOf(spaces.OneOf[Any]):
    """``gymnasium.spaces.OneOf`` whose JSON form also works where an alternative is a ``Dict`` or a ``Tuple``.

    Gymnasium's takes the first element of an alternative's JSON form, which is a mapping for a ``Dict``.
    """

    def to_jsonable(self, sample_n: Iterable[tuple[int, Any]]) -> list[list[Any]]:
        """Turn elements into ``[index, the alternative's JSON form of a batch of one]``."""
        return [[int(index), self.spaces[index].to_jsonable([value])] for index, value in sample_n]

    def from_jsonable(self, sample_n: list[list[Any]]) -> list[tuple[Any, ...]]:
        """Undo ``to_jsonable``."""
        return [(np.int64(index), self.spaces[index].from_jsonable(batch)[0]) for index, batch in sample_n]


def _one_of_mask_and_probability(mask: Any, probability: Any) -> Any:
    if mask is not None and probability is not None:
        raise ValueError(
            f"Only one of mask and probability can be given, but mask={mask!r} and probability={probability!r}"
        )
    return mask if mask is not None else probability


def observation_space(max_turns: int) -> spaces.Dict:
    """The space of one observation: this turn's new text, images and videos, and the tool turns that are left."""
    seconds = spaces.Box(0.0, MAX_SECONDS, shape=(), dtype=np.float64)
    video = spaces.Dict(
        {
            "duration_s": seconds,
            "fps": spaces.Box(0.0, 1e6, shape=(), dtype=np.float64),
            "width": spaces.Discrete(_MAX_INT),
            "height": spaces.Discrete(_MAX_INT),
            "num_frames": spaces.Discrete(_MAX_INT),
        }
    )
    return spaces.Dict(
        {
            "text": Unicode(),
            "images": spaces.Sequence(RGBImage()),
            "videos": spaces.Sequence(video),
            "turns_left": spaces.Discrete(max_turns + 1),
        }
    )


def as_element(observation: Observation) -> dict[str, Any]:
    """An observation as an element of the observation space."""
    videos = tuple(
        {
            "duration_s": np.asarray(video.duration_s, dtype=np.float64),
            "fps": np.asarray(video.fps, dtype=np.float64),
            "width": video.width,
            "height": video.height,
            "num_frames": video.num_frames,
        }
        for video in observation.videos
    )
    return {
        "text": observation.text,
        "images": tuple(observation.images),
        "videos": videos,
        "turns_left": observation.turns_left,
    }


def action_space(mode: Literal["text", "structured"]) -> spaces.Space[Any]:
    """The space of one action.

    ``text``: ``Unicode``, the model's raw text. ``structured``: ``OneOf`` of 0 = code (``Unicode``), 1 = frames
    (``Dict(video=Discrete, times=Sequence(Box))``, times in seconds) and 2 = answer (``Unicode``); an element is the
    pair ``(index, value)``.
    """
    if mode == "text":
        return Unicode()
    frames = spaces.Dict(
        {
            "video": spaces.Discrete(MAX_VIDEOS),
            "times": spaces.Sequence(spaces.Box(0.0, MAX_SECONDS, shape=(), dtype=np.float64)),
        }
    )
    return OneOf((Unicode(), frames, Unicode()))
