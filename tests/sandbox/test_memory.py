"""The memory account of an episode's processes, on real processes."""

from __future__ import annotations

import os
import subprocess
import sys
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
