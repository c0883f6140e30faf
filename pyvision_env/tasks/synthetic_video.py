"""A needle in a video: a white card shows for a moment in one of six coloured scenes; count the dots on it.

The hard card shows for 6 to 10 frames and in none of 8 frames spread evenly over the clip; the easy one shows for its
whole scene, which some of those frames always hit. Other scenes show cards too, with the wrong options' numbers, so the
scene that the question names has to be found first: frames a second apart tell the scenes by colour, then that scene's
frames are searched. Code can solve every task with NumPy and SciPy: the median hue of a frame names its scene, white
pixels give the card, and the dark blobs inside it are the dots.
"""

from __future__ import annotations

import colorsys
import functools
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pyvision_env.errors import TaskError
from pyvision_env.tasks.task_set import TaskSet
from pyvision_env.types import RGBArray, Task, VideoSource

Difficulty = Literal["easy", "hard"]
Span = tuple[int, int]

SCENE_HUES: dict[str, float] = {"red": 0, "yellow": 60, "green": 120, "cyan": 180, "blue": 240, "magenta": 300}
"""Hue of each scene in degrees."""

EASY_SHARE = 0.4
"""Share of easy tasks where the difficulty is drawn."""

_WIDTH, _HEIGHT, _FRAMES, _FPS = 320, 192, 256, 16
_SHORTEST_SCENE = 34  # longer than the gap between two of eight evenly spread frames
_CARD = 72
_CELLS = 3  # dots stand on a 3x3 grid
_SPEED = 2  # pixels a frame by which a scene's texture drifts


@dataclass(frozen=True, slots=True)
class _Card:
    """A card on screen during ``span`` (end excluded), its corner at ``x``, ``y``."""

    span: Span
    x: int
    y: int
    picture: RGBArray


def make_video_task(seed: int, *, difficulty: Difficulty | None = None) -> Task:
    """Make one task; equal arguments give an equal task, byte for byte (for one build of PyAV).

    Args:
        seed: Non-negative seed of everything drawn.
        difficulty: ``easy``, ``hard`` or None to draw it (40% easy).

    Returns:
        A multiple-choice task with one H.264 video of 256 frames at 16 frames per second, 320x192 pixels. ``metadata``
        holds ``target_frames`` (first, end excluded), ``target_box`` (x0, y0, x1, y1), ``scene``, ``scenes`` (colour,
        first frame, end), ``dots``, ``difficulty``, ``fps`` and ``num_frames``.

    Raises:
        TaskError: An argument is out of range.
    """
    if seed < 0 or difficulty not in (None, "easy", "hard"):
        raise TaskError(
            f"expected seed >= 0 and difficulty None, 'easy' or 'hard', got seed={seed}, difficulty={difficulty!r}"
        )
    rng = np.random.default_rng(seed)
    drawn: Difficulty = "easy" if rng.random() < EASY_SHARE else "hard"
    level = difficulty or drawn
    colours = [str(colour) for colour in rng.permutation(list(SCENE_HUES))]
    spans = _scene_spans(rng, len(colours))
    numbers = [int(number) for number in rng.permutation(np.arange(2, 10))[:4]]
    # Three other scenes show the three wrong numbers.
    shown = [int(scene) for scene in rng.permutation(len(colours))[:4]]
    cards = [_card(rng, spans[scene], number, level) for scene, number in zip(shown, numbers, strict=True)]
    target, dots, scene = cards[0], numbers[0], colours[shown[0]]
    options = tuple(str(number) for number in sorted(numbers))
    return Task(
        id=_task_id(seed, difficulty),
        question=(
            f"The video changes between scenes of different colours. At some point in the {scene} scene a white card "
            "with black dots is on screen. How many dots are on that card?"
        ),
        answer="ABCD"[options.index(str(dots))],
        videos=(VideoSource(data=_encode(_frames(rng, colours, spans, cards))),),
        options=options,
        grader="choice",
        data_source="synthetic_video",
        ability=f"video_search_{level}",
        metadata={
            "target_frames": target.span,
            "target_box": (target.x, target.y, target.x + _CARD, target.y + _CARD),
            "scene": scene,
            "scenes": tuple((colour, *span) for colour, span in zip(colours, spans, strict=True)),
            "dots": dots,
            "difficulty": level,
            "fps": _FPS,
            "num_frames": _FRAMES,
        },
    )


class VideoTasks(TaskSet):
    """``n`` needle-in-a-video tasks, made on access; task ``i`` is ``make_video_task(seed * 1_000_003 + i)``.

    Args:
        n: Number of tasks.
        seed: Non-negative; sets of different seeds share no task as long as they hold up to a million.
        difficulty: ``easy``, ``hard`` or None for 40% easy.
    """

    def __init__(self, n: int = 1_000, seed: int = 0, *, difficulty: Difficulty | None = None) -> None:
        if n < 1 or seed < 0:
            raise TaskError(f"expected n >= 1 and seed >= 0, got n={n}, seed={seed}")
        start = seed * 1_000_003
        ids = [_task_id(start + index, difficulty) for index in range(n)]
        self._init(ids, functools.partial(_make, start, difficulty), (), cache=True)


