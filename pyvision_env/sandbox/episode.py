"""One episode seen from the host: sends code, takes replies as untrusted input, survives a killed runtime."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.errors import MediaError, SandboxClosedError, SandboxLostError, SandboxStartError
from pyvision_env.sandbox.pixels import SharedPicture
from pyvision_env.sandbox.videos import SharedVideo
from pyvision_env.sandbox.worker import wire
from pyvision_env.sandbox.worker.capture import one_line, printable
from pyvision_env.types import RGBArray, ToolResult, VideoInfo

if TYPE_CHECKING:
    from pyvision_env.sandbox.frame_cache import Seat
    from pyvision_env.sandbox.link import Lease, WorkerLink

_log = logging.getLogger(__name__)
_BURIAL_S = 1.0
_LATE_BURIAL_S = 10.0
_OUR_KILL = "killed by SIGKILL"
_MAX_INT = 1 << 62


class Host(Protocol):
    """What places an episode's process and ends it."""

    def check_usable(self) -> None:
        """Raise ``SandboxClosedError`` when it is closed or belongs to another process."""
        ...

    def place(self, deadline: float, mapped_mb: int) -> tuple[WorkerLink, Lease]:
        """A fresh process for an episode whose media fill ``mapped_mb`` of address space."""
        ...

    def seat(self, video: int) -> Seat | None:
        """A place at a decoder of that video, which other episodes share."""
        ...

    def end(self, link: WorkerLink, lease: Lease) -> None:
        """End that process, whatever it does."""
        ...


