"""The host's end of one worker: spawns and kills episodes over the control socket, learns how they ended."""

from __future__ import annotations

import array
import contextlib
import itertools
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from pyvision_env.errors import SandboxLostError, SandboxStartError, SandboxUnavailableError
from pyvision_env.sandbox.memory_groups import MemoryGroups
from pyvision_env.sandbox.worker import wire

_log = logging.getLogger(__name__)
_MAX_DATAGRAM = 1 << 16
_SEND_S = 10
# Bytes; the kernel gives no more than it allows (net.core.wmem_max).
_SEND_BUFFER = 1 << 20
_LOOK_S = 0.1


@dataclass
class Lease:
    """One episode's process in a worker.

    Attributes:
        number: Its number in the worker.
        sock: The host's end of the episode socket.
        theirs: The process's end, until it is handed over.
        ended: Set when the worker has reported the process's end.
        cause: How it ended, as the worker (not the model's code) tells it.
    """

    number: int
    sock: socket.socket
    theirs: socket.socket
    ended: threading.Event = field(default_factory=threading.Event)
    cause: str | None = None


class WorkerLink:
    """A running worker.

    Args:
        control: Connected SEQPACKET socket to the zygote.
        stop: Waits until the worker's container or process has ended, by force if need be; idempotent.
        name: For messages.
        on_change: Called after an episode ended, the worker told its memory or was lost, from the link's own thread.

    Attributes:
        bounds_memory: The kernel bounds the memory of each episode, over all its processes.
        memory_mb: What its episodes hold by themselves, as it last told.
        notes: What its launcher could not give it.
    """

    def __init__(
        self, control: socket.socket, stop: Callable[[], None], name: str, on_change: Callable[[], None]
    ) -> None:
        self.name = name
        self._control = control
        self._stop = stop
        self._on_change = on_change
        self._numbers = itertools.count(1)
        self._leases: dict[int, Lease] = {}
        self._lock = threading.Lock()
        self._lost: str | None = None
        self.hello: wire.Hello
        self.bounds_memory = False
        self.memory_mb = 0
        self.notes: tuple[str, ...] = ()
        self._reader = threading.Thread(target=self._read, name=f"{name}-control", daemon=True)
        # A forked client shares the socket; while its copy is open the worker would outlive the real client.
        _links_by_process.add(self)

    def greet(self, deadline: float, abandoned: threading.Event) -> None:
        """Wait for the worker's first message.

        Args:
            deadline: ``time.monotonic()`` value after which to give up.
            abandoned: Give up when this is set.

        Raises:
            SandboxUnavailableError: The worker says that it cannot confine episodes here.
            SandboxStartError: It did not answer in time, or speaks another protocol.
        """
        self._control.settimeout(_LOOK_S)
        while True:
            try:
                data = self._control.recv(_MAX_DATAGRAM)
                break
            except TimeoutError:
                if abandoned.is_set():
                    raise SandboxStartError(f"{self.name} is not wanted any more") from None
                if time.monotonic() > deadline:
                    reason = "did not become ready in time; raise start_timeout_s"
                    raise SandboxStartError(f"{self.name} {reason}") from None
            except OSError as error:
                raise SandboxStartError(f"{self.name} ended while starting: {error}") from None
        if not data:
            raise SandboxStartError(f"{self.name} ended while starting")
        try:
            message = wire.from_zygote_decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise SandboxStartError(
                f"{self.name} speaks another protocol ({error}): run `pyvision-env sandbox build`"
            ) from None
        if isinstance(message, wire.Failed):
            raise SandboxUnavailableError(f"{self.name} cannot run episodes: {message.reason}")
        if not isinstance(message, wire.Hello) or message.protocol != wire.PROTOCOL:
            raise SandboxStartError(
                f"{self.name} speaks another protocol than version {wire.PROTOCOL}: run `pyvision-env sandbox build`"
            )
        self.hello = message
        self._control.settimeout(None)
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_S, 0))
        self._reader.start()

    def grant(self, groups: MemoryGroups) -> None:
        """Hand the worker a memory group for each of its slots, before its first episode.

        Raises:
            SandboxLostError: The worker is gone.
            MemoryGroupError: A file of a group cannot be opened.
        """
        for slot, fds in groups.files():
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            message = wire.GrantPool(groups.pool_bytes) if slot is None else wire.Grant(slot)
            try:
                self._control.sendmsg([wire.pack(message)], rights)
            except OSError as error:
                raise SandboxLostError(f"{self.name} is gone: {error}") from None
        self.bounds_memory = True

    @property
    def alive(self) -> bool:
        """Whether the worker still answers."""
        return self._lost is None

    @property
    def load(self) -> int:
        """Episodes whose processes have not ended yet."""
        return len(self._leases)

    def reserve(self) -> Lease:
        """Take a slot without talking to the worker yet.

        Raises:
            SandboxStartError: This process may not open more descriptors.
        """
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise SandboxStartError(f"no socket for another episode: {error}; raise `ulimit -n`") from None
        # A usual picture is sent in one piece: else both ends take turns, and on a busy machine each turn is a wait.
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        lease = Lease(next(self._numbers), ours, theirs)
        with self._lock:
            self._leases[lease.number] = lease
        return lease

    def spawn(self, lease: Lease, confinement: wire.Confinement, decoder: bool = False) -> None:
        """Start the process of a reserved lease, an episode's or a decoder's; its socket can be used at once.

        Raises:
            SandboxLostError: The worker is gone.
        """
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [lease.theirs.fileno()]))]
            self._control.sendmsg([wire.pack(wire.Spawn(lease.number, confinement, decoder))], rights)
        except OSError as error:
            lease.sock.close()
            with self._lock:
                self._leases.pop(lease.number, None)
            # It hung up, or has not read anything for a long time: nobody should be sent there any more.
            self._lose(str(error))
            raise SandboxLostError(f"{self.name} is gone: {self._lost or error}") from None
        finally:
            lease.theirs.close()

    def end(self, lease: Lease) -> None:
        """End an episode's process whatever it does; its slot becomes free soon after."""
        lease.sock.close()
        self.kill(lease)

    def kill(self, lease: Lease) -> None:
        """Ask the worker to kill an episode's process, if it has not ended; its end is told as any other."""
        if not lease.ended.is_set():
            with self._lock:
                living = lease.number in self._leases
            if living:
                try:
                    self._control.send(wire.pack(wire.Kill(lease.number)))
                except OSError:
                    _log.debug("%s was gone before episode %d was closed", self.name, lease.number)

    def close(self, wait: bool) -> None:
        """End the worker and all its episodes; idempotent.

        Args:
            wait: Return only when its container or process is gone, by force if need be. Otherwise it ends by itself
                as soon as it notices that the control socket is closed.
        """
        _links_by_process.discard(self)
        self._lose("closed")
        if not self._reader.is_alive():
            self._control.close()
        if wait:
            self._stop()

    def forget(self) -> None:
        """In a forked child: let go of the parent's socket without ending the worker."""
        with contextlib.suppress(OSError):  # already closed
            os.close(self._control.detach())

    def _read(self) -> None:
        reason = "its control socket closed"
        while True:
            try:
                data = self._control.recv(_MAX_DATAGRAM)
            except OSError as error:
                reason = str(error)
                break
            if not data:
                break
            try:
                message = wire.from_zygote_decoder.decode(data)
            except (msgspec.MsgspecError, RecursionError) as error:
                # It cannot be trusted with episodes any more, and nobody may be left waiting for it.
                reason = f"it broke the protocol ({error})"
                break
            if isinstance(message, wire.Exited):
                with self._lock:
                    lease = self._leases.pop(message.episode, None)
                if lease is not None:
                    lease.cause = message.cause
                    lease.ended.set()
                self._on_change()
            elif isinstance(message, wire.Load):
                self.memory_mb = message.memory_mb
                self._on_change()
        self._lose(reason)
        self._control.close()
        self._on_change()

    def _lose(self, reason: str) -> None:
        with self._lock:
            if self._lost is None:
                self._lost = reason
            leases = list(self._leases.values())
            self._leases.clear()
        # shutdown wakes the reader thread; close alone would not.
        try:
            self._control.shutdown(socket.SHUT_RDWR)
        except OSError:
            _log.debug("%s: control socket already closed", self.name)
        for lease in leases:
            lease.ended.set()


class _Links:
    """The links this process owns, so that a forked child can let go of them."""

    def __init__(self) -> None:
        self._links: set[WorkerLink] = set()
        os.register_at_fork(after_in_child=self._forget)

    def add(self, link: WorkerLink) -> None:
        self._links.add(link)

    def discard(self, link: WorkerLink) -> None:
        self._links.discard(link)

    def _forget(self) -> None:
        for link in self._links:
            link.forget()
        self._links.clear()


_links_by_process = _Links()
