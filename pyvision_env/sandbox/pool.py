"""A sandbox: opens episodes with their media on its workers, and closes everything."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.errors import SandboxClosedError, SandboxError
from pyvision_env.sandbox.episode import Episode
from pyvision_env.sandbox.frame_cache import FrameCache, Seat
from pyvision_env.sandbox.isolation import IsolationReport
from pyvision_env.sandbox.link import Lease, WorkerLink
from pyvision_env.sandbox.pixels import PictureCache, SharedPicture
from pyvision_env.sandbox.videos import VideoCache
from pyvision_env.sandbox.workers import Launcher, Workers


class Sandbox:
    """Isolated Python runtimes for many episodes at once; made by ``make_sandbox``.

    Nothing starts before the first ``open`` (or ``start``). Safe to use from many threads; a process forked from the
    one that made it gets a clear error instead of its parent's runtimes. Workers end themselves when the process that
    started them is gone, however it died.
    """

    def __init__(self, launcher: Launcher, config: SandboxConfig, limits: Limits) -> None:
        self.config = config
        self.limits = limits
        self._launcher = launcher
        self._workers = Workers(launcher, config, self.check_usable, lambda: self._frames.give_way())
        single_use = launcher.single_use
        keep = max(1, launcher.warm) if single_use else None
        self._frames = FrameCache(self._workers, config, single_use, keep)
        self._pictures = PictureCache()
        self._videos = VideoCache()
        self._episodes: weakref.WeakSet[Episode] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False
        self._owner = os.getpid()
        _open_sandboxes.add(self)

    @property
    def kind(self) -> str:
        """``docker``, ``docker-strict``, ``local`` or ``local-unconfined``."""
        return self._launcher.kind

    @property
    def isolation(self) -> IsolationReport:
        """What this sandbox keeps apart on this machine; starts a worker if none runs yet.

        Raises:
            SandboxError: No worker could be started.
        """
        if self._workers.isolation is None:
            self.start()
        report = self._workers.isolation
        if report is None:
            raise SandboxClosedError("this sandbox is closed; make a new one")
        return report

    def start(self) -> Sandbox:
        """Start a worker now (and the warm ones in the background) instead of at the first ``open``.

        Raises:
            SandboxError: It could not be started.
        """
        self.check_usable()
        self._workers.start(time.monotonic() + self.config.start_timeout_s)
        return self

    def open(self, images: Sequence[Any] = (), videos: Sequence[Any] = ()) -> Episode:
        """Start an episode's runtime with the media bound in it.

        Args:
            images: Paths, encoded bytes, arrays (HxWx3 uint8), Pillow images, ``ImageSource`` or what ``picture``
                gave; bound in order as ``image_clue_0``, ``image_clue_1``, ...
            videos: Paths, encoded bytes or ``VideoSource``; bound in order as ``video_clue_0``, ...

        Raises:
            MediaError: An image or video cannot be read.
            SandboxBusyError: No slot became free within ``open_timeout_s``, or ``max_waiting`` wait already.
            SandboxError: No worker could be started, or it died.
        """
        self.check_usable()
        pictures = [self._pictures.get(image) for image in images]
        sources = [self._videos.get(video) for video in videos]
        episode = Episode(self, pictures, sources, self.limits, self.config)
        with self._lock:
            self._episodes.add(episode)
        return episode

    def picture(self, source: Any) -> SharedPicture:
        """A decoded image that ``open`` takes as it is, shared by all episodes that look at it.

        Raises:
            MediaError: It cannot be read as an image.
        """
        return self._pictures.get(source)

    def forget_pictures(self) -> None:
        """Let go of the decoded images kept for further episodes; those in use live on."""
        self._pictures.clear()

    def close(self) -> None:
        """End every episode and worker; idempotent."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            episodes = list(self._episodes)
        links = self._workers.close()
        _open_sandboxes.discard(self)
        for link in links:
            link.close(wait=False)
        # Their workers are gone, so none of them is kept waiting by a running step.
        for episode in episodes:
            episode.close()
        for link in links:
            link.close(wait=True)
        self._frames.close()
        self._workers.await_starts()
        self._launcher.close()
        self._pictures.clear()
        self._videos.clear()

    @property
    def _links(self) -> list[WorkerLink]:
        return self._workers.links

    def __deepcopy__(self, memo: dict[int, Any]) -> Sandbox:
        """Itself: Gymnasium copies the keyword arguments of an environment, and there is one set of workers."""
        return self

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def check_usable(self) -> None:
        """Raise ``SandboxClosedError`` when it is closed or belongs to the parent of a forked process."""
        if os.getpid() != self._owner:
            raise SandboxClosedError("this sandbox belongs to the parent process; make a new one after the fork")
        if self._closed:
            raise SandboxClosedError("this sandbox is closed; make a new one")

    def place(self, deadline: float, mapped_mb: int) -> tuple[WorkerLink, Lease]:
        """A process for an episode in the least loaded worker, first come first served.

        Raises:
            SandboxBusyError: Too many wait, or ``deadline`` (``time.monotonic()``) passed while all slots were taken.
            SandboxError: No worker could be started.
        """
        return self._workers.place(deadline, mapped_mb)

    def seat(self, video: int) -> Seat | None:
        """A place at the decoder that serves all episodes of a video, given as a descriptor; None without one."""
        return self._frames.seat(video)

    def end(self, link: WorkerLink, lease: Lease) -> None:
        """End an episode's process; a single-use worker goes with it."""
        self._workers.end(link, lease)


_open_sandboxes: weakref.WeakSet[Sandbox] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Workers end by themselves when this process is gone; closing them first spares the engine's clean-up."""
    for sandbox in list(_open_sandboxes):
        with contextlib.suppress(SandboxError, OSError):
            sandbox.close()
