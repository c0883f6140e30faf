"""Visual search on a large canvas of real photos: find one small tag by its frame's colour and read its pattern.

The hard tag's stripes are two pixels wide, so any copy of the canvas at a quarter of its side or less shows a plain
patch, the same for every pattern: the answer can only be had by zooming. The easy tag is read in such a copy at once.
Code can solve every task with NumPy alone: the pixels near the frame's colour give the box; inside it, brightness is
constant along x for horizontal stripes, along y for vertical ones, along one diagonal for diagonal ones, along none for
a checkerboard.
"""

from __future__ import annotations

import functools
import io
from typing import Literal

import numpy as np
from PIL import Image

from pyvision_env.errors import TaskError
from pyvision_env.tasks.photos import TILE_PHOTOS, photo_tile
from pyvision_env.tasks.task_set import TaskSet
from pyvision_env.types import ImageSource, RGBArray, Task

Difficulty = Literal["easy", "hard"]
Box = tuple[int, int, int, int]

FRAME_COLOURS: dict[str, tuple[int, int, int]] = {
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "green": (0, 255, 0),
    "yellow": (255, 255, 0),
    "blue": (0, 0, 255),
}
"""Colours of the frames in RGB. JPEG moves them by a few steps; no pixel of a photo tile is within 40 steps of one."""

PATTERNS = ("horizontal stripes", "vertical stripes", "diagonal stripes", "checkerboard")
"""What can fill a tag."""

THUMBNAIL_PIXELS = 512 * 512
"""A pixel budget (``Limits.max_pixels``) at which hard tags of a canvas of 2048 pixels a side are out of reach."""

EASY_SHARE = 0.4
"""Share of easy tasks where the difficulty is drawn."""

_HARD_STRIPE = 2
_HARD_CELLS = 12
_FRAME = 8
_GRID = 4
_SMALLEST = 512


def make_search_task(
    seed: int, *, size: int = 2_048, difficulty: Difficulty | None = None, distractors: int = 6
) -> Task:
    """Make one task; equal arguments give an equal task, byte for byte (for one build of Pillow).

    Args:
        seed: Non-negative seed of everything drawn.
        size: Side of the square canvas in pixels, a multiple of 64 from 512.
        difficulty: ``easy``, ``hard`` or None to draw it (40% easy).
        distractors: Other tags on the canvas, each with another frame colour.

    Returns:
        A multiple-choice task with one JPEG image. ``metadata`` holds ``target_box`` (x0, y0, x1, y1; pixels of the
        canvas, end excluded, frame included), ``difficulty``, ``canvas_size`` (width, height), ``pattern`` and
        ``frame_colour``.

    Raises:
        TaskError: An argument is out of range, or the photos are not installed.
    """
    if seed < 0 or size < _SMALLEST or size % 64 or distractors < 0 or difficulty not in (None, "easy", "hard"):
        raise TaskError(
            f"expected seed >= 0, size a multiple of 64 from {_SMALLEST}, difficulty None, 'easy' or 'hard' and "
            f"distractors >= 0, got seed={seed}, size={size}, difficulty={difficulty!r}, distractors={distractors}"
        )
    rng = np.random.default_rng(seed)
    drawn: Difficulty = "easy" if rng.random() < EASY_SHARE else "hard"
    level = difficulty or drawn
    colour, *others = rng.permutation(list(FRAME_COLOURS)).tolist()
    pattern = str(rng.choice(PATTERNS))
    canvas = _photo_canvas(rng, size)
    boxes: list[Box] = []
    target = _place_tag(rng, canvas, pattern, colour, level, boxes)
    if target is None:
        raise TaskError(f"a tag does not fit a canvas of {size} pixels")
    for index in range(distractors):
        _place_tag(rng, canvas, str(rng.choice(PATTERNS)), others[index % len(others)], _level(rng), boxes)
    options = tuple(str(option) for option in rng.permutation(PATTERNS))
    return Task(
        id=_task_id(seed, size, difficulty),
        question=f"In this large photo collage exactly one tag has a {colour} frame. Which pattern fills that tag?",
        answer="ABCD"[options.index(pattern)],
        images=(ImageSource(data=_encode(canvas)),),
        options=options,
        grader="choice",
        data_source="synthetic_search",
        ability=f"visual_search_{level}",
        metadata={
            "target_box": target,
            "difficulty": level,
            "canvas_size": (size, size),
            "pattern": pattern,
            "frame_colour": colour,
        },
    )


