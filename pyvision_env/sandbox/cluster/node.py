"""What runs on a node: an ordinary sandbox, the media its episodes share, and its episodes by number."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.exceptions

import pyvision_env
from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.errors import PyVisionError, SandboxClosedError, SandboxStartError
from pyvision_env.media import load_image
from pyvision_env.sandbox import make_sandbox
from pyvision_env.sandbox.cluster.cache import BoundedCache
from pyvision_env.sandbox.cluster.media import Bytes, Handed
from pyvision_env.sandbox.interface import EpisodeLike
from pyvision_env.sandbox.isolation import IsolationReport
from pyvision_env.sandbox.pixels import SharedPicture
from pyvision_env.sandbox.videos import SharedVideo
from pyvision_env.types import VideoInfo


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to every call.

    Attributes:
        value: What was asked for.
        error: Instead of a value: what the call raised on purpose. It travels as a value because an exception that
            crosses Ray comes out as another type.
        memory_free_mb: Memory free on the node now, MiB.
        media_made: Images and videos this node had to fetch and prepare so far.
    """

    value: Any
    error: PyVisionError | None
    memory_free_mb: int
    media_made: int


@dataclass(frozen=True, slots=True)
class Hello:
    """What a node tells when its sandbox is ready.

    Attributes:
        version: Of this package there.
        isolation: What its sandbox keeps apart.
        pid: The actor's process, as its own node counts.
    """

    version: str
    isolation: IsolationReport
    pid: int


class SandboxNode:
    """The actor's side. Every method gives a ``Reply``; calls of different episodes run at the same time."""

    def __init__(self, config: SandboxConfig, limits: Limits) -> None:
        self._config = config
        self._sandbox = make_sandbox(config, limits=limits)
        self._media: BoundedCache[SharedPicture | SharedVideo] = BoundedCache(config.cluster.media_mb << 20)
        self._episodes: dict[int, EpisodeLike] = {}
        self._opening: set[int] = set()
        self._lock = threading.Lock()

    def hello(self) -> Reply:
        """Start the sandbox and tell what it is."""
        return self._answer(lambda: Hello(pyvision_env.__version__, self._sandbox.start().isolation, os.getpid()))

    def open(self, number: int, images: Sequence[Handed], videos: Sequence[Handed]) -> Reply:
        """Open an episode under this number; gives what may be said of its videos."""
        return self._answer(lambda: self._open(number, images, videos))

    def run(self, number: int, *arguments: Any) -> Reply:
        """``Episode.run`` of that episode."""
        return self._answer(lambda: self._episode(number).run(*arguments))

    def frames(self, number: int, *arguments: Any) -> Reply:
        """``Episode.frames`` of that episode."""
        return self._answer(lambda: self._episode(number).frames(*arguments))

    def close(self, number: int) -> None:
        """End that episode, also one that is still being opened."""
        with self._lock:
            self._opening.discard(number)
            episode = self._episodes.pop(number, None)
        if episode is not None:
            episode.close()

    def state(self) -> Reply:
        """How this node is doing."""
        return self._answer(lambda: None)

    def forget(self) -> None:
        """Let go of the media kept for further episodes."""
        self._media.clear()

    def shutdown(self) -> None:
        """End every episode and worker."""
        self._sandbox.close()
        self._media.clear()

    def _answer(self, call: Callable[[], object]) -> Reply:
        value, failure = None, None
        try:
            value = call()
        except PyVisionError as error:
            failure = type(error)(str(error))  # without the traceback, whose frames hold media
        return Reply(value, failure, memory_free_mb(), self._media.made)

    def _open(self, number: int, images: Sequence[Handed], videos: Sequence[Handed]) -> tuple[VideoInfo, ...]:
        with self._lock:
            self._opening.add(number)
        try:
            pictures = [self._medium(each) for each in images]
            episode = self._sandbox.open(images=pictures, videos=[self._medium(each) for each in videos])
        except BaseException:
            with self._lock:
                self._opening.discard(number)
            raise
        with self._lock:
            wanted = number in self._opening
            if wanted:
                self._opening.discard(number)
                self._episodes[number] = episode
        if not wanted:
            episode.close()
            raise SandboxClosedError("the episode was closed while it was being opened")
        return episode.videos

    def _episode(self, number: int) -> EpisodeLike:
        with self._lock:
            episode = self._episodes.get(number)
        if episode is None:
            raise SandboxClosedError("this episode is closed; open a new one")
        return episode

    def _medium(self, handed: Handed) -> SharedPicture | SharedVideo:
        return self._media.get(handed.digest, lambda: self._make(handed))

    def _make(self, handed: Handed) -> SharedPicture | SharedVideo:
        try:
            data: Bytes = ray.get(handed.ref, timeout=self._config.open_timeout_s)
        except ray.exceptions.RayError as error:
            raise SandboxStartError(f"a {handed.form} did not arrive on its node: {type(error).__name__}") from None
        if handed.form == "video":
            return SharedVideo(data.data)
        return SharedPicture(data if handed.form == "pixels" else load_image(np.asarray(data).tobytes()))


def memory_free_mb() -> int:
    """Memory of this machine that programs could still take, MiB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0
