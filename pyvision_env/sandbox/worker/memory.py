"""How much memory the processes of an episode hold, as far as another process of the same user is told."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


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


def share_of(pid: int, upper: int) -> int:
    """Bytes of memory a process holds, pages in common divided among their holders; ``upper`` if it does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        shares = [int(line.split()[1]) for line in text.splitlines() if line.startswith(("Pss:", "SwapPss:"))]
        if shares:
            return sum(shares) << 10
    return upper
