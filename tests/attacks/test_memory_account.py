"""Memory held where the account of an episode might not look: passed on, left unmapped, kept by the kernel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from telling import LOST, assert_answers

from pyvision_env.sandbox import Episode, Sandbox

TOO_MUCH = "RuntimeLost: the Python runtime ended (its processes used more than 512 MiB of memory)"

HUNG_UP = "RuntimeLost: the runtime closed its connection and was ended"


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def sandbox(request: pytest.FixtureRequest, sandbox_of: Callable[[str], Sandbox]) -> Sandbox:
    """Without strict: there the container's own bound comes on top."""
    return sandbox_of(request.param)


HIDEOUTS = {
    # Each holder lives for a moment only: it leaves everything to a child and ends.
    "a relay of short-lived processes": """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(5):
    if os.fork() == 0:
        hoard = bytearray(b'x') * (220 << 20)
        while True:
            if os.fork():
                os._exit(0)
            time.sleep(0.001)
time.sleep(600)
""",
    # What lies in a socket is no process's memory; the size of its buffer cannot be raised.
    "full sockets": """
import os, socket, time
def fill():
    hoard = []
    try:
        while True:
            hoard.append(socket.socketpair())
            for one in hoard[-1]:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
                one.setblocking(False)
                try:
                    while True:
                        one.send(bytes(1 << 15))
                except BlockingIOError:
                    pass
    except OSError:
        time.sleep(600)
for _ in range(25):
    if os.fork() == 0:
        fill()
time.sleep(600)
""",
    # Processes that do not tell what they hold are taken at their largest.
    "orphans that hide": """
import ctypes, os, time
for _ in range(6):
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            ctypes.CDLL(None).prctl(4, 0)
            hoard = bytearray(b'x') * (150 << 20)
            time.sleep(600)
        os._exit(0)
time.sleep(600)
""",
    "threads and what they map": """
import mmap, os, threading, time
def hold():
    hoard = mmap.mmap(-1, 60 << 20, mmap.MAP_PRIVATE)
    hoard.write(b'x' * (60 << 20))
    time.sleep(600)
for _ in range(4):
    if os.fork() == 0:
        for _ in range(4):
            threading.Thread(target=hold).start()
        time.sleep(600)
time.sleep(600)
""",
}


@pytest.mark.parametrize("where", HIDEOUTS)
def test_memory_is_found_wherever_it_is_held(attacker: Episode, neighbour: Episode, where: str) -> None:
    result = attacker.run(HIDEOUTS[where], timeout=200)
    # On a busy machine the last of many processes may end later than the host waits for the reason.
    assert result.error in (TOO_MUCH, HUNG_UP)
    assert result.text == result.error + LOST
    assert_answers(neighbour)
    assert attacker.run("print(image_clue_0.size)", timeout=20).text == "(80, 60)\n"


def test_memory_that_stays_without_being_mapped_cannot_be_had(attacker: Episode, neighbour: Episode) -> None:
    """One page of a shared mapping keeps all of it, and no limit or account sees more than that page."""
    code = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
for shared in (0x21, 0x01, 0x03):
    for fd in (-1, *range(3, 30)):
        ctypes.set_errno(0)
        place = libc.mmap(None, 300 << 20, 3, shared, fd, 0)
        if place != ctypes.c_void_p(-1).value:
            print('mapped', shared, fd, os.readlink(f'/proc/self/fd/{fd}') if fd > 0 else '')
for path in ('/dev/zero', '/dev/shm/x', '/dev/mem', '/tmp/x'):
    try:
        print('opened', os.open(path, os.O_RDWR | os.O_CREAT), path)
    except OSError:
        pass
print('done')
"""
    result = attacker.run(code, timeout=20)
    # A file of its own may be mapped: what it holds counts against its disk.
    assert [line for line in result.text.splitlines() if ".output" not in line] == ["done"], result.text
    assert_answers(neighbour)
