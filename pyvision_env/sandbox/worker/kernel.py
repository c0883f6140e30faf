"""The few Linux system calls the worker needs and Python does not offer: Landlock, seccomp, capabilities, mounts."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import platform
import signal
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 22, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 36, 38, 47, 4
_PR_GET_TID_ADDRESS = 40
_CLONE_CHILD_CLEARTID, _CLONE_CHILD_SETTID = 0x00200000, 0x01000000
_SECCOMP_MODE_FILTER = 2
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

# Landlock's system calls have the same numbers on every architecture (they are newer than the unified table).
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CLONE = {"x86_64": 56, "aarch64": 220}

_libc = ctypes.CDLL(None, use_errno=True)
# Keeps the interpreter's lock during the call.
_libc_locked = ctypes.PyDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def keep_freed_memory() -> None:
    """Let malloc reuse large blocks instead of giving them back: a plot then takes a tenth of the page faults."""
    _libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    _libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)


def give_back_freed_memory() -> None:
    """Let the system have what ``keep_freed_memory`` kept."""
    _libc.malloc_trim(0)


def clone(flags: int) -> int:
    """``os.fork`` with flags. Half the work of ``unshare`` and a second fork, which copy the page tables twice.

    What libraries have registered to be called at a fork (``pthread_atfork``) is not: it is there for their threads.

    Raises:
        OSError: The kernel refuses it, or does not say where the C library keeps a thread's id; or there are threads.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise OSError(errno.EBUSY, "clone: this process has threads")
    where = ctypes.c_void_p()
    # The C library's own fork has the kernel write the child's id there, too.
    _check(_libc.prctl(_PR_GET_TID_ADDRESS, ctypes.byref(where), 0, 0, 0), "prctl(GET_TID_ADDRESS)")
    number = _CLONE.get(platform.machine())
    if number is None or not where.value:
        raise OSError(errno.ENOSYS, "clone: not known on this machine")
    how = ctypes.c_long(flags | _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID | signal.SIGCHLD)
    none = ctypes.c_void_p()
    # Last come the address of the child's id and its thread's own memory, in the order of the architecture.
    last = (where, none) if platform.machine() == "x86_64" else (none, where)
    before, in_child = ctypes.pythonapi.PyOS_BeforeFork, ctypes.pythonapi.PyOS_AfterFork_Child
    in_parent, call = ctypes.pythonapi.PyOS_AfterFork_Parent, _libc_locked.syscall
    # Between these calls, unlike within os.fork, the interpreter would run handlers of signals and collect garbage.
    collects = gc.isenabled()
    gc.disable()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    before()
    pid = int(call(number, how, none, none, *last))
    try:
        (in_parent if pid else in_child)()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if collects:
            gc.enable()
    except BaseException:
        if pid == 0:
            os._exit(1)  # a child must never run on as its parent
        raise
    return _check(pid, "clone")


def unshare(flags: int) -> None:
    """Move the calling process into new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def map_current_user(uid: int, gid: int, inside_uid: int, inside_gid: int) -> None:
    """Map the user and group one was into the user namespace just entered, under the numbers they have inside."""
    # gVisor has no such file, and asks for nothing of the kind.
    if os.path.exists("/proc/self/setgroups"):
        Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{inside_uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{inside_gid} {gid} 1")


def set_subreaper() -> None:
    """Adopt orphaned descendants, as pid 1 does."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(SUBREAPER)")


def die_with_parent() -> None:
    """Have the kernel kill the calling process when its parent ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PDEATHSIG)")


def no_new_privileges() -> None:
    """Give up gaining privileges by exec for good; Landlock and seccomp ask for it."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(NO_NEW_PRIVS)")


def drop_capabilities() -> None:
    """Empty every capability set of the calling thread, the bounding set included where that is allowed."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = struct.pack("Ii", 0x20080522, 0)
    _check(_libc.capset(header, bytes(24)), "capset")


def load_seccomp(program: bytes) -> None:
    """Install a compiled BPF filter (an array of ``struct sock_filter``) for the calling process."""
    code = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    buffer = ctypes.create_string_buffer(fprog, len(fprog))
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, buffer, 0, 0), "seccomp")


def filter_blob(name: str) -> bytes:
    """The shipped seccomp filter ``base`` or ``strict`` of this architecture.

    Raises:
        FileNotFoundError: There is none for this architecture.
    """
    return (Path(__file__).parent / "filters" / f"{platform.machine()}-{name}.bpf").read_bytes()


# Landlock access rights, file system part (kernel documentation "Landlock: unprivileged access control").
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_RIGHTS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_READ_ONLY = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_SCOPES = 0b11  # abstract sockets and signals, from ABI 6
_NETWORK = 0b11  # bind and connect, from ABI 4


def landlock_abi() -> int:
    """Version of Landlock the kernel offers; 0 for none."""
    return max(0, int(_libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1)))


def landlock(read_only: Iterable[str], read_write: Iterable[str], devices: Iterable[str] = ()) -> list[int]:
    """Deny every file outside the given hierarchies to the calling process and its descendants.

    Args:
        read_only: Hierarchies that may be read and executed; missing ones are left out.
        read_write: Hierarchies in which everything is allowed.
        devices: Device files that may be read and written.

    Returns:
        Descriptors that pin the rules of /proc entries; leave them open.
    """
    abi = landlock_abi()
    if abi < 1:
        raise OSError("landlock: not offered by this kernel")
    handled = _RIGHTS_BY_ABI[max(known for known in _RIGHTS_BY_ABI if known <= abi)]
    attributes = struct.pack("QQQ", handled, _NETWORK if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _check(_libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0), "landlock")
    pins = []
    for paths, rights in (
        (read_only, _READ_ONLY),
        (read_write, handled),
        (devices, _WRITE_FILE | _READ_FILE | _IOCTL_DEV),
    ):
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
                allowed = rights & handled
                if not stat.S_ISDIR(os.fstat(fd).st_mode):
                    allowed &= _FILE_RIGHTS
                rule = struct.pack("<Qi", allowed, fd)
                _check(_libc.syscall(_LANDLOCK_ADD_RULE, ruleset, 1, rule, 0), f"landlock rule for {path}")
                if path.startswith("/proc/"):
                    pins.append(fd)
                else:
                    os.close(fd)
    no_new_privileges()
    _check(_libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock")
    os.close(ruleset)
    return pins


MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Attach a file system or a bind, as the system call of this name does."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    options = None if data is None else data.encode()
    _check(_libc.mount(encoded[0], encoded[1], encoded[2], flags, options), f"mount {target}")


def pivot_root_here() -> None:
    """Make the current directory the root and let go of the old one."""
    number = _PIVOT_ROOT[platform.machine()]
    _check(_libc.syscall(number, b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", 2), "umount of the old root")
    os.chdir("/")
