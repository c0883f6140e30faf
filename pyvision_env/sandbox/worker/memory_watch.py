"""Ends episodes that hold more memory than they may, and knows how much all of them hold."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from . import memory
from .slot_group import Pool, SlotGroup
from .wire import Confinement

_EACH_S = 0.25
_EACH_WITH_GROUPS_S = 0.05
_LOAD_STEP_MB = 32


@dataclass
class Living:
    """An episode that runs.

    Attributes:
        number: The host's name for it.
        slot: Its directory.
        bounds: What it may use.
        memory_bytes: What all its processes may hold, what they share with the zygote included.
        group: Its control group, if it has one.
        cause: Why it was killed from here.
        measure_at: When its memory is worth another exact measurement (``time.monotonic()``).
    """

    number: int
    slot: Path
    bounds: Confinement
    memory_bytes: int
    group: SlotGroup | None
    cause: str | None = None
    measure_at: float = 0.0

    @property
    def greed(self) -> str:
        """The cause of one that held too much."""
        return f"its processes used more than {self.bounds.memory_mb} MiB of memory"

    def kill(self, pid: int, cause: str) -> None:
        """End it."""
        self.cause = cause
        os.kill(pid, signal.SIGKILL)


class MemoryWatch:
    """Looks after the episodes of a zygote; made when the zygote has warmed everything.

    Args:
        living: The episodes by the process they run in, kept up to date by the zygote.

    Attributes:
        inherited: Bytes that a fork holds from the start.
        by_groups: Episodes have control groups.
        pool: The group of all slots, if there is one.
    """

    def __init__(self, living: dict[int, Living]) -> None:
        self._living = living
        self.inherited = memory.share_of(os.getpid(), 0) or 0
        self.by_groups = False
        self.pool: Pool | None = None
        self._resident = memory.resident_by_root({os.getpid()})[os.getpid()][os.getpid()]
        self._each_socket = memory.socket_bytes()
        self._families: dict[int, dict[int, int]] = {}
        self._told_mb = 0
        self._tell_at = 0.0

    @property
    def interval_s(self) -> float:
        """Seconds from one look to the next."""
        return _EACH_WITH_GROUPS_S if self.by_groups else _EACH_S

    def look(self) -> None:
        """Kill episodes whose processes together hold more than they may."""
        self._look_at_groups()
        watched = {pid for pid, episode in self._living.items() if episode.group is None}
        self._families = memory.resident_by_root(watched) if watched else {}
        # Pages in common count for each process here, and every descriptor as a socket, so this can only be too much.
        suspects = [
            root
            for root, family in self._families.items()
            if sum(resident + self._each_socket * memory.open_files(pid) for pid, resident in family.items())
            > self._living[root].memory_bytes
        ]
        for pid in suspects:
            episode = self._living[pid]
            if time.monotonic() < episode.measure_at:
                continue
            began = time.process_time()
            exceeded = memory.exceeds(pid, episode.memory_bytes, self._each_socket, self._resident)
            # Exact figures are had by walking page tables: a quarter of the zygote's time goes into it, not more, and
            # not less either, because nobody looks meanwhile.
            episode.measure_at = time.monotonic() + 3 * len(suspects) * (time.process_time() - began)
            if exceeded:
                episode.kill(pid, episode.greed)

    def new_load_mb(self) -> int | None:
        """How much the episodes hold beyond what every fork shares, MiB; None unless it has changed."""
        if time.monotonic() < self._tell_at:
            return None
        self._tell_at = time.monotonic() + _EACH_S
        own = sum(max(0, size - self._resident) for family in self._families.values() for size in family.values())
        if self.pool is not None:
            own += self.pool.held
        if abs((own >> 20) - self._told_mb) < _LOAD_STEP_MB:
            return None
        self._told_mb = own >> 20
        return self._told_mb

    def _look_at_groups(self) -> None:
        """End what the kernel has begun to kill, and the greediest episode before all slots together are full."""
        alive = {pid: each for pid, each in self._living.items() if each.group is not None and each.cause is None}
        for pid, episode in alive.items():
            if episode.group is not None and episode.group.exceeded:
                # The kernel took one of its processes; what is left of it is not what its code believes.
                episode.kill(pid, episode.greed)
        # The host has seen to it that code which wants more than there is waits, instead of having the kernel choose.
        if self.pool is None or not self.pool.crowded or any(each.cause for each in self._living.values()):
            return  # those that are dying give theirs back in a moment
        held = {pid: each.group.held for pid, each in alive.items() if each.group is not None}
        greediest = max(held, key=lambda pid: held[pid], default=None)
        if greediest is not None:
            cause = f"memory was short in its worker, and it held most of it: {held[greediest] >> 20} MiB"
            self._living[greediest].kill(greediest, cause)
