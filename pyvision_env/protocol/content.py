"""What the three kinds of action may hold, whichever way they arrive, and how the parts of one turn make one action.

A reader gives back either what it read or an ``Invalid`` whose reason the model will see.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from pyvision_env.types import Action, Answer, FetchFrames, Invalid, RunCode, ToolCalls

FRAMES_EXAMPLE = '{"video": 0, "times": [1.5, 3.0]}'

_BOX = re.compile(r"\\boxed\s*+\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_FENCE = re.compile(r"\s*+(`{3,}+)")
_FENCE_LINE = re.compile(r"[ \t]*+([A-Za-z][\w+#.-]*+)?[ \t]*+\r?\n")
_PYTHON = re.compile(r"i?python[\d.]*|py\d?", re.IGNORECASE)
# A language word on the same line as the code; what follows must be able to start an expression, so that code about a
# variable of that name ("py = 3") is left alone.
_INLINE_LANGUAGE = re.compile(r"(?:python3?|py)[ \t]+(?=[\w#@(\"'\[{])", re.IGNORECASE)

_WAYS = ("times", "indices", "num")
_KEYS = ("video", "times", "indices", "start", "end", "num")


def show(value: object, limit: int = 60) -> str:
    """``repr`` of what came, cut so that a reason stays one line."""
    # reprlib because model-made JSON may be nested deeper than repr can follow.
    text = repr(value[: limit + 1]) if isinstance(value, str) else reprlib.repr(value)
    return text if len(text) <= limit else text[:limit] + "..."


def opening_fence(text: str, position: int = 0) -> re.Match[str] | None:
    """The code fence, three or more backticks, that ``text`` starts with at ``position`` after white space."""
    return _FENCE.match(text, position)


def fenced_code(inside: str) -> str | Invalid:
    """The code of a fence, given everything between the opening and the closing backticks."""
    line = _FENCE_LINE.match(inside)
    if line is None:
        inside = inside.lstrip(" \t")
        word = _INLINE_LANGUAGE.match(inside)
        code = inside[word.end() :] if word else inside
    elif line[1] is not None and _PYTHON.fullmatch(line[1]) is None:
        return Invalid(
            f"The runtime runs Python only: expected a ```python fence, but the fence says {show(line[1], 30)}."
        )
    else:
        code = inside[line.end() :]
    return read_code(code.removesuffix("\n"))


def read_code(code: str) -> str | Invalid:
    """Code as it is, unless there is none."""
    if not code.strip():
        return Invalid("Expected Python code to run, but the code block is empty.")
    return code


def read_unfenced_code(code: str) -> str | Invalid:
    """Code that needs no fence, without the one that models trained on the text grammar put around it all the same."""
    fence = opening_fence(code)
    body = code.rstrip()
    if fence is None or len(body) < fence.end() + len(fence[1]) or not body.endswith(fence[1]):
        return read_code(code)
    return fenced_code(body[fence.end() : -len(fence[1])])


def boxed(text: str) -> str | None:
    r"""The stripped content of the last ``\boxed{...}`` with balanced braces, or None: there is none, it stays open."""
    boxes = [box.end() for box in _BOX.finditer(text)]
    if not boxes:
        return None
    depth = 1
    for brace in _BRACE.finditer(text, boxes[-1]):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[boxes[-1] : brace.start()].strip()
    return None


def read_answer(raw: str) -> Answer | Invalid:
    r"""An answer from its whole content: what the last ``\boxed{}`` holds, else the stripped content."""
    text = boxed(raw)
    if text is None:
        if _BOX.search(raw):
            return Invalid(r"Expected \boxed{...} in the answer to be closed, but its braces do not balance.")
        text = raw.strip()
    if not text:
        return Invalid(r"Expected a final answer such as \boxed{B}, but the answer is empty.")
    return Answer(text=text, raw=raw)


def read_frames_json(content: str) -> FetchFrames | Invalid:
    """A frame request from JSON text."""
    try:
        value = json.loads(content, parse_constant=_reject_constant, object_pairs_hook=_unique_keys)
    except RecursionError:
        return _bad_frames("it is nested too deeply")
    except ValueError as error:
        found = "nothing" if not content.strip() else show(content.strip())
        return _bad_frames(f"{found} came ({show(str(error)).strip(chr(39))})")
    return read_frames(value)


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        raise ValueError("a key is given twice")
    return keys


def _bad_frames(found: str) -> Invalid:
    return Invalid(f"A frame request is JSON such as {FRAMES_EXAMPLE}, but {found}.")


def read_frames(value: object) -> FetchFrames | Invalid:
    """A frame request from a JSON object.

    Keys: ``video`` (0 where missing) and one way of choosing: ``times`` (a list of seconds), ``indices`` (a list of
    whole numbers) or ``num`` (frames spread evenly over ``start``..``end`` seconds). A key that is null counts as left
    out. Whether the frames exist is the video's business, not the grammar's.
    """
    if not isinstance(value, Mapping):
        return _bad_frames(f"{show(value)} is not an object")
    unknown = [key for key in value if key not in _KEYS]
    if unknown:
        return _bad_frames(f"the key {show(unknown[0])} is none of {', '.join(_KEYS)}")
    given = {key: item for key, item in value.items() if item is not None}

    video = given.get("video", 0)
    if not _is_whole(video) or video < 0:
        return _bad_frames(f'"video" is {show(video)}, not the number of a video (0, 1, ...)')
    ways = [way for way in _WAYS if way in given]
    if len(ways) != 1:
        found = f"it has {' and '.join(ways)}" if ways else "it has none of them"
        return _bad_frames(f'exactly one of "times", "indices" and "num" is needed and {found}')
    for edge in ("start", "end"):
        if edge in given and ways != ["num"]:
            return _bad_frames(f'"{edge}" goes with "num" only')
        if edge in given and not _is_seconds(given[edge]):
            return _bad_frames(f'"{edge}" is {show(given[edge])}, not a number of seconds')

    chosen = given[ways[0]]
    if ways == ["num"]:
        if not _is_whole(chosen) or chosen < 1:
            return _bad_frames(f'"num" is {show(chosen)}, not a whole number of at least 1')
        start, end = (None if given.get(edge) is None else float(given[edge]) for edge in ("start", "end"))
        if start is not None and end is not None and end < start:
            return _bad_frames(f'"end" ({end:g} s) lies before "start" ({start:g} s)')
        return FetchFrames(video=video, start=start, end=end, num=chosen)
    fits, kind = (_is_seconds, "seconds") if ways == ["times"] else (_is_whole, "whole numbers")
    if not isinstance(chosen, list | tuple) or not chosen:
        return _bad_frames(f'"{ways[0]}" is {show(chosen)}, not a list of {kind}')
    wrong = [item for item in chosen if not fits(item)]
    if wrong:
        return _bad_frames(f'"{ways[0]}" holds {show(wrong[0])} and takes {kind} only')
    if ways == ["times"]:
        return FetchFrames(video=video, times=tuple(float(item) for item in chosen))
    return FetchFrames(video=video, indices=tuple(chosen))


def _is_whole(value: object) -> bool:
    # The bound keeps a number with thousands of digits from reaching code that converts it to a C integer.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53


def _is_seconds(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def frames_arguments(action: FetchFrames) -> dict[str, Any]:
    """The JSON object that asks for ``action``; ``read_frames`` undoes it."""
    values = {key: getattr(action, key) for key in _KEYS}
    return {key: list(item) if isinstance(item, tuple) else item for key, item in values.items() if item is not None}


def one_turn(parts: Sequence[str | FetchFrames | Answer | Invalid], max_blocks: int) -> Action | None:
    """One action from the parts of a turn in their order (code is ``str``); None if there is no part.

    An answer ends the episode, so the last one wins over everything else in the turn: calls beside it are not run,
    since nobody would see their results, and earn nothing. Otherwise one malformed part makes the whole turn invalid:
    half-run turns would be hard to explain to the model. Neighbouring code blocks become one ``RunCode``.
    """
    for part in reversed(parts):
        if isinstance(part, Answer):
            return part
    if len(parts) > max_blocks:
        return Invalid(f"Expected at most {max_blocks} tool calls in one turn, but {len(parts)} came; none was run.")
    calls: list[RunCode | FetchFrames] = []
    for part in parts:
        if isinstance(part, Invalid):
            return part
        if isinstance(part, FetchFrames):
            calls.append(part)
        elif isinstance(part, str):
            if calls and isinstance(calls[-1], RunCode):
                calls[-1] = RunCode((*calls[-1].blocks, part))
            else:
                calls.append(RunCode((part,)))
    if not calls:
        return None
    return calls[0] if len(calls) == 1 else ToolCalls(tuple(calls))
