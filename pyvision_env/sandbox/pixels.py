"""Decoded images in sealed memory: made once, mapped read-only by every episode that looks at them."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from concurrent.futures import Future
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pyvision_env.errors import SandboxStartError
from pyvision_env.media import load_picture
from pyvision_env.types import ImageSource, RGBArray

BYTES_PER_PIXEL = 4
_OPAQUE = np.frombuffer(b"\0\0\0\xff", np.uint32)[0]
_WORDS_AT_ONCE = 1 << 16
_ALL_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class SharedPicture:
    """An RGB picture in a sealed memfd, four bytes a pixel; nobody, its owner included, can change it any more.

    Attributes:
        fd: The memfd; closed when the last holder of this object lets go of it.
        width: Pixels.
        height: Pixels.
    """

    def __init__(self, pixels: RGBArray | Image.Image) -> None:
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        self.width, self.height = image.size
        try:
            self.fd = os.memfd_create("picture", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        except OSError as error:
            raise SandboxStartError(f"no memory file for another picture: {error}; raise `ulimit -n`") from None
        self._finalizer = weakref.finalize(self, os.close, self.fd)
        # As Pillow keeps it, in pieces that the processor's cache holds. Written, not mapped: the kernel need not clear
        # pages that are filled at once.
        words = np.frombuffer(image.tobytes("raw", "RGBX"), np.uint32)
        piece = np.empty(_WORDS_AT_ONCE, np.uint32)
        for begin in range(0, len(words), len(piece)):
            some = words[begin : begin + len(piece)]
            # Pillow's fourth byte may be anything, memory of this process included.
            data = memoryview(np.bitwise_or(some, _OPAQUE, out=piece[: len(some)])).cast("B")
            while data:
                data = data[os.write(self.fd, data) :]
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _ALL_SEALS)

    @property
    def nbytes(self) -> int:
        """Size in bytes, four a pixel as Pillow keeps them."""
        return self.width * self.height * BYTES_PER_PIXEL

    @property
    def pixels(self) -> RGBArray:
        """A read-only view of the picture, uint8 HxWx3; rows have a gap after each pixel."""
        memory = mmap.mmap(self.fd, self.nbytes, prot=mmap.PROT_READ)
        padded = np.frombuffer(memory, np.uint8).reshape(self.height, self.width, BYTES_PER_PIXEL)
        return padded[..., :3]


class PictureCache:
    """The most recently used pictures, so that the rollouts of a group decode an image once.

    Who asks for a picture that another thread is decoding waits for that one.

    Args:
        max_bytes: Memory of all kept pictures.
        max_count: How many are kept; each holds a descriptor open.
    """

    def __init__(self, max_bytes: int = 512 << 20, max_count: int = 128) -> None:
        self._max_bytes = max_bytes
        self._max_count = max_count
        self._bytes = 0
        self._pictures: OrderedDict[Hashable, SharedPicture] = OrderedDict()
        self._decoding: dict[Hashable, Future[SharedPicture]] = {}
        self._lock = threading.Lock()

    def get(self, source: Any) -> SharedPicture:
        """The picture of ``source`` (a path, encoded bytes, an array, a Pillow image or an ``ImageSource``).

        Raises:
            MediaError: It cannot be read as an image.
        """
        if isinstance(source, SharedPicture):
            return source
        key = _key(source)
        if key is None:
            return SharedPicture(load_picture(source))
        with self._lock:
            known = self._pictures.get(key)
            if known is not None:
                self._pictures.move_to_end(key)
                return known
            promised = self._decoding.get(key)
            if promised is None:
                mine: Future[SharedPicture] = Future()
                self._decoding[key] = mine
        if promised is not None:
            return promised.result()
        try:
            picture = SharedPicture(load_picture(source))
        except BaseException as error:
            with self._lock:
                del self._decoding[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._decoding[key]
            self._keep(key, picture)
        mine.set_result(picture)
        return picture

    def _keep(self, key: Hashable, picture: SharedPicture) -> None:
        if picture.nbytes <= self._max_bytes:
            self._pictures[key] = picture
            self._bytes += picture.nbytes
            while self._bytes > self._max_bytes or len(self._pictures) > self._max_count:
                self._bytes -= self._pictures.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget every picture; those in use live on with their holders."""
        with self._lock:
            self._pictures.clear()
            self._bytes = 0


def _key(source: Any) -> Hashable | None:
    if isinstance(source, ImageSource):
        source = source.path if source.path is not None else source.data
    if isinstance(source, BytesIO):
        source = source.getvalue()
    if isinstance(source, bytes):
        return hashlib.sha256(source).digest()
    if isinstance(source, str | Path):
        try:
            status = Path(source).stat()
        except OSError:
            return None
        return (str(source), status.st_ino, status.st_size, status.st_mtime_ns)
    return None
