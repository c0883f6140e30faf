"""An episode as chat messages in the shape of the OpenAI API: one place for training and for benchmarking."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pyvision_env.media import data_url
from pyvision_env.protocol.content import frames_arguments
from pyvision_env.types import Answer, FetchFrames, Observation, RGBArray, RunCode, ToolCalls, Turn

ImagePart = Callable[[RGBArray], dict[str, Any]]
"""Turns a picture into one part of a message's content."""


def image_url_part(image: RGBArray) -> dict[str, Any]:
    """A picture as a PNG data URL, as OpenAI-compatible servers take it."""
    return {"type": "image_url", "image_url": {"url": data_url(image)}}


def image_placeholder(image: RGBArray) -> dict[str, Any]:
    """A bare ``{"type": "image"}``, for chat templates that get the pixels separately (``all_images``, same order)."""
    return {"type": "image"}


def build_messages(
    first: Observation,
    turns: Sequence[Turn],
    system_prompt: str | None = None,
    *,
    image_part: ImagePart = image_url_part,
    native_tools: bool = False,
) -> list[dict[str, Any]]:
    """Write an episode as chat messages: system, user (the question), then assistant and user in turn.

    Each message but an assistant's has a list of parts as its content. Before each image stands its name in the
    runtime, ``<image_clue_k>``, in the text. An assistant's message is the model's raw text, unchanged. A message
    depends on its own turn only: the messages of a longer episode begin with those of a shorter one. The observation
    after the final turn is left out, since no model reads it.

    Args:
        first: The observation of ``reset``.
        turns: The turns so far.
        system_prompt: The system message; None for no such message.
        image_part: How a picture becomes a part.
        native_tools: Write well-formed actions as ``tool_calls`` and their results as ``tool`` messages, with the
            pictures in a user message after them (``tool`` messages hold text only).
    """
    messages: list[dict[str, Any]] = []
    if system_prompt is not None:
        messages.append({"role": "system", "content": [{"type": "text", "text": system_prompt}]})
    messages.append({"role": "user", "content": _parts(first, image_part)})
    for number, turn in enumerate(turns):
        calls = _tool_calls(turn, number) if native_tools else []
        ended = turn.terminated or turn.truncated
        if not calls:
            messages.append({"role": "assistant", "content": turn.action_text})
            if not ended:
                messages.append({"role": "user", "content": _parts(turn.observation, image_part)})
            continue
        messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        if not ended:
            messages += _tool_results(turn.observation, calls, image_part)
    return messages


def all_images(first: Observation, turns: Iterable[Turn]) -> list[RGBArray]:
    """The pictures of ``build_messages``, in the order of their parts."""
    images = list(first.images)
    for turn in turns:
        if not (turn.terminated or turn.truncated):
            images += turn.observation.images
    return images


def _parts(observation: Observation, image_part: ImagePart) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": observation.text}]
    return parts + _image_parts(observation, image_part)


def _image_parts(observation: Observation, image_part: ImagePart) -> list[dict[str, Any]]:
    parts = []
    for label, image in zip(observation.labels, observation.images, strict=True):
        parts.append({"type": "text", "text": f"<{label}>"})
        parts.append(image_part(image))
    return parts


def _tool_calls(turn: Turn, number: int) -> list[dict[str, Any]]:
    """The turn's action as OpenAI tool calls; empty for a malformed one."""
    action = turn.action
    if isinstance(action, Answer):
        called = [("answer", {"text": action.raw or action.text})]
    else:
        called = []
        for call in action.calls if isinstance(action, ToolCalls) else (action,):
            if isinstance(call, RunCode):
                called += [("python", {"code": block}) for block in call.blocks]
            elif isinstance(call, FetchFrames):
                called.append(("fetch_frames", frames_arguments(call)))
    return [
        {
            "id": f"call_{number}_{index}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for index, (name, arguments) in enumerate(called)
    ]


def _tool_results(
    observation: Observation, calls: Sequence[dict[str, Any]], image_part: ImagePart
) -> list[dict[str, Any]]:
    # The API wants one tool message for each call; the whole observation stands in the last one.
    texts = ["See the result of the last call."] * (len(calls) - 1) + [observation.text]
    messages: list[dict[str, Any]] = [
        {"role": "tool", "tool_call_id": call["id"], "content": text} for call, text in zip(calls, texts, strict=True)
    ]
    if observation.images:
        messages.append({"role": "user", "content": _image_parts(observation, image_part)})
    return messages
