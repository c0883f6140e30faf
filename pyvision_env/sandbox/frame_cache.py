"""Decoded frames shared by the rollouts of a group: one confined decoder for each video, looked after from here.

The host never decodes a video and never looks at a frame: it makes the memory, has a decoder process fill it (see
``worker/frame_server``), seals it, and hands every rollout a read-only descriptor of it and a socket to the decoder.
A decoder can be ended at any moment, by the host or by its video: its rollouts then decode for themselves.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import logging
import os
import secrets
import socket
import termios
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import TYPE_CHECKING, Protocol

from pyvision_env.config import SandboxConfig
from pyvision_env.errors import SandboxError
from pyvision_env.sandbox.worker import wire

if TYPE_CHECKING:
    from pyvision_env.sandbox.link import Lease, WorkerLink

_log = logging.getLogger(__name__)
_F_SEAL_FUTURE_WRITE = 0x10  # the fcntl module does not name it
_VIDEOS = 16
_LEAST_MB = 8
_ANSWER_S = 10.0
_REST_S = 60.0
_REMEMBERED = 1024
_CLIENT_SHARE = 4
# A process may open 256 files; and who is so late in line gets little of a decoder's time.
_MOST_SEATS = 200
_STUCK_S = 5.0
# A runtime with a kernel of its own, such as gVisor, hands no memory and no socket from one container to another.
_ONE_KERNEL = (None, "runc", "crun")


class Places(Protocol):
    """What gives a decoder its process."""

    def place(self, deadline: float, mapped_mb: int, decoder: bool = False) -> tuple[WorkerLink, Lease]:
        """A process that maps ``mapped_mb``."""
        ...

    def end(self, link: WorkerLink, lease: Lease) -> None:
        """End that process."""
        ...

    def nudge(self) -> None:
        """Let who waits for a place look again."""
        ...

    @property
    def crowded(self) -> bool:
        """Whether episodes wait for a place."""
        ...


class Seat:
    """A rollout's place at a decoder.

    Attributes:
        sock: The rollout's end, to be handed to its process and then closed here.
    """

    def __init__(self, cache: FrameCache, entry: _Entry, sock: socket.socket) -> None:
        self.sock = sock
        self._cache = cache
        self._entry: _Entry | None = entry

    def leave(self) -> None:
        """The rollout's process is gone; idempotent."""
        self.sock.close()
        entry, self._entry = self._entry, None
        if entry is not None:
            self._cache.left(entry)


class _Entry:
    """One video's decoder and memory."""

    def __init__(self, key: Hashable, size: int) -> None:
        self.key = key
        self.size = size
        self.memory = -1
        self.placed: tuple[WorkerLink, Lease] | None = None
        # Rollouts that came before the decoder was ready.
        self.waiting: list[socket.socket] = []
        self.seats = 0
        self.over = False
        self._unread_since: float | None = None

    @property
    def stuck(self) -> bool:
        """Whether its process has not read for some time what was sent to it."""
        if self.placed is None:
            return False
        unread = array.array("i", [0])
        try:
            fcntl.ioctl(self.placed[1].sock, termios.TIOCOUTQ, unread)
        except OSError:
            return False
        if not unread[0]:
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = time.monotonic()
        return self._unread_since is not None and time.monotonic() - self._unread_since > _STUCK_S

    @property
    def lost(self) -> bool:
        """Whether its process has ended."""
        return self.placed is not None and self.placed[1].ended.is_set()


