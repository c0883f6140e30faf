"""The decoder of a group in one process with its readers: exact frames on every container, few slots, fair turns."""

from __future__ import annotations

import mmap
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import numpy as np
import pytest

from pyvision_env.sandbox.worker import frame_server, wire
from pyvision_env.sandbox.worker.footage import Footage
from pyvision_env.sandbox.worker.frame_client import NOT_SERVED, WORD, FrameClient
from pyvision_env.sandbox.worker.frame_server import FrameServer
from pyvision_env.sandbox.worker.video import DescriptorFile, VideoError, VideoReader
from tests.sandbox.workers import wait_until
from tests.video.barcode_clips import (
    HEIGHT,
    VFR_GAPS_MS,
    WIDTH,
    cut_without_recoding,
    read_number,
    write_clip,
    x264_clip,
)

SLOT = -(-WIDTH * HEIGHT * 3 // mmap.PAGESIZE) * mmap.PAGESIZE

CLIPS: dict[str, Callable[[Path], Path]] = {
    "b-frames": lambda d: x264_clip(d / "v.mp4"),
    "open GOP": lambda d: x264_clip(d / "v.mkv", ":open-gop=1"),
    "variable rate": lambda d: x264_clip(d / "v.mp4", gaps_ms=VFR_GAPS_MS),
    "MPEG-TS": lambda d: x264_clip(d / "v.ts"),
    "cut without recoding": lambda d: cut_without_recoding(x264_clip(d / "o.mp4"), d / "v.mp4", 1.4),
    "rotated": lambda d: x264_clip(d / "v.mp4", rotation=90),
    "mpeg4 in AVI": lambda d: write_clip(d / "v.avi", "mpeg4"),
}


class Desk:
    """A decoder in a thread of this process, and readers of its video."""

    def __init__(self, path: Path, size: int, client_cpu_s: float = 60.0) -> None:
        self.video = os.open(path, os.O_RDONLY)
        self._fd = os.memfd_create("frames")
        os.ftruncate(self._fd, size)
        self._host, self._theirs = socket.socketpair()
        self._clients: list[socket.socket] = []
        self.server = FrameServer(self._theirs, self.video, mmap.mmap(self._fd, size), client_cpu_s)
        self._thread = threading.Thread(target=self.server.serve)
        self._thread.start()

    def socket(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            wire.send(self._host, wire.Attach(), fds=[theirs.fileno(), self._fd])
        self._clients.append(ours)
        return ours

    def reader(self) -> VideoReader:
        return VideoReader(Footage(DescriptorFile(self.video), FrameClient(self.socket())))

    def close(self) -> None:
        self._host.close()
        self._thread.join(30)
        assert not self._thread.is_alive()
        for sock in [self._theirs, *self._clients, *(client.sock for client in self.server._clients.values())]:
            sock.close()
        os.close(self._fd)
        os.close(self.video)


@pytest.fixture
def desk_of() -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def make(path: Path, size: int = 16 << 20, **options: float) -> Desk:
        desks.append(Desk(path, size, **options))
        return desks[-1]

    yield make
    for desk in desks:
        desk.close()


@pytest.mark.parametrize("kind", CLIPS)
def test_shared_frames_and_times_equal_those_of_a_reader_of_its_own(
    kind: str, tmp_path: Path, desk_of: Callable[..., Desk]
) -> None:
    path = CLIPS[kind](tmp_path)
    shared, own = desk_of(path).reader(), VideoReader(path)
    wanted = [*Random(0).sample(range(len(own)), 20), 0, len(own) - 1, 3, 3]
    assert np.array_equal(shared.get_batch(wanted), own.get_batch(wanted))
    assert np.array_equal(shared[7], own[7])
    assert shared.info() == own.info()
    assert shared.get_key_indices() == own.get_key_indices()
    assert np.array_equal(shared.get_frame_timestamp(range(len(own))), own.get_frame_timestamp(range(len(own))))
    assert shared._footage._index is None, "the reader decoded for itself"


def test_few_slots_serve_many_readers_that_want_different_frames(tmp_path: Path, desk_of: Callable[..., Desk]) -> None:
    desk = desk_of(x264_clip(tmp_path / "v.mp4"), size=6 * SLOT)

    def read(seed: int) -> bool:
        wanted = [Random(seed).randrange(90) for _ in range(60)]
        reader = desk.reader()
        return [read_number(frame) for frame in reader.get_batch(wanted)] == wanted

    with ThreadPoolExecutor(5) as threads:
        assert list(threads.map(read, range(5))) == [True] * 5


def test_a_frame_that_somebody_was_promised_stays_until_it_is_copied(
    tmp_path: Path, desk_of: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_server, "_PINNED_S", 600.0)
    desk = desk_of(x264_clip(tmp_path / "v.mp4"), size=5 * SLOT)  # one slot is taken by the outline
    slow = [desk.socket() for _ in range(4)]
    for number, sock in enumerate(slow):
        sock.recv(100)
        sock.send(np.array([1, number], WORD).tobytes())
        assert np.frombuffer(sock.recv(100), WORD).tolist()[:2] == [1, 0]
    greedy = desk.socket()
    greedy.recv(100)
    greedy.send(np.array([1, 50], WORD).tobytes())
    assert np.frombuffer(greedy.recv(100), WORD).tolist() == [1, 0, NOT_SERVED]
    slow[0].send(np.array([2], WORD).tobytes())
    greedy.send(np.array([2, 50], WORD).tobytes())
    request, place, slot = np.frombuffer(greedy.recv(100), WORD).tolist()
    assert (request, place) == (2, 0)
    assert slot != NOT_SERVED
    assert read_number(desk.reader()[50]) == 50


def test_who_never_copies_keeps_its_slots_for_a_while_and_not_for_ever(
    tmp_path: Path, desk_of: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_server, "_PINNED_S", 0.0)
    desk = desk_of(x264_clip(tmp_path / "v.mp4"), size=5 * SLOT)
    for number in range(4):
        sock = desk.socket()
        sock.recv(100)
        sock.send(np.array([1, number], WORD).tobytes())
        sock.recv(100)
    reader = desk.reader()
    assert [read_number(reader[number]) for number in (50, 60, 70)] == [50, 60, 70]
    assert reader._footage._index is None, "the reader decoded for itself"


@pytest.mark.parametrize("moment", ["before", "while"])
def test_a_slot_that_is_used_anew_is_not_taken_for_the_old_frame(
    moment: str, tmp_path: Path, desk_of: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the decoder sends a reader away that has not copied yet, or waited for it long enough."""
    monkeypatch.setattr(frame_server, "_PINNED_S", 0.0)
    desk = desk_of(x264_clip(tmp_path / "v.mp4"), size=5 * SLOT)
    other, reader = desk.reader(), desk.reader()
    client = reader._footage.decoded_by
    assert client is not None
    turn_over = lambda: other.get_batch(range(60, 68))  # noqa: E731 - twice as many frames as there are slots
    if moment == "before":
        copy = client._copy
        monkeypatch.setattr(client, "_copy", lambda *args: (turn_over(), copy(*args))[1])
    else:
        stamp, reads = client._stamp, iter(range(1_000_000))
        monkeypatch.setattr(client, "_stamp", lambda slot: (turn_over() if next(reads) % 2 else None, stamp(slot))[1])
    assert read_number(reader[5]) == 5
    assert reader._footage._index is not None, "the old slot was good enough"


def test_whoever_got_least_is_served_and_keeps_its_turn_for_a_while(tmp_path: Path) -> None:
    host, theirs = socket.socketpair()
    with host, theirs, x264_clip(tmp_path / "v.mp4").open("rb") as video:
        server = FrameServer(theirs, video.fileno(), mmap.mmap(-1, 16 << 20), client_cpu_s=60)
        greedy, modest, idle = (frame_server._Client(host, 0.0) for _ in range(3))
        server._clients = {1: greedy, 2: modest, 3: idle}
        assert server._whose_turn() is None
        greedy.turn_s, modest.turn_s = 3.0, 1.0
        greedy.pending[5] = modest.pending[6] = 0
        assert server._whose_turn() is modest
        modest.turn_s = greedy.turn_s + frame_server._TURN_S / 2
        assert server._whose_turn() is modest, "its turn is not over"
        modest.turn_s = greedy.turn_s + 2 * frame_server._TURN_S
        assert server._whose_turn() is greedy
        greedy.pending.clear()
        assert server._whose_turn() is modest


def test_what_several_wait_for_is_decoded_once_and_paid_by_all_of_them(
    tmp_path: Path, desk_of: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = desk_of(x264_clip(tmp_path / "v.mp4"))
    gate = threading.Event()
    decode = desk.server._decode_for
    monkeypatch.setattr(desk.server, "_decode_for", lambda *args: (gate.wait(30), decode(*args)))
    readers = [desk.reader() for _ in range(4)]
    wanted = list(range(3, 90, 7))
    with ThreadPoolExecutor(4) as threads:
        batches = [threads.submit(reader.get_batch, wanted) for reader in readers]
        clients = [reader._footage.decoded_by for reader in readers]
        assert wait_until(lambda: all(client is not None and client._request for client in clients), 30)
        time.sleep(0.2)  # from having counted a request to having sent it
        gate.set()
        assert all([read_number(frame) for frame in batch.result(60)] == wanted for batch in batches)
    assert len(desk.server._decoders) == 1
    used = sorted(client.used_s for client in desk.server._clients.values())
    assert len(used) == 4
    assert used[-1] < 0.9 * sum(used), "one paid for all"


def test_a_frame_is_paid_by_those_who_wait_for_it_and_turns_bound_what_is_ahead(tmp_path: Path) -> None:
    host, theirs = socket.socketpair()
    ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with host, theirs, ours, peer, x264_clip(tmp_path / "v.mp4").open("rb") as video:
        ours.setblocking(False)
        server = FrameServer(theirs, video.fileno(), mmap.mmap(-1, 16 << 20), client_cpu_s=60)
        greedy, modest = frame_server._Client(host, 0.1), frame_server._Client(ours, 0.1)
        server._clients = {1: greedy, 2: modest, **{fd: frame_server._Client(host, 0.1) for fd in range(3, 20)}}
        greedy.pending.update(dict.fromkeys(range(4), 0))
        modest.pending.update({3: 0})
        assert server._shares([0, 1, 2, 3]) == {1: 0.875, 2: 0.125}
        # A few frames are served although one peer waits for many and others have come who wait for none.
        greedy.pending.update(dict.fromkeys(range(40), 0))
        peer.send(np.array([1, 50, 51], WORD).tobytes())
        assert server._hear(modest)
        assert list(modest.pending) == [50, 51]
        # Many are not when many others have to be decoded first.
        for fd in range(3, 8):
            server._clients[fd].pending.update({60 + fd: 0, 70 + fd: 0, 80 + fd: 0})
        peer.send(np.array([2, *range(41, 56)], WORD).tobytes())
        assert server._hear(modest)
        assert not modest.pending


def test_a_reader_waits_so_long_in_its_life_and_no_longer(
    tmp_path: Path, desk_of: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = desk_of(x264_clip(tmp_path / "v.mp4"))
    decode = desk.server._decode_for
    monkeypatch.setattr(desk.server, "_decode_for", lambda *args: (time.sleep(0.4), decode(*args)))
    client = FrameClient(desk.socket(), patience_s=1.0)
    reader = VideoReader(Footage(DescriptorFile(desk.video), client))
    wanted = [3, 13, 23, 33, 43]
    assert [read_number(reader[number]) for number in wanted] == wanted
    assert client._sock is None, "each answer came in time, all together did not"


def test_a_reader_that_used_up_its_share_is_sent_away_and_others_are_not(
    tmp_path: Path, desk_of: Callable[..., Desk]
) -> None:
    desk = desk_of(x264_clip(tmp_path / "v.mp4"), size=6 * SLOT, client_cpu_s=0.02)
    greedy, modest = desk.reader(), desk.reader()
    for number in Random(0).sample(range(90), 90):
        assert read_number(greedy[number]) == number
    assert greedy._footage.decoded_by is not None
    assert greedy._footage.decoded_by._sock is None
    assert read_number(modest[1]) == 1
    assert modest._footage._index is None


def test_frames_too_large_for_the_memory_are_refused(tmp_path: Path) -> None:
    host, theirs = socket.socketpair()
    with host, theirs, x264_clip(tmp_path / "v.mp4").open("rb") as video:
        memory = mmap.mmap(-1, 3 * SLOT)
        with pytest.raises(VideoError, match="too large to be kept"):
            FrameServer(theirs, video.fileno(), memory, client_cpu_s=1)


def test_a_reader_in_a_forked_child_reads_for_itself(tmp_path: Path, desk_of: Callable[..., Desk]) -> None:
    reader = desk_of(x264_clip(tmp_path / "v.mp4")).reader()
    assert read_number(reader[5]) == 5
    pid = os.fork()
    if pid == 0:
        os._exit(0 if read_number(reader[6]) == 6 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert read_number(reader[7]) == 7