def _make(start: int, difficulty: Difficulty | None, index: int) -> Task:
    return make_video_task(start + index, difficulty=difficulty)


def _task_id(seed: int, difficulty: Difficulty | None) -> str:
    return f"video-{difficulty or 'mixed'}-{seed}"


def _scene_spans(rng: np.random.Generator, count: int) -> list[Span]:
    spare = _FRAMES - count * _SHORTEST_SCENE
    lengths = _SHORTEST_SCENE + rng.multinomial(spare, np.full(count, 1 / count))
    ends = [int(end) for end in np.cumsum(lengths)]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _evenly_spread(count: int = 8) -> set[int]:
    """Frames that evenly spread sampling takes: with both ends, and the middles of equal parts."""
    ends = np.linspace(0, _FRAMES - 1, count).round()
    middles = (np.arange(count) + 0.5) * _FRAMES / count
    return {int(frame) for frame in (*ends, *middles)}


def _card(rng: np.random.Generator, scene: Span, number: int, level: Difficulty) -> _Card:
    span = scene if level == "easy" else _short_span(rng, scene)
    x = int(rng.integers(8, _WIDTH - _CARD - 8))
    y = int(rng.integers(8, _HEIGHT - _CARD - 8))
    return _Card(span, x, y, _card_picture(rng, number))


def _short_span(rng: np.random.Generator, scene: Span) -> Span:
    """A few frames inside the scene, away from its ends and from evenly spread frames."""
    spread = _evenly_spread()
    spans = [
        (first, first + length)
        for length in range(6, 11)
        for first in range(scene[0] + 2, scene[1] - 2 - length)
        if spread.isdisjoint(range(first, first + length))
    ]
    return spans[int(rng.integers(len(spans)))]


def _card_picture(rng: np.random.Generator, number: int) -> RGBArray:
    picture = np.full((_CARD, _CARD, 3), 245, dtype=np.uint8)
    cell = _CARD // _CELLS
    y, x = np.indices((cell, cell)) - (cell - 1) / 2
    dot = x * x + y * y <= (0.3 * cell) ** 2
    for place in rng.permutation(_CELLS * _CELLS)[:number]:
        row, column = divmod(int(place), _CELLS)
        picture[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell][dot] = 12
    return picture


def _frames(rng: np.random.Generator, colours: list[str], spans: list[Span], cards: list[_Card]) -> NDArray[np.uint8]:
    """Draw all frames, uint8 (frames, height, width, 3)."""
    frames = np.empty((_FRAMES, _HEIGHT, _WIDTH, 3), dtype=np.uint8)
    for colour, (first, end) in zip(colours, spans, strict=True):
        texture = _texture(rng, SCENE_HUES[colour], _WIDTH + _SPEED * (end - first))
        for frame in range(first, end):
            left = _SPEED * (frame - first)
            frames[frame] = texture[:, left : left + _WIDTH]
    for card in cards:
        frames[slice(*card.span), card.y : card.y + _CARD, card.x : card.x + _CARD] = card.picture
    return frames


def _texture(rng: np.random.Generator, hue: float, width: int) -> RGBArray:
    """A wide strip of one hue with soft waves of brightness and some darker pillars; the frame pans along it."""
    x, y = np.arange(width, dtype=np.float32)[None, :], np.arange(_HEIGHT, dtype=np.float32)[:, None]
    waves = np.zeros((_HEIGHT, width), dtype=np.float32)
    for _ in range(3):
        fx, fy, phase = rng.uniform(0.01, 0.05), rng.uniform(0.01, 0.05), rng.uniform(0, 6.3)
        waves += np.sin(np.float32(fx) * x + np.float32(fy) * y + np.float32(phase))
    brightness = 0.65 + 0.06 * waves
    for left in rng.integers(0, width, size=width // 80):
        brightness[rng.integers(20, _HEIGHT - 60) :, left : left + int(rng.integers(12, 40))] *= 0.75
    colour = np.array(colorsys.hsv_to_rgb(hue / 360, 0.85, 1.0), dtype=np.float32)
    texture: RGBArray = (255 * brightness[..., None].clip(0, 1) * colour).astype(np.uint8)
    return texture


def _encode(frames: NDArray[np.uint8]) -> bytes:
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=_FPS)
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        stream.gop_size = 48
        # One thread: the bytes must not depend on the number of cores.
        stream.options = {"preset": "ultrafast", "crf": "24", "threads": "1"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()
