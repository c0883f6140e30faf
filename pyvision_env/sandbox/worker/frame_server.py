"""The decoder of one video: fills a memfd with the frames that the rollouts of a group ask for.

It runs in a process confined like an episode's, since the video may be hostile, and serves that video alone. Those it
serves may be hostile too: all they can do is name frames, a few at a time. They never write what others read (the memfd
is sealed), and a frame is known by its stamp, so that a slot used anew is not taken for the old frame. Those who wait
share the processor evenly, nobody waits for a peer that does not read, and whoever used up its share of processor time
is sent away. One rollout can learn of another which frames it asked for: the memory shows what is there. In a damaged
video a frame may depend on what was decoded before it, so on what others asked for.
"""

from __future__ import annotations

import array
import contextlib
import mmap
import os
import select
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Mapping

import msgspec
import numpy as np

from .frame_client import GREETING, NOT_SERVED, STAMP, WORD, Outline
from .video_decode import Decoder
from .video_index import DescriptorFile, FrameIndex, build_index
from .video_times import VideoError
from .wire import Attach, Decode, Reply, receive_request, send

_MOST = 64
_FEWEST_SLOTS = 4
_CHUNK = 4
_CHUNK_S = 0.25
_TURN_S = 0.5
_PINNED_S = 5.0
_DECODERS = 4
_MOST_WAIT_S = 2.0


class _Client:
    """One rollout's reader.

    Attributes:
        request: Number of the request it waits for.
        numbers: The frames it asked for.
        pending: Frame number -> its place in the request, of those it has no answer on yet; ascending.
        pinned_until: Until then (``time.monotonic()``) it may copy what it was told.
        used_s: Processor time spent for it.
        turn_s: The same, counted from the least of those who waited when it joined them: decides whose turn it is.
        seconds_a_frame: What its frames cost of late.
    """

    def __init__(self, sock: socket.socket, seconds_a_frame: float) -> None:
        self.sock = sock
        self.request = 0
        self.numbers: list[int] = []
        self.pending: OrderedDict[int, int] = OrderedDict()
        self.pinned_until = 0.0
        self.used_s = 0.0
        self.turn_s = 0.0
        self.seconds_a_frame = seconds_a_frame


class _Slots:
    """Which frame lies in which slot; the longest unused one is given to the next frame."""

    def __init__(self, count: int) -> None:
        self._free = deque(range(count))
        self._by_frame: OrderedDict[int, int] = OrderedDict()

    def find(self, number: int) -> int | None:
        """The slot of a frame that is there."""
        slot = self._by_frame.get(number)
        if slot is not None:
            self._by_frame.move_to_end(number)
        return slot

    def take(self, number: int, pinned: set[int]) -> int | None:
        """A slot for a frame, unless all hold frames that are ``pinned``."""
        if self._free:
            slot = self._free.popleft()
        else:
            victim = next((frame for frame in self._by_frame if frame not in pinned), None)
            if victim is None:
                return None
            slot = self._by_frame.pop(victim)
        self._by_frame[number] = slot
        return slot

    def give_back(self, number: int) -> None:
        """The frame did not come."""
        self._free.append(self._by_frame.pop(number))


