"""Video files as an episode gets them: contents without a name, shared read-only by all that look at them.

A descriptor of the file itself tells its whole path (``/proc/self/fd``), and paths of data sets often hold the label.
So the contents are copied once into a sealed memory file, and each runtime gets a read-only opening of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import stat
import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from pyvision_env.errors import MediaError, SandboxStartError
from pyvision_env.types import VideoSource

LARGEST_COPY = 256 << 20
"""Bytes of a video file above which it is handed over as itself, name included, to spare memory."""

_ALL_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_CHUNK = 1 << 24


class SharedVideo:
    """The contents of a video, which nobody can change any more; for a very large file, where it lies.

    Attributes:
        nbytes: Memory it takes.
    """

    def __init__(self, source: Path | bytes | memoryview) -> None:
        self._path: Path | None = None
        self.nbytes = 0
        if isinstance(source, Path):
            self._take_file(source)
        else:
            self._take_bytes(memoryview(source))

    def open(self) -> int:
        """A descriptor for one runtime, with a position and flags that it shares with nobody; the caller closes it.

        Raises:
            MediaError: The file is gone or is not a regular file.
            SandboxStartError: This process may not open more descriptors.
        """
        if self._path is not None:
            return _open_regular(self._path)
        try:
            return os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SandboxStartError(f"no descriptor for another video: {error}; raise `ulimit -n`") from None

    def _take_file(self, path: Path) -> None:
        fd = _open_regular(path)
        try:
            size = os.fstat(fd).st_size
            if size > LARGEST_COPY:
                self._path = path
                return
            self._make(size)
            done = 0
            while done < size:
                sent = os.sendfile(self._fd, fd, done, min(_CHUNK, size - done))
                if sent == 0:
                    raise MediaError(f"video {path}: became shorter while it was read; use files that do not change")
                done += sent
        except OSError as error:
            raise MediaError(f"video {path}: cannot be read ({error.strerror}); check the file") from None
        finally:
            os.close(fd)
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _ALL_SEALS)

    def _take_bytes(self, view: memoryview) -> None:
        self._make(view.nbytes)
        while view:
            view = view[os.write(self._fd, view) :]
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _ALL_SEALS)

    def _make(self, size: int) -> None:
        try:
            self._fd = os.memfd_create("video", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        except OSError as error:
            raise SandboxStartError(f"no memory file for another video: {error}; raise `ulimit -n`") from None
        weakref.finalize(self, os.close, self._fd)
        self.nbytes = size


class VideoCache:
    """Video contents by where they come from or what they are, so that all rollouts of a group get the very same.

    Those in use are known as long as anybody holds them, the most recently used ones also without that.

    Args:
        max_bytes: Memory of all contents kept without being in use.
        max_count: How many are kept so; each holds a descriptor open.
    """

    def __init__(self, max_bytes: int = 512 << 20, max_count: int = 64) -> None:
        self._max_bytes = max_bytes
        self._max_count = max_count
        self._bytes = 0
        self._kept: OrderedDict[Hashable, SharedVideo] = OrderedDict()
        self._known: weakref.WeakValueDictionary[Hashable, SharedVideo] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def get(self, source: Any) -> SharedVideo:
        """The contents of ``source``: a path, encoded bytes or a ``VideoSource``.

        Raises:
            MediaError: There is no such file, it is not a regular file, or the source is something else.
        """
        if isinstance(source, SharedVideo):
            return source
        if isinstance(source, VideoSource):
            source = source.path if source.path is not None else source.data
        if isinstance(source, io.BytesIO):
            source = source.getvalue()
        key: Hashable
        if isinstance(source, bytes | bytearray | memoryview):
            source = bytes(source)
            key = hashlib.sha256(source).digest()
        elif isinstance(source, str | Path):
            source = Path(source)
            key = _key(source)
        else:
            raise MediaError(f"a video must be a path, bytes or a VideoSource, got {type(source).__name__}")
        with self._lock:
            video = self._known.get(key)
        if video is None:
            video = SharedVideo(source)
        with self._lock:
            # Another thread may have been faster. There must be one of them: a group's decoder serves one video.
            video = self._known.setdefault(key, video)
            self._keep(key, video)
        return video

    def _keep(self, key: Hashable, video: SharedVideo) -> None:
        if key in self._kept:
            self._kept.move_to_end(key)
        elif video.nbytes <= self._max_bytes:
            self._kept[key] = video
            self._bytes += video.nbytes
            while self._bytes > self._max_bytes or len(self._kept) > self._max_count:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget every video; those in use live on with their holders."""
        with self._lock:
            self._kept.clear()
            self._known.clear()
            self._bytes = 0


def _open_regular(path: Path) -> int:
    """A regular file, opened for reading: a folder would be a way into the machine, a pipe would never open."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise MediaError(f"video {str(path)!r}: cannot be opened ({reason}); check the path in the task") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise MediaError(f"video {str(path)!r}: is not a file (a folder, pipe or device); check the path in the task")
    return fd


def _key(path: Path) -> Hashable:
    fd = _open_regular(path)
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    return (str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
