"""The words of an observation: the question with its media, and what the tools gave back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyvision_env.lettered import lists_options
from pyvision_env.types import Task, ToolResult, VideoInfo

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class HeldImage:
    """An image in the runtime: its name there, its size, and its size in the prompt (None where it is not shown)."""

    label: str
    width: int
    height: int
    shown: tuple[int, int] | None = None


def question_text(task: Task, images: Sequence[HeldImage], videos: Sequence[VideoInfo]) -> str:
    """The question, its options where its wording lacks them, and a note of every image and video in the runtime."""
    parts = [task.question]
    if task.options and not lists_options(task.question, task.options):
        parts.append("\n".join(f"{LETTERS[i]}. {option}" for i, option in enumerate(task.options)))
    if images:
        parts.append("\n".join(["Images in the Python runtime:", *map(_image_line, images)]))
    if videos:
        lines = [_video_line(index, video) for index, video in enumerate(videos)]
        parts.append("\n".join(["Videos in the Python runtime:", *lines]))
    return "\n\n".join(parts)


def _image_line(image: HeldImage) -> str:
    size = f"- {image.label}: {image.width}x{image.height} pixels"
    if image.shown is None:
        return f"{size}, not shown; display it with code to see it"
    if image.shown == (image.width, image.height):
        return f"{size}, shown here"
    return f"{size}, shown here at {image.shown[0]}x{image.shown[1]}"


def _video_line(index: int, video: VideoInfo) -> str:
    return (
        f"- video_clue_{index}: {video.width}x{video.height} pixels, {video.duration_s:.2f} seconds, "
        f"{video.fps:.2f} frames per second, {video.num_frames} frames"
    )


def result_text(results: Sequence[ToolResult], labels: Sequence[str], max_chars: int) -> str:
    """What the calls of one turn gave back, in order, cut at ``max_chars`` characters of tool text.

    Args:
        results: One per call that ran.
        labels: Names of all images of all results, in order.
        max_chars: Bound of the tool text; the notes this function adds come on top.
    """
    texts = []
    for result in results:
        text = result.text.strip("\n")
        if result.error is not None and result.error not in text:
            text = f"{text}\n{result.error}" if text else result.error
        if text:
            texts.append(text)
    body = "\n".join(texts)
    # The runtime cut each result by itself; several together may still be too long.
    if len(texts) > 1 and len(body) > max_chars:
        body = f"{body[:max_chars]}\n[cut at {max_chars} characters]"
    notes = [body] if body else []
    if labels:
        # Without sizes: what is shown was scaled to the pixel budget, what is bound was not.
        notes.append(f"New images: {', '.join(labels)}")
    return "\n".join(notes) or "The call ran and gave no output."


def budget_notes(turns_left: int, images_left: int) -> list[str]:
    """What the model should know when a budget is used up."""
    notes = []
    if images_left == 0:
        notes.append("The image budget is used up: tools give text only from now on.")
    if turns_left == 0:
        notes.append("No tool turn is left: the next turn must be the final answer.")
    return notes