class SearchTasks(TaskSet):
    """``n`` visual-search tasks, made on access; task ``i`` is ``make_search_task(seed * 1_000_003 + i)``.

    Args:
        n: Number of tasks.
        seed: Non-negative; sets of different seeds share no task as long as they hold up to a million.
        size: Side of the canvas in pixels.
        difficulty: ``easy``, ``hard`` or None for 40% easy.
    """

    def __init__(
        self, n: int = 1_000, seed: int = 0, *, size: int = 2_048, difficulty: Difficulty | None = None
    ) -> None:
        if n < 1 or seed < 0:
            raise TaskError(f"expected n >= 1 and seed >= 0, got n={n}, seed={seed}")
        start = seed * 1_000_003
        ids = [_task_id(start + index, size, difficulty) for index in range(n)]
        self._init(ids, functools.partial(_make, start, size, difficulty), (), cache=True)


def _make(start: int, size: int, difficulty: Difficulty | None, index: int) -> Task:
    return make_search_task(start + index, size=size, difficulty=difficulty)


def _task_id(seed: int, size: int, difficulty: Difficulty | None) -> str:
    return f"search-{size}-{difficulty or 'mixed'}-{seed}"


def _level(rng: np.random.Generator) -> Difficulty:
    return "easy" if rng.random() < EASY_SHARE else "hard"


def _photo_canvas(rng: np.random.Generator, size: int) -> RGBArray:
    """Tile the canvas with photos, each flipped and turned at random."""
    side = size // _GRID
    canvas = np.empty((size, size, 3), dtype=np.uint8)
    shuffled = np.concatenate([rng.permutation(len(TILE_PHOTOS)) for _ in range(_GRID * _GRID // len(TILE_PHOTOS) + 1)])
    for row in range(_GRID):
        for column in range(_GRID):
            tile = np.rot90(photo_tile(*TILE_PHOTOS[shuffled[row * _GRID + column]], side), int(rng.integers(4)))
            tile = tile[:, ::-1] if rng.random() < 0.5 else tile
            canvas[row * side : (row + 1) * side, column * side : (column + 1) * side] = tile
    return canvas


def _place_tag(
    rng: np.random.Generator, canvas: RGBArray, pattern: str, colour: str, level: Difficulty, boxes: list[Box]
) -> Box | None:
    """Paint a tag where none is yet; None if a few tries found no room."""
    size = canvas.shape[0]
    tag = _tag(rng, pattern, FRAME_COLOURS[colour], level, size)
    side = tag.shape[0]
    for _ in range(50):
        x, y = (int(value) for value in rng.integers(0, size - side + 1, size=2))
        box = (x, y, x + side, y + side)
        if all(_apart(box, other) for other in boxes):
            canvas[y : y + side, x : x + side] = tag
            boxes.append(box)
            return box
    return None


def _apart(a: Box, b: Box) -> bool:
    gap = 2 * _FRAME
    return a[2] + gap <= b[0] or b[2] + gap <= a[0] or a[3] + gap <= b[1] or b[3] + gap <= a[1]


def _tag(
    rng: np.random.Generator, pattern: str, colour: tuple[int, int, int], level: Difficulty, size: int
) -> RGBArray:
    stripe = _HARD_STRIPE if level == "hard" else size * 3 // 256
    frame = _FRAME if level == "hard" else stripe
    side = _HARD_CELLS * stripe
    y, x = np.indices((side, side)) + rng.integers(0, 2 * stripe, size=2)[:, None, None]
    # An even number of whole stripes: every pattern has exactly half its pixels bright, so a blurred tag tells nothing.
    bright = {
        "horizontal stripes": y // stripe % 2,
        "vertical stripes": x // stripe % 2,
        "diagonal stripes": (x + y) // stripe % 2,
        "checkerboard": (x // stripe + y // stripe) % 2,
    }[pattern]
    tag = np.empty((side + 2 * frame, side + 2 * frame, 3), dtype=np.uint8)
    tag[:] = colour
    tag[frame:-frame, frame:-frame] = np.where(bright == 1, 240, 16)[..., None]
    return tag


def _encode(canvas: RGBArray) -> bytes:
    buffer = io.BytesIO()
    # Full chroma and light quantisation keep the thin stripes and the pure frame colours; PNG would take 3x the time.
    Image.fromarray(canvas).save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()
