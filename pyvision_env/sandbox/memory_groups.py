"""Memory control groups, one for each slot of a worker: the kernel itself keeps every episode to its share.

Only whoever may write below the worker's own group can make them, root as a rule. The worker never sees that file
system: it is handed open files, by which the child that becomes an episode enters its slot's group before anything
else. Entering by such a file costs some hundredths of a millisecond, so nothing of this is felt when an episode starts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyvision_env.sandbox.worker.cleaning import remove_groups

_log = logging.getLogger(__name__)
_PREFIX = "pyvision-"


class MemoryGroupError(Exception):
    """No memory groups are to be had here; the message says why."""


@dataclass(frozen=True)
class Hierarchy:
    """Where memory is accounted and what the files are called there.

    Attributes:
        unified: Control groups of version 2.
        group: Directory of the group that a process is in.
        join: File that takes the process writing ``0`` to it.
        limit: File with the bound in bytes.
        usage: File with the bytes in use.
        kills: File with the line ``oom_kill N``.
        account: File with what the memory is used for.
        no_swap: File that keeps a group from the swap, with what to write; where it is missing there is none.
        controller: Name of the controller.
    """

    unified: bool
    group: Path
    join: str
    limit: str
    usage: str
    kills: str
    account: str
    no_swap: tuple[str, str]
    controller: str = "memory"


def hierarchy_of(pid: int) -> Hierarchy:
    """The hierarchy that accounts for the memory of a process.

    Raises:
        MemoryGroupError: It cannot be seen from here.
    """
    try:
        groups = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    except OSError as error:
        raise MemoryGroupError(f"control groups cannot be read: {error.strerror}") from None
    for _, controllers, path in groups:
        if "memory" in controllers.split(","):
            group = _mounted(mounts, "cgroup", "memory", path)
            return Hierarchy(
                False, group, "tasks", "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control",
                "memory.stat", ("memory.swappiness", "0"),
            )  # fmt: skip
    for _, controllers, path in groups:
        if not controllers:
            group = _mounted(mounts, "cgroup2", "", path)
            return Hierarchy(
                True, group, "cgroup.procs", "memory.max", "memory.current", "memory.events",
                "memory.stat", ("memory.swap.max", "0"),
            )  # fmt: skip
    raise MemoryGroupError("memory is in no control group")


def _mounted(mounts: list[list[str]], kind: str, option: str, path: str) -> Path:
    for fields in mounts:
        end = fields.index("-")
        if fields[end + 1] != kind or (option and option not in fields[end + 3].split(",")):
            continue
        root = fields[3].rstrip("/")
        if path == root or path.startswith(f"{root}/"):
            return Path(fields[4] + path[len(root) :])
    raise MemoryGroupError("the control group of memory is not mounted here")


class MemoryGroups:
    """The groups of one worker, below a group whose bound holds for all its episodes together.

    Attributes:
        path: Their directory.
        pool_bytes: Bound on all of them together.
    """

    def __init__(self, hierarchy: Hierarchy, parent: Path, slots: int, pool_bytes: int) -> None:
        self._hierarchy = hierarchy
        self._slots = slots
        self.pool_bytes = pool_bytes
        self.path = parent / f"{_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            self._make()
        except OSError as error:
            self.remove()
            raise MemoryGroupError(f"no control group can be made: {error.strerror}") from None

    def _make(self) -> None:
        names = self._hierarchy
        self.path.mkdir()
        (self.path / names.limit).write_text(str(self.pool_bytes))
        _write_if_there(self.path / names.no_swap[0], names.no_swap[1])
        if names.unified:
            _offer(self.path, names.controller)
        for slot in range(self._slots):
            (self.path / str(slot)).mkdir()
            if names.unified:
                # Half a family is no use to anybody.
                _write_if_there(self.path / str(slot) / "memory.oom.group", "1")
        # Where all of them together are full nobody is killed by size: who wants more waits, and the zygote chooses.
        if names.unified:
            _write_if_there(self.path / "memory.high", str(self.pool_bytes * 9 // 10))
        else:
            _write_if_there(self.path / names.kills, "1")

    def files(self) -> Iterator[tuple[int | None, list[int]]]:
        """Of each slot: its number and open files to enter, bound and read its group; closed after each turn.

        The last turn is that of all slots together: None and the files that tell their use.

        Raises:
            MemoryGroupError: One cannot be opened.
        """
        names = self._hierarchy
        for slot in range(self._slots):
            group = self.path / str(slot)
            written, read = (names.join, names.limit), (names.kills, names.account)
            with _opened([group / name for name in written], [group / name for name in read]) as fds:
                yield slot, fds
        with _opened([], [self.path / names.usage, self.path / names.account]) as fds:
            yield None, fds

    def remove(self) -> None:
        """Take the groups away; idempotent. Their processes must have ended or be about to."""
        if not remove_groups(self.path):
            _log.warning("control group %s may be left over: it still holds processes", self.path)


def _write_if_there(file: Path, text: str) -> None:
    # Opening would try to make it, and be refused for that.
    if file.exists():
        file.write_text(text)


@contextlib.contextmanager
def _opened(written: list[Path], read: list[Path]) -> Iterator[list[int]]:
    fds: list[int] = []
    try:
        for paths, flags in ((written, os.O_WRONLY), (read, os.O_RDONLY)):
            fds.extend(os.open(path, flags | os.O_CLOEXEC) for path in paths)
        yield fds
    except OSError as error:
        raise MemoryGroupError(f"a control group cannot be used: {error.strerror}") from None
    finally:
        for fd in fds:
            os.close(fd)


def beside_this_process(slots: int, pool_bytes: int) -> MemoryGroups:
    """Groups for a worker of this process, bound by whatever bounds this process.

    Raises:
        MemoryGroupError: This host gives none.
    """
    hierarchy = hierarchy_of(os.getpid())
    parent = hierarchy.group
    if hierarchy.unified:
        parent = _with_controller(hierarchy)
    _sweep(parent)
    return MemoryGroups(hierarchy, parent, slots, pool_bytes)


def inside_container(pid: int, identity: str, slots: int, pool_bytes: int) -> MemoryGroups:
    """Groups below the one of a container, made from outside: nothing in the container can see or write them.

    Args:
        pid: The container's first process, as the engine names it.
        identity: The container's id, which tells that this process shares a machine with it.
        slots: How many.
        pool_bytes: Bound on all of them together.

    Raises:
        MemoryGroupError: This host gives none, or the engine runs on another one.
    """
    hierarchy = hierarchy_of(pid)
    if identity not in hierarchy.group.name:
        raise MemoryGroupError("the engine runs on another machine, or in another control group namespace")
    if hierarchy.unified:
        try:
            _empty(hierarchy.group)
            _offer(hierarchy.group, hierarchy.controller)
        except OSError as error:
            raise MemoryGroupError(f"the container's control group cannot be divided: {error.strerror}") from None
    return MemoryGroups(hierarchy, hierarchy.group, slots, pool_bytes)


def _with_controller(hierarchy: Hierarchy) -> Path:
    """Version 2: a group that may have children with a bound. One that holds processes may not, but for the root."""
    own = hierarchy.group
    if hierarchy.controller in _offered(own):
        return own
    bound = own / hierarchy.limit
    # Beside this process, unless that left a bound that was set on it.
    if hierarchy.controller in _offered(own.parent) and bound.is_file() and bound.read_text().strip() == "max":
        return own.parent
    raise MemoryGroupError(f"the control group {own} offers no {hierarchy.controller} to groups below it")


def _offered(group: Path) -> list[str]:
    try:
        return (group / "cgroup.subtree_control").read_text().split()
    except OSError:
        return []


def _offer(group: Path, controller: str) -> None:
    if controller not in _offered(group):
        (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _empty(group: Path) -> None:
    """Version 2: move the processes of a group into a child of it, for only leaves may hold any."""
    leaf = group / "worker"
    leaf.mkdir(exist_ok=True)
    for pid in (group / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            (leaf / "cgroup.procs").write_text(pid)


def _sweep(parent: Path) -> None:
    """Remove what is left of clients that were killed together with their workers."""
    for group in parent.glob(f"{_PREFIX}*-*"):
        if not Path("/proc", group.name.removeprefix(_PREFIX).partition("-")[0]).exists():
            remove_groups(group)
