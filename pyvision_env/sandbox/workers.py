"""The workers of a sandbox: started when they are needed, chosen by load and memory, waited for in line."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from pyvision_env.config import SandboxConfig
from pyvision_env.errors import SandboxBusyError, SandboxError, SandboxLostError, SandboxStartError
from pyvision_env.sandbox.isolation import IsolationReport, report_of
from pyvision_env.sandbox.link import Lease, WorkerLink
from pyvision_env.sandbox.waiting import Ticket, WaitingLine
from pyvision_env.sandbox.worker import wire

_log = logging.getLogger(__name__)
_RETRY_S = 5.0
_ABANDON_S = 15.0
# A start is bound by the processor: more at once only make each of them slower.
_STARTS_AT_ONCE = max(2, os.cpu_count() or 1)
_SPREAD_AT = 0.5
_MEMORY_FULL = 0.9


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


class Workers:
    """Places episodes on workers.

    Args:
        launcher: Makes them.
        config: Bounds.
        check_usable: Raises when nothing may be placed any more.
        give_way: Names processes that can be spared when episodes wait.
    """

    def __init__(
        self,
        launcher: Launcher,
        config: SandboxConfig,
        check_usable: Callable[[], None],
        give_way: Callable[[], list[tuple[WorkerLink, Lease]]],
    ) -> None:
        self._launcher = launcher
        self._config = config
        self._check_usable = check_usable
        self._give_way = give_way
        self._lock = threading.RLock()
        self._line = WaitingLine(self._lock, config.max_waiting)
        self._links: list[WorkerLink] = []
        self._used: set[WorkerLink] = set()
        self._ending: deque[WorkerLink] = deque(maxlen=256)
        self._starts: dict[threading.Thread, float] = {}
        self._retry_at = 0.0
        self._spared: list[Lease] = []
        self._closed = False
        self.kind = launcher.kind
        self.isolation: IsolationReport | None = None

    @property
    def links(self) -> list[WorkerLink]:
        """The workers that run."""
        with self._lock:
            return list(self._links)

    @property
    def crowded(self) -> bool:
        """Whether somebody waits for whom no further worker can be started."""
        with self._lock:
            return len(self._line) > 0 and self._room() <= 0

    def start(self, deadline: float) -> None:
        """Wait until a worker runs.

        Raises:
            SandboxError: It could not be started.
        """
        with self._lock:
            self._check_usable()
            if self._links:
                return
            with self._line.join() as ticket:
                while not self._links:
                    self._launch_if_needed()
                    # A start tells by itself why it took too long; that says more than we could.
                    if not self._look_again(ticket, max([deadline, *self._starts.values()])):
                        raise SandboxStartError(self._not_ready())
            self._launch_if_needed()

    def place(self, deadline: float, mapped_mb: int, decoder: bool = False) -> tuple[WorkerLink, Lease]:
        """A process for an episode in the least loaded worker, first come first served.

        A decoder's process comes about the same way, but never waits for others to end.

        Raises:
            SandboxBusyError: Too many wait, or ``deadline`` (``time.monotonic()``) passed while all slots were taken.
            SandboxError: No worker could be started.
        """
        config = self._config
        bounds = wire.Confinement(config.memory_mb, config.disk_mb, config.processes, config.cpu_seconds, mapped_mb)
        while True:
            link, lease = self._reserve(deadline, decoder)
            try:
                link.spawn(lease, bounds, decoder)
            except SandboxLostError:
                _log.warning("%s was lost while an episode was placed on it; trying another", link.name)
                self._changed()
            else:
                return link, lease

    def end(self, link: WorkerLink, lease: Lease) -> None:
        """End a process; a single-use worker goes with it."""
        link.end(lease)
        if self._launcher.single_use:
            with self._lock:
                self._used.discard(link)
                if link in self._links:
                    self._links.remove(link)
                    self._ending.append(link)
                self._launch_if_needed()
                self._line.wake_first()
            link.close(wait=False)

    def close(self) -> list[WorkerLink]:
        """Send everybody away and have starts give up; the workers that are still to be closed."""
        with self._lock:
            self._closed = True
            links = [*self._ending, *self._links]
            self._links = []
            self._line.fail_all()
        self._launcher.abandon()
        return links

    def await_starts(self) -> None:
        """After ``close``: wait until the starts that were under way are over and have left nothing behind."""
        deadline = time.monotonic() + _ABANDON_S
        with self._lock:
            starts = list(self._starts)
        for start in starts:
            start.join(max(0.0, deadline - time.monotonic()))
            if start.is_alive():
                _log.warning("a %s worker that was being started when its sandbox was closed still is", self.kind)

    def _reserve(self, deadline: float, decoder: bool) -> tuple[WorkerLink, Lease]:
        with self._lock:
            self._check_usable()
            awaited: set[threading.Thread] = set()
            try:
                with self._line.join() as ticket:
                    while True:
                        link = self._choose() if self._line.is_first(ticket) else None
                        if link is not None:
                            lease = link.reserve()
                            if self._launcher.single_use:
                                self._used.add(link)
                            return link, lease
                        self._launch_if_needed()
                        if self._line.is_first(ticket) and self._room() <= 0 and not self._starts:
                            if decoder:
                                raise SandboxBusyError("no slot is free for a decoder")
                            self._make_way()
                        if awaited and awaited.isdisjoint(self._starts):
                            raise self._too_late()
                        if self._look_again(ticket, deadline):
                            continue
                        if awaited or not self._starts:
                            raise self._too_late()
                        # Workers that are on their way are no lack of slots: wait for these, but for no others.
                        awaited = set(self._starts)
                        deadline = max(self._starts.values())
            finally:
                self._launch_if_needed()

    def _look_again(self, ticket: Ticket, deadline: float) -> bool:
        """Wait until something changed; False at the deadline.

        Raises:
            SandboxError: Waiting is pointless.
        """
        # After a failed start nothing else may happen that would have it tried again.
        now = time.monotonic()
        woken = ticket.wait(min(deadline, self._retry_at) if self._retry_at > now else deadline)
        self._check_usable()
        if ticket.failure is not None:
            raise type(ticket.failure)(str(ticket.failure))
        return woken or time.monotonic() < deadline

    def _make_way(self) -> None:
        """Before an episode has to wait for others to end, a process that only saves work is ended."""
        self._spared = [lease for lease in self._spared if not lease.ended.is_set()]
        # One at a time: what is on its way out makes room soon.
        spared = [] if self._spared else self._give_way()
        if spared:
            self._spared = [lease for _, lease in spared]
            # Not with the lock held: a worker that does not listen would keep all others from their places.
            threading.Thread(target=self._end_all, args=(spared,), name="make-way", daemon=True).start()

    def _end_all(self, spared: list[tuple[WorkerLink, Lease]]) -> None:
        for link, lease in spared:
            self.end(link, lease)

    def nudge(self) -> None:
        """Let who is first in line look again."""
        with self._lock:
            self._line.wake_first()

    def _choose(self) -> WorkerLink | None:
        """The worker with the most room, if one has any."""
        return min((link for link in self._links if self._has_room(link)), key=self._pressure, default=None)

    def _has_room(self, link: WorkerLink) -> bool:
        if not link.alive or link in self._used or link.load >= self._launcher.slots:
            return False
        # An episode more would put all of its episodes at risk; an empty one is as empty as it gets.
        return link.load == 0 or link.memory_mb < _MEMORY_FULL * self._config.container_memory_mb

    def _pressure(self, link: WorkerLink) -> float:
        """How full a worker is, by episodes or by memory, whichever is nearer to its bound."""
        return max(link.load / self._launcher.slots, link.memory_mb / self._config.container_memory_mb)

    def _room(self) -> int:
        """How many more workers there may be."""
        return self._launcher.workers - len(self._links) - len(self._starts)

    def _launch_if_needed(self) -> None:
        """With the lock held: start workers for those who wait; when nobody does, further ones ahead of the need."""
        launcher = self._launcher
        if self._closed or time.monotonic() < self._retry_at:
            return
        free = [link for link in self._links if self._has_room(link)]
        if len(self._line):
            wanted = -(-len(self._line) // launcher.slots) - len(free) - len(self._starts)
        elif launcher.single_use:
            # One at a time: an episode that was just placed needs the processor more.
            wanted = int(self.isolation is not None and len(free) < launcher.warm and not self._starts)
        else:
            # The next one while there is still room, so that nobody waits for it and a lost one takes fewer along.
            wanted = int(bool(self._links) and not self._starts and all(self._pressure(x) >= _SPREAD_AT for x in free))
        for _ in range(max(0, min(wanted, _STARTS_AT_ONCE - len(self._starts), self._room()))):
            thread = threading.Thread(target=self._launch, name=f"{launcher.kind}-launch", daemon=True)
            thread.start()
            # It ends by itself before that, with a reason, unless what it waits for hangs.
            self._starts[thread] = time.monotonic() + self._config.start_timeout_s + _ABANDON_S

    def _launch(self) -> None:
        link: WorkerLink | None = None
        failure: SandboxError | None = None
        kind = self.kind
        try:
            link = self._launcher.launch(self._changed)
        except SandboxError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - whoever waits for this worker must hear of it
            _log.exception("a %s worker could not be started", kind)
            failure = SandboxStartError(f"a {kind} worker could not be started: {type(error).__name__}: {error}")
        with self._lock:
            unwanted = self._closed
            if not unwanted:
                del self._starts[threading.current_thread()]
                if link is not None:
                    self._links.append(link)
                    if self.isolation is None:
                        self.isolation = report_of(kind, self._launcher.container, link)
                    self._launch_if_needed()
                elif self._links or self._starts:
                    self._retry_at = time.monotonic() + _RETRY_S
                    _log.warning("another %s worker could not be started: %s", kind, failure)
                else:
                    self._retry_at = 0.0
                    self._line.fail_all(failure)
                self._line.wake_first()
        if link is not None and unwanted:
            link.close(wait=True)

    def _changed(self) -> None:
        """An episode ended, a worker was lost or tells of its memory: bury what is dead, wake who is first."""
        with self._lock:
            gone = [link for link in self._links if not link.alive]
            self._links = [link for link in self._links if link.alive]
            self._used.difference_update(gone)
            self._ending.extend(gone)
            self._line.wake_first()
        for link in gone:
            link.close(wait=False)

    def _too_late(self) -> SandboxError:
        """Why an episode got no place in time."""
        if not self._links:
            return SandboxStartError(self._not_ready())
        launcher = self._launcher
        return SandboxBusyError(
            f"no slot for another episode became free within {self._config.open_timeout_s:g} s: "
            f"{launcher.workers} worker(s) of {launcher.slots} slot(s) are full and {len(self._line)} episodes wait; "
            "close finished episodes, or raise containers, episodes_per_container or open_timeout_s"
        )

    def _not_ready(self) -> str:
        return (
            f"no {self.kind} worker became ready within {self._config.start_timeout_s:g} s; "
            "see `pyvision-env doctor`, or raise start_timeout_s"
        )
