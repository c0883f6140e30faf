"""Images and videos on their way to the nodes: read and decoded once here, put once into the object store."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray
from numpy.typing import NDArray

from pyvision_env.errors import MediaError
from pyvision_env.media import load_image
from pyvision_env.sandbox.cluster.cache import BoundedCache
from pyvision_env.sandbox.pixels import SharedPicture
from pyvision_env.types import ImageSource, RGBArray, VideoSource

Bytes = NDArray[np.uint8]
Form = Literal["image", "pixels", "video"]


@dataclass(frozen=True, slots=True)
class Handed:
    """What a node is told of a medium: enough to know it again, and where to get it.

    Attributes:
        digest: SHA-256 of form and content.
        form: An encoded ``image``, the ``pixels`` of one (uint8 HxWx3) or an encoded ``video``.
        ref: Reference into Ray's object store, fetched by a node that does not know the digest.
    """

    digest: str
    form: Form
    ref: Any


class Medium:
    """An image or video as nodes get it.

    Attributes:
        nbytes: Size in bytes.
    """

    def __init__(self, form: Form, data: Bytes) -> None:
        self.nbytes = data.nbytes
        self._form: Form = form
        self._data: Bytes | None = data
        digest = hashlib.sha256(f"{form} {data.shape}".encode())
        digest.update(data.data)
        self._digest = digest.hexdigest()
        self._ref: Any = None
        self._lock = threading.Lock()

    def handed(self) -> Handed:
        """Put it into the object store if it is not there yet; needs the connection to the cluster."""
        with self._lock:
            if self._ref is None:
                self._ref = ray.put(self._data)
                self._data = None
        return Handed(self._digest, self._form, self._ref)


class ClusterPicture:
    """A decoded image and what the nodes get of it: the encoded file where there is one, which is smaller.

    Attributes:
        width: Pixels.
        height: Pixels.
        medium: For the nodes.
    """

    def __init__(self, pixels: RGBArray, medium: Medium) -> None:
        self._decoded = SharedPicture(pixels)
        self.width, self.height = self._decoded.width, self._decoded.height
        self.medium = medium

    @property
    def pixels(self) -> RGBArray:
        """A read-only view of the picture, uint8 HxWx3."""
        return self._decoded.pixels

    @property
    def nbytes(self) -> int:
        """Memory it takes here, in bytes."""
        return self._decoded.nbytes + self.medium.nbytes


class MediaDesk:
    """The media of this process's tasks, so that the rollouts of a group read and hand over each only once."""

    def __init__(self, max_bytes: int) -> None:
        self._pictures: BoundedCache[ClusterPicture] = BoundedCache(max_bytes)
        self._videos: BoundedCache[Medium] = BoundedCache(max_bytes)

    def picture(self, source: Any) -> ClusterPicture:
        """The picture of a path, encoded bytes, an array, a Pillow image or an ``ImageSource``.

        Raises:
            MediaError: It cannot be read as an image.
        """
        if isinstance(source, ClusterPicture):
            return source
        if isinstance(source, ImageSource):
            source = source.path if source.path is not None else source.data
        key = _identity(source)
        return _picture(source) if key is None else self._pictures.get(key, lambda: _picture(source))

    def video(self, source: Any) -> Medium:
        """The video of a path, encoded bytes or a ``VideoSource``.

        Raises:
            MediaError: It cannot be read.
        """
        if isinstance(source, VideoSource):
            source = source.path if source.path is not None else source.data
        if isinstance(source, io.BytesIO):
            source = source.getvalue()
        if not isinstance(source, str | Path | bytes | bytearray | memoryview):
            raise MediaError(f"a video must be a path, bytes or a VideoSource, got {type(source).__name__}")
        key = _identity(source)
        return _video(source) if key is None else self._videos.get(key, lambda: _video(source))

    def clear(self) -> None:
        """Forget all of them; those in use live on."""
        self._pictures.clear()
        self._videos.clear()


def _identity(source: Any) -> Hashable | None:
    """What tells a source from others without decoding it; None where only its content can."""
    if isinstance(source, str | Path):
        try:
            status = Path(source).stat()
        except OSError:
            return None
        return (str(source), status.st_ino, status.st_size, status.st_mtime_ns)
    return hashlib.sha256(source).digest() if isinstance(source, bytes | bytearray | memoryview) else None


def _picture(source: Any) -> ClusterPicture:
    pixels = load_image(source)
    if isinstance(source, str | Path):
        return ClusterPicture(pixels, Medium("image", np.fromfile(source, np.uint8)))
    if isinstance(source, bytes):
        return ClusterPicture(pixels, Medium("image", np.frombuffer(source, np.uint8)))
    return ClusterPicture(pixels, Medium("pixels", pixels))


def _video(source: str | Path | bytes | bytearray | memoryview) -> Medium:
    if not isinstance(source, str | Path):
        return Medium("video", np.frombuffer(source, np.uint8))
    try:
        return Medium("video", np.fromfile(source, np.uint8))
    except OSError as error:
        raise MediaError(f"video {source}: cannot be opened ({error.strerror}); check the path in the task") from None
