"""Decoding chosen frames of an indexed video with as little work as exactness allows."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Mapping, Sequence

import av.error
import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from .video_index import START_OF_FILE, FrameIndex, KeyFrame, Opened, Source, source_name, stamp_of
from .video_times import VideoError

# Codecs whose own rules say of a frame that no other refers to it, so that leaving it out changes nothing else.
# (HEVC says so only of frames of the same temporal layer.)
_SKIPPABLE_CODECS = frozenset({"h264", "mpeg4", "mpeg2video", "mpeg1video"})

# What a parent process had opened: freeing it in the child can hang, so it is kept for as long as the child lives.
_abandoned: list[object] = []


class Decoder:
    """Gives out frames of one video by number; keeps the decoder where it stands for the next call.

    Frames asked for in ascending order are therefore decoded at most once each, and a batch is sorted first. On the
    way to a wanted frame, those that no other frame refers to are left out.

    Args:
        source: The video.
        index: Its frames.
        size: Width and height of the frames given out, upright.
    """

    def __init__(self, source: Source, index: FrameIndex, size: tuple[int, int]) -> None:
        self._source = source
        self._index = index
        self._size = size
        self._first_frames = [key.first_frame for key in index.key_frames]
        self._undecodable: set[int] = set()
        self._latest: tuple[int, npt.NDArray[np.uint8]] | None = None
        self._opened: Opened | None = None
        self._run: _Run | None = None
        self._start_afresh()

    def fill(self, batch: npt.NDArray[np.uint8], rows: Mapping[int, Sequence[int]]) -> None:
        """Write frames into rows of ``batch``.

        Args:
            batch: ``NxHxWx3`` uint8 RGB.
            rows: Frame number -> the rows it belongs into.

        Raises:
            VideoError: One of them cannot be decoded.
        """
        self._leave_parent()
        with self._lock:
            try:
                for number in sorted(rows):
                    batch[rows[number]] = self._pixels(number, rows)
            except BaseException:
                # A time-out may strike between two steps of the decoder: begin anew next time.
                self._run = None
                raise

    def close(self) -> None:
        """Close the file; the next read opens it again. Idempotent."""
        self._leave_parent()
        with self._lock:
            self._run = None
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def _start_afresh(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._reformatter = VideoReformatter()
        self._opened = None
        self._run = None

    def _leave_parent(self) -> None:
        if self._pid != os.getpid():
            _abandoned.append((self._opened, self._run, self._reformatter))
            self._start_afresh()

    def _pixels(self, number: int, wanted: Collection[int]) -> npt.NDArray[np.uint8]:
        if self._latest is None or self._latest[0] != number:
            self._latest = (number, self._to_rgb(self._reach(number, wanted)))
        return self._latest[1]

    def _to_rgb(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        turns = self._index.turns
        width, height = self._size[::-1] if turns % 2 else self._size
        # One thread: an episode may not be allowed more.
        pixels = self._reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
        return np.rot90(pixels, turns)

    def _reach(self, number: int, wanted: Collection[int]) -> VideoFrame:
        keys = self._index.key_frames
        at = bisect_right(self._first_frames, number) - 1
        until = max(wanted)
        if self._run is not None and self._run.leads_to(number, keys[at]):
            frame = self._run.reach(number, wanted, until)
            if frame is not None:
                return frame
        if number not in self._undecodable:
            # A seek may land too late, and damage may need more to be read: begin ever earlier, leaving nothing out.
            for key, skips in ((keys[at], True), (keys[max(0, at - 1)], False), (START_OF_FILE, False)):
                self._run = self._begin(key, skips)
                frame = self._run.reach(number, wanted, until)
                if frame is not None:
                    return frame
            self._undecodable.add(number)
        raise VideoError(f"frame {number} cannot be decoded: {source_name(self._source)} is damaged there")

    def _begin(self, key: KeyFrame, skips: bool) -> _Run:
        if self._opened is not None and key == START_OF_FILE:
            self._opened.close()
            self._opened = None
        if self._opened is None:
            self._opened = Opened(self._source)
        try:
            self._opened.seek(key, by_bytes=self._index.seeks_by_bytes)
        except av.error.FFmpegError:
            return self._begin(START_OF_FILE, skips)
        return _Run(self._opened, self._index, key, skips)


class _Run:
    """Decoding onwards from one keyframe.

    Args:
        opened: Stands at ``key`` or before it.
        index: The frames of the video.
        key: Where to begin.
        skips: Whether frames that nobody needs may be left out.
    """

    def __init__(self, opened: Opened, index: FrameIndex, key: KeyFrame, skips: bool) -> None:
        self._opened = opened
        self._index = index
        self._key = key
        self._skips = skips and opened.stream.codec_context.name in _SKIPPABLE_CODECS
        self._packets = enumerate(opened.packets())
        self._ready: deque[VideoFrame] = deque()
        self._begun = key == START_OF_FILE
        self._ended = False
        self._sent = -1
        self._shown = -1
        self._pending: set[int] = set()

    def leads_to(self, number: int, key: KeyFrame) -> bool:
        """Whether going on gives frame ``number``, and no sooner reached from ``key``, the keyframe before it."""
        ahead = self._index.packets[number] > self._sent or number in self._pending
        return ahead and number > self._shown and key.packet <= self._sent + 1

    def reach(self, number: int, wanted: Collection[int], until: int) -> VideoFrame | None:
        """Decode up to frame ``number``; None if it does not come.

        Args:
            number: The frame.
            wanted: Frames that will be asked for in this call.
            until: The last of them; frames after it are kept whole, as the next call may want them.
        """
        while True:
            while self._ready:
                frame = self._ready.popleft()
                found = self._index.numbers.get(frame.pts) if frame.pts is not None else None
                if found is None:
                    continue
                self._shown = found
                self._pending.discard(found)
                if found >= number:
                    return frame if found == number else None
            if self._ended:
                return None
            self._advance(wanted, until)

    def _advance(self, wanted: Collection[int], until: int) -> None:
        count, packet = next(self._packets, (0, None))
        if packet is None:
            self._ended = True
            self._ready.extend(self._opened.decode(None))
            return
        stamp = stamp_of(self._index.clock, packet, count)
        place = self._index.places.get(stamp) if stamp is not None else None
        if not self._begun:
            # The seek landed before the keyframe (read on) or after it (give up).
            self._ended = place is not None and place > self._key.packet
            self._begun = place == self._key.packet
        if self._begun:
            packet.pts = stamp
            self._send(packet, place, wanted, until)

    def _send(self, packet: Packet[VideoStream], place: int | None, wanted: Collection[int], until: int) -> None:
        number = self._index.numbers.get(packet.pts) if packet.pts is not None else None
        needless = self._skips and number is not None and number < until and number not in wanted
        if number is not None and not needless:
            self._pending.add(number)
        if place is not None:
            self._sent = place
        self._opened.stream.codec_context.skip_frame = "NONREF" if needless else "DEFAULT"
        self._ready.extend(self._opened.decode(packet))
