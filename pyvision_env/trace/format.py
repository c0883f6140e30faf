r"""The trace format, version 1: what each line of an episode's file holds.

Layout of a folder of traces, which any number of processes may write at once::

    DIR/episodes/<episode_id>.jsonl     one file an episode
    DIR/images/<sha256>.png             pictures, named by ``media.content_hash`` (shape and pixels), shared
    DIR/videos/<sha256>                 videos that a task gave as bytes, named by the SHA-256 of the file

A file holds ASCII lines of JSON, each an object with a ``type``: one ``header``, a ``turn`` for each step of the
environment, and an ``end`` unless the episode was cut short from outside. Every picture exists before the line that
names it. Readers ignore fields they do not know; another ``version`` is refused. Lone surrogates survive as ``\udXXX``
escapes; two of them that happen to form a pair are read as the character they encode.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from typing import Any

import msgspec
import numpy as np
from pydantic import BaseModel

VERSION = 1

TASK_ERROR = "task_error"
"""End of an episode whose task is wrong in itself: a missing image, a reference that its grader cannot use."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A picture in the store.

    Attributes:
        hash: ``media.content_hash`` of its pixels; also its file name.
        width: Pixels.
        height: Pixels.
    """

    hash: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class VideoRef:
    """A video of the task.

    Attributes:
        sha256: Of the video file's bytes.
        size: Bytes of the file.
        path: Where the file was; None when the task gave bytes, which then lie in the store.
    """

    sha256: str
    size: int
    path: str | None = None


@dataclass(frozen=True, slots=True)
class ObservationRecord:
    """What the environment gave the model: new content of one turn.

    Attributes:
        text: Observation text.
        images: New pictures, in order.
        labels: Their names in the runtime, such as ``image_clue_2``.
        videos: Metadata of the task's videos, at the start only.
        turns_left: Tool turns left.
    """

    text: str
    images: tuple[ImageRef, ...] = ()
    labels: tuple[str, ...] = ()
    videos: tuple[dict[str, Any], ...] = ()
    turns_left: int = 0


@dataclass(frozen=True, slots=True)
class TraceHeader:
    """The first line: the task, the set-up and the first observation.

    The reference answer is part of it: traces are for people and never reach the sandbox.

    Attributes:
        version: Of the format.
        episode_id: The file's name without its ending.
        package_version: Of ``pyvision_env`` when it was written.
        started_at: ISO 8601, UTC.
        task_id: Of the task, as given.
        question: Of the task.
        answer: The reference answer.
        options: Texts of the choices.
        images: The task's images at full size.
        videos: The task's videos.
        grader: Which rule grades.
        grader_args: Its arguments.
        media_in_prompt: The task's own setting.
        data_source: The task's data set.
        ability: The ability it tests.
        task_metadata: What the task carries for analysis.
        config: The environment's ``EnvConfig`` as JSON.
        agent: Who acted, such as a model's name.
        agent_settings: What else the agent's turns depend on, such as a temperature.
        seed: What ``reset`` was given.
        metadata: What the recorder's user wanted to keep.
        observation: What ``reset`` gave.
        info: What ``reset`` gave.
    """

    version: int
    episode_id: str
    package_version: str
    started_at: str
    task_id: str
    question: str
    answer: str
    observation: ObservationRecord
    options: tuple[str, ...] = ()
    images: tuple[ImageRef, ...] = ()
    videos: tuple[VideoRef, ...] = ()
    grader: str = "auto"
    grader_args: dict[str, Any] = field(default_factory=dict)
    media_in_prompt: bool | None = None
    data_source: str | None = None
    ability: str | None = None
    task_metadata: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    agent: str | None = None
    agent_settings: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One step of the environment.

    Attributes:
        index: 0, 1, ...
        action: The model's raw text, or a structured action as JSON.
        kind: What it was parsed into, as the environment names it.
        observation: What came back.
        reward: The step's reward.
        terminated: As ``step`` gave it.
        truncated: As ``step`` gave it.
        reward_terms: They sum to ``reward``.
        info: As ``step`` gave it, less ``reward_terms``.
        timings: Seconds: ``agent_s`` from the observation to the action, ``env_s`` inside ``step``.
    """

    index: int
    action: str | list[Any]
    kind: str | None
    observation: ObservationRecord
    reward: float
    terminated: bool
    truncated: bool
    reward_terms: dict[str, float] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EndRecord:
    """The last line of an episode that came to its end.

    Attributes:
        end_reason: Why it ended: an ``EndReason`` or ``task_error``.
        episode_return: Sum of the rewards.
        correct: Whether the answer counts as correct; None where nothing was graded.
        score: Its grade in [0, 1].
        answer: The answer as graded.
        totals: Counts of the whole episode: turns, tool_calls, failed_calls, num_images, visual_tokens.
        duration_s: Wall seconds from reset to the end.
        error: What failed, where infrastructure or a wrong task ended the episode.
        action: The action whose step failed; no turn was recorded for it.
    """

    end_reason: str | None
    episode_return: float
    correct: bool | None = None
    score: float | None = None
    answer: str | None = None
    totals: dict[str, int] = field(default_factory=dict)
    duration_s: float = 0.0
    error: str | None = None
    action: str | list[Any] | None = None


Line = TraceHeader | TurnRecord | EndRecord
_TYPES: dict[str, type[Line]] = {"header": TraceHeader, "turn": TurnRecord, "end": EndRecord}
_NAMES = {kind: name for name, kind in _TYPES.items()}


def encode_line(line: Line) -> bytes:
    """Write a line, newline included, in ASCII."""
    record = {"type": _NAMES[type(line)], **msgspec.to_builtins(line)}
    return json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"


def decode_line(data: bytes) -> Line:
    """Read a line.

    Raises:
        ValueError: If it is no JSON object of a known type with the right fields; the message says which field.
    """
    try:
        record = json.loads(data)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error
    if not isinstance(record, dict) or record.get("type") not in tuple(_TYPES):
        raise ValueError(f'expected an object whose "type" is one of {", ".join(_TYPES)}')
    if record["type"] == "header" and record.get("version") != VERSION:
        raise ValueError(f"expected trace version {VERSION}, found {record.get('version')!r}")
    try:
        return msgspec.convert(record, _TYPES[record["type"]])
    except msgspec.ValidationError as error:
        raise ValueError(f"a wrong field in the {record['type']} line: {error}") from error


def jsonable(value: Any) -> Any:
    """Reduce a value to JSON types: arrays, paths, enums, pydantic models and mappings too; the rest to its repr."""
    if value is None or isinstance(value, bool | int | float | str):
        # Subclasses (StrEnum, numpy's float64) would otherwise be written by their own rules.
        return value.value if isinstance(value, Enum) else value.item() if isinstance(value, np.generic) else value
    if isinstance(value, Enum):
        return jsonable(value.value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [jsonable(item) for item in value]
    return str(value) if isinstance(value, PurePath) else repr(value)