class Episode:
    """A persistent Python runtime with the media of one task; made by ``Sandbox.open``.

    Every picture in the context is bound there as ``image_clue_k``, k being its order of appearance, given or produced;
    every video as ``video_clue_j``. Not for use by several threads at once.

    Attributes:
        videos: What may be said of each video before a frame is fetched.
        image_count: Pictures bound so far.
    """

    def __init__(
        self,
        host: Host,
        pictures: Sequence[SharedPicture],
        videos: Sequence[SharedVideo],
        limits: Limits,
        config: SandboxConfig,
    ) -> None:
        self._host = host
        self._pictures: list[SharedPicture | RGBArray] = list(pictures)
        self._video_sources = tuple(videos)
        self._limits = limits
        self._config = config
        self._step = 0
        self._lock = threading.Lock()
        self._link: WorkerLink | None = None
        self._lease: Lease | None = None
        self._seats: list[Seat] = []
        self._closed = False
        self._max_reply = 3 * limits.max_images_per_turn * limits.max_pixels
        self._owner = os.getpid()
        self.videos: tuple[VideoInfo, ...] = ()
        try:
            self.videos = self._start()
        except BaseException:
            self.close()
            raise

    @property
    def image_count(self) -> int:
        """Pictures bound so far: the next one becomes ``image_clue_<image_count>``."""
        return len(self._pictures)

    def run(self, code: str | Sequence[str], timeout: float | None = None, max_images: int | None = None) -> ToolResult:
        """Run a block of Python, or several in order until one raises.

        Args:
            code: Source text, or several.
            timeout: Wall seconds; the configured ``code_timeout_s`` when None.
            max_images: Pictures that may be added; further ones are left out. Bounded by ``max_images_per_turn``.

        Raises:
            SandboxLostError: The worker died under the episode; the result is not known.
            SandboxClosedError: The episode or its sandbox was closed.
        """
        self._step += 1
        blocks = [code] if isinstance(code, str) else list(code)
        blocks = [block.encode("utf-8", "backslashreplace").decode() for block in blocks]
        seconds = self._limits.code_timeout_s if timeout is None else timeout
        room = self._room(max_images)
        size = sum(len(block) for block in blocks)
        if size > wire.MAX_HEADER // 8:
            error = f"the code is too long: {size:,} characters, at most {wire.MAX_HEADER // 8:,} are run"
            return ToolResult(text=error, error=error)
        return self._request(lambda seq: wire.Run(seq, blocks, self._step, seconds, room), seconds, "the code ran")

    def frames(
        self,
        video: int = 0,
        times: Sequence[float] | None = None,
        indices: Sequence[int] | None = None,
        start: float | None = None,
        end: float | None = None,
        num: int | None = None,
        max_images: int | None = None,
    ) -> ToolResult:
        """Fetch frames of a video without code; wrong times or indices are an error in the result.

        Args:
            video: Which video.
            times: Seconds from the video's start.
            indices: Frame numbers.
            start: Begin of a span in seconds, with ``num``.
            end: End of that span in seconds.
            num: Frames spread evenly over the span.
            max_images: Pictures that may be added.

        Raises:
            SandboxLostError: The worker died under the episode.
            SandboxClosedError: The episode was closed.
        """
        seconds = self._limits.code_timeout_s
        room = self._room(max_images)

        def request(seq: int) -> wire.Frames:
            return wire.Frames(
                seq=seq, video=video, timeout_s=seconds, max_images=room,
                times=None if times is None else [float(t) for t in times],
                indices=None if indices is None else [_bounded(i) for i in indices],
                start=start, end=end, num=None if num is None else _bounded(num),
            )  # fmt: skip

        return self._request(request, seconds, "fetching frames took")

    def close(self) -> None:
        """End the runtime; idempotent. In a forked child it does nothing."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._drop()

    def __enter__(self) -> Episode:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _room(self, max_images: int | None) -> int:
        most = self._limits.max_images_per_turn
        # All of them must fit into one message when a fresh runtime is handed them.
        most = min(most, wire.MAX_DESCRIPTORS - len(self._video_sources) - len(self._pictures))
        return max(0, most if max_images is None else min(most, max_images))

    def _request(self, build: Callable[[int], wire.Run | wire.Frames], seconds: float, doing: str) -> ToolResult:
        self._host.check_usable()
        with self._lock:
            if self._closed:
                raise SandboxClosedError("this episode is closed; open a new one")
            began = time.monotonic()
            if self._lease is None:
                self._start()
            result = self._exchange(build, seconds, doing)
            elapsed = time.monotonic() - began
        return ToolResult(
            text=result.text, images=result.images, error=result.error,
            state_lost=result.state_lost, truncated=result.truncated, elapsed_s=elapsed,
        )  # fmt: skip

    def _exchange(self, build: Callable[[int], wire.Run | wire.Frames], seconds: float, doing: str) -> ToolResult:
        assert self._lease is not None
        sock = self._lease.sock
        # What lies in the socket now was sent without being asked: no reply may answer a later step.
        unasked = _waiting(sock)
        if unasked is not None:
            return self._replace(self._end_of("sent data without being asked" if unasked else None))
        request = build(secrets.randbits(63))
        budget = seconds + self._limits.kill_grace_s
        deadline = time.monotonic() + budget
        try:
            sock.settimeout(budget)
            try:
                wire.send(sock, request)
            except wire.WireError:
                error = "the request is too long: ask for less at once"
                return ToolResult(text=error, error=error)
            reply, blobs = wire.receive_reply(sock, self._max_reply, deadline)
        except TimeoutError:
            reason = f"Timeout: {doing} longer than {seconds:g} s and could not be interrupted"
            return self._replace(reason)
        except wire.WireError as error:
            return self._replace(self._end_of(f"broke the protocol ({error})"))
        except (EOFError, OSError):
            return self._replace(self._end_of(None))
        if reply.seq != request.seq:
            return self._replace(self._end_of("answered a request that was not asked"))
        if len(blobs) > request.max_images or any(
            picture.width * picture.height > self._limits.max_pixels for picture in reply.pictures
        ):
            return self._replace(self._end_of("sent more or larger images than allowed"))
        images = tuple(_array(blob, picture) for blob, picture in zip(blobs, reply.pictures, strict=True))
        self._pictures.extend(images)
        # An honest runtime has done all this already.
        text = printable(reply.text[: 2 * self._limits.max_text_chars])
        failure = None if reply.error is None else one_line(reply.error) or "an error without a name"
        return ToolResult(text=text, images=images, error=failure, truncated=reply.truncated)

    def _end_of(self, misdeed: str | None) -> str:
        """One line on why the runtime is gone, from the worker's own notice.

        Raises:
            SandboxLostError: Not the runtime but the whole worker is gone.
            SandboxClosedError: The sandbox was closed meanwhile.
        """
        assert self._lease is not None and self._link is not None
        lease, link = self._lease, self._link
        if misdeed is not None:
            return f"RuntimeLost: the runtime {misdeed} and was ended"
        killed = _bury(link, lease)
        if lease.cause is None:
            fate = "does not answer any more" if link.alive else "died while the episode was running"
            self._drop()
            self._host.check_usable()
            raise SandboxLostError(f"{link.name} {fate}; its last step has no result")
        if killed:
            return "RuntimeLost: the runtime closed its connection and was ended"
        return f"RuntimeLost: the Python runtime ended ({lease.cause})"

    def _replace(self, reason: str) -> ToolResult:
        self._drop()
        text = (
            f"{reason}. A fresh runtime was started: variables are gone, image_clue_k and video_clue_j are bound anew."
        )
        return ToolResult(text=text, error=reason, state_lost=True)

    def _drop(self) -> None:
        if self._lease is not None and self._link is not None:
            self._host.end(self._link, self._lease)
        self._lease = self._link = None
        for seat in self._seats:
            seat.leave()
        self._seats = []

    def _start(self) -> tuple[VideoInfo, ...]:
        """Get a process and hand it the media."""
        deadline = time.monotonic() + self._config.open_timeout_s
        pictures = [each if isinstance(each, SharedPicture) else SharedPicture(each) for each in self._pictures]
        mapped_mb = -(-sum(picture.nbytes for picture in pictures) >> 20)
        try:
            with contextlib.ExitStack() as stack:
                videos = []
                for source in self._video_sources:
                    videos.append(source.open())
                    stack.callback(os.close, videos[-1])
                decoded = self._take_seats(videos, wire.MAX_DESCRIPTORS - len(pictures) - len(videos))
                self._link, self._lease = self._host.place(deadline, mapped_mb)
                # Whoever had to wait for a worker's start is not to be blamed for it.
                deadline = max(deadline, time.monotonic() + self._config.open_timeout_s)
                reply = self._set_up(self._link, self._lease, pictures, videos, decoded, deadline)
            infos = []
            for video in reply.videos:
                if video.error is not None:
                    raise MediaError(video.error)
                infos.append(VideoInfo(video.width, video.height, video.num_frames, video.fps, video.duration_s))
        except BaseException:
            self._drop()
            raise
        return tuple(infos)

    def _take_seats(self, videos: Sequence[int], room: int) -> list[int]:
        """Places at the decoders of the videos, as many as there are; for which of them."""
        decoded = []
        for number, fd in enumerate(videos[: max(0, room)]):
            seat = self._host.seat(fd)
            if seat is not None:
                self._seats.append(seat)
                decoded.append(number)
        return decoded

    def _set_up(
        self, link: WorkerLink, lease: Lease, pictures: Sequence[SharedPicture], videos: Sequence[int],
        decoded: list[int], deadline: float,
    ) -> wire.Reply:  # fmt: skip
        limits = self._limits
        fds = [*(picture.fd for picture in pictures), *videos, *(seat.sock.fileno() for seat in self._seats)]
        if len(fds) > wire.MAX_DESCRIPTORS:
            raise MediaError(f"an episode holds at most {wire.MAX_DESCRIPTORS} images and videos, got {len(fds)}")
        request = wire.Setup(
            seq=secrets.randbits(63),
            images=[wire.Picture(picture.width, picture.height) for picture in pictures],
            videos=len(videos),
            limits=wire.EpisodeLimits(
                limits.max_pixels, limits.min_pixels, limits.max_text_chars, limits.max_images_per_turn,
                limits.figures,
            ),
            decoded=decoded,
        )  # fmt: skip
        try:
            lease.sock.settimeout(max(0.01, deadline - time.monotonic()))
            wire.send(lease.sock, request, fds=fds)
            for seat in self._seats:
                # While a copy is open here, the decoder's client would never be seen to go.
                seat.sock.close()
            return wire.receive_reply(lease.sock, 0, deadline)[0]
        except (TimeoutError, EOFError, OSError, wire.WireError) as error:
            if isinstance(error, EOFError | OSError) and not isinstance(error, TimeoutError):
                _bury(link, lease)
            lost = lease.cause or (None if link.alive else f"{link.name} died")
            reason = lost or f"{type(error).__name__}: {error}"
            raise SandboxStartError(f"an episode did not become ready: {reason}") from None


def _bury(link: WorkerLink, lease: Lease) -> bool:
    """Wait until the worker has told how an episode's process ended; whether it took killing it.

    A process that is dead has its own cause told, however late the worker comes to it: only one that lives on without
    its connection meets the kill.
    """
    if lease.ended.wait(_BURIAL_S):
        return False
    link.kill(lease)
    lease.ended.wait(_LATE_BURIAL_S)
    return lease.cause == _OUR_KILL


def _waiting(sock: socket.socket) -> bytes | None:
    """The first byte that waits to be read, nothing at the end of the stream, None if neither is there."""
    poll = select.poll()  # select() cannot look at descriptors above 1023
    poll.register(sock, select.POLLIN)
    if not poll.poll(0):
        return None
    try:
        return sock.recv(1, socket.MSG_PEEK)
    except OSError:
        return b""


def _bounded(number: int) -> int:
    """An integer that the wire can carry; whoever reads it refuses one as large as the bound in any case."""
    return max(-_MAX_INT, min(_MAX_INT, int(number)))


def _array(blob: bytearray, picture: wire.Picture) -> RGBArray:
    pixels = np.frombuffer(blob, np.uint8).reshape(picture.height, picture.width, 3)
    # It is handed on to callers, and to a fresh runtime as what the model has seen.
    pixels.flags.writeable = False
    return pixels
