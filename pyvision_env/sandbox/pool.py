"""A sandbox: starts workers when they are needed, places episodes on them, waits its turn when all are full."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.errors import (
    SandboxBusyError,
    SandboxClosedError,
    SandboxError,
    SandboxLostError,
    SandboxStartError,
)
from pyvision_env.sandbox.episode import Episode
from pyvision_env.sandbox.isolation import IsolationReport, report_of
from pyvision_env.sandbox.link import Lease, WorkerLink
from pyvision_env.sandbox.pixels import PictureCache, SharedPicture
from pyvision_env.sandbox.videos import VideoCache
from pyvision_env.sandbox.worker import wire

_log = logging.getLogger(__name__)
_RETRY_S = 5.0
_ABANDON_S = 15.0
# A start is bound by the processor: more at once only make each of them slower.
_STARTS_AT_ONCE = max(2, os.cpu_count() or 1)


class Launcher(Protocol):
    """Makes workers of one kind.

    Attributes:
        kind: Name of the sandbox's kind.
        slots: Episodes at once in one worker.
        workers: Workers at most.
        single_use: A worker serves one episode and is then thrown away.
        warm: Idle workers to keep ready.
        container: A container stands around each worker.
    """

    kind: str
    slots: int
    workers: int
    single_use: bool
    warm: int
    container: bool

    def launch(self, on_change: Callable[[], None]) -> WorkerLink:
        """Start one worker and wait until it is ready.

        Raises:
            SandboxError: It could not be started.
        """
        ...

    def abandon(self) -> None:
        """Have launches that are in progress give up soon, and leave nothing behind."""
        ...

    def close(self) -> None:
        """Let go of what launching needs; called when all workers are gone."""
        ...


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
        self._links: list[WorkerLink] = []
        self._starting = 0
        self._launches: set[threading.Thread] = set()
        self._retry_at = 0.0
        self._used: set[WorkerLink] = set()
        self._ending: deque[WorkerLink] = deque(maxlen=256)
        self._queue: deque[object] = deque()
        self._condition = threading.Condition()
        self._pictures = PictureCache()
        self._videos = VideoCache()
        self._episodes: weakref.WeakSet[Episode] = weakref.WeakSet()
        self._closed = False
        self._owner = os.getpid()
        self._isolation: IsolationReport | None = None
        self._failure: SandboxError | None = None
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
        if self._isolation is None:
            self.start()
        if self._isolation is None:
            raise SandboxClosedError("this sandbox is closed; make a new one")
        return self._isolation

    def start(self) -> Sandbox:
        """Start a worker now (and the warm ones in the background) instead of at the first ``open``.

        Raises:
            SandboxError: It could not be started.
        """
        deadline = time.monotonic() + self.config.start_timeout_s
        token = object()
        with self._condition:
            self.check_usable()
            self._queue.append(token)
            try:
                while not self._links:
                    self._launch_if_needed()
                    if not self._condition.wait(max(0.0, deadline - time.monotonic())):
                        raise SandboxStartError(
                            f"no {self.kind} worker became ready within {self.config.start_timeout_s:g} s; "
                            "see `pyvision-env doctor`, or raise start_timeout_s"
                        )
                    self.check_usable()
                    self._raise_failure()
            finally:
                self._queue.remove(token)
        return self

    def open(self, images: Sequence[Any] = (), videos: Sequence[Any] = ()) -> Episode:
        """Start an episode's runtime with the media bound in it.

        Args:
            images: Paths, encoded bytes, arrays (HxWx3 uint8), Pillow images, ``ImageSource`` or what ``picture``
                gave; bound in order as ``image_clue_0``, ``image_clue_1``, ...
            videos: Paths, encoded bytes or ``VideoSource``; bound in order as ``video_clue_0``, ...

        Raises:
            MediaError: An image or video cannot be read.
            SandboxBusyError: No slot became free within ``open_timeout_s``.
            SandboxError: No worker could be started, or it died.
        """
        self.check_usable()
        pictures = [self._pictures.get(image) for image in images]
        sources = [self._videos.get(video) for video in videos]
        episode = Episode(self, pictures, sources, self.limits, self.config)
        with self._condition:
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
        with self._condition:
            if self._closed:
                return
            self._closed = True
            links = [*self._ending, *self._links]
            self._links = []
            episodes = list(self._episodes)
            launches = list(self._launches)
            self._condition.notify_all()
        _open_sandboxes.discard(self)
        self._launcher.abandon()
        for link in links:
            link.close(wait=False)
        # Their workers are gone, so none of them is kept waiting by a running step.
        for episode in episodes:
            episode.close()
        for link in links:
            link.close(wait=True)
        for launch in launches:
            launch.join(_ABANDON_S)
        self._launcher.close()
        self._pictures.clear()
        self._videos.clear()

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
            SandboxBusyError: ``deadline`` (``time.monotonic()``) passed while all slots were taken.
            SandboxError: No worker could be started.
        """
        config = self.config
        bounds = wire.Confinement(config.memory_mb, config.disk_mb, config.processes, config.cpu_seconds, mapped_mb)
        while True:
            link, lease = self._reserve(deadline)
            try:
                link.spawn(lease, bounds)
            except SandboxLostError:
                _log.warning("%s was lost while an episode was placed on it; trying another", link.name)
                self._changed()
            else:
                return link, lease

    def _reserve(self, deadline: float) -> tuple[WorkerLink, Lease]:
        ticket = object()
        with self._condition:
            self._queue.append(ticket)
            try:
                while True:
                    self.check_usable()
                    link = self._free_link() if self._queue[0] is ticket else None
                    if link is not None:
                        lease = link.reserve()
                        if self._launcher.single_use:
                            self._used.add(link)
                        return link, lease
                    self._launch_if_needed()
                    if not self._condition.wait(max(0.0, deadline - time.monotonic())):
                        raise SandboxBusyError(self._busy())
                    self._raise_failure()
            finally:
                self._queue.remove(ticket)
                self._condition.notify_all()
                self._launch_if_needed()

    def end(self, link: WorkerLink, lease: Lease) -> None:
        """End an episode's process; a single-use worker goes with it."""
        link.end(lease)
        if self._launcher.single_use:
            with self._condition:
                self._used.discard(link)
                if link in self._links:
                    self._links.remove(link)
                    self._ending.append(link)
                self._condition.notify_all()
            link.close(wait=False)

    def _free_link(self) -> WorkerLink | None:
        free = [
            link for link in self._links if link.alive and link not in self._used and link.load < self._launcher.slots
        ]
        return min(free, key=lambda link: link.load, default=None)

    def _launch_if_needed(self) -> None:
        """With the lock held: start workers for those who wait and, for single-use workers, the warm ones."""
        launcher = self._launcher
        if self._closed or time.monotonic() < self._retry_at:
            return
        wanted = -(-len(self._queue) // launcher.slots)
        if launcher.single_use and self._links:
            wanted += launcher.warm
        free = sum(1 for link in self._links if link.alive and link not in self._used and link.load < launcher.slots)
        room = min(launcher.workers - len(self._links), _STARTS_AT_ONCE) - self._starting
        for _ in range(max(0, min(wanted - free - self._starting, room))):
            self._starting += 1
            self._failure = None
            thread = threading.Thread(target=self._launch, name=f"{launcher.kind}-launch", daemon=True)
            self._launches.add(thread)
            thread.start()

    def _launch(self) -> None:
        link: WorkerLink | None = None
        failure: SandboxError | None = None
        try:
            link = self._launcher.launch(self._changed)
        except SandboxError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - whoever waits for this worker must hear of it
            _log.exception("a %s worker could not be started", self.kind)
            failure = SandboxStartError(f"a {self.kind} worker could not be started: {type(error).__name__}: {error}")
        with self._condition:
            self._starting -= 1
            self._launches.discard(threading.current_thread())
            unwanted = self._closed
            if failure is not None:
                self._failure = failure
                self._retry_at = time.monotonic() + _RETRY_S if self._links else 0.0
                if self._links:
                    _log.warning("another %s worker could not be started: %s", self.kind, failure)
            elif link is not None and not unwanted:
                self._links.append(link)
                if self._isolation is None:
                    self._isolation = report_of(self._launcher.kind, self._launcher.container, link)
            self._condition.notify_all()
        if link is not None and unwanted:
            link.close(wait=True)

    def _raise_failure(self) -> None:
        if self._failure is not None and not self._links and not self._starting:
            raise type(self._failure)(str(self._failure))

    def _changed(self) -> None:
        """An episode ended or a worker was lost: throw away what is dead, wake those who wait."""
        with self._condition:
            gone = [link for link in self._links if not link.alive]
            self._links = [link for link in self._links if link.alive]
            self._used.difference_update(gone)
            self._ending.extend(gone)
            self._condition.notify_all()
        for link in gone:
            link.close(wait=False)

    def _busy(self) -> str:
        launcher = self._launcher
        return (
            f"no slot for another episode became free within {self.config.open_timeout_s:g} s: "
            f"{launcher.workers} worker(s) of {launcher.slots} slot(s) are full and {len(self._queue)} episodes wait; "
            "close finished episodes, or raise containers, episodes_per_container or open_timeout_s"
        )


_open_sandboxes: weakref.WeakSet[Sandbox] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Workers end by themselves when this process is gone; closing them first spares the engine's clean-up."""
    for sandbox in list(_open_sandboxes):
        with contextlib.suppress(SandboxError, OSError):
            sandbox.close()
