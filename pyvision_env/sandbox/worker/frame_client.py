"""Frames of a video from the decoder that serves all rollouts of its group.

A decoder process (``frame_server``) writes decoded frames into slots of a memfd that nobody else can write. A reader
asks for frames over a socket of its own, is told their slots, and copies them out; the slot's stamp tells whether it
held that frame all the while. Whatever goes wrong here (no decoder, a dead, slow or busy one), the reader decodes the
frames by itself and gets the same pixels, unless the video is damaged.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from .video_times import Timeline

GREETING = struct.Struct("<QQQQI")
"""First message of the decoder, a memfd with it: length of the outline at its start, where the stamps and where the
slots begin, bytes of a slot, the most frames one request may name."""

STAMP = np.dtype("<u8")
"""Of each slot: the number of its frame plus one, and above these 32 bits a count that no other content has; 0 while
it is written."""

NOT_SERVED = 0xFFFFFFFF
"""In place of a slot: the decoder does not give this frame, decode it yourself."""

WORD = np.dtype("<u4")
"""All messages after the greeting are words. A request: its number, the frames' numbers (none: those had are copied).
An answer: the request's number, then pairs of a frame's place in the request and its slot."""

_GREETING_S = 5.0
_PATIENCE_S = 10.0
_MAX_ANSWER = 1 << 12
_MAX_OUTLINE = 64 << 20


class Outline(msgspec.Struct, frozen=True):
    """What a reader tells of a video before it decodes a frame.

    Attributes:
        starts: Seconds at which each frame appears, float64.
        keys: Frames at which decoding can begin, int64.
    """

    starts: bytes
    keys: bytes
    duration_s: float
    fps: float
    tick_s: float
    width: int
    height: int

    def timeline(self) -> Timeline:
        """When each frame is shown."""
        return Timeline(np.frombuffer(self.starts), self.duration_s, self.fps, self.tick_s)


_outlines = msgspec.msgpack.Decoder(Outline)


class FrameClient:
    """The reader's end of a decoder.

    Args:
        sock: Connected SEQPACKET socket; closed with this object's last use.
        patience_s: Seconds that a reader waits in its life; then it goes its own way for good.

    Raises:
        OSError: The decoder gave up, or did not say in time what the video holds.
        ValueError: What it said makes no sense.
    """

    def __init__(self, sock: socket.socket, patience_s: float = _PATIENCE_S) -> None:
        self._sock: socket.socket | None = sock
        self._patience_s = patience_s
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._request = 0
        sock.setblocking(False)
        self._memory = -1
        try:
            if not _ready(sock, select.POLLIN, _GREETING_S):
                raise TimeoutError("the decoder is too slow")
            data, ancillary, _, _ = sock.recvmsg(GREETING.size, socket.CMSG_LEN(4))
            if len(data) != GREETING.size or not ancillary:
                raise OSError("the decoder hung up")
            self._memory = array.array("i", ancillary[0][2][:4])[0]
            length, self._stamps_at, self._slots_at, self._slot_bytes, self._most = GREETING.unpack(data)
            if length > _MAX_OUTLINE or self._most < 1:
                raise ValueError("its greeting")
            self.outline = _outlines.decode(os.pread(self._memory, length, 0))
            self.timeline = self.outline.timeline()
            self.key_indices: list[int] = memoryview(self.outline.keys).cast("q").tolist()
            if self._slot_bytes < self.outline.width * self.outline.height * 3:
                raise ValueError("slots that hold no frame")
        except OSError:
            self._leave()
            raise
        except (ValueError, TypeError) as error:
            self._leave()
            raise ValueError(f"what a decoder says makes no sense: {error}") from None

    def fill(self, batch: npt.NDArray[np.uint8], rows: Mapping[int, Sequence[int]]) -> set[int]:
        """Write frames into rows of ``batch``; gives back the frames that the caller has to decode.

        Args:
            batch: ``NxHxWx3`` of the video's own size, C-contiguous.
            rows: Frame number -> the rows it belongs into.
        """
        missing = set(rows)
        # In a forked child the socket belongs to the parent's conversation.
        if self._sock is None or self._owner != os.getpid():
            return missing
        numbers = sorted(rows)
        with self._lock:
            try:
                for begin in range(0, len(numbers), self._most):
                    self._fill_some(numbers[begin : begin + self._most], batch, rows, missing)
            except (OSError, ValueError):
                # Dead, or too slow to be of use: from now on this reader reads for itself.
                self._leave()
        return missing

    def _fill_some(
        self,
        numbers: list[int],
        batch: npt.NDArray[np.uint8],
        rows: Mapping[int, Sequence[int]],
        missing: set[int],
    ) -> None:
        # Numbered, so that the answer to a request that a time-out cut short is not taken for this one's.
        self._request = (self._request + 1) & 0x7FFFFFFF
        self._send(numbers)
        waiting = set(range(len(numbers)))
        while waiting:
            for place, slot in self._answers():
                if place in waiting:
                    waiting.discard(place)
                    if slot != NOT_SERVED and self._copy(slot, numbers[place], batch, rows[numbers[place]]):
                        missing.discard(numbers[place])
        self._send(())

    def _send(self, numbers: Iterable[int]) -> None:
        message = np.array([self._request, *numbers], WORD).tobytes()
        sock = self._connected()
        self._await(sock, select.POLLOUT)
        sock.send(message)

    def _answers(self) -> list[tuple[int, int]]:
        """Pairs of place and slot out of the next message that answers the present request."""
        while True:
            sock = self._connected()
            self._await(sock, select.POLLIN)
            data = sock.recv(_MAX_ANSWER)
            if not data or len(data) % WORD.itemsize:
                raise OSError("the decoder hung up")
            words = np.frombuffer(data, WORD).tolist()
            if words[0] == self._request:
                return list(zip(words[1::2], words[2::2], strict=False))

    def _copy(self, slot: int, number: int, batch: npt.NDArray[np.uint8], rows: Sequence[int]) -> bool:
        """Whether the slot held the frame from beginning to end."""
        stamp = self._stamp(slot)
        if stamp & 0xFFFFFFFF != number + 1:
            return False
        # Read, not mapped: a mapping of the whole would count against the episode's address space.
        first = batch[rows[0]]
        view = memoryview(first).cast("B")
        at = self._slots_at + slot * self._slot_bytes
        while view:
            count = os.preadv(self._memory, [view], at)
            if count == 0:
                raise OSError("a slot beyond the decoder's memory")
            view, at = view[count:], at + count
        if self._stamp(slot) != stamp:
            return False
        for row in rows[1:]:
            batch[row] = first
        return True

    def _stamp(self, slot: int) -> int:
        return int.from_bytes(os.pread(self._memory, STAMP.itemsize, self._stamps_at + slot * STAMP.itemsize), "little")

    def _await(self, sock: socket.socket, event: int) -> None:
        began = time.monotonic()
        ready = _ready(sock, event, max(0.0, self._patience_s))
        self._patience_s -= time.monotonic() - began
        if not ready:
            raise TimeoutError("the decoder is too slow")

    def _connected(self) -> socket.socket:
        if self._sock is None:
            raise OSError("the decoder was given up")
        return self._sock

    def _leave(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()
        memory, self._memory = self._memory, -1
        if memory >= 0:
            with contextlib.suppress(OSError):
                os.close(memory)


def wanted_rows(numbers: Collection[int]) -> dict[int, list[int]]:
    """Frame number -> the rows of a batch of ``numbers`` that show it."""
    rows: dict[int, list[int]] = {}
    for row, number in enumerate(numbers):
        rows.setdefault(number, []).append(row)
    return rows


def _ready(sock: socket.socket, event: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(seconds * 1000))
