"""Opening a video and finding its frames: one pass over the packets gives every frame its exact number.

What counts as a frame is what decoding the whole file in order shows, at the file's own timestamps: packets that an
edit list marks for discarding are decoded but not shown, a packet cut short by the end of a truncated file is left
out, and so is what stands before the first frame that can be decoded. Wherever timestamps alone cannot tell the order
of the frames, the file is decoded once to learn it.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .video_times import Timeline, VideoError

MAX_FRAME_PIXELS = 1 << 26
"""Pixels of a frame above which a video is refused (67 megapixels; 8K is 33)."""

_READ_BYTES = 1 << 18
_USUAL_FPS = 25.0
_FPS_SLACK = 0.01
_OPENING_FRAMES = 3

# Only real video files: ffmpeg would also read playlists that name other files, and draw plain text as video.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,avi,flv,live_flv,asf,ogg,gif,ivf,nut,mxf,rm,dv,apng,"
    "h264,hevc,av1,obu,m4v,mpegvideo,mjpeg,yuv4mpegpipe"
)

# Their timestamps cannot be searched for a frame; their byte positions can.
_SEEK_BY_BYTES = frozenset({"mpegts"})
# Some of its frames carry no timestamp and are given one from those before, so after a jump it may be another one.
_NO_SEEKING = frozenset({"mpeg"})
# AVI stores no display times: what ffmpeg makes up for reordered frames is not their order.
_NO_DISPLAY_TIMES = frozenset({"avi"})


class DescriptorFile:
    """A file behind a descriptor, read with a position of its own.

    Neither another reader of the same descriptor nor a forked process moves this position. The descriptor stays the
    caller's: it is never closed here.

    Args:
        fd: Open for reading, of a file that can be read at any position.
        name: What error messages call it.
    """

    def __init__(self, fd: int, name: str = "video") -> None:
        self.fd = fd
        self.name = name
        self._position = 0

    def fresh(self) -> DescriptorFile:
        """Another reader of the same descriptor, at the start."""
        return DescriptorFile(self.fd, self.name)

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes (the rest of the file if negative); empty at the end."""
        if size < 0:
            size = max(0, os.fstat(self.fd).st_size - self._position)
        data = os.pread(self.fd, size, self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, as ``io.IOBase.seek`` does."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        self._position = max(0, offset + (os.fstat(self.fd).st_size if base is None else base))
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position


Source = Path | bytes | DescriptorFile
"""What a video is read from: a file, the bytes of one, or an open descriptor."""


def source_name(source: Source) -> str:
    """What error messages call ``source``."""
    if isinstance(source, Path):
        return source.name
    return source.name if isinstance(source, DescriptorFile) else "video"


class KeyFrame(NamedTuple):
    """A place where decoding can begin.

    Attributes:
        first_frame: The first frame, as shown, that decodes right from here on.
        stamp: Timestamp to seek to.
        packet: Its place among all packets.
        offset: Its byte position, if the container tells.
    """

    first_frame: int
    stamp: int
    packet: int
    offset: int | None


START_OF_FILE = KeyFrame(first_frame=0, stamp=0, packet=-1, offset=None)
"""Reading from the very beginning, for files that cannot be searched or mark no keyframe there."""


class Opened:
    """An open container with its video stream, ready to demux from the start; decoding uses no threads."""

    def __init__(self, source: Source) -> None:
        name = source_name(source)
        file: str | io.BytesIO | DescriptorFile
        if isinstance(source, Path):
            file = str(source)
        else:
            file = io.BytesIO(source) if isinstance(source, bytes) else source.fresh()
        try:
            self.container: InputContainer = av.open(
                file,
                "r",
                buffer_size=_READ_BYTES,
                container_options={"format_whitelist": _CONTAINERS},
                # A title in some old encoding is no reason to refuse the video.
                metadata_errors="replace",
            )
        except (av.error.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise VideoError(f"{name} cannot be opened as a video: {reason}") from None
        try:
            self.stream = _video_stream(self.container, name)
        except VideoError:
            self.container.close()
            raise
        self.format: str = self.container.format.name

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """The packets of the stream that hold something; what cannot be read ends them."""
        # PyAV raises IndexError at the end of a file in which a further stream began on the way.
        with contextlib.suppress(av.error.FFmpegError, IndexError):
            for packet in self.container.demux(self.stream):
                # The demuxer's own empty packet would put the decoder into its end state.
                if packet.size:
                    yield packet

    def seek(self, key: KeyFrame, *, by_bytes: bool) -> None:
        """Go to ``key`` or before it; the start of the file is where a newly opened one stands."""
        if key == START_OF_FILE:
            return
        if by_bytes and key.offset is not None:
            self.container.seek(key.offset, unsupported_byte_offset=True)
        else:
            self.container.seek(key.stamp, stream=self.stream)

    def decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """Frames that become ready with ``packet`` (None: with the end of the stream); none if it is damaged."""
        try:
            return self.stream.codec_context.decode(packet)
        except av.error.FFmpegError:
            return []

    def close(self) -> None:
        """Close the container; idempotent."""
        self.container.close()


def _video_stream(container: InputContainer, name: str) -> VideoStream:
    try:
        stream = container.streams.best("video")
    except IndexError:  # a damaged file announces a stream that never comes
        stream = None
    # A cover picture of a song is not a video.
    if not isinstance(stream, VideoStream) or "attached_pic" in str(stream.disposition):
        kinds = ", ".join(sorted({each.type for each in container.streams})) or "nothing"
        raise VideoError(f"{name} has no video in it (it holds {kinds})")
    context = stream.codec_context
    if context is None:
        raise VideoError(f"{name} is coded in a way that cannot be decoded here")
    if not 0 < context.width * context.height <= MAX_FRAME_PIXELS:
        raise VideoError(f"{name} has frames of {context.width}x{context.height} pixels, which cannot be read")
    stream.thread_type = "NONE"
    context.thread_count = 1
    context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
    return stream


@dataclass(frozen=True, eq=False, slots=True)
class FrameIndex:
    """Where every frame of a video is.

    A *stamp* tells packets apart: their presentation time, else their decoding time, else their count. The decoder
    hands it on to the frame it makes of the packet.

    Attributes:
        clock: What a stamp is: ``pts``, ``dts`` or ``count``; the last means that the file cannot be searched.
        numbers: Stamp of each shown frame -> its number, as shown.
        places: Stamp of each packet -> its place among all packets, as decoded.
        packets: Frame number -> place of its packet among all packets.
        key_frames: Ascending by frame; never empty.
        timeline: When each frame is shown.
        size: Width and height as shown.
        turns: Quarter turns counterclockwise that show the frame upright.
        seeks_by_bytes: Whether seeking goes by byte position.
    """

    clock: str
    numbers: dict[int, int]
    places: dict[int, int]
    packets: list[int]
    key_frames: list[KeyFrame]
    timeline: Timeline
    size: tuple[int, int]
    turns: int
    seeks_by_bytes: bool


class _Note(NamedTuple):
    """What one packet says of itself."""

    pts: int | None
    dts: int | None
    duration: int
    offset: int | None
    is_key: bool
    is_shown: bool
    is_corrupt: bool


def stamp_of(clock: str, packet: Packet[VideoStream], count: int) -> int | None:
    """The stamp of the ``count``-th packet."""
    if clock == "count":
        return count
    return packet.pts if clock == "pts" else packet.dts


def build_index(source: Source) -> FrameIndex:
    """Find the frames of a video.

    Raises:
        VideoError: It cannot be opened, holds no video, or none of its frames can be decoded.
    """
    with contextlib.closing(Opened(source)) as opened:
        notes = [
            _Note(p.pts, p.dts, p.duration or 0, p.pos, p.is_keyframe, not p.is_discard, p.is_corrupt)
            for p in opened.packets()
        ]
        reorders = bool(opened.stream.codec_context.has_b_frames)
        rates = opened.stream.average_rate, opened.stream.guessed_rate
        tick = float(opened.stream.time_base or 0)
        container = opened.format
    # The end of a truncated file: half a packet decodes to rubbish or not at all.
    while notes and notes[-1].is_corrupt:
        notes.pop()
    clock = _choose_clock(notes, container)
    stamps = [_stamp(clock, note, place) for place, note in enumerate(notes)]
    with contextlib.closing(Opened(source)) as opened:
        frames = _decode_in_order(opened, clock, len(notes))
        opening = list(itertools.islice(frames, _OPENING_FRAMES))
        if not opening:
            raise VideoError(f"{source_name(source)} has no frame that can be decoded")
        expected = _order_by_stamp(clock, notes, stamps, reorders)
        shown = _confirmed(expected, [frame.pts for frame in opening])
        if not shown:
            shown = [frame.pts for frame in itertools.chain(opening, frames) if frame.pts is not None]
        turns = round(opening[0].rotation / 90) % 4
        width, height = opening[0].width, opening[0].height
    places = {stamp: place for place, stamp in enumerate(stamps)}
    # A frame that carries no stamp of a packet, or a repeated one, cannot be found again.
    shown = [stamp for stamp in dict.fromkeys(shown) if stamp in places]
    if not shown:
        raise VideoError(f"{source_name(source)} has no frame that can be found by its time")
    numbers = {stamp: number for number, stamp in enumerate(shown)}
    return FrameIndex(
        clock=clock,
        numbers=numbers,
        places=places,
        packets=[places[stamp] for stamp in shown],
        key_frames=_key_frames(clock, notes, stamps, numbers),
        timeline=_timeline(clock, shown, notes[places[shown[-1]]].duration, tick, rates),
        size=(height, width) if turns % 2 else (width, height),
        turns=turns,
        seeks_by_bytes=container in _SEEK_BY_BYTES,
    )


def _choose_clock(notes: list[_Note], container: str) -> str:
    if container in _NO_SEEKING:
        return "count"
    if container not in _NO_DISPLAY_TIMES and _tell_apart([note.pts for note in notes]):
        return "pts"
    return "dts" if _tell_apart([note.dts for note in notes]) else "count"


def _tell_apart(stamps: list[int | None]) -> bool:
    return None not in stamps and len(set(stamps)) == len(stamps)


def _stamp(clock: str, note: _Note, place: int) -> int:
    stamp = {"pts": note.pts, "dts": note.dts, "count": place}[clock]
    return place if stamp is None else stamp


def _order_by_stamp(clock: str, notes: list[_Note], stamps: list[int], reorders: bool) -> list[int]:
    """The shown frames' stamps in the order of showing, or nothing where only decoding tells."""
    if (clock != "pts" and reorders) or any(note.is_corrupt for note in notes):
        return []
    return sorted(stamp for stamp, note in zip(stamps, notes, strict=True) if note.is_shown)


def _confirmed(expected: list[int], opening: list[int | None]) -> list[int]:
    """``expected`` from the first frame that the decoder gives on; nothing if it does not go on in this order."""
    if opening[0] is None:
        return []
    begin = bisect_left(expected, opening[0])
    return expected[begin:] if expected[begin : begin + len(opening)] == opening else []


def _decode_in_order(opened: Opened, clock: str, packets: int) -> Iterator[VideoFrame]:
    for count, packet in enumerate(itertools.islice(opened.packets(), packets)):
        packet.pts = stamp_of(clock, packet, count)
        yield from opened.decode(packet)
    yield from opened.decode(None)


def _key_frames(clock: str, notes: list[_Note], stamps: list[int], numbers: dict[int, int]) -> list[KeyFrame]:
    if clock == "count":
        return [START_OF_FILE]
    found = []
    for place, (stamp, note) in enumerate(zip(stamps, notes, strict=True)):
        number = numbers.get(stamp)
        if note.is_key and number is not None:
            found.append(KeyFrame(number, stamp, place, note.offset))
    found.sort()
    # After a cut, the keyframe that the first frames need may itself not be shown.
    return found if found and found[0].first_frame == 0 else [START_OF_FILE, *found]


def _timeline(
    clock: str, shown: list[int], last_duration: int, tick: float, rates: tuple[Fraction | None, Fraction | None]
) -> Timeline:
    average, guessed = (float(rate) if rate else 0.0 for rate in rates)
    count = len(shown)
    nominal = 1 / (guessed or average or _USUAL_FPS)
    counted = clock == "count" or tick <= 0
    if counted:
        tick, last_duration = nominal, 1
    ticks = np.arange(count) if counted else np.sort(np.array(shown, dtype=np.int64))
    starts: npt.NDArray[np.float64] = (ticks - ticks[0]).astype(np.float64) * tick
    last = last_duration * tick
    if last <= 0:
        last = float(starts[-1]) / (count - 1) if count > 1 else nominal
    duration = float(starts[-1]) + last
    fps = count / duration
    # The file's own figure is the rounder one where it is not plainly wrong (after a cut it may be).
    return Timeline(starts, duration, average if abs(average - fps) <= _FPS_SLACK * fps else fps, tick)
