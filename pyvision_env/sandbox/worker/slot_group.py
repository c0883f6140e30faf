"""The memory control group of a slot, worked by the files the host has opened; the worker sees no control groups."""

from __future__ import annotations

import os
from collections.abc import Sequence

# What an episode holds beside its pages: its page tables, sockets and pipes.
_KERNEL_BYTES = 64 << 20
# Memory that cannot be had back by dropping cached files: in groups of version 1 (rss) and 2 (anon).
_HELD = (b"rss", b"anon", b"shmem")
_CROWDED = 0.8


class SlotGroup:
    """Bounds whatever memory the processes of a slot take, of any kind and over all of them.

    Args:
        fds: Open files to enter the group, to bound it, and to read its kills and its account; owned from now on.
    """

    def __init__(self, fds: Sequence[int]) -> None:
        self.fds = tuple(fds)
        self._join, self._limit, self._kills, self._account = self.fds
        self._bytes = 0
        self._seen = 0

    def prepare(self, memory: int, disk: int) -> None:
        """Set the bound for the next episode: ``memory`` bytes for its processes, ``disk`` for its files.

        Raises:
            OSError: The kernel refuses it.
        """
        self._seen = self._killed()
        # A decoder that was here may have left frames behind, which its rollouts hold: not this episode's memory.
        wanted = memory + disk + _KERNEL_BYTES + self._left()
        if wanted != self._bytes:
            os.pwrite(self._limit, str(wanted).encode(), 0)
            self._bytes = wanted

    def enter(self) -> None:
        """Put the calling process, which must have one thread, into the group."""
        os.write(self._join, b"0")

    @property
    def held(self) -> int:
        """Bytes of memory, those of files in memory included and cached ones of the disk not."""
        account = _numbers(self._account)
        return sum(account.get(name, 0) for name in _HELD)

    @property
    def exceeded(self) -> bool:
        """Whether the kernel had to kill a process since ``prepare``."""
        return self._killed() > self._seen

    def _left(self) -> int:
        return _numbers(self._account).get(b"shmem", 0) >> 20 << 20

    def _killed(self) -> int:
        return _numbers(self._kills).get(b"oom_kill", 0)


class Pool:
    """All slots together.

    Args:
        fds: Open files with the bytes in use and the account; owned from now on.
        limit: Bound in bytes.
    """

    def __init__(self, fds: Sequence[int], limit: int) -> None:
        self.fds = tuple(fds)
        self._usage, self._account = self.fds
        self._limit = limit

    @property
    def crowded(self) -> bool:
        """Whether little is left, and what is in use cannot be had back by dropping cached files of the disk."""
        used = int(os.pread(self._usage, 32, 0))
        if used < _CROWDED * self._limit:
            return False
        account = _numbers(self._account)
        cached = account.get(b"total_cache", account.get(b"file", 0))
        return used - (cached - _in_memory_files(account)) > _CROWDED * self._limit

    @property
    def held(self) -> int:
        """Bytes of memory that the episodes hold, those of files in memory included and cached ones of the disk not."""
        account = _numbers(self._account)
        return account.get(b"total_rss", account.get(b"anon", 0)) + _in_memory_files(account)


def _in_memory_files(account: dict[bytes, int]) -> int:
    return account.get(b"total_shmem", account.get(b"shmem", 0))


def _numbers(fd: int) -> dict[bytes, int]:
    """A file of lines with a name and a number."""
    lines = (line.split() for line in os.pread(fd, 1 << 14, 0).splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}
