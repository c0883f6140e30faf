"""Run a trace's actions again, without a model, and say where the outcome differs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from pydantic import ValidationError

from pyvision_env.config import EnvConfig
from pyvision_env.errors import TraceError
from pyvision_env.media import content_hash
from pyvision_env.trace.format import ImageRef, ObservationRecord, TurnRecord, jsonable
from pyvision_env.trace.read import Trace
from pyvision_env.types import RGBArray, Task

if TYPE_CHECKING:
    from pyvision_env.sandbox import SandboxLike

MakeEnv = Callable[[Task, EnvConfig], gymnasium.Env[dict[str, Any], Any]]

_DIFF_LINES = 12
_LINE_CHARS = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that came out otherwise.

    Attributes:
        turn: Index of the turn; None for the first observation.
        field: ``text``, ``images``, ``turns_left``, ``reward``, ``reward_terms``, ``end_reason``, ``answer``,
            ``correct`` or ``length``.
        detail: What was recorded and what came, in short; for text a unified diff.
    """

    turn: int | None
    field: str
    detail: str


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """The outcome of a replay.

    Attributes:
        episode_id: Of the trace.
        turns: Turns that were run again.
        differences: In order of appearance; text that is not deterministic (addresses, clocks) counts as different.
    """

    episode_id: str
    turns: int
    differences: tuple[Difference, ...]

    @property
    def matches(self) -> bool:
        """Whether every turn came out as recorded."""
        return not self.differences


def replay(
    trace: Trace,
    *,
    sandbox: str | SandboxLike = "auto",
    make_env: MakeEnv | None = None,
) -> ReplayReport:
    """Run the recorded actions through a fresh environment with the same task and configuration, and compare.

    Text, pixels, rewards and their terms, and the end are compared turn by turn, exactly. An unfinished trace is
    replayed as far as it goes.

    Args:
        trace: The recorded episode.
        sandbox: Where the code runs now: a kind, or a sandbox, whose own limits then hold.
        make_env: Makes another environment from the task and the configuration, such as one with a judge;
            ``sandbox`` is then not used.

    Raises:
        TraceError: If media of the trace are missing or were changed, or its configuration cannot be used.
        ConfigError: If the answer needs a judge and ``make_env`` is not given.
        InfrastructureError: If the sandbox fails.
    """
    task = trace.task()
    config = _config(trace)
    if make_env is None:
        from pyvision_env.env import PyVisionEnv

        env: gymnasium.Env[dict[str, Any], Any] = PyVisionEnv(tasks=[task], sandbox=sandbox, config=config)
    else:
        env = make_env(task, config)
    try:
        return _run(trace, env, task)
    finally:
        env.close()


def _config(trace: Trace) -> EnvConfig:
    try:
        return EnvConfig.model_validate(trace.header.config)
    except ValidationError as error:
        raise TraceError(f"{trace.path}: its environment configuration cannot be used: {error}") from error


def _run(trace: Trace, env: gymnasium.Env[dict[str, Any], Any], task: Task) -> ReplayReport:
    observation, _ = env.reset(seed=trace.header.seed, options={"task": task})
    found = [Difference(None, *item) for item in _observation(trace, trace.header.observation, observation)]
    done, over = 0, False
    for turn in trace.turns:
        if over:
            detail = f"recorded {len(trace.turns)} turns, but the episode was over after {done}"
            found.append(Difference(turn.index, "length", detail))
            break
        observation, reward, terminated, truncated, info = env.step(turn.action)
        found += [Difference(turn.index, *item) for item in _observation(trace, turn.observation, observation)]
        found += [Difference(turn.index, *item) for item in _outcome(turn, float(reward), jsonable(info))]
        done, over = done + 1, terminated or truncated
    # An infrastructure failure ended the recorded episode from outside: its action has no turn to compare with.
    if trace.end is not None and trace.end.error is None and done == len(trace.turns) and not over:
        detail = f"recorded the end ({trace.end.end_reason}) here, but the episode goes on"
        found.append(Difference(max(done - 1, 0), "length", detail))
    return ReplayReport(trace.header.episode_id, done, tuple(found))


def _observation(trace: Trace, old: ObservationRecord, new: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if old.text != new["text"]:
        yield "text", _diff(old.text, new["text"])
    for index, (reference, array) in enumerate(zip_longest(old.images, new["images"])):
        detail = _image_difference(trace, reference, array)
        if detail is not None:
            yield "images", f"image {index}: {detail}"
    if old.turns_left != int(new["turns_left"]):
        yield "turns_left", f"recorded {old.turns_left}, now {int(new['turns_left'])}"


def _image_difference(trace: Trace, old: ImageRef | None, new: RGBArray | None) -> str | None:
    if new is None:
        return "recorded, but did not come"
    if old is None:
        return f"came ({new.shape[1]}x{new.shape[0]} pixels), but was not recorded"
    if content_hash(new) == old.hash:
        return None
    if new.shape[:2] != (old.height, old.width):
        return f"recorded {old.width}x{old.height} pixels, now {new.shape[1]}x{new.shape[0]}"
    gap = np.abs(trace.load_image(old.hash).astype(np.int16) - new.astype(np.int16))
    share = float((gap.max(axis=2) > 0).mean())
    return f"pixels differ by at most {int(gap.max())} of 255, in {share:.2%} of the pixels"


def _outcome(old: TurnRecord, reward: float, info: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if old.reward != reward:
        yield "reward", f"recorded {old.reward}, now {reward}"
    if old.reward_terms != info.get("reward_terms", {}):
        yield "reward_terms", f"recorded {old.reward_terms}, now {info.get('reward_terms', {})}"
    for name in ("end_reason", "answer", "correct"):
        if old.info.get(name) != info.get(name):
            yield name, f"recorded {old.info.get(name)!r}, now {info.get(name)!r}"


def _diff(old: str, new: str) -> str:
    lines = [
        line[:_LINE_CHARS]
        for line in difflib.unified_diff(old.splitlines(), new.splitlines(), "recorded", "now", "", "", 1, "")
    ]
    if not lines:
        return "only the line ends differ"
    left_out = len(lines) - _DIFF_LINES
    return "\n".join(lines[:_DIFF_LINES] + ([f"... {left_out} more lines"] if left_out > 0 else []))
