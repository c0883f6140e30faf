"""The same actions as values of the Gymnasium space ``OneOf((Unicode, Dict(video, times), Unicode))``."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from pyvision_env.errors import UserError
from pyvision_env.protocol.content import read_answer, read_frames, read_unfenced_code, show
from pyvision_env.types import Action, Answer, FetchFrames, Invalid, RunCode

CODE, FRAMES, ANSWER = 0, 1, 2


def from_structured(value: Any) -> Action:
    r"""Read a structured action.

    Args:
        value: ``(0, code)``, ``(1, {"video": int, "times": seconds})`` or ``(2, answer)``. ``times`` is a sequence or
            array of numbers; the answer may use ``\boxed{}``.

    Returns:
        The action; ``Invalid`` for a well-typed value that asks for nothing (blank text, no times) or for a time that
        is not finite.

    Raises:
        UserError: If the value is not of that shape.
    """
    if not isinstance(value, tuple | list) or len(value) != 2 or not isinstance(value[0], int | np.integer):
        raise UserError(f"Expected a structured action (index, value) with index 0, 1 or 2, but got {show(value)}")
    index, payload = int(value[0]), value[1]
    if index in (CODE, ANSWER):
        if not isinstance(payload, str):
            raise UserError(f"Expected text in the structured action ({index}, text), but got {show(payload)}")
        if index == ANSWER:
            return read_answer(payload)
        code = read_unfenced_code(payload)
        return code if isinstance(code, Invalid) else RunCode((code,))
    if index == FRAMES:
        return _frames(payload)
    raise UserError(f"Expected index 0 (code), 1 (frames) or 2 (answer) in a structured action, but got {index}")


def _frames(payload: Any) -> Action:
    expected = 'Expected {"video": int, "times": seconds} in the structured action (1, frames)'
    if not isinstance(payload, Mapping) or set(payload) != {"video", "times"}:
        raise UserError(f"{expected}, but got {show(payload)}")
    try:
        video = operator.index(payload["video"])
        times = np.asarray(payload["times"], dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise UserError(f"{expected}, but got {show(payload)}") from error
    return read_frames({"video": video, "times": times.tolist()})


def to_structured(action: Action) -> tuple[int, Any]:
    """Say an action as an element of the space: ``from_structured(to_structured(action)) == action``.

    Raises:
        UserError: If the space cannot carry it: several calls in one turn, frames not chosen by times, ``Invalid``.
    """
    if isinstance(action, RunCode) and len(action.blocks) == 1:
        return CODE, action.blocks[0]
    if isinstance(action, FetchFrames) and action.times is not None:
        times = tuple(np.asarray(time, dtype=np.float64) for time in action.times)
        return FRAMES, {"video": action.video, "times": times}
    if isinstance(action, Answer):
        return ANSWER, action.raw or action.text
    raise UserError(
        "A structured action is one code block, one frame request by times or an answer, "
        f"but got {show(action)}; use action_mode='text' for the others"
    )
