"""How much memory the processes of an episode hold, as far as another process of the same user is told."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_ATTEMPTS = 5


def resident_by_root(roots: set[int]) -> dict[int, dict[int, int]]:
    """Of each root process: resident memory in bytes of itself and of its descendants."""
    parents: dict[int, int] = {}
    resident: dict[int, int] = {}
    page = os.sysconf("SC_PAGESIZE")
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            text = Path(f"/proc/{entry}/stat").read_text(errors="replace")
            fields = text.rpartition(")")[2].split()
            parents[int(entry)] = int(fields[1])
            resident[int(entry)] = int(fields[21]) * page
    families: dict[int, dict[int, int]] = {root: {} for root in roots}
    for pid, size in resident.items():
        ancestor = pid
        while ancestor not in roots and ancestor in parents:
            ancestor = parents[ancestor]
        if ancestor in roots:
            families[ancestor][pid] = size
    return families


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


def exceeds(root: int, bound: int) -> bool:
    """Whether a process and its descendants together hold more than ``bound`` bytes.

    The processes are measured one after another while they go on starting and ending, and what one leaves to the others
    is then counted twice. So only two measurements in a row that say so are believed; a family that never holds still
    for one is held to its largest figure.
    """
    times = 0
    for _ in range(_ATTEMPTS):
        used = ended = 0
        for pid, upper in resident_by_root({root})[root].items():
            share = share_of(pid, upper)
            if share is None:
                ended += upper
            else:
                used += share
        if used + ended <= bound:
            return False
        times = times + 1 if used > bound else 0
        if times == 2:
            return True
    return True
