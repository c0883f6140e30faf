"""How much memory the processes of an episode hold, as far as another process of the same user is told."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

_ATTEMPTS = 5
_PROCESSOR_S = 0.5
_WALL_S = 5.0
_OPEN_FILES = 256


def resident_by_root(roots: set[int]) -> dict[int, dict[int, int]]:
    """Of each root process: resident memory in bytes of itself and of its descendants."""
    seen: dict[int, tuple[int, int]] = {}
    # The newest first: a process that leaves its memory to a child and ends is then met as the child.
    for pid in sorted((int(entry) for entry in os.listdir("/proc") if entry.isdigit()), reverse=True):
        _look(pid, seen)
    families: dict[int, dict[int, int]] = {root: {} for root in roots}
    for pid in list(seen):
        ancestor = _root_of(pid, roots, seen)
        if ancestor is None and pid in seen and _look(pid, seen):
            # Its parent ended while we looked; by now it has been given to the root.
            ancestor = _root_of(pid, roots, seen)
        if ancestor is not None:
            families[ancestor][pid] = seen[pid][1]
    return families


def _look(pid: int, seen: dict[int, tuple[int, int]]) -> bool:
    """Note parent and resident bytes of a process; False when it has ended."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        fields = text.rpartition(")")[2].split()
        seen[pid] = int(fields[1]), int(fields[21]) * os.sysconf("SC_PAGESIZE")
        return True
    return False


def _root_of(pid: int, roots: set[int], seen: dict[int, tuple[int, int]]) -> int | None:
    while pid not in roots:
        if pid not in seen:
            return None
        pid = seen[pid][0]
    return pid


def socket_bytes() -> int:
    """What one end of a socket pair may hold of the kernel's memory; no limit of a process counts it."""
    one, other = socket.socketpair()
    with one, other:
        # The kernel lets the last message exceed the size of the buffer.
        return one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) * 5 // 4


def open_files(pid: int) -> int:
    """How many descriptors a process has open; the most it may have where it does not tell."""
    try:
        # Linux before 6.2 gives no count here.
        return os.stat(f"/proc/{pid}/fd").st_size or len(os.listdir(f"/proc/{pid}/fd"))
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except OSError:
        return _OPEN_FILES


def sockets_of(pid: int) -> set[str]:
    """Names of the sockets a process holds; as many names as it may have descriptors where it does not tell."""
    names = set()
    try:
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                name = os.readlink(f"/proc/{pid}/fd/{entry}")
                if name.startswith("socket:"):
                    names.add(name)
    except (FileNotFoundError, ProcessLookupError):
        return set()
    except OSError:
        return {f"{pid}:{number}" for number in range(_OPEN_FILES)}
    return names


def share_of(pid: int, upper: int) -> int | None:
    """Bytes of memory a process holds, pages in common divided among their holders.

    Args:
        pid: The process.
        upper: What to take for a process that does not tell (one that made itself undumpable, say).

    Returns:
        None for a process that has ended: it holds nothing any more.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(("Pss:", "SwapPss:"))) << 10
    except (FileNotFoundError, ProcessLookupError):
        return None
    except (OSError, ValueError, IndexError):
        return upper


def exceeds(root: int, bound: int, each_socket: int = 0, common: int = 0) -> bool:
    """Whether a process and its descendants together hold more than ``bound`` bytes.

    The processes are measured one after another while they go on starting and ending, and what one leaves to the others
    is then counted twice. So only two measurements in a row that say so are believed, and a family that never holds
    still for one is held to its largest figure. Memory in tens of thousands of pieces, or of processes that fork all
    the time, takes seconds to measure; what cannot be measured soon is estimated instead.

    Args:
        root: The process.
        bound: Bytes.
        each_socket: Bytes to count for every socket.
        common: Resident bytes that every process of the family began with, left out of the estimate, and of the
            figures of a kernel that tells no shares (gVisor's).
    """
    times = 0
    # Two bounds: the processor's time grows with what is looked at, the wall's with how busy the machine is as well.
    spent, deadline = time.process_time() + _PROCESSOR_S, time.monotonic() + _WALL_S
    for _ in range(_ATTEMPTS):
        used = ended = 0
        sockets: set[str] = set()
        family = resident_by_root({root})[root]
        for pid, upper in family.items():
            share = share_of(pid, upper)
            if share is None and os.path.exists(f"/proc/{pid}"):
                share = max(0, upper - common)
            if share is None:
                ended += upper
            else:
                used += share
                sockets |= sockets_of(pid)
            if time.process_time() > spent or time.monotonic() > deadline:
                own = sum(max(0, resident - common) for resident in family.values())
                return common + own + each_socket * sum(map(open_files, family)) > bound
        used += each_socket * len(sockets)
        if used + ended <= bound:
            return False
        times = times + 1 if used > bound else 0
        if times == 2:
            return True
    return True
