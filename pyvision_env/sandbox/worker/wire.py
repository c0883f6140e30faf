"""The wire protocol between the host and a worker: framed msgpack messages with raw blobs and descriptors.

A frame is a 4-byte big-endian length, a msgpack header of that length, and the raw blobs whose sizes ``send`` put in
front of the message. Both ends bound what they accept; nothing is ever unpickled. Two sockets are used: the *control*
socket (host and zygote, trusted on both ends, one message per SEQPACKET datagram) and the *episode* socket (host and
model-written code, whose replies are untrusted).
"""

from __future__ import annotations

import array
import socket
import struct
import time
from collections.abc import Sequence
from typing import Annotated

import msgspec

PROTOCOL = 2
MAX_HEADER = 4 << 20
MAX_DESCRIPTORS = 200
_LENGTH = struct.Struct(">I")
# A header of a few bytes an element must not become hundreds of bytes an element on this side.
_Few = msgspec.Meta(max_length=MAX_DESCRIPTORS)


class WireError(Exception):
    """The other end broke the protocol: a frame too large, a malformed header, a wrong sequence number."""


class EpisodeLimits(msgspec.Struct, frozen=True):
    """What the worker bounds on its own side."""

    max_pixels: int
    min_pixels: int
    max_text_chars: int
    max_images_per_turn: int
    figures: str = "faithful"


class Confinement(msgspec.Struct, frozen=True):
    """Resource bounds of one episode's processes; ``mapped_mb`` is what its media need in address space alone."""

    memory_mb: int
    disk_mb: int
    processes: int
    cpu_seconds: int
    mapped_mb: int = 0


class Picture(msgspec.Struct, frozen=True):
    """Size of one raw picture: in a setup a sealed memfd of four bytes a pixel, in a reply a blob of three."""

    width: int
    height: int


class Video(msgspec.Struct, frozen=True):
    """What the worker tells of a video, or why it cannot be opened."""

    width: int = 0
    height: int = 0
    num_frames: int = 0
    fps: float = 0.0
    duration_s: float = 0.0
    error: str | None = None


class Setup(msgspec.Struct, tag=True, frozen=True):
    """First request of an episode: descriptors of images (memfds) and videos (files) come along, in this order.

    After them come sockets to the decoders of those videos that ``decoded`` names.
    """

    seq: int
    images: list[Picture]
    videos: int
    limits: EpisodeLimits
    decoded: list[int] = []


class Run(msgspec.Struct, tag=True, frozen=True):
    """Run Python blocks in order; stop at the first error."""

    seq: int
    blocks: list[str]
    step: int
    timeout_s: float
    max_images: int


class Frames(msgspec.Struct, tag=True, frozen=True):
    """Fetch frames; exactly one way of choosing is set."""

    seq: int
    video: int
    timeout_s: float
    max_images: int
    times: list[float] | None = None
    indices: list[int] | None = None
    start: float | None = None
    end: float | None = None
    num: int | None = None


class Decode(msgspec.Struct, tag=True, frozen=True):
    """First request of a decoder: the video and the memfd that it fills come along.

    The reply says that the memory is mapped; then the host seals it against every further writer.
    """

    seq: int
    client_cpu_s: float


class Attach(msgspec.Struct, tag=True, frozen=True):
    """Further requests of a decoder: serve the rollout whose socket comes along, and give it the second descriptor.

    That one is the memory, opened for reading only. There is no reply.
    """


class Reply(msgspec.Struct, tag=True, frozen=True):
    """Answer to any request; pictures travel as blobs in order."""

    seq: int
    text: str = ""
    error: str | None = None
    truncated: bool = False
    pictures: Annotated[list[Picture], _Few] = []
    videos: Annotated[list[Video], _Few] = []


class Spawn(msgspec.Struct, tag=True, frozen=True):
    """Control: start an episode, or the decoder of a video, on the descriptor that comes along."""

    episode: int
    confinement: Confinement
    decoder: bool = False


class Kill(msgspec.Struct, tag=True, frozen=True):
    """Control: end an episode now, whatever it does."""

    episode: int


class Grant(msgspec.Struct, tag=True, frozen=True):
    """Control: the memory group of a slot; its files come along as descriptors."""

    slot: int


class GrantPool(msgspec.Struct, tag=True, frozen=True):
    """Control: the bound in bytes on the memory of all slots; the files that tell their use come along."""

    limit: int


