"""What a person sees of an episode: the transcript as text, and one fixed-size picture of its latest turn."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pyvision_env.types import Answer, Observation, RGBArray, Turn

WIDTH, HEIGHT = 960, 720
"""Size of the rendered picture in pixels."""
_MARGIN, _LINE, _FONT_SIZE = 16, 17, 14
_COLUMNS = 112
_STRIP = 240
_INK, _PAPER, _RULE = (30, 30, 30), (252, 252, 250), (200, 200, 200)
_HEADING = (20, 80, 160)


def transcript(first: Observation, turns: Sequence[Turn]) -> str:
    """The episode so far as text; images stand as their names and sizes."""
    parts = [f"[question]\n{_with_images(first)}"]
    for number, turn in enumerate(turns, start=1):
        parts.append(f"[turn {number}: model]\n{turn.action_text}")
        parts.append(f"[turn {number}: environment, reward {turn.reward:g}]\n{_with_images(turn.observation)}")
    if turns and (turns[-1].terminated or turns[-1].truncated):
        parts.append(f"[end: {turns[-1].info['end_reason']}]")
    return "\n\n".join(parts)


def _with_images(observation: Observation) -> str:
    names = [
        f"<{label} {image.shape[1]}x{image.shape[0]}>"
        for label, image in zip(observation.labels, observation.images, strict=True)
    ]
    return "\n".join([observation.text, *([" ".join(names)] if names else [])])


def picture(first: Observation, turns: Sequence[Turn]) -> RGBArray:
    """The question, the latest action, what came back and the latest images.

    Returns:
        uint8 array of shape (HEIGHT, WIDTH, 3).
    """
    canvas = Image.new("RGB", (WIDTH, HEIGHT), _PAPER)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=_FONT_SIZE)
    strip_top = HEIGHT - _STRIP - _MARGIN
    blocks = [("Question", first.text, 8)]
    if turns:
        last = turns[-1]
        name = "Answer" if isinstance(last.action, Answer) else f"Turn {len(turns)}"
        blocks += [(name, last.action_text, 10), (f"Result, reward {last.reward:g}", last.observation.text, 9)]
    top = _MARGIN
    for heading, text, lines in blocks:
        draw.text((_MARGIN, top), heading, font=font, fill=_HEADING)
        top += _LINE
        for line in _wrap(text, lines):
            if top + _LINE > strip_top:
                break
            draw.text((_MARGIN, top), line, font=font, fill=_INK)
            top += _LINE
        top += _LINE // 2
    draw.line((_MARGIN, strip_top - 4, WIDTH - _MARGIN, strip_top - 4), fill=_RULE)
    _paste_images(canvas, _latest_images(first, turns), strip_top)
    return np.array(canvas, dtype=np.uint8)


def _wrap(text: str, most: int) -> list[str]:
    # Lone surrogates and control characters cannot be drawn.
    clean = "".join(c if c == "\n" or c.isprintable() else "�" for c in text)
    lines = [part for line in clean.splitlines() for part in (textwrap.wrap(line, _COLUMNS) or [""])]
    return lines if len(lines) <= most else [*lines[: most - 1], "..."]


def _latest_images(first: Observation, turns: Sequence[Turn]) -> tuple[RGBArray, ...]:
    for turn in reversed(turns):
        if turn.observation.images:
            return turn.observation.images
    return first.images


def _paste_images(canvas: Image.Image, images: Sequence[RGBArray], top: int) -> None:
    left = _MARGIN
    for pixels in images:
        if WIDTH - _MARGIN - left < _STRIP // 4:
            break
        thumbnail = Image.fromarray(pixels)
        thumbnail.thumbnail((WIDTH - _MARGIN - left, _STRIP))
        canvas.paste(thumbnail, (left, top))
        left += thumbnail.width + _MARGIN // 2
