"""System prompts: what a model is told about the tools, the names of the media, the budgets and the answer."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from pyvision_env.config import EnvConfig

_IMAGE_EXAMPLE = "plt.imshow(image_clue_0.crop((0, 0, 200, 150)))\nplt.show()"
_VIDEO_EXAMPLE = "plt.imshow(video_clue_0[0].asnumpy())\nplt.show()"


def system_prompt(config: EnvConfig, has_images: bool, has_videos: bool, native_tools: bool = False) -> str:
    """The system prompt of an episode.

    Args:
        config: Its budgets are named.
        has_images: The task has images.
        has_videos: The task has videos.
        native_tools: The model calls the functions of ``pyvision_env.protocol.TOOLS`` instead of writing tags.
    """
    media = "images and videos" if has_images and has_videos else "videos" if has_videos else "images"
    limits = config.limits
    parts = []
    if native_tools:
        frames = "`fetch_frames` gives frames of a video without code. " if has_videos else ""
        parts.append(_text("tools").format(media=media, frames=frames))
    else:
        example = _VIDEO_EXAMPLE if has_videos and not has_images else _IMAGE_EXAMPLE
        parts.append(_text("base").format(media=media, code_example=example))
    if has_images or not has_videos:
        parts.append(_text("images"))
    if has_videos:
        parts.append(_text("videos"))
        if not native_tools:
            parts.append(_text("frames"))
    parts.append(
        _text("budgets").format(
            turns=_plural(limits.max_turns, "tool turn"),
            images=_plural(limits.max_images, "image"),
            seconds=limits.code_timeout_s,
        )
    )
    if not native_tools:
        parts.append(_text("answer"))
    return "\n\n".join(parts)


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@cache
def _text(name: str) -> str:
    return (files(__name__) / f"{name}.txt").read_text(encoding="utf-8").strip()
