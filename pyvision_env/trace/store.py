"""The folder of traces: content-addressed media, and episode files that are safe on disk after every line."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from dataclasses import replace
from pathlib import Path

from pyvision_env.errors import MediaError, TraceError
from pyvision_env.media import content_hash, encode_png, load_image
from pyvision_env.trace.format import EndRecord, ImageRef, Line, TraceHeader, VideoRef, encode_line
from pyvision_env.types import ImageSource, RGBArray, VideoSource

_SLUG_LENGTH = 60
_HASH = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20

_Stat = tuple[str, int, int]


class TraceStore:
    """A folder of traces; several stores, also in other processes, may write into the same folder.

    Nothing is created before the first write. Not for use by several threads at once.

    Args:
        directory: The folder.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._next: dict[str, int] = {}
        # Decoding and hashing a task's media at every episode would cost more than the episode's own bookkeeping.
        self._known_images: dict[_Stat, ImageRef] = {}
        self._known_videos: dict[_Stat, VideoRef] = {}

    def begin(self, header: TraceHeader) -> TraceWriter:
        """Begin an episode's file under a free name; the header's ``episode_id`` is filled in.

        Raises:
            TraceError: If the folder cannot be written.
        """
        slug = slugify(header.task_id)
        number = self._next.get(slug, 0)
        folder = self.directory / "episodes"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                path = folder / f"{slug}-{number}.jsonl"
                number += 1
                with contextlib.suppress(FileExistsError):
                    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                    break
        except OSError as error:
            raise TraceError(f"Traces cannot be written to {folder}: {error}; give a folder that can be") from error
        self._next[slug] = number
        writer = TraceWriter(path, file)
        writer.write(replace(header, episode_id=path.stem))
        return writer

    def put_image(self, array: RGBArray) -> ImageRef:
        """Keep a picture (uint8 HxWx3) and return its reference; one that is there already is not written again."""
        reference = ImageRef(content_hash(array), array.shape[1], array.shape[0])
        path = image_path(self.directory, reference.hash)
        if not path.exists():
            _write_atomically(path, encode_png(array))
        return reference

    def put_task_image(self, source: ImageSource) -> ImageRef:
        """Keep an image of a task at full size.

        Raises:
            MediaError: If it cannot be read.
        """
        if source.path is None:
            return self.put_image(load_image(source))
        key = _stat(source.path)
        known = self._known_images.get(key)
        if known is None or not image_path(self.directory, known.hash).exists():
            known = self._known_images[key] = self.put_image(load_image(source))
        return known

    def put_task_video(self, source: VideoSource) -> VideoRef:
        """Refer to a video of a task by path and SHA-256; one given as bytes is kept in the store.

        Raises:
            MediaError: If it cannot be read.
        """
        if source.path is None:
            data = source.data or b""
            reference = VideoRef(hashlib.sha256(data).hexdigest(), len(data))
            path = video_path(self.directory, reference.sha256)
            if not path.exists():
                _write_atomically(path, data)
            return reference
        key = _stat(source.path)
        if key not in self._known_videos:
            self._known_videos[key] = VideoRef(file_sha256(source.path), key[2], str(source.path.absolute()))
        return self._known_videos[key]


class TraceWriter:
    """An episode's file that is being written; every line is on disk when its method returns.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, file: int) -> None:
        self.path = path
        self._file: int | None = file

    def write(self, line: Line) -> None:
        """Append a line; an ``EndRecord`` closes the file.

        Raises:
            TraceError: If the file was closed or the disk refuses.
        """
        if self._file is None:
            raise TraceError(f"The trace {self.path} is closed; begin another one")
        data = encode_line(line)
        try:
            # Appended and synced a line at a time: a crash can tear the last line only, which the reader skips.
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as error:
            raise TraceError(f"The trace {self.path} cannot be written: {error}") from error
        if isinstance(line, EndRecord):
            self.close()

    def close(self) -> None:
        """Close the file; a file without an ``EndRecord`` is the trace of an unfinished episode."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def image_path(directory: Path, digest: str) -> Path:
    """Where a picture lies.

    Raises:
        TraceError: If ``digest`` is no SHA-256; a trace of unknown origin must not name other files.
    """
    return directory / "images" / f"{_checked(digest)}.png"


def video_path(directory: Path, digest: str) -> Path:
    """Where a video lies that a task gave as bytes; raises as ``image_path`` does."""
    return directory / "videos" / _checked(digest)


def _checked(digest: str) -> str:
    if _HASH.fullmatch(digest) is None:
        raise TraceError(f"expected 64 lower-case hexadecimal digits as the name of a medium, found {digest!r}")
    return digest


def slugify(task_id: str) -> str:
    """Make a file name of any task id: ASCII letters, digits, ``.``, ``_`` and ``-``, at most 60, never hidden."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", task_id).strip("-.")
    return slug[:_SLUG_LENGTH].rstrip("-.") or "episode"


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file.

    Raises:
        MediaError: If it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise MediaError(f"expected a readable file at {path}: {error}") from error
    return digest.hexdigest()


def _stat(path: Path) -> _Stat:
    try:
        found = path.stat()
    except OSError as error:
        raise MediaError(f"expected a media file at {path}: {error}") from error
    return str(path.absolute()), found.st_mtime_ns, found.st_size


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # The folder itself may be what is wrong, such as a file in its place; that is what must be told.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise TraceError(f"Media of traces cannot be written to {path.parent}: {error}") from error
