"""The data that travels through the house: tasks, actions and tool results.

Everything here is a frozen dataclass without behaviour and without I/O, so that every other module may import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RGBArray = NDArray[np.uint8]
"""A picture: uint8, shape (height, width, 3), red-green-blue."""


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where an image of a task comes from: a file or encoded bytes (exactly one of the two).

    Attributes:
        path: Image file.
        data: Encoded image (PNG, JPEG, ...), not pixels.
    """

    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _one_of(self)


@dataclass(frozen=True, slots=True)
class VideoSource:
    """Where a video of a task comes from: a file or encoded bytes (exactly one of the two).

    Attributes:
        path: Video file.
        data: Encoded video (a whole container file), not frames.
    """

    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _one_of(self)


def _one_of(source: ImageSource | VideoSource) -> None:
    if (source.path is None) == (source.data is None):
        given = "both" if source.path is not None else "neither"
        raise ValueError(f"{type(source).__name__} needs exactly one of path= and data=, but {given} was given")


@dataclass(frozen=True, slots=True)
class Task:
    """One question about images or videos.

    Attributes:
        id: Unique within its task set.
        question: What the model is asked, options included when they are part of the wording.
        answer: The reference answer. It never reaches the model or the sandbox.
        images: Images of the task, in order: ``image_clue_0``, ``image_clue_1``, ... in the runtime.
        videos: Videos of the task, in order: ``video_clue_0``, ... in the runtime.
        options: Texts of the choices in letter order (A first); empty when the question is open.
        grader: Which rule decides: ``auto``, ``choice``, ``exact``, ``numeric``, ``mra``, ``math`` or ``judge``.
        grader_args: Keyword arguments of that grader, such as ``tolerance``.
        data_source: The data set it came from, for per-source metrics.
        ability: The ability it tests, for per-category metrics.
        media_in_prompt: Show the media in the prompt (True), hold them in the runtime only (False), or follow the
            environment's default (None).
        metadata: What only analysis may see, such as ``target_box``; never shown to the model.
    """

    id: str
    question: str
    answer: str
    images: tuple[ImageSource, ...] = ()
    videos: tuple[VideoSource, ...] = ()
    options: tuple[str, ...] = ()
    grader: str = "auto"
    grader_args: Mapping[str, Any] = field(default_factory=dict)
    data_source: str | None = None
    ability: str | None = None
    media_in_prompt: bool | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunCode:
    """Run Python in the episode's runtime; ``blocks`` run in order and stop at the first error."""

    blocks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FetchFrames:
    """Fetch frames of a video without code.

    Exactly one way of choosing is set: ``times`` (seconds), ``indices`` (frame numbers) or ``num`` frames spread
    evenly over ``start``..``end`` (seconds; the whole video where left out).
    """

    video: int = 0
    times: tuple[float, ...] | None = None
    indices: tuple[int, ...] | None = None
    start: float | None = None
    end: float | None = None
    num: int | None = None


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """Several tool calls of one turn that differ in kind, run in order; stops at the first error."""

    calls: tuple[RunCode | FetchFrames, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    r"""The final answer; it ends the episode.

    Attributes:
        text: What is graded: the content of the last ``\boxed{}`` inside the tag, else the tag's stripped content.
        raw: The tag's whole content.
    """

    text: str
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Invalid:
    """A turn that holds no well-formed action; ``reason`` says what was expected and becomes the observation."""

    reason: str


ToolAction = RunCode | FetchFrames | ToolCalls
Action = RunCode | FetchFrames | ToolCalls | Answer | Invalid


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool call gave back. Everything in it is untrusted: it may only become text and images for the model.

    Attributes:
        text: Captured output, the traceback included when the code raised.
        images: Shown figures and images or fetched frames, in order, each uint8 HxWx3 within the pixel budget.
        error: One line naming what went wrong in the model's call, or None.
        state_lost: The runtime was replaced by a fresh one: variables of earlier steps are gone, media are bound anew.
        truncated: Text was cut at its limit or images were left out.
        elapsed_s: Wall time of the call in seconds; not part of equality.
    """

    text: str = ""
    images: tuple[RGBArray, ...] = ()
    error: str | None = None
    state_lost: bool = False
    truncated: bool = False
    elapsed_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What the prompt may say of a video before any frame is fetched.

    Attributes:
        width: Pixels, after rotation is applied.
        height: Pixels, after rotation is applied.
        num_frames: Number of decodable frames.
        fps: Average frames per second.
        duration_s: Seconds from the first frame's start to the last frame's end.
    """

    width: int
    height: int
    num_frames: int
    fps: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Grade:
    """The verdict on an answer.

    Attributes:
        score: In [0, 1]; partial for ``mra``.
        correct: Whether it counts as correct for the tool reward's gate.
        method: Which rule decided, such as ``choice`` or ``math``.
    """

    score: float
    correct: bool
    method: str


class EndReason(StrEnum):
    """Why an episode ended; the empty episode has none yet."""

    ANSWERED = "answered"
    TURN_BUDGET = "turn_budget"
    IMAGE_BUDGET = "image_budget"
    TOKEN_BUDGET = "token_budget"
    CODE_ERROR = "code_error"
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What one turn adds to the model's context.

    Attributes:
        text: The question and a note of the media at the start; later what the tools gave back.
        images: New images, each uint8 HxWx3 within the pixel budget.
        labels: The runtime's name of each of ``images``, such as ``image_clue_2``.
        videos: Metadata of the task's videos, at the start only.
        turns_left: Tool turns that are left after this one.
    """

    text: str
    images: tuple[RGBArray, ...] = ()
    labels: tuple[str, ...] = ()
    videos: tuple[VideoInfo, ...] = ()
    turns_left: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One action of the model and what came of it.

    Attributes:
        action_text: The model's raw text, or the canonical text of a structured action.
        action: What it was parsed into.
        observation: What came back.
        reward: The step's reward.
        terms: Reward terms; they sum exactly to ``reward``.
        info: The step's info.
        terminated: The episode was answered.
        truncated: The episode was cut short.
    """

    action_text: str
    action: Action
    observation: Observation
    reward: float
    terms: Mapping[str, float]
    info: Mapping[str, Any]
    terminated: bool = False
    truncated: bool = False
