"""The memory account of an episode's processes, on real processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

from pyvision_env.sandbox.worker import memory

MIB = 1 << 20
HOLD = r"""
import mmap, os, sys
m = mmap.mmap(-1, 100 << 20)
m.write(bytes([1]) * (100 << 20))
for _ in range(4):
    if os.fork() == 0:
        sum(m[::4096])
        os.write(1, b'ready\n')
        sys.stdin.read()
        os._exit(0)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def enough_time(monkeypatch):
    """Measuring may take as long as it likes on a busy machine."""
    monkeypatch.setattr(memory, "_PROCESSOR_S", 600.0)
    monkeypatch.setattr(memory, "_WALL_S", 600.0)


@pytest.fixture
def family() -> Iterator[int]:
    """A process and four children that all hold the same 100 MiB."""
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as root:
        assert root.stdout is not None
        for _ in range(4):
            assert root.stdout.readline() == b"ready\n"
        yield root.pid
        root.kill()


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_processes_hold_in_common_is_counted_once(family):
    assert sum(memory.resident_by_root({family})[family].values()) > 450 * MIB
    assert memory.exceeds(family, 95 * MIB)
    assert not memory.exceeds(family, 250 * MIB)


def test_a_process_that_ended_holds_nothing(family, monkeypatch):
    list_now = memory.resident_by_root
    ended = ended_process()
    lists = iter([{family: {family: MIB, ended: 10_000 * MIB}}])
    monkeypatch.setattr(memory, "resident_by_root", lambda roots: next(lists, None) or list_now(roots))
    assert memory.share_of(ended, 1) is None
    assert not memory.exceeds(family, 250 * MIB)


def test_a_family_that_never_holds_still_is_held_to_its_largest_figure(monkeypatch):
    ended = ended_process()
    monkeypatch.setattr(memory, "resident_by_root", lambda roots: {1: {os.getpid(): 0, ended: 10_000 * MIB}})
    assert memory.exceeds(1, 5_000 * MIB)


def test_one_figure_over_the_bound_is_not_believed(family, monkeypatch):
    shares = iter([10_000 * MIB])
    measure = memory.share_of
    monkeypatch.setattr(memory, "share_of", lambda pid, upper: next(shares, None) or measure(pid, upper))
    assert not memory.exceeds(family, 250 * MIB)
    shares = iter([10_000 * MIB] * 20)
    assert memory.exceeds(family, 250 * MIB)


ORPHAN = r"""
import ctypes, os, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans become children of this process
if os.fork() == 0:
    if os.fork() == 0:
        print(os.getpid(), os.getppid(), flush=True)
        time.sleep(600)
    time.sleep(600)
sys.stdin.read()
"""


def test_a_process_whose_parent_ends_while_we_look_is_counted(monkeypatch):
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as root:
        assert root.stdout is not None
        orphan, parent = map(int, root.stdout.readline().split())
        look = memory._look

        def end_the_parent(pid, seen):
            told = look(pid, seen)
            if pid == orphan:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(parent, 9)
            if pid == parent:
                seen.pop(pid, None)
            return told and pid != parent

        monkeypatch.setattr(memory, "_look", end_the_parent)
        assert orphan in memory.resident_by_root({root.pid})[root.pid]
        os.kill(orphan, 9)
        root.kill()


def test_sockets_are_counted_by_what_the_kernel_keeps_in_them():
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                left.send(bytes(1 << 15))
        (held,) = struct.unpack("i", fcntl.ioctl(right.fileno(), termios.FIONREAD, bytes(4)))
        assert held <= memory.socket_bytes()
        assert {f"socket:[{os.fstat(each.fileno()).st_ino}]" for each in (left, right)} <= memory.sockets_of(
            os.getpid()
        )
        assert memory.open_files(os.getpid()) >= 5
        assert not memory.exceeds(os.getpid(), 100_000 * MIB, 1)
        assert memory.exceeds(os.getpid(), 100_000 * MIB, 100_000 * MIB)
    assert memory.sockets_of(ended_process()) == set()
    assert memory.open_files(ended_process()) == 0


@pytest.mark.parametrize("budget", ["_PROCESSOR_S", "_WALL_S"])
def test_a_family_that_cannot_be_measured_soon_is_estimated(family, monkeypatch, budget):
    monkeypatch.setattr(memory, budget, -1.0)
    assert memory.exceeds(family, 250 * MIB)
    assert not memory.exceeds(family, 250 * MIB, common=150 * MIB)
    assert memory.exceeds(family, 140 * MIB, common=150 * MIB)
