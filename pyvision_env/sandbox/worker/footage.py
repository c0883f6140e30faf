"""What readers of one video have in common: where it is read from, what it holds, who decodes for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .frame_client import FrameClient
from .video_index import DescriptorFile, FrameIndex, Source, build_index
from .video_times import Timeline, VideoError


class Footage:
    """One video as its readers see it.

    Attributes:
        source: Where it is read from.
        decoded_by: Another process that gives out its frames, if there is one; the index is then made only once a
            frame has to be decoded here.
        timeline: When each frame is shown.
        size: Width and height as shown, pixels.
        key_indices: Frames at which decoding can begin, ascending; the first frame is always one.

    Raises:
        VideoError: There is no video that can be read.
    """

    def __init__(self, source: Source, decoded_by: FrameClient | None = None) -> None:
        self.source = source
        self.decoded_by = decoded_by
        self._index: FrameIndex | None = None
        self.timeline: Timeline
        self.size: tuple[int, int]
        if decoded_by is None:
            index = self.index
            self.timeline, self.size = index.timeline, index.size
            self.key_indices = sorted({key.first_frame for key in index.key_frames})
        else:
            outline = decoded_by.outline
            self.timeline, self.size = decoded_by.timeline, (outline.width, outline.height)
            self.key_indices = decoded_by.key_indices

    @property
    def index(self) -> FrameIndex:
        """Where every frame is."""
        if self._index is None:
            self._index = build_index(self.source)
        return self._index


def footage_of(uri: Any) -> Footage:
    """The footage behind whatever a reader may be made from.

    Raises:
        VideoError: There is no video that can be read.
    """
    if isinstance(uri, Footage):
        return uri
    source: Source
    if isinstance(uri, DescriptorFile):
        source = uri
    elif isinstance(uri, bytes | bytearray | memoryview):
        source = bytes(uri)
    elif hasattr(uri, "read"):
        source = bytes(uri.read())
    elif isinstance(uri, str | Path):
        source = Path(uri)
    else:
        raise VideoError(f"a video is a path, bytes or a binary file, not {type(uri).__name__}")
    return Footage(source)
