"""The host's end of the control socket against a worker that has gone wrong."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from workers import wait_until

from pyvision_env.errors import SandboxLostError, SandboxStartError
from pyvision_env.sandbox.link import WorkerLink
from pyvision_env.sandbox.worker import wire

HELLO = wire.Hello(wire.PROTOCOL, "3", {}, "none", {}, [], 2)
JUNK = [b"junk", b"\x91" * 60_000, b"\xc1", wire.pack(wire.Kill(1)), b"\x81\xa4type"]


@pytest.fixture
def ends() -> Iterator[tuple[WorkerLink, socket.socket, threading.Event]]:
    """A link, the worker's end of it, and an event that says that something has changed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    changed = threading.Event()
    link = WorkerLink(ours, lambda: None, "worker", changed.set)
    with theirs:
        yield link, theirs, changed
        link.close(wait=False)
        assert wait_until(lambda: not link._reader.is_alive(), 20)


@pytest.mark.parametrize("junk", JUNK)
def test_a_worker_that_breaks_the_protocol_is_lost_and_nobody_waits_for_it(
    ends: tuple[WorkerLink, socket.socket, threading.Event], junk: bytes
) -> None:
    link, theirs, changed = ends
    theirs.send(wire.pack(HELLO))
    link.greet(time.monotonic() + 120, threading.Event())
    lease = link.reserve()
    link.spawn(lease, wire.Confinement(1, 1, 1, 1))
    theirs.send(junk)
    assert lease.ended.wait(20)
    assert changed.wait(20)
    assert not link.alive
    assert lease.cause is None
    another = link.reserve()
    with pytest.raises(SandboxLostError, match="worker is gone: it broke the protocol"):
        link.spawn(another, wire.Confinement(1, 1, 1, 1))
    lease.sock.close()


@pytest.mark.parametrize("junk", [*JUNK, wire.pack(wire.Exited(1, "x")), b""])
def test_a_greeting_that_is_none_is_refused(
    ends: tuple[WorkerLink, socket.socket, threading.Event], junk: bytes
) -> None:
    link, theirs, _ = ends
    if junk:
        theirs.send(junk)
    else:
        theirs.shutdown(socket.SHUT_RDWR)
    with pytest.raises(SandboxStartError, match=r"speaks another protocol|ended while starting"):
        link.greet(time.monotonic() + 120, threading.Event())


def test_the_end_of_an_episode_that_was_never_begun_is_ignored(
    ends: tuple[WorkerLink, socket.socket, threading.Event],
) -> None:
    link, theirs, changed = ends
    theirs.send(wire.pack(HELLO))
    link.greet(time.monotonic() + 120, threading.Event())
    lease = link.reserve()
    link.spawn(lease, wire.Confinement(1, 1, 1, 1))
    for number in (0, -1, 10**9):
        theirs.send(wire.pack(wire.Exited(number, "forged")))
    theirs.send(wire.pack(wire.Exited(lease.number, "exit code 0")))
    assert lease.ended.wait(20)
    assert changed.wait(20)
    assert (link.alive, lease.cause, link.load) == (True, "exit code 0", 0)
    lease.sock.close()
