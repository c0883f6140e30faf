"""One tool turn: its calls run in order in the episode's runtime, within the budgets that are left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvision_env.config import Limits
from pyvision_env.progress import Progress
from pyvision_env.types import FetchFrames, RunCode, ToolAction, ToolCalls, ToolResult

if TYPE_CHECKING:
    from pyvision_env.sandbox.interface import EpisodeLike

_LEAST_SECONDS = 0.1


def run_tools(
    runtime: EpisodeLike, action: ToolAction, progress: Progress, limits: Limits
) -> tuple[list[ToolResult], list[str]]:
    """Run the calls of a turn until one fails, and count them in ``progress``.

    Returns:
        The results of the calls that ran, and the runtime's names of all their images in order.

    Raises:
        SandboxError: If the runtime cannot go on.
    """
    results: list[ToolResult] = []
    labels: list[str] = []
    seconds = limits.code_timeout_s
    for call in action.calls if isinstance(action, ToolCalls) else (action,):
        room = max(0, min(limits.max_images_per_turn - len(labels), progress.images_left))
        result = _run_one(runtime, call, seconds, room)
        results.append(result)
        labels += new_labels(runtime, len(result.images))
        progress.add_images(result.images)
        progress.tool_calls += 1
        progress.state_lost = progress.state_lost or result.state_lost
        if result.error is not None:
            progress.failed_calls += 1
            progress.tool_error = result.error
            break
        # One turn has one time budget, however many calls it makes.
        seconds = max(_LEAST_SECONDS, seconds - result.elapsed_s)
    return results, labels


def new_labels(runtime: EpisodeLike, count: int) -> list[str]:
    """The runtime's names of the last ``count`` images it bound."""
    return [f"image_clue_{k}" for k in range(runtime.image_count - count, runtime.image_count)]


def _run_one(runtime: EpisodeLike, call: RunCode | FetchFrames, seconds: float, room: int) -> ToolResult:
    if isinstance(call, RunCode):
        return runtime.run(call.blocks, timeout=seconds, max_images=room)
    return runtime.frames(
        video=call.video,
        times=call.times,
        indices=call.indices,
        start=call.start,
        end=call.end,
        num=call.num,
        max_images=room,
    )