class FrameServer:
    """Decodes for whoever the host attaches.

    Args:
        host: Socket from which the host attaches clients; the server ends with it.
        video: Descriptor of the video.
        memory: What may be filled with frames; nobody else writes it.
        client_cpu_s: Processor seconds that may be spent for one client.

    Raises:
        VideoError: The video cannot be read, or its frames are too large to be kept.
    """

    def __init__(self, host: socket.socket, video: int, memory: mmap.mmap, client_cpu_s: float) -> None:
        self._host = host
        self._client_cpu_s = client_cpu_s
        size = len(memory)
        self._memory = np.frombuffer(memory, np.uint8)
        self._source = DescriptorFile(video)
        self._index = build_index(self._source)
        outline = msgspec.msgpack.encode(_outline(self._index))
        width, height = self._index.size
        self._frame_bytes = width * height * 3
        self._slot_bytes = _to_pages(self._frame_bytes)
        stamps_at = -(-len(outline) // STAMP.itemsize) * STAMP.itemsize
        count = max(0, size - stamps_at) // (self._slot_bytes + STAMP.itemsize)
        self._slots_at = _to_pages(stamps_at + count * STAMP.itemsize)
        count = min(count, (size - self._slots_at) // self._slot_bytes)
        if count < _FEWEST_SLOTS:
            raise VideoError(f"frames of {width}x{height} pixels are too large to be kept in {size >> 20} MiB")
        self._memory[: len(outline)] = np.frombuffer(outline, np.uint8)
        self._stamps = np.frombuffer(memory, STAMP, count, stamps_at)
        self._stamped = 0
        self._slots = _Slots(count)
        self._most = max(1, min(_MOST, count // _FEWEST_SLOTS))
        self._greeting = GREETING.pack(len(outline), stamps_at, self._slots_at, self._slot_bytes, self._most)
        self._clients: dict[int, _Client] = {}
        self._decoders: OrderedDict[int, Decoder] = OrderedDict()
        self._turn: _Client | None = None
        self._seconds_a_frame = 0.0

    def serve(self) -> None:
        """Work until the host hangs up."""
        poll = select.poll()
        poll.register(self._host, select.POLLIN)
        while True:
            busy = any(client.pending for client in self._clients.values())
            for fd, _ in poll.poll(0 if busy else None):
                began = time.process_time()
                if fd == self._host.fileno():
                    if not self._attach(poll):
                        return
                elif not self._hear(self._clients[fd]):
                    self._detach(fd, poll)
                else:
                    self._charge({fd: 1.0}, began, poll)
            client = self._whose_turn()
            if client is not None:
                self._decode_for(client, poll)

    def _whose_turn(self) -> _Client | None:
        """Of those who wait the one that got the least; who has begun goes on until another is far behind."""
        waiting = [client for client in self._clients.values() if client.pending]
        least = min(waiting, key=lambda client: client.turn_s, default=None)
        present = self._turn
        if least is None or present not in waiting or present.turn_s - least.turn_s > _TURN_S:
            self._turn = least
        return self._turn

    def _attach(self, poll: select.poll) -> bool:
        try:
            request, fds = receive_request(self._host)
        except EOFError:
            return False
        if not isinstance(request, Attach):
            return False
        if len(fds) != 2:
            # There were no more descriptors to be had here: one rollout less is served.
            for fd in fds:
                os.close(fd)
            return True
        sock = socket.socket(fileno=fds[0])
        sock.setblocking(False)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds[1:]))]
        try:
            sock.sendmsg([self._greeting], rights)
        except OSError:
            sock.close()
            return True
        finally:
            os.close(fds[1])
        self._clients[sock.fileno()] = _Client(sock, self._seconds_a_frame)
        poll.register(sock, select.POLLIN)
        return True

    def _detach(self, fd: int, poll: select.poll) -> None:
        poll.unregister(fd)
        self._clients.pop(fd).sock.close()
        decoder = self._decoders.pop(fd, None)
        if decoder is not None:
            decoder.close()

    def _charge(self, shares: Mapping[int, float], began: float, poll: select.poll) -> None:
        """Lay the processor time since ``began`` to the accounts of those it was spent for.

        Args:
            shares: Descriptor of a client -> its part of the whole.
            began: ``time.process_time()``.
            poll: Where clients whose account is overdrawn are left out from now on.
        """
        seconds = time.process_time() - began
        for fd, share in shares.items():
            client = self._clients[fd]
            client.used_s += share * seconds
            client.turn_s += share * seconds
            if client.used_s > self._client_cpu_s:
                self._detach(fd, poll)

    def _hear(self, client: _Client) -> bool:
        """Take a client's next request in place of its last one; False if it has gone or talks nonsense."""
        try:
            # No room for descriptors: what a client may send along is dropped by the kernel.
            data = client.sock.recv((_MOST + 2) * WORD.itemsize)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data or len(data) % WORD.itemsize:
            return False
        client.request, *numbers = np.frombuffer(data, WORD).tolist()
        if len(numbers) > self._most or any(number >= len(self._index.packets) for number in numbers):
            return False
        client.numbers = numbers
        if not client.pending:
            # Who did not wait has saved up nothing.
            waiting = [other.turn_s for other in self._clients.values() if other.pending]
            client.turn_s = max(client.turn_s, min(waiting, default=0.0))
        client.pending = OrderedDict((number, place) for place, number in enumerate(numbers))
        there = [number for number in numbers if self._slots.find(number) is not None]
        self._answer(there)
        own, ahead, counted = len(client.pending) * client.seconds_a_frame, 0.0, set(numbers)
        for other in self._clients.values():
            theirs = other.pending.keys() - counted
            counted |= theirs
            # Turns are even: for none of the others more is done meanwhile than for this one.
            ahead += min(own, len(theirs) * other.seconds_a_frame)
        if ahead > _MOST_WAIT_S:
            # Everybody decoding for itself is then faster than one after the other here.
            self._refuse(client, list(client.pending))
        return True

    def _decode_for(self, client: _Client, poll: select.poll) -> None:
        """Decode the next few frames that a client waits for, and give them to all who wait for them."""
        began, fd = time.process_time(), client.sock.fileno()
        most = int(_CHUNK_S / client.seconds_a_frame) if client.seconds_a_frame > 0 else _CHUNK
        slots = self._take_slots(sorted(client.pending)[: max(1, min(_CHUNK, most))])
        if not slots:
            self._refuse(client, list(client.pending))
            self._charge({fd: 1.0}, began, poll)
            return
        shares = self._shares(slots)
        width, height = self._index.size
        batch = np.empty((len(slots), height, width, 3), np.uint8)
        try:
            self._decoder_of(fd).fill(batch, {number: [row] for row, number in enumerate(slots)})
        except VideoError:
            # Which of them is damaged the client finds out by itself.
            for number in slots:
                self._slots.give_back(number)
            self._refuse(client, slots)
            self._charge({fd: 1.0}, began, poll)
            return
        seconds = (time.process_time() - began) / len(slots)
        client.seconds_a_frame += 0.5 * (seconds - client.seconds_a_frame)
        self._seconds_a_frame += 0.2 * (seconds - self._seconds_a_frame)
        for (number, slot), pixels in zip(slots.items(), batch, strict=True):
            at = self._slots_at + slot * self._slot_bytes
            self._memory[at : at + self._frame_bytes] = pixels.reshape(-1)
            self._stamped += 1
            self._stamps[slot] = self._stamped << 32 | number + 1
        self._answer(slots)
        self._charge(shares, began, poll)

    def _shares(self, numbers: Collection[int]) -> dict[int, float]:
        """Who waits for these frames, by descriptor, and for which part of them: who wait for one divide it."""
        shares: dict[int, float] = {}
        for number in numbers:
            waiting = [fd for fd, client in self._clients.items() if number in client.pending]
            for fd in waiting:
                shares[fd] = shares.get(fd, 0.0) + 1 / (len(numbers) * len(waiting))
        return shares

    def _take_slots(self, numbers: list[int]) -> dict[int, int]:
        """Frame number -> slot, for as many of the frames as there are slots that nobody copies from."""
        now = time.monotonic()
        pinned = {
            number
            for client in self._clients.values()
            if client.pinned_until > now
            for number in client.numbers
            if number not in client.pending
        }
        slots: dict[int, int] = {}
        for number in numbers:
            slot = self._slots.take(number, pinned | slots.keys())
            if slot is None:
                break
            # Not to be taken for the old frame from now on.
            self._stamps[slot] = 0
            slots[number] = slot
        return slots

    def _decoder_of(self, fd: int) -> Decoder:
        """Every client has its own, as far as memory allows, which goes on where its last request ended."""
        decoder = self._decoders.pop(fd, None)
        if decoder is None:
            decoder = Decoder(self._source, self._index, self._index.size)
            if len(self._decoders) >= _DECODERS:
                self._decoders.popitem(last=False)[1].close()
        self._decoders[fd] = decoder
        return decoder

    def _answer(self, numbers: Iterable[int]) -> None:
        """Tell everybody who waits for some of these frames the slots of those that are there."""
        slots = {number: slot for number in numbers if (slot := self._slots.find(number)) is not None}
        for client in self._clients.values():
            pairs = [(client.pending.pop(number), slot) for number, slot in slots.items() if number in client.pending]
            self._tell(client, pairs)

    def _refuse(self, client: _Client, numbers: Iterable[int]) -> None:
        self._tell(client, [(client.pending.pop(number), NOT_SERVED) for number in numbers if number in client.pending])

    def _tell(self, client: _Client, pairs: list[tuple[int, int]]) -> None:
        if pairs:
            client.pinned_until = time.monotonic() + _PINNED_S
            words = [client.request, *(word for pair in pairs for word in pair)]
            try:
                client.sock.send(np.array(words, WORD).tobytes())
            except OSError:
                # It does not read, or has gone: shut, so that the next poll buries it.
                with contextlib.suppress(OSError):
                    client.sock.shutdown(socket.SHUT_RDWR)


def _outline(index: FrameIndex) -> Outline:
    timeline = index.timeline
    keys = sorted({key.first_frame for key in index.key_frames})
    return Outline(
        starts=timeline.starts.astype(np.float64).tobytes(), keys=np.array(keys, np.int64).tobytes(),
        duration_s=timeline.duration_s, fps=timeline.fps, tick_s=timeline.tick_s,
        width=index.size[0], height=index.size[1],
    )  # fmt: skip


def _to_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def run_decoder(sock: socket.socket, spool: int) -> None:
    """Serve one video in this process and never return; whoever is attached then reads for itself.

    Args:
        sock: To the host.
        spool: Where an episode's output would go; a decoder has none.
    """
    # The zygote's own output is shared by all its decoders.
    os.close(spool)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    with contextlib.suppress(EOFError, OSError, VideoError):
        request, fds = receive_request(sock)
        if isinstance(request, Decode) and len(fds) == 2:
            video, fd = fds
            memory = mmap.mmap(fd, os.fstat(fd).st_size)
            os.close(fd)
            send(sock, Reply(seq=request.seq))
            FrameServer(sock, video, memory, request.client_cpu_s).serve()
    os._exit(0)
