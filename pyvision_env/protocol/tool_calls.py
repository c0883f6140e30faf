"""The same actions as OpenAI function calls: the tool definitions and the reader of a message's ``tool_calls``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pyvision_env.errors import UserError
from pyvision_env.protocol.content import (
    one_turn,
    read_answer,
    read_frames,
    read_frames_json,
    read_unfenced_code,
    show,
)
from pyvision_env.types import Action, Answer, FetchFrames, Invalid


def _tool(name: str, description: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS: list[dict[str, Any]] = [
    _tool(
        "python",
        "Run Python in the persistent runtime that holds the images (image_clue_0, ...) and videos (video_clue_0, ...)."
        " Printed text and shown figures come back.",
        {"code": {"type": "string", "description": "Python source."}},
        ["code"],
    ),
    _tool(
        "fetch_frames",
        "Fetch frames of a video. Choose them in exactly one way: times, indices, or num with optional start and end.",
        {
            "video": {"type": "integer", "minimum": 0, "description": "Number of the video; 0 is the first."},
            "times": {"type": "array", "items": {"type": "number"}, "description": "Times in seconds."},
            "indices": {"type": "array", "items": {"type": "integer"}, "description": "Frame numbers."},
            "start": {"type": "number", "description": "Start of the span in seconds; the video's start if left out."},
            "end": {"type": "number", "description": "End of the span in seconds; the video's end if left out."},
            "num": {"type": "integer", "minimum": 1, "description": "Frames to spread evenly over the span."},
        },
        [],
    ),
    _tool(
        "answer",
        "Give the final answer. It ends the episode.",
        {"text": {"type": "string", "description": "The answer and nothing else, such as B or 42."}},
        ["text"],
    ),
]
"""Tool definitions for the ``tools`` argument of an OpenAI-compatible chat request."""

_FIELDS = {"python": "code", "answer": "text"}


def parse_tool_calls(tool_calls: Sequence[Mapping[str, Any]], max_blocks: int = 8) -> Action:
    """Read the action in a message's tool calls; several in one message combine as blocks of text do.

    Args:
        tool_calls: Items ``{"id", "type": "function", "function": {"name", "arguments": JSON text}}``; arguments that
            a server has already decoded are accepted too.
        max_blocks: Tool calls one turn may hold; more make the turn invalid.

    Returns:
        The action; ``Invalid`` when the model named an unknown tool, gave malformed arguments or called nothing.

    Raises:
        UserError: If an item is not of that shape, which no model can cause.
    """
    names = ", ".join(tool["function"]["name"] for tool in TOOLS)
    action = one_turn([_read(call, names) for call in tool_calls], max_blocks)
    return action or Invalid(f"Expected a call of one of the tools {names}, but no tool was called.")


def _read(call: Mapping[str, Any], names: str) -> str | FetchFrames | Answer | Invalid:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UserError(
            'Expected a tool call as a mapping {"function": {"name": ..., "arguments": ...}}, '
            f"but got {show(call)}; convert client objects with model_dump()"
        )
    name, arguments = function["name"], function.get("arguments")
    if name == "fetch_frames":
        return read_frames_json(arguments) if isinstance(arguments, str) else read_frames(arguments)
    if name not in _FIELDS:
        return Invalid(f"Expected a call of one of the tools {names}, but {show(name)} was called.")
    content = _only_text(arguments, name)
    if isinstance(content, Invalid):
        return content
    return read_answer(content) if name == "answer" else read_unfenced_code(content)


def _only_text(arguments: object, name: str) -> str | Invalid:
    field = _FIELDS[name]
    expected = f'The tool {name} takes {{"{field}": "..."}} as JSON'
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            return Invalid(f"{expected}, but the arguments cannot be read: {show(str(error))}.")
    if not isinstance(arguments, Mapping) or set(arguments) != {field} or not isinstance(arguments[field], str):
        return Invalid(f"{expected}, but {show(arguments)} came.")
    text: str = arguments[field]
    return text
