"""A sandbox spread over the nodes of a Ray cluster: places episodes, waits its turn when all nodes are full."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions

from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.errors import (
    SandboxBusyError,
    SandboxClosedError,
    SandboxError,
    SandboxLostError,
    SandboxStartError,
)
from pyvision_env.sandbox.cluster.episode import ClusterEpisode
from pyvision_env.sandbox.cluster.isolation import combine
from pyvision_env.sandbox.cluster.media import ClusterPicture, MediaDesk, Medium
from pyvision_env.sandbox.cluster.member import Member
from pyvision_env.sandbox.cluster.members import Members
from pyvision_env.sandbox.cluster.placement import choose
from pyvision_env.sandbox.isolation import IsolationReport
from pyvision_env.sandbox.waiting import refuse_beyond
from pyvision_env.types import VideoInfo

_log = logging.getLogger(__name__)
_TRANSFER_S = 5.0


@dataclass(frozen=True, slots=True)
class NodeState:
    """One sandbox actor, as this process sees it.

    Attributes:
        name: Its node's host name and the beginning of the node's id.
        node_id: Ray's id of the node.
        pid: The actor's process, as its own node counts.
        kind: Kind of its sandbox.
        episodes: Episodes placed on it.
        slots: Episodes it takes at most.
        cores: Processors it may count on.
        memory_free_mb: Memory free on the node when it last answered, MiB.
        media_made: Images and videos it had to fetch and prepare so far.
    """

    name: str
    node_id: str
    pid: int
    kind: str
    episodes: int
    slots: int
    cores: float
    memory_free_mb: int
    media_made: int


class ClusterSandbox:
    """Isolated Python runtimes on many machines; made by ``make_sandbox("ray")``.

    It has the face of ``pyvision_env.sandbox.Sandbox``. Nothing starts before the first ``open`` (or ``start``). Nodes
    that join later are used too. Episodes on a node that is lost end with ``SandboxLostError``, new ones go to the
    nodes that live. The actors end with the process that made them, and their workers with the actors, however
    they died.
    """

    def __init__(self, config: SandboxConfig, limits: Limits) -> None:
        self.config = config
        self.limits = limits
        self._condition = threading.Condition()
        self._members = Members(config, limits, self._condition)
        self._media = MediaDesk(config.cluster.media_mb << 20)
        self._queue: deque[object] = deque()
        self._numbers = itertools.count(1)
        self._episodes: weakref.WeakSet[ClusterEpisode] = weakref.WeakSet()
        self._isolation: IsolationReport | None = None
        self._begun = False
        self._closed = False
        self._owner = os.getpid()
        _open_sandboxes.add(self)

    @property
    def kind(self) -> str:
        """``ray``."""
        return self.config.kind

    @property
    def isolation(self) -> IsolationReport:
        """What the sandboxes of all nodes that are ready keep apart; starts them if none is.

        Raises:
            SandboxError: No node's sandbox could be started.
        """
        reports = self._reports()
        if not reports and self._isolation is None:
            self.start()
            reports = self._reports()
        if reports:
            self._isolation = combine(self.kind, reports)
        if self._isolation is None:
            raise SandboxLostError("every node was lost before it could tell what it keeps apart")
        return self._isolation

    @property
    def nodes(self) -> tuple[NodeState, ...]:
        """The actors that are ready now."""
        with self._condition:
            return tuple(
                NodeState(
                    each.host.name, each.host.node_id, each.pid, each.isolation.kind, each.load, each.slots,
                    each.cores, each.memory_free_mb, each.media_made,
                )
                for each in self._members.ready
            )  # fmt: skip

    def start(self) -> ClusterSandbox:
        """Join the cluster and wait until the first node's sandbox is ready; the others follow in the background.

        Raises:
            SandboxError: There is no cluster, or no node became ready within ``start_timeout_s``.
        """
        self._begin()
        deadline = time.monotonic() + self.config.start_timeout_s
        with self._condition:
            while not self._members.ready:
                if not self._condition.wait(max(0.0, deadline - time.monotonic())):
                    raise SandboxStartError(
                        f"no sandbox of the cluster became ready within {self.config.start_timeout_s:g} s: "
                        f"{self._members.none_ready()}"
                    )
                self.check_usable()
                self._members.raise_failure()
        return self

    def open(self, images: Sequence[Any] = (), videos: Sequence[Any] = ()) -> ClusterEpisode:
        """Start an episode's runtime on the node with most room, with the media bound in it.

        Args:
            images: Paths, encoded bytes, arrays (HxWx3 uint8), Pillow images, ``ImageSource`` or what ``picture``
                gave; bound in order as ``image_clue_0``, ``image_clue_1``, ... Paths are read here, not on the node.
            videos: Paths, encoded bytes or ``VideoSource``; bound in order as ``video_clue_0``, ...

        Raises:
            MediaError: An image or video cannot be read.
            SandboxBusyError: No slot became free on any node within ``open_timeout_s``.
            SandboxError: There is no cluster, or no node's sandbox could be started.
        """
        self.check_usable()
        pictures = [self._media.picture(image).medium for image in images]
        clips = [self._media.video(video) for video in videos]
        self._begin()
        episode = ClusterEpisode(self, pictures, clips, self.limits, self.config)
        with self._condition:
            self._episodes.add(episode)
        return episode

    def picture(self, source: Any) -> ClusterPicture:
        """A decoded image that ``open`` takes as it is, shared by all episodes that look at it.

        Raises:
            MediaError: It cannot be read as an image.
        """
        return self._media.picture(source)

    def forget_pictures(self) -> None:
        """Let go of the media kept here and on the nodes for further episodes; those in use live on."""
        self._media.clear()
        with self._condition:
            members = self._members.ready
        for member in members:
            member.tell("forget")

    def close(self) -> None:
        """End every episode, worker and actor; idempotent."""
        if os.getpid() != self._owner:
            return
        with self._condition:
            if self._closed:
                return
            self._closed = True
            episodes = list(self._episodes)
            self._condition.notify_all()
        _open_sandboxes.discard(self)
        self._members.close()
        # Their actors are gone, so none of them is kept waiting by a running step.
        for episode in episodes:
            episode.close()
        self._media.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> ClusterSandbox:
        """Itself: Gymnasium copies the keyword arguments of an environment, and there is one set of actors."""
        return self

    def __enter__(self) -> ClusterSandbox:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def check_usable(self) -> None:
        """Raise ``SandboxClosedError`` when it is closed, belongs to the parent process or Ray was shut down."""
        if os.getpid() != self._owner:
            raise SandboxClosedError("this sandbox belongs to the parent process; make a new one after the fork")
        if self._closed:
            raise SandboxClosedError("this sandbox is closed; make a new one")
        if self._begun and not ray.is_initialized():
            raise SandboxClosedError("Ray was shut down under this sandbox; make a new one")

    def place(
        self, images: Sequence[Medium], videos: Sequence[Medium], deadline: float
    ) -> tuple[Member, int, tuple[VideoInfo, ...]]:
        """Open an episode on the actor with most room, first come first served.

        Raises:
            SandboxBusyError: ``deadline`` (``time.monotonic()``) passed while all slots were taken.
            SandboxError: No actor could be started, or none opened the episode in time.
            MediaError: A video cannot be used.
        """
        pictures, clips = [each.handed() for each in images], [each.handed() for each in videos]
        while True:
            member = self._reserve(deadline)
            number = next(self._numbers)
            try:
                timeout = max(0.0, deadline - time.monotonic()) + _TRANSFER_S
                return member, number, member.ask("open", number, pictures, clips, timeout=timeout)
            except SandboxLostError as error:
                self.end(member, number)
                self.check_usable()
                if time.monotonic() > deadline:
                    raise SandboxStartError(f"an episode did not become ready: {error}") from None
                _log.warning("%s while an episode was placed there; trying another node", error)
            except BaseException:
                self.end(member, number)
                raise

    def end(self, member: Member, number: int) -> None:
        """End an episode and give its slot to the next one."""
        if member.alive and ray.is_initialized():
            member.tell("close", number)
        with self._condition:
            member.load -= 1
            self._condition.notify_all()

    def _begin(self) -> None:
        self.check_usable()
        self._members.begin()
        self._begun = True

    def _reserve(self, deadline: float) -> Member:
        ticket = object()
        with self._condition:
            refuse_beyond(self.config.max_waiting, len(self._queue))
            self._queue.append(ticket)
            try:
                while True:
                    self.check_usable()
                    first = self._queue[0] is ticket
                    member = choose(self._members.ready, self.config.memory_mb) if first else None
                    if member is not None:
                        member.load += 1
                        return member
                    if not self._condition.wait(max(0.0, deadline - time.monotonic())):
                        raise self._busy()
                    self._members.raise_failure()
            finally:
                self._queue.remove(ticket)
                self._condition.notify_all()

    def _busy(self) -> SandboxError:
        waited = f"within {self.config.open_timeout_s:g} s"
        ready = self._members.ready
        if not ready:
            return SandboxStartError(f"no sandbox of the cluster became ready {waited}: {self._members.none_ready()}")
        short = sum(member.memory_free_mb < self.config.memory_mb for member in ready)
        memory = f", {short} of them short of memory for another episode" if short else ""
        load, slots = sum(member.load for member in ready), sum(member.slots for member in ready)
        return SandboxBusyError(
            f"no slot for another episode became free {waited}: {len(ready)} actor(s) hold {load} episodes in {slots} "
            f"slot(s){memory}, and {len(self._queue)} episodes wait; close finished episodes, add nodes, or raise "
            "containers, episodes_per_container or open_timeout_s"
        )

    def _reports(self) -> dict[str, IsolationReport]:
        with self._condition:
            return {member.host.name: member.isolation for member in self._members.ready}


_open_sandboxes: weakref.WeakSet[ClusterSandbox] = weakref.WeakSet()


# Registered after Ray was imported, and so called before Ray leaves the cluster.
@atexit.register
def _close_all() -> None:
    for sandbox in list(_open_sandboxes):
        with contextlib.suppress(SandboxError, OSError, ray.exceptions.RayError):
            sandbox.close()
