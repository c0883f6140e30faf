"""One episode seen from the host: sends code, takes replies as untrusted input, survives a killed runtime."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import select
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.errors import MediaError, SandboxClosedError, SandboxLostError, SandboxStartError
from pyvision_env.sandbox.pixels import SharedPicture
from pyvision_env.sandbox.worker import wire
from pyvision_env.types import RGBArray, ToolResult, VideoInfo

if TYPE_CHECKING:
    from pyvision_env.sandbox.link import Lease, WorkerLink

_log = logging.getLogger(__name__)
_BURIAL_S = 5.0


class Host(Protocol):
    """What places an episode's process and ends it."""

    def place(self, deadline: float) -> tuple[WorkerLink, Lease]:
        """A fresh process for an episode."""
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
        videos: Sequence[Path | int],
        held: Sequence[int],
        limits: Limits,
        config: SandboxConfig,
    ) -> None:
        self._host = host
        self._held = tuple(held)
        self._pictures = list(pictures)
        self._video_sources = tuple(videos)
        self._limits = limits
        self._config = config
        self._step = 0
        self._lock = threading.Lock()
        self._link: WorkerLink | None = None
        self._lease: Lease | None = None
        self._closed = False
        self._max_reply = 3 * limits.max_images_per_turn * limits.max_pixels
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
            SandboxClosedError: The episode was closed.
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
                indices=None if indices is None else [int(i) for i in indices],
                start=start, end=end, num=num,
            )  # fmt: skip

        return self._request(request, seconds, "fetching frames took")

    def close(self) -> None:
        """End the runtime; idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._drop()
            for fd in self._held:
                os.close(fd)

    def __enter__(self) -> Episode:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _room(self, max_images: int | None) -> int:
        most = self._limits.max_images_per_turn
        return most if max_images is None else max(0, min(most, max_images))

    def _request(self, build: Callable[[int], wire.Request], seconds: float, doing: str) -> ToolResult:
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

    def _exchange(self, build: Callable[[int], wire.Request], seconds: float, doing: str) -> ToolResult:
        assert self._lease is not None
        sock = self._lease.sock
        # What lies in the socket now was sent without being asked: no reply may answer a later step.
        if select.select([sock], [], [], 0)[0]:
            return self._replace(self._end_of("sent data without being asked"))
        seq = secrets.randbits(63)
        budget = seconds + self._limits.kill_grace_s
        try:
            sock.settimeout(budget)
            wire.send(sock, build(seq))
            reply, blobs = wire.receive_reply(sock, self._max_reply, time.monotonic() + budget)
        except TimeoutError:
            reason = f"Timeout: {doing} longer than {seconds:g} s and could not be interrupted"
            return self._replace(reason)
        except wire.WireError as error:
            return self._replace(self._end_of(f"broke the protocol ({error})"))
        except (EOFError, OSError):
            return self._replace(self._end_of(None))
        if reply.seq != seq:
            return self._replace(self._end_of("answered a request that was not asked"))
        if len(blobs) > self._limits.max_images_per_turn or any(
            picture.width * picture.height > self._limits.max_pixels for picture in reply.pictures
        ):
            return self._replace(self._end_of("sent more or larger images than allowed"))
        images = tuple(_array(blob, picture) for blob, picture in zip(blobs, reply.pictures, strict=True))
        self._pictures.extend(SharedPicture(image) for image in images)
        limit = self._limits.max_text_chars
        return ToolResult(text=reply.text[: 2 * limit], images=images, error=reply.error, truncated=reply.truncated)

    def _end_of(self, misdeed: str | None) -> str:
        """One line on why the runtime is gone, from the worker's own notice.

        Raises:
            SandboxLostError: Not the runtime but the whole worker is gone.
        """
        assert self._lease is not None and self._link is not None
        lease, link = self._lease, self._link
        if misdeed is not None:
            return f"RuntimeLost: the runtime {misdeed} and was ended"
        lease.ended.wait(_BURIAL_S)
        if lease.cause is None and not link.alive:
            self._drop()
            raise SandboxLostError(f"{link.name} died while the episode was running; its last step has no result")
        cause = lease.cause or "its process is gone"
        return f"RuntimeLost: the Python runtime ended ({cause})"

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

    def _start(self) -> tuple[VideoInfo, ...]:
        """Get a process and hand it the media."""
        deadline = time.monotonic() + self._config.open_timeout_s
        link, lease = self._host.place(deadline)
        self._link, self._lease = link, lease
        limits = self._limits
        seq = secrets.randbits(63)
        with contextlib.ExitStack() as stack:
            fds = [picture.fd for picture in self._pictures]
            for source in self._video_sources:
                fds.append(source if isinstance(source, int) else _open_video(source, stack))
            if len(fds) > wire.MAX_DESCRIPTORS:
                raise MediaError(f"an episode holds at most {wire.MAX_DESCRIPTORS} images and videos, got {len(fds)}")
            request = wire.Setup(
                seq=seq,
                images=[wire.Picture(picture.width, picture.height) for picture in self._pictures],
                videos=len(self._video_sources),
                limits=wire.EpisodeLimits(
                    limits.max_pixels, limits.min_pixels, limits.max_text_chars, limits.max_images_per_turn,
                    limits.figures,
                ),
            )  # fmt: skip
            try:
                lease.sock.settimeout(max(0.01, deadline - time.monotonic()))
                wire.send(lease.sock, request, fds=fds)
                reply, _ = wire.receive_reply(lease.sock, 0, deadline)
            except (TimeoutError, EOFError, OSError, wire.WireError) as error:
                lost = lease.cause or (None if link.alive else f"{link.name} died")
                self._drop()
                reason = lost or f"{type(error).__name__}: {error}"
                raise SandboxStartError(f"an episode did not become ready: {reason}") from None
        infos = []
        for video in reply.videos:
            if video.error is not None:
                self._drop()
                raise MediaError(video.error)
            infos.append(VideoInfo(video.width, video.height, video.num_frames, video.fps, video.duration_s))
        return tuple(infos)


def _open_video(path: Path, stack: contextlib.ExitStack) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise MediaError(f"video {path}: cannot be opened ({error.strerror}); check the path in the task") from None
    stack.callback(os.close, fd)
    return fd


def _array(blob: bytearray, picture: wire.Picture) -> RGBArray:
    return np.frombuffer(blob, np.uint8).reshape(picture.height, picture.width, 3)
