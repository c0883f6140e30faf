"""The confinement ladder: what an episode's process gives up before it runs a line of model-written code.

The zygote probes once which rung the host allows and every episode is held to it. Rung ``userns+landlock`` puts an
episode into user, pid, network, ipc and uts namespaces of its own; rung ``landlock`` does without namespaces and denies
processes and signals by a stricter seccomp filter instead. Below that, episodes can only be kept apart by containers of
their own (rungs ``userns`` and ``seccomp``), which the zygote accepts when it hosts a single one.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import kernel
from .wire import Confinement

_NAMESPACES = (
    kernel.CLONE_NEWUSER | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
)
# Without /dev/zero: mapped as shared memory it is a way around every account of memory.
_DEVICES = ("/dev/null", "/dev/full", "/dev/random", "/dev/urandom")
# What libraries look up about their own process; the rest of /proc/<pid> tells of the machine (its mounts, say).
_OWN_PROCESS = ("stat", "statm", "status", "maps", "limits", "fd")
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/fonts", "/etc/localtime", "/etc/passwd")


class ConfinementError(Exception):
    """The host offers too little to keep episodes apart."""


@dataclass(frozen=True)
class Rung:
    """How episodes are confined on this host.

    Attributes:
        name: What the isolation report calls it.
        namespaces: Of its own for each episode.
        clones: One ``clone`` makes them, where other hosts take ``unshare`` and a second fork.
        landlock: The kernel's own restriction of files.
        seccomp: Name of the filter, if there is one.
        guarantees: What code cannot do or reach.
        notes: What this host cannot give and why.
    """

    name: str
    namespaces: bool
    clones: bool
    landlock: bool
    seccomp: str | None
    guarantees: dict[str, bool]
    notes: tuple[str, ...]


def choose_rung(*, private_root: bool, single: bool, quota: bool, unconfined: bool) -> Rung:
    """The strongest rung this host allows.

    Args:
        private_root: The file system holds nothing of the host but the runtime (a container or a private root).
        single: The zygote hosts one episode in its life, and its container ends with it.
        quota: Every slot is a file system of bounded size.
        unconfined: Run without any confinement when nothing better is there.

    Raises:
        ConfinementError: Nothing keeps episodes apart, and ``unconfined`` is not set.
    """
    notes = []
    alone = single and private_root
    clones = _allowed(_try_clone)
    namespaces = clones or _allowed(_try_namespaces)
    landlock = kernel.landlock_abi() > 0
    seccomp = _allowed(_try_seccomp)
    if not namespaces:
        notes.append("user namespaces are refused: code cannot start processes, and memory alone bounds its threads")
    if not landlock:
        notes.append("the kernel offers no Landlock")
    if not seccomp:
        notes.append("seccomp filters are refused or there is none for this architecture")
    if namespaces and landlock and seccomp:
        name, blob = "userns+landlock", "base"
    elif landlock and seccomp:
        name, blob = "landlock", "strict"
    elif seccomp and alone:
        name, blob = "userns" if namespaces else "seccomp", "base"
    elif unconfined:
        guarantees = dict.fromkeys(
            ("network", "host_files", "other_episodes", "signals", "processes", "syscalls", "disk", "private_root"),
            False,
        )
        return Rung(
            "none", False, False, False, None, guarantees, (*notes, "model-written code runs with the host's rights")
        )
    else:
        raise ConfinementError("this host allows no confinement of an episode: " + "; ".join(notes))
    guarantees = {
        "network": True,
        "host_files": landlock or private_root,
        "other_episodes": landlock or single,
        "signals": namespaces or landlock,
        "processes": namespaces,
        "syscalls": True,
        "disk": quota,
        "private_root": private_root,
    }
    return Rung(name, namespaces, clones, landlock, blob, guarantees, tuple(notes))


def _allowed(attempt: Callable[[], None]) -> bool:
    """Whether ``attempt`` succeeds, tried in a child so that it leaves no trace here."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(OSError):
            attempt()
            code = 0
        os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def _try_seccomp() -> None:
    kernel.no_new_privileges()
    kernel.load_seccomp(kernel.filter_blob("base"))