class FrameCache:
    """The decoders of a sandbox, bounded in memory; the least recently wanted video gives way.

    Args:
        places: Gives decoders their processes.
        config: ``frame_cache_mb`` bounds the memory of all videos together; each may fill a sixteenth of it.
        single_use: A decoder takes a worker of its own, which pays only for a video that is opened again, and which is
            not kept for long.
        keep: Decoders without rollouts that may stay; None for as many as memory allows.
    """

    def __init__(self, places: Places, config: SandboxConfig, single_use: bool, keep: int | None) -> None:
        self._places = places
        self._config = config
        self._first_time = 2 if single_use else 1
        self._keep = keep
        self._budget = config.frame_cache_mb << 20 if config.runtime in _ONE_KERNEL else 0
        self._size = (max(config.frame_cache_mb // _VIDEOS, min(_LEAST_MB, config.frame_cache_mb))) << 20
        self._reserved = 0
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._openings: OrderedDict[Hashable, int] = OrderedDict()
        self._not_before: OrderedDict[Hashable, float] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def reserved_bytes(self) -> int:
        """Memory that the decoders and their rollouts may fill at the moment."""
        return self._reserved

    def seat(self, video: int) -> Seat | None:
        """A place at the decoder of a video, which is started if need be; None if there is no room for it.

        Args:
            video: Descriptor of the video.
        """
        if self._budget == 0:
            return None
        status = os.fstat(video)
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        crowded = self._places.crowded
        with self._lock:
            if self._closed:
                return None
            ended = self._forget_lost(key)
            entry = self._entries.get(key)
            if entry is None and not crowded:
                entry, more = self._admit(key, video)
                ended += more
            seat = None if entry is None else self._sit_down(entry, ended)
        self._end(ended)
        return seat

    def left(self, entry: _Entry) -> None:
        """A rollout's process is gone."""
        with self._lock:
            entry.seats -= 1
            if entry.over and entry.seats == 0:
                self._reserved -= entry.size
            idle = [each for each in self._entries.values() if each.seats == 0]
            surplus = idle[: len(idle) - self._keep] if self._keep is not None and len(idle) > self._keep else []
            for each in surplus:
                self._drop(each)
        self._end(surplus)

    def give_way(self) -> list[tuple[WorkerLink, Lease]]:
        """Give up a decoder so that an episode gets its place: one without rollouts first; the caller ends them.

        Those that have died come along: nothing becomes free by ending them, so they are no choice.
        """
        with self._lock:
            over = [entry for entry in self._entries.values() if entry.lost]
            ready = [entry for entry in self._entries.values() if entry.placed is not None and not entry.lost]
            spared = min(ready, key=lambda each: each.seats > 0, default=None)
            if spared is not None:
                over.append(spared)
            for entry in over:
                self._drop(entry)
                self._rest(entry.key)
            return [entry.placed for entry in over if entry.placed is not None]

    def close(self) -> None:
        """Give up everything; idempotent."""
        with self._lock:
            self._closed = True
            entries = list(self._entries.values())
            for entry in entries:
                self._drop(entry)
        self._end(entries)

    def _admit(self, key: Hashable, video: int) -> tuple[_Entry | None, list[_Entry]]:
        """With the lock held: begin a decoder if the video is worth it and memory allows; also who has to go."""
        openings = self._openings.pop(key, 0) + 1
        _remember(self._openings, key, openings)
        if openings < self._first_time or time.monotonic() < self._not_before.get(key, 0.0):
            return None, []
        evicted = []
        for entry in list(self._entries.values()):
            if self._reserved + self._size <= self._budget:
                break
            if entry.seats == 0:
                self._drop(entry)
                evicted.append(entry)
        if self._reserved + self._size > self._budget:
            return None, evicted
        try:
            # Opened anew: with a duplicate it would share position and flags with the rollout's.
            copy = os.open(f"/proc/self/fd/{video}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None, evicted
        entry = self._entries[key] = _Entry(key, self._size)
        self._reserved += entry.size
        try:
            threading.Thread(target=self._bring_up, args=(entry, copy), name="decoder-start", daemon=True).start()
        except RuntimeError as error:
            _log.warning("no decoder for the rollouts of a video: %s", error)
            os.close(copy)
            self._drop(entry)
            return None, evicted
        return entry, evicted

    def _sit_down(self, entry: _Entry, ended: list[_Entry]) -> Seat | None:
        """With the lock held: a socket to the decoder."""
        if entry.seats >= _MOST_SEATS:
            return None
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            return None
        self._entries.move_to_end(entry.key)
        entry.seats += 1
        if entry.placed is None:
            entry.waiting.append(ours)
        elif not _attach(entry, ours):
            self._drop(entry)
            ended.append(entry)
        return Seat(self, entry, theirs)

    def _bring_up(self, entry: _Entry, video: int) -> None:
        """In a thread of its own: get the decoder a process, have it map the memory, seal that."""
        try:
            deadline = time.monotonic() + self._config.open_timeout_s
            link, lease = self._places.place(deadline, entry.size >> 20, decoder=True)
        except Exception as error:  # noqa: BLE001 - the rollouts must not wait for it for ever
            _log.log(
                logging.INFO if isinstance(error, SandboxError) else logging.WARNING,
                "no decoder for the rollouts of a video: %s", error,
            )  # fmt: skip
            os.close(video)
            self._fail(entry)
            return
        try:
            memory = _new_memory(entry.size)
            _hand_over(lease, video, memory, self._config.cpu_seconds / _CLIENT_SHARE)
        except (OSError, EOFError, wire.WireError) as error:
            _log.warning("the decoder of a video did not start: %s", error)
            self._fail(entry)
            self._places.end(link, lease)
            return
        finally:
            os.close(video)
        with self._lock:
            entry.memory, entry.placed = memory, (link, lease)
            waiting, entry.waiting = entry.waiting, []
            attached = [_attach(entry, sock) for sock in waiting]
            unwanted = entry.over or not all(attached)
            if unwanted:
                self._drop(entry)
        if unwanted:
            self._places.end(link, lease)
        else:
            # Somebody may wait for the place that this decoder can now be asked to give up.
            self._places.nudge()

    def _fail(self, entry: _Entry) -> None:
        with self._lock:
            self._drop(entry)
            self._rest(entry.key)

    def _forget_lost(self, key: Hashable) -> list[_Entry]:
        """With the lock held: a decoder that ended by itself, or hangs, is not started again at once."""
        entry = self._entries.get(key)
        if entry is None or not (entry.lost or entry.stuck):
            return []
        self._drop(entry)
        self._rest(key)
        return [entry]

    def _rest(self, key: Hashable) -> None:
        _remember(self._not_before, key, time.monotonic() + _REST_S)

    def _drop(self, entry: _Entry) -> None:
        """With the lock held: forget an entry; its memory counts until its rollouts are gone, who have it open."""
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
        if not entry.over:
            entry.over = True
            if entry.seats == 0:
                self._reserved -= entry.size
        for sock in entry.waiting:
            sock.close()
        entry.waiting = []
        if entry.memory >= 0:
            os.close(entry.memory)
            entry.memory = -1

    def _end(self, entries: list[_Entry]) -> None:
        for entry in entries:
            if entry.placed is not None:
                self._places.end(*entry.placed)


def _remember(book: OrderedDict[Hashable, float] | OrderedDict[Hashable, int], key: Hashable, value: float) -> None:
    book.pop(key, None)
    book[key] = value  # type: ignore[assignment]
    if len(book) > _REMEMBERED:
        book.popitem(last=False)


def _new_memory(size: int) -> int:
    memory = os.memfd_create("frames", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.ftruncate(memory, size)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return memory


def _hand_over(lease: Lease, video: int, memory: int, client_cpu_s: float) -> None:
    """Let the decoder map its memory and then nobody else."""
    try:
        request = wire.Decode(secrets.randbits(63), client_cpu_s)
        lease.sock.settimeout(_ANSWER_S)
        wire.send(lease.sock, request, fds=[video, memory])
        reply = wire.receive_reply(lease.sock, 0, time.monotonic() + _ANSWER_S)[0]
        if reply.seq != request.seq:
            raise wire.WireError("a decoder that answers something else")
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(memory)
        raise
    lease.sock.setblocking(False)


def _attach(entry: _Entry, sock: socket.socket) -> bool:
    """Hand the decoder its end of a rollout's socket; False if it has gone or does not read."""
    with sock, contextlib.suppress(OSError, wire.WireError):
        if entry.placed is None:
            return False
        # Each rollout gets an open file of its own: flags and position are nobody else's.
        readable = os.open(f"/proc/self/fd/{entry.memory}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            wire.send(entry.placed[1].sock, wire.Attach(), fds=[sock.fileno(), readable])
        finally:
            os.close(readable)
        return True
    return False
