"""Frames on the wire: what is sent arrives; whatever else arrives is refused quickly and cheaply."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvision_env.sandbox.worker import wire

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def receive(sock: socket.socket, most: int = 1 << 20, seconds: float = 1.0) -> tuple[wire.Reply, list[bytearray]]:
    return wire.receive_reply(sock, most, time.monotonic() + seconds)


def frame(header: bytes) -> bytes:
    return struct.pack(">I", len(header)) + header


def test_a_reply_with_pictures_arrives_whole(pair: Pair) -> None:
    reply = wire.Reply(7, "text", pictures=[wire.Picture(2, 3), wire.Picture(1, 1)])
    wire.send(pair[1], reply, [bytes(range(18)), b"abc"])
    assert receive(pair[0]) == (reply, [bytearray(range(18)), bytearray(b"abc")])


def test_a_request_arrives_with_its_descriptors(pair: Pair) -> None:
    read, write = os.pipe()
    request = wire.Setup(1, [wire.Picture(1, 1)], 1, wire.EpisodeLimits(9, 1, 10, 2))
    wire.send(pair[0], request, fds=[read, write])
    received, fds = wire.receive_request(pair[1])
    assert received == request
    os.write(fds[1], b"x")
    assert os.read(read, 1) == b"x"
    for fd in (read, write, *fds):
        os.close(fd)


def test_a_message_beyond_the_limit_is_not_sent_at_all(pair: Pair) -> None:
    with pytest.raises(wire.WireError, match="exceeds the limit"):
        wire.send(pair[0], wire.Run(1, ["x" * (wire.MAX_HEADER + 1)], 1, 1.0, 1))
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        pair[1].recv(1)


def test_an_oversized_header_is_refused_by_its_length_alone(pair: Pair) -> None:
    pair[1].sendall(struct.pack(">I", 0xFFFFFFFF))
    with pytest.raises(wire.WireError, match="4294967295 bytes"):
        receive(pair[0])


def test_a_closed_end_is_an_end_of_file(pair: Pair) -> None:
    pair[1].sendall(frame(b"abcdef")[:7])
    pair[1].close()
    with pytest.raises(EOFError):
        receive(pair[0])


def test_dripping_bytes_do_not_outlast_the_deadline(pair: Pair) -> None:
    stop = threading.Event()

    def drip() -> None:
        pair[1].sendall(struct.pack(">I", 1000))
        while not stop.wait(0.02):
            # A thousand bytes take twenty seconds.
            pair[1].sendall(b"\x00")

    thread = threading.Thread(target=drip)
    thread.start()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        receive(pair[0], seconds=0.3)
    assert time.monotonic() - began < 10
    stop.set()
    thread.join()


def message(**fields: object) -> bytes:
    return msgspec.msgpack.encode({"type": "Reply", "seq": 1, **fields})


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xc1",
        b"garbage",
        msgspec.msgpack.encode([[], {"type": "Run", "seq": 1}]),
        msgspec.msgpack.encode([[], {"type": "Reply"}]),
        msgspec.msgpack.encode([[], {"type": "Reply", "seq": "one"}]),
        msgspec.msgpack.encode([[], {"type": "Reply", "seq": 1, "text": 5}]),
        b"\x92\x90" + message() + b"extra",
        b"\x92\x90" + message(text="x").replace(b"\xa1x", b"\xa1\xff"),
        b"\x91" * 100_000,
        b"\x92\x90\x83\xa4type\xa5Reply\xa3seq\x01\xa1x" + b"\x91" * 100_000 + b"\x90",
        b"\xdd\xff\xff\xff\xff",
        b"\x92\xdd\xff\xff\xff\xff",
    ],
)
def test_a_header_that_is_no_reply_is_refused(pair: Pair, header: bytes) -> None:
    pair[1].sendall(frame(header))
    with pytest.raises(wire.WireError):
        receive(pair[0])


@pytest.mark.parametrize("name", ["videos", "pictures"])
def test_a_bomb_of_tiny_elements_is_refused_before_it_unfolds(pair: Pair, name: str) -> None:
    count = wire.MAX_HEADER - 100
    bomb = b"\x92\x90\x83\xa4type\xa5Reply\xa3seq\x01" + msgspec.msgpack.encode(name)
    header = bomb + b"\xdd" + struct.pack(">I", count) + b"\x80" * count
    thread = threading.Thread(target=pair[1].sendall, args=(frame(header),))
    thread.start()
    began = time.process_time()
    with pytest.raises(wire.WireError, match="length <= 200"):
        receive(pair[0], seconds=10)
    assert time.process_time() - began < 0.5
    thread.join()


@pytest.mark.parametrize(
    ("sizes", "pictures"),
    [
        ([], [(1, 1)]),
        ([3], []),
        ([4], [(1, 1)]),
        ([3, 3], [(1, 1)]),
        ([0], [(0, 5)]),
        ([3], [(-1, -1)]),
        ([2**62 * 3], [(2**31, 2**31)]),
    ],
)
def test_pictures_and_blobs_that_disagree_are_refused(
    pair: Pair, sizes: list[int], pictures: list[tuple[int, int]]
) -> None:
    listed = [{"width": width, "height": height} for width, height in pictures]
    pair[1].sendall(frame(msgspec.msgpack.encode([sizes, msgspec.msgpack.decode(message(pictures=listed))])))
    with pytest.raises(wire.WireError):
        receive(pair[0])


def test_more_pixels_than_allowed_are_refused_before_they_are_read(pair: Pair) -> None:
    pair[1].sendall(frame(msgspec.msgpack.encode([[300], wire.Reply(1, pictures=[wire.Picture(10, 10)])])))
    with pytest.raises(wire.WireError, match="exceeds the limit of 299"):
        receive(pair[0], most=299)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_do_worse_than_an_expected_error(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises((wire.WireError, EOFError)):
            receive(ours)


@given(st.binary(max_size=60), st.integers(0, 80))
def test_a_damaged_reply_is_refused_or_is_a_reply(noise: bytes, at: int) -> None:
    good = frame(msgspec.msgpack.encode([[3], wire.Reply(1, "text", pictures=[wire.Picture(1, 1)])])) + b"rgb"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(good[:at] + noise + good[at + len(noise) :])
        theirs.shutdown(socket.SHUT_WR)
        try:
            reply, blobs = receive(ours)
        except (wire.WireError, EOFError):
            return
        assert [len(blob) for blob in blobs] == [p.width * p.height * 3 for p in reply.pictures]