def _try_clone() -> None:
    pid = clone_into_namespaces()
    if pid == 0:
        os._exit(0)
    if os.waitpid(pid, 0)[1] != 0:
        raise OSError("a process in namespaces of its own did not end well")


def _try_namespaces() -> None:
    enter_namespaces()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def clone_into_namespaces() -> int:
    """As ``os.fork``; the child is in namespaces of its own, and ends at once where it cannot be known in them.

    Raises:
        OSError: The kernel refuses them, or refuses them in this way.
    """
    uid, gid = os.getuid(), os.getgid()
    pid = kernel.clone(_NAMESPACES)
    if pid == 0:
        try:
            kernel.map_current_user(uid, gid, uid, gid)
        except BaseException as error:  # noqa: BLE001 - a child must never run on as its parent
            with contextlib.suppress(OSError):
                os.write(2, f"user of an episode: {type(error).__name__}: {error}\n".encode())
            os._exit(1)
    return pid


def enter_namespaces() -> None:
    """Put the calling process (and for pids its next child) into namespaces of its own."""
    uid, gid = os.getuid(), os.getgid()
    kernel.unshare(_NAMESPACES)
    kernel.map_current_user(uid, gid, uid, gid)


def runtime_paths(worker: Path) -> list[str]:
    """What an episode may read: the interpreter, its libraries, fonts, the worker."""
    return list(dict.fromkeys([*_SYSTEM, sys.prefix, sys.base_prefix, sys.exec_prefix, str(worker)]))


def confine(rung: Rung, bounds: Confinement, home: str, readable: Sequence[str]) -> None:
    """Hold the calling process to ``rung`` for the rest of its life; it may write below ``home`` only."""
    os.setsid()
    os.chdir(home)
    if not rung.namespaces:
        kernel.die_with_parent()
    os.environ.update(HOME=home, TMPDIR=home, XDG_CACHE_HOME=home, MPLCONFIGDIR=home)
    # A dying episode must be the first victim, and once Landlock hides /proc the value can no longer be lowered.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    _limit_resources(bounds, rung)
    if rung.seccomp is None:
        return
    kernel.drop_capabilities()
    if rung.landlock:
        own = [f"/proc/{_own_pid()}/{name}" for name in _OWN_PROCESS]
        kernel.landlock([*readable, *own], [home], _DEVICES)
    kernel.no_new_privileges()
    kernel.load_seccomp(kernel.filter_blob(rung.seccomp))


def _own_pid() -> str:
    """The name of the calling process in /proc, which may be of an outer pid namespace."""
    return str(Path("/proc/self").readlink())


def _limit_resources(bounds: Confinement, rung: Rung) -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    disk = bounds.disk_mb << 20
    wanted = {
        resource.RLIMIT_AS: size + ((bounds.memory_mb + bounds.mapped_mb) << 20),
        # Not 0: one byte also keeps crashes from the machine's crash reporter, where core dumps are piped to one.
        resource.RLIMIT_CORE: 1,
        resource.RLIMIT_CPU: bounds.cpu_seconds,
        resource.RLIMIT_FSIZE: disk,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_SIGPENDING: 256,
    }
    if rung.namespaces:
        # Elsewhere the count is over all processes of the user, other episodes' and other containers' included.
        wanted[resource.RLIMIT_NPROC] = bounds.processes
    for which, value in wanted.items():
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(which, (value, value))
        except ValueError:
            # gVisor's kernel does not know these two; what they bound is the sandbox's own there.
            if which not in (resource.RLIMIT_MSGQUEUE, resource.RLIMIT_SIGPENDING):
                raise
    # Exceeding the file size raises OSError in the code instead of killing it.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
