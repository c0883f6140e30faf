"""``VideoReader``: decord's interface over PyAV, with exact frame numbers on every container."""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableMapping
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from . import decord_shim
from .footage import Footage, footage_of
from .frame_client import wanted_rows
from .video_decode import Decoder
from .video_index import DescriptorFile, source_name
from .video_times import FrameIndexError, VideoError

__all__ = ["DescriptorFile", "Footage", "FrameIndexError", "VideoError", "VideoReader", "install_decord"]

MAX_BATCH_BYTES = 1 << 30
"""Bytes of decoded frames above which one batch is refused."""


def install_decord(modules: MutableMapping[str, ModuleType] | None = None) -> None:
    """Make ``import decord`` (and ``from decord import VideoReader, cpu``) find this reader.

    Args:
        modules: Where to register it; ``sys.modules`` where left out.
    """
    decord_shim.install(sys.modules if modules is None else modules, VideoReader, VideoError)


class VideoReader:
    """Random access to the frames of a video.

    Frame ``i`` is the ``i``-th frame that decoding the whole file in order would show; times count from the start of
    the first frame. Frames come out upright (rotation metadata is applied) as uint8 RGB. After a fork both processes
    can go on reading. Several threads may share a reader; they take turns.

    Args:
        uri: A path, a ``DescriptorFile``, the bytes of a file, a binary file object, ``Footage``, or another reader.
        ctx: Accepted for decord's sake.
        width: Width of the frames given out, pixels; -1 leaves it as it is.
        height: Height of the frames given out, pixels; -1 leaves it as it is.
        num_threads: Accepted for decord's sake; decoding uses the calling thread.
        fault_tol: Accepted for decord's sake; a frame that cannot be decoded is an error, never a copy of another.
        max_batch_bytes: The most bytes of frames that one call may give out.

    Raises:
        VideoError: There is no video that can be read.
    """

    def __init__(
        self,
        uri: Any,
        ctx: Any = None,
        width: int = -1,
        height: int = -1,
        num_threads: int = 0,
        fault_tol: float = -1,
        *,
        max_batch_bytes: int = MAX_BATCH_BYTES,
    ) -> None:
        self._footage: Footage = uri._footage if isinstance(uri, VideoReader) else footage_of(uri)
        self._timeline = self._footage.timeline
        own_width, own_height = self._footage.size
        self._size = (width if width > 0 else own_width, height if height > 0 else own_height)
        self._max_batch_bytes = max_batch_bytes
        self._refuse_large(1)
        self._decoder: Decoder | None = None
        self._next = 0

    def __len__(self) -> int:
        return self._timeline.num_frames

    def __repr__(self) -> str:
        info = self.info()
        size = f"{info['num_frames']} frames, {info['width']}x{info['height']}"
        name = source_name(self._footage.source)
        return f"<VideoReader {name}: {size}, {info['fps']:.2f} fps, {info['duration_s']:.2f} s>"

    def __getitem__(self, index: Any) -> Any:
        """Frame ``index`` (``HxWx3``), or for a slice or list the batch of them (``NxHxWx3``).

        Raises:
            FrameIndexError: There is no such frame (an ``IndexError`` and a ``VideoError``).
        """
        if isinstance(index, slice):
            return self.get_batch(range(*index.indices(len(self))))
        if np.ndim(index):
            return self.get_batch(index)
        number = self._timeline.checked_index(index)
        self._next = number + 1
        return decord_shim.bridge.out(self._batch([number])[0])

    def __iter__(self) -> Iterator[Any]:
        for number in range(len(self)):
            yield self[number]

    def get_batch(self, indices: Any) -> Any:
        """Frames ``indices`` in this order as one array, ``NxHxWx3``; repetitions and negative ones are fine.

        Raises:
            FrameIndexError: There is no such frame.
            VideoError: The batch would need more memory than allowed, or a frame cannot be decoded.
        """
        return decord_shim.bridge.out(self.frames(indices))

    def frames(self, indices: Any) -> npt.NDArray[np.uint8]:
        """As ``get_batch``, but always a plain numpy array, whatever decord's bridge is set to."""
        numbers = [self._timeline.checked_index(index) for index in _listed(indices)]
        self._refuse_large(len(numbers))
        return self._batch(numbers)

    def next(self) -> Any:
        """The frame after the one read last.

        Raises:
            StopIteration: The video has ended.
        """
        if self._next >= len(self):
            raise StopIteration
        return self[self._next]

    def skip_frames(self, num: int = 1) -> None:
        """Let ``next`` leave out ``num`` frames."""
        self._next += num

    def seek(self, pos: int) -> None:
        """Let ``next`` go on at the last keyframe up to frame ``pos``."""
        number = self._timeline.checked_index(pos)
        self._next = max(key for key in self.get_key_indices() if key <= number)

    def seek_accurate(self, pos: int) -> None:
        """Let ``next`` go on at frame ``pos``."""
        self._next = self._timeline.checked_index(pos)

    def get_avg_fps(self) -> float:
        """Average frames per second."""
        return self._timeline.fps

    def get_key_indices(self) -> list[int]:
        """Frames at which decoding can begin, ascending; the first frame is always one."""
        return list(self._footage.key_indices)

    def get_frame_timestamp(self, idx: Any) -> npt.NDArray[np.float64]:
        """Start and end of frames in seconds: ``(2,)`` for one frame, ``(N, 2)`` for a list or slice."""
        if isinstance(idx, slice):
            return self._timeline.spans()[idx]
        numbers = [self._timeline.checked_index(each) for each in _listed(idx)]
        spans = self._timeline.spans()[numbers]
        return spans if np.ndim(idx) else spans[0]

    def info(self) -> dict[str, Any]:
        """``width``, ``height``, ``num_frames``, ``fps`` (average) and ``duration_s`` of the frames given out."""
        width, height = self._size
        return {
            "width": width,
            "height": height,
            "num_frames": len(self),
            "fps": self._timeline.fps,
            "duration_s": self._timeline.duration_s,
        }

    def time_to_index(self, time: float) -> int:
        """The frame shown ``time`` seconds after the first one appeared; see ``Timeline.time_to_index``."""
        return self._timeline.time_to_index(time)

    def resolve(self, **choice: Any) -> list[int]:
        """Frame numbers for ``times``, ``indices`` or ``num`` with ``start`` and ``end``; see ``Timeline.resolve``."""
        return self._timeline.resolve(**choice)

    def close(self) -> None:
        """Let go of the file; reading again opens it again. Idempotent."""
        if self._decoder is not None:
            self._decoder.close()

    def _batch(self, numbers: list[int]) -> npt.NDArray[np.uint8]:
        """Frames by their checked numbers, from the process that decodes for this one or decoded here."""
        width, height = self._size
        batch = np.empty((len(numbers), height, width, 3), np.uint8)
        rows = wanted_rows(numbers)
        client = self._footage.decoded_by
        if client is not None and self._size == self._footage.size:
            missing = client.fill(batch, rows)
            rows = {number: rows[number] for number in missing}
        if rows:
            if self._decoder is None:
                self._decoder = Decoder(self._footage.source, self._footage.index, self._size)
            self._decoder.fill(batch, rows)
        return batch

    def _refuse_large(self, frames: int) -> None:
        width, height = self._size
        need = frames * width * height * 3
        if need > self._max_batch_bytes:
            most = self._max_batch_bytes // (width * height * 3)
            advice = f"read at most {most} at once" if most else "ask for fewer pixels with width= and height="
            raise VideoError(
                f"{frames} frame{'s' * (frames > 1)} of {width}x{height} pixels need {need / 2**20:.0f} MiB, "
                f"more than one read may give out ({self._max_batch_bytes / 2**20:.0f} MiB): {advice}"
            )


def _listed(indices: Any) -> list[Any]:
    try:
        return list(indices)
    except TypeError:
        return [indices]
