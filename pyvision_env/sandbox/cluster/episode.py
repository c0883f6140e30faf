"""One episode on another machine, with the face of an episode on this one."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.errors import SandboxClosedError, SandboxLostError
from pyvision_env.sandbox.cluster.media import Medium
from pyvision_env.sandbox.cluster.member import Member
from pyvision_env.types import RGBArray, ToolResult, VideoInfo

# Beyond what the node itself allows a call: the way there and back, on a busy machine.
_TRANSFER_S = 15.0


class Host(Protocol):
    """What places an episode on a node and ends it."""

    def check_usable(self) -> None:
        """Raise ``SandboxClosedError`` when it is closed or belongs to another process."""
        ...

    def place(
        self, images: Sequence[Medium], videos: Sequence[Medium], deadline: float
    ) -> tuple[Member, int, tuple[VideoInfo, ...]]:
        """An actor with room, the number under which it has opened the episode, and what it says of the videos."""
        ...

    def end(self, member: Member, number: int) -> None:
        """End that episode."""
        ...


class ClusterEpisode:
    """A persistent Python runtime on one node of a cluster; made by ``ClusterSandbox.open``.

    It behaves as ``pyvision_env.sandbox.Episode`` does. When its node is lost, the call that notices it raises
    ``SandboxLostError``; the next one begins afresh on another node, with the same pictures and videos bound.

    Attributes:
        videos: What may be said of each video before a frame is fetched.
        image_count: Pictures bound so far: the next one becomes ``image_clue_<image_count>``.
    """

    def __init__(
        self, host: Host, images: Sequence[Medium], videos: Sequence[Medium], limits: Limits, config: SandboxConfig
    ) -> None:
        self._host = host
        self.image_count = len(images)
        self._given = tuple(images)
        self._clips = tuple(videos)
        self._produced: list[RGBArray] = []
        self._limits = limits
        self._config = config
        self._lock = threading.Lock()
        self._closed = False
        self._owner = os.getpid()
        self._place: tuple[Member, int] | None = None
        self.videos: tuple[VideoInfo, ...] = self._start()

    def run(self, code: str | Sequence[str], timeout: float | None = None, max_images: int | None = None) -> ToolResult:
        """Run a block of Python, or several in order until one raises.

        Args:
            code: Source text, or several.
            timeout: Wall seconds; the configured ``code_timeout_s`` when None.
            max_images: Pictures that may be added; further ones are left out. Bounded by ``max_images_per_turn``.

        Raises:
            SandboxLostError: The node, its actor or its worker died under the episode; the result is not known.
            SandboxClosedError: The episode or its sandbox was closed.
        """
        seconds = self._limits.code_timeout_s if timeout is None else timeout
        blocks = code if isinstance(code, str) else list(code)
        return self._request("run", (blocks, timeout, max_images), seconds)

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
            SandboxLostError: The node, its actor or its worker died under the episode.
            SandboxClosedError: The episode or its sandbox was closed.
        """
        arguments = (video, times, indices, start, end, num, max_images)
        return self._request("frames", arguments, self._limits.code_timeout_s)

    def close(self) -> None:
        """End the runtime; idempotent. In a forked child it does nothing."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            self._closed = True
            self._drop()
            # The object store keeps them as long as somebody here does.
            self._given = self._clips = ()
            self._produced = []

    def __enter__(self) -> ClusterEpisode:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _request(self, method: str, arguments: tuple[Any, ...], seconds: float) -> ToolResult:
        self._host.check_usable()
        with self._lock:
            if self._closed:
                raise SandboxClosedError("this episode is closed; open a new one")
            if self._place is None:
                self._start()
            assert self._place is not None
            member, number = self._place
            # A node gives a fresh runtime to an episode whose last one was lost, for which it may have to wait.
            allowed = seconds + self._limits.kill_grace_s + self._config.open_timeout_s + _TRANSFER_S
            try:
                result: ToolResult = member.ask(method, number, *arguments, timeout=allowed)
            except SandboxLostError as error:
                self._drop()
                self._host.check_usable()
                raise SandboxLostError(f"{error}; the step that ran there has no result") from None
            self._produced.extend(result.images)
            self.image_count += len(result.images)
            return result

    def _start(self) -> tuple[VideoInfo, ...]:
        deadline = time.monotonic() + self._config.open_timeout_s
        images = [*self._given, *(Medium("pixels", picture) for picture in self._produced)]
        member, number, infos = self._host.place(images, self._clips, deadline)
        self._place = (member, number)
        return infos

    def _drop(self) -> None:
        if self._place is not None:
            self._host.end(*self._place)
        self._place = None