class Hello(msgspec.Struct, tag=True, frozen=True):
    """Control: the zygote is ready."""

    protocol: int
    python: str
    libraries: dict[str, str]
    rung: str
    guarantees: dict[str, bool]
    notes: list[str]
    slots: int


class Failed(msgspec.Struct, tag=True, frozen=True):
    """Control: the zygote cannot run here."""

    reason: str


class Exited(msgspec.Struct, tag=True, frozen=True):
    """Control: an episode's process is gone and its slot is clean again."""

    episode: int
    cause: str


class Load(msgspec.Struct, tag=True, frozen=True):
    """Control: about how much memory the episodes hold that they do not share, told when it has changed."""

    memory_mb: int


Request = Setup | Run | Frames | Decode | Attach
FromHost = Spawn | Kill | Grant | GrantPool
FromZygote = Hello | Failed | Exited | Load

_encoder = msgspec.msgpack.Encoder()
request_decoder = msgspec.msgpack.Decoder(tuple[list[int], Request])
reply_decoder = msgspec.msgpack.Decoder(tuple[Annotated[list[int], _Few], Reply])
from_host_decoder = msgspec.msgpack.Decoder(FromHost)
from_zygote_decoder = msgspec.msgpack.Decoder(FromZygote)


def send(
    sock: socket.socket, message: msgspec.Struct, blobs: Sequence[memoryview | bytes] = (), fds: Sequence[int] = ()
) -> None:
    """Send one frame on a stream socket.

    Raises:
        WireError: The header is larger than the other end accepts.
        OSError: The other end is gone, or the socket's time-out passed.
    """
    header = _encoder.encode(([len(blob) for blob in blobs], message))
    if len(header) > MAX_HEADER:
        raise WireError(f"a message of {len(header)} bytes exceeds the limit of {MAX_HEADER}")
    data = memoryview(_LENGTH.pack(len(header)) + header)
    if fds:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        data = data[sock.sendmsg([data], rights) :]
    if data:
        sock.sendall(data)
    for blob in blobs:
        sock.sendall(blob)


def receive_request(sock: socket.socket) -> tuple[Request, list[int]]:
    """Worker side: the next request and the descriptors that came with it.

    Raises:
        EOFError: The host closed the episode.
    """
    length, fds = _first_bytes(sock)
    _, request = request_decoder.decode(_exactly(sock, length))
    return request, fds


def receive_reply(sock: socket.socket, max_blob_bytes: int, deadline: float) -> tuple[Reply, list[bytearray]]:
    """Host side: the next reply, treated as hostile.

    Args:
        sock: The host's end.
        max_blob_bytes: Bound on all blobs of the reply together.
        deadline: ``time.monotonic()`` value after which to give up, however slowly bytes drip in.

    Raises:
        EOFError: The worker's end is closed.
        TimeoutError: The deadline passed.
        WireError: The reply is malformed or too large.
    """
    (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size, deadline))
    if length > MAX_HEADER:
        raise WireError(f"a reply header of {length} bytes exceeds the limit of {MAX_HEADER}")
    try:
        sizes, reply = reply_decoder.decode(_exactly(sock, length, deadline))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"a reply that cannot be decoded: {error}") from None
    expected = [picture.width * picture.height * 3 for picture in reply.pictures]
    if any(picture.width < 1 or picture.height < 1 for picture in reply.pictures) or sizes != expected:
        raise WireError("a reply whose pictures and blobs disagree")
    if sum(sizes) > max_blob_bytes:
        raise WireError(f"a reply with {sum(sizes)} bytes of pictures exceeds the limit of {max_blob_bytes}")
    return reply, [_exactly(sock, size, deadline) for size in sizes]


def pack(message: msgspec.Struct) -> bytes:
    """One control datagram."""
    return _encoder.encode(message)


def _first_bytes(sock: socket.socket) -> tuple[int, list[int]]:
    """The length prefix, with the descriptors attached to it."""
    data, ancillary, _, _ = sock.recvmsg(_LENGTH.size, socket.CMSG_SPACE(4 * MAX_DESCRIPTORS))
    if not data:
        raise EOFError
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if len(data) < _LENGTH.size:
        data += _exactly(sock, _LENGTH.size - len(data))
    return _LENGTH.unpack(data)[0], list(fds)


def _exactly(sock: socket.socket, size: int, deadline: float | None = None) -> bytearray:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
        count = sock.recv_into(view)
        if count == 0:
            raise EOFError
        view = view[count:]
    return buffer
