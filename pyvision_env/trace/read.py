"""Read traces: whole, unfinished and damaged ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyvision_env.errors import MediaError, TraceError
from pyvision_env.media import content_hash, load_image
from pyvision_env.trace.format import EndRecord, TraceHeader, TurnRecord, decode_line
from pyvision_env.trace.store import file_sha256, image_path, video_path
from pyvision_env.types import ImageSource, RGBArray, Task, VideoSource


@dataclass(frozen=True, slots=True)
class Trace:
    """One recorded episode.

    Attributes:
        path: Its file.
        header: Task, set-up and first observation.
        turns: The steps, in order; those before the damage when there is any.
        end: The last line; None for an unfinished episode.
        damaged: Line and reason where reading had to stop; None for a file in order.
    """

    path: Path
    header: TraceHeader
    turns: tuple[TurnRecord, ...]
    end: EndRecord | None = None
    damaged: str | None = None

    @property
    def complete(self) -> bool:
        """Whether the episode came to its end and every line could be read."""
        return self.end is not None and self.damaged is None

    @property
    def directory(self) -> Path:
        """The folder of traces it belongs to."""
        return self.path.parent.parent

    def load_image(self, digest: str) -> RGBArray:
        """Load a picture by its hash.

        Raises:
            TraceError: If it is missing, unreadable or not what its name promises.
        """
        path = image_path(self.directory, digest)
        try:
            array = load_image(path)
        except MediaError as error:
            raise TraceError(f"{self.path}: a picture cannot be loaded: {error}") from error
        if content_hash(array) != digest:
            raise TraceError(f"{self.path}: the picture {path} was changed: its pixels do not match its name")
        return array

    def task(self) -> Task:
        """The recorded task; images come from the store, videos from their recorded path or the store.

        Raises:
            TraceError: If a medium is missing or was changed.
        """
        header = self.header
        for image in header.images:
            self.load_image(image.hash)
        return Task(
            id=header.task_id,
            question=header.question,
            answer=header.answer,
            images=tuple(ImageSource(path=image_path(self.directory, image.hash)) for image in header.images),
            videos=tuple(VideoSource(path=self._video(i)) for i in range(len(header.videos))),
            options=header.options,
            grader=header.grader,
            grader_args=header.grader_args,
            data_source=header.data_source,
            ability=header.ability,
            media_in_prompt=header.media_in_prompt,
            metadata=header.task_metadata,
        )

    def _video(self, index: int) -> Path:
        video = self.header.videos[index]
        path = video_path(self.directory, video.sha256) if video.path is None else Path(video.path)
        try:
            found = file_sha256(path)
        except MediaError as error:
            raise TraceError(f"{self.path}: video {index} is missing: {error}") from error
        if found != video.sha256:
            raise TraceError(
                f"{self.path}: video {index} at {path} was changed: expected SHA-256 {video.sha256}, found {found}"
            )
        return path


def read_trace(path: str | Path) -> Trace:
    """Read an episode's file.

    Where a line is damaged, or the last one was torn by a crash, the turns before it are returned and ``damaged``
    gives the line and the reason.

    Raises:
        TraceError: If the file is missing, of another version, or its header cannot be read.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TraceError(f"expected a trace (.jsonl) at {path}: {error}") from error
    lines = data.split(b"\n")
    torn = lines.pop()
    if not lines:
        raise TraceError(f"{path}, line 1: expected a header, found {len(torn)} bytes without a line's end")
    try:
        header = decode_line(lines[0])
    except ValueError as error:
        raise TraceError(f"{path}, line 1: {_reason(error)}") from error
    if not isinstance(header, TraceHeader):
        raise TraceError(f"{path}, line 1: expected a header, found another kind of line")
    turns: list[TurnRecord] = []
    end: EndRecord | None = None
    damaged: str | None = None
    for number, line in enumerate(lines[1:], start=2):
        try:
            record = decode_line(line)
            _check_order(record, len(turns), ended=end is not None)
        except ValueError as error:
            damaged = f"line {number}: {_reason(error)}"
            break
        if isinstance(record, TurnRecord):
            turns.append(record)
        elif isinstance(record, EndRecord):
            end = record
    if damaged is None and torn:
        damaged = f"line {len(lines) + 1}: cut off in the middle of writing ({len(torn)} bytes)"
    return Trace(path.absolute(), header, tuple(turns), end, damaged)


def _check_order(record: object, turns: int, *, ended: bool) -> None:
    if ended:
        raise ValueError("expected nothing after the end line")
    if isinstance(record, TraceHeader):
        raise ValueError("expected a turn or an end, found a second header")
    if isinstance(record, TurnRecord) and record.index != turns:
        raise ValueError(f"expected turn {turns}, found turn {record.index}")


def _reason(error: ValueError) -> str:
    # json's own errors and bytes that are not UTF-8 speak of positions, not of what is wrong.
    return str(error) if type(error) is ValueError else f"not a line of JSON ({error})"


def find_traces(directory: str | Path) -> list[Path]:
    """The episode files of a folder of traces, in natural order (``task-2`` before ``task-10``); none is fine.

    Raises:
        TraceError: If the folder does not exist.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise TraceError(f"expected a folder of traces at {directory}, found {_what(directory)}")
    return sorted((directory / "episodes").glob("*.jsonl"), key=lambda path: _natural(path.stem))


def _what(path: Path) -> str:
    return "a file; give the folder that holds episodes/ and images/" if path.exists() else "nothing"


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def iter_traces(directory: str | Path) -> Iterator[Trace]:
    """Read every trace of a folder, in natural order of the names.

    Raises:
        TraceError: If the folder does not exist or a header cannot be read; read the files one by one with
            ``read_trace`` to go on after such a file.
    """
    for path in find_traces(directory):
        yield read_trace(path)
