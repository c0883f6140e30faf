"""Records to tasks: the raw and the processed form of PyVision-RL data, one record at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pyvision_env.lettered import parse_options, strip_labels
from pyvision_env.tasks.media_fields import BadFieldError, MediaKind, read_media, shorten
from pyvision_env.types import ImageSource, Task, VideoSource

_MEDIA_FIELDS: tuple[tuple[str, MediaKind], ...] = (
    ("image_path", "image"),
    ("image", "image"),
    ("images", "image"),
    ("video_path", "video"),
    ("video", "video"),
    ("videos", "video"),
)
_COMMON = {"id", "ability", "data_source", "options", "choices", "grader", "grader_args", "media_in_prompt", "metadata"}
_RAW = _COMMON | {"question", "answer"} | {name for name, _ in _MEDIA_FIELDS}
_PROCESSED = _COMMON | {"prompt", "reward_model", "extra_info", "mm_hint"} | {name for name, _ in _MEDIA_FIELDS}
_PLACEHOLDERS = re.compile(
    r"(?:\s*(?:<\|vision_start\|>|<\|vision_end\|>|<\|image_pad\|>|<\|video_pad\|>|<(?:image|video)(?:_?\d+)?>))+\s*"
)
_HINT = re.compile(r"_(w|wo)_(?:image|video)_hint$")


@dataclass(frozen=True, slots=True)
class Problem:
    """A record that did not become a task.

    Attributes:
        file: The file, or a word for what the records came from.
        index: Position of the record in it, from 0.
        field: The field that is wrong; empty when the whole record is.
        expected: What should be there.
        found: What is there.
    """

    file: str
    index: int
    field: str
    expected: str
    found: str

    def __str__(self) -> str:
        where = f", field {self.field!r}" if self.field else ""
        return f"{self.file}, record {self.index}{where}: expected {self.expected}, found {self.found}"


def parse_record(record: object, *, index: int, file: str, default_id: str, root: Path) -> Task | Problem:
    """Turn one record into a task.

    A record with ``prompt`` and without ``question`` is read as processed, any other as raw.

    Args:
        record: The decoded record.
        index: Its position in ``file``, for the report.
        file: Where it came from, for the report.
        default_id: The task's id where the record has none.
        root: Folder that relative media paths start from.

    Returns:
        The task, or the first problem that keeps the record from being one.
    """
    try:
        if not isinstance(record, Mapping):
            raise BadFieldError("", "an object with fields such as 'question' and 'answer'", shorten(record))
        processed = "prompt" in record and "question" not in record
        return _processed(record, default_id, root) if processed else _raw(record, default_id, root)
    except BadFieldError as bad:
        return Problem(file, index, bad.field, bad.expected, bad.found)


def _raw(record: Mapping[str, Any], default_id: str, root: Path) -> Task:
    question = _text(record, "question")
    answer = _answer("answer", record.get("answer"))
    images, videos = _media(record, root)
    extra = {key: value for key, value in record.items() if key not in _RAW and value is not None}
    return _task(record, default_id, question, answer, "answer", images, videos, extra)


def _processed(record: Mapping[str, Any], default_id: str, root: Path) -> Task:
    extra_info = _mapping(record, "extra_info")
    reward_model = _mapping(record, "reward_model")
    if isinstance(extra_info.get("question"), str) and extra_info["question"].strip():
        question = _clean(extra_info["question"])
    else:
        question = _clean(_user_text(record["prompt"]))
    if not question:
        raise BadFieldError("prompt", "a user message with the question", "an empty question")
    if reward_model.get("ground_truth") is not None:
        field, given = "reward_model.ground_truth", reward_model["ground_truth"]
    else:
        field, given = "extra_info.answer", extra_info.get("answer")
    answer = _answer(field, given)
    images, videos = _media(record, root)
    hint = _mapping(record, "mm_hint")
    if hint.get("hint_path") is not None:
        kind = hint.get("hint_type")
        if kind not in ("image", "video"):
            raise BadFieldError("mm_hint.hint_type", "'image' or 'video'", shorten(kind))
        _sort(read_media("mm_hint.hint_path", hint["hint_path"], kind, root), images, videos)
    extra = {key: value for key, value in record.items() if key not in _PROCESSED and value is not None}
    extra |= {key: value for key, value in extra_info.items() if key not in {"question", "answer", "id"}}
    shown = _HINT.search(str(record.get("env_name") or ""))
    inherited = {"media_in_prompt": shown[1] == "w"} if shown else {}
    if "id" not in record and extra_info.get("id") is not None:
        inherited["id"] = extra_info["id"]
    return _task({**inherited, **record}, default_id, question, answer, field, images, videos, extra)


def _task(
    record: Mapping[str, Any],
    default_id: str,
    question: str,
    answer: str,
    answer_field: str,
    images: list[ImageSource],
    videos: list[VideoSource],
    extra: dict[str, Any],
) -> Task:
    """Add the fields that both forms share."""
    grader = record.get("grader") or "auto"
    if grader != "auto":
        _check_grader(grader)
    shown = record.get("media_in_prompt")
    if shown is not None and not isinstance(shown, bool):
        raise BadFieldError("media_in_prompt", "true, false or null", shorten(shown))
    task = Task(
        id=_id(record.get("id"), default_id),
        question=question,
        answer=answer,
        images=tuple(images),
        videos=tuple(videos),
        options=_options(record, question),
        grader=grader,
        grader_args=dict(_mapping(record, "grader_args")),
        data_source=_optional_text(record, "data_source"),
        ability=_optional_text(record, "ability"),
        media_in_prompt=shown,
        metadata={**extra, **_mapping(record, "metadata")},
    )
    _check_gradable(task, answer_field)
    return task


def _check_gradable(task: Task, answer_field: str) -> None:
    """Found out now, not after an episode was spent on it."""
    from pyvision_env.grading.gradable import ungradable

    reason = ungradable(task)
    if reason is None:
        return
    args_are_wrong = bool(task.grader_args) and ungradable(replace(task, grader_args={})) is None
    field = "grader_args" if args_are_wrong else answer_field
    raise BadFieldError(field, "a task that can be graded", f"one that cannot: {reason}")


def _check_grader(grader: object) -> None:
    # Here, because importing graders takes longer than reading most record files.
    from pyvision_env.grading import GRADERS

    known = ("auto", *GRADERS, "judge")
    if grader not in known:
        raise BadFieldError("grader", f"one of {', '.join(known)}", shorten(grader))


def _media(record: Mapping[str, Any], root: Path) -> tuple[list[ImageSource], list[VideoSource]]:
    images: list[ImageSource] = []
    videos: list[VideoSource] = []
    for field, kind in _MEDIA_FIELDS:
        value = record.get(field)
        # An empty list stands for "none of these" in columnar files, where every record has every column.
        if value is None or (isinstance(value, (list, tuple, str)) and not value):
            continue
        _sort(read_media(field, value, kind, root), images, videos)
    return images, videos


def _sort(sources: list[ImageSource | VideoSource], images: list[ImageSource], videos: list[VideoSource]) -> None:
    for source in sources:
        if isinstance(source, VideoSource):
            videos.append(source)
        else:
            images.append(source)


def _options(record: Mapping[str, Any], question: str) -> tuple[str, ...]:
    for field in ("options", "choices"):
        value = record.get(field)
        if value is None or (isinstance(value, (list, tuple)) and not value):
            continue
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, (str, int, float)) for item in value):
            raise BadFieldError(field, "a list of texts", shorten(value))
        return strip_labels([_as_text(field, item) for item in value])
    return parse_options(question)


def _user_text(prompt: object) -> str:
    if isinstance(prompt, str):
        return prompt
    if not isinstance(prompt, (list, tuple)):
        raise BadFieldError("prompt", "a list of messages", shorten(prompt))
    for message in reversed(prompt):
        if isinstance(message, Mapping) and message.get("role") == "user":
            return _content_text(message.get("content"))
    raise BadFieldError("prompt", "a message with the role 'user'", shorten(prompt))


def _content_text(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, (list, tuple)):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return "\n".join(part for part in parts if isinstance(part, str))
    raise BadFieldError("prompt", "a user message with text", shorten(content))


def _clean(question: str) -> str:
    """Drop the image placeholders around a question; those inside a sentence carry meaning and stay."""
    text = question
    if leading := _PLACEHOLDERS.match(text):
        text = text[leading.end() :]
    trailing = [match for match in _PLACEHOLDERS.finditer(text) if match.end() == len(text)]
    return (text[: trailing[0].start()] if trailing else text).strip()


def _text(record: Mapping[str, Any], field: str) -> str:
    value = record.get(field)
    text = _clean(value) if isinstance(value, str) else ""
    if not text:
        raise BadFieldError(field, "text", shorten(value))
    return text


def _answer(field: str, value: object) -> str:
    text = _as_text(field, value) if isinstance(value, (str, int, float)) else ""
    if not text:
        raise BadFieldError(field, "text or a number", shorten(value))
    return text


def _as_text(field: str, value: str | int | float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        # JSON's NaN, or the gap in a column of numbers.
        raise BadFieldError(field, "text or a finite number", str(value))
    try:
        return str(value).strip()
    except ValueError as error:  # Python writes no whole number of thousands of digits
        raise BadFieldError(field, "text or a number of fewer digits", shorten(value)) from error


def _id(value: object, default: str) -> str:
    if value is None or value == "":
        return default
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return _as_text("id", value)
    raise BadFieldError("id", "text or a whole number", shorten(value))


def _optional_text(record: Mapping[str, Any], field: str) -> str | None:
    value = record.get(field)
    if value is None or isinstance(value, str):
        return value
    raise BadFieldError(field, "text or null", shorten(value))


def _mapping(record: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = record.get(field)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadFieldError(field, "an object", shorten(value))
    return value
