"""Which system calls the sandbox permits, and why: the source of the seccomp filters and of the container profile.

Three readers: an *episode* runs model-written code under ``base`` or ``strict``; the *container* (or the local worker)
holds the trusted zygote, which needs more in order to confine episodes. What no table names does not exist for the
code (ENOSYS), so that a new kernel brings nothing new into the sandbox.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

INT = 0xFFFFFFFF
"""Mask of an ``int`` argument: the kernel drops the upper half, so a comparison must drop it too."""


_ALL = 2**64 - 1


class Test(NamedTuple):
    """``argument & mask == value``, or ``argument != value`` where ``negate`` (mask unused)."""

    index: int
    value: int
    mask: int = INT
    negate: bool = False


class Rule(NamedTuple):
    """What system call ``name`` does when every test holds: it runs (None) or ends with an errno (0: pretends)."""

    name: str
    tests: tuple[Test, ...] = ()
    error: int | None = None


# --- An episode: allowed whatever the arguments ------------------------------------------------------------------
EPISODE = {
    "files: what the file system and Landlock let through": """
        read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 open openat openat2 creat close
        close_range dup dup2 dup3 lseek stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2
        readlink readlinkat getdents getdents64 getcwd chdir fchdir mkdir mkdirat rmdir rename renameat renameat2 link
        linkat symlink symlinkat unlink unlinkat truncate ftruncate fallocate copy_file_range sendfile umask flock
        getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr""",
    "waiting: pipes, polling, timers as descriptors": """
        poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd
        eventfd2 timerfd_create timerfd_settime timerfd_gettime signalfd signalfd4 pipe pipe2""",
    "memory: its own": "munmap mprotect mremap brk msync membarrier get_mempolicy",
    "processes and threads: its own": """
        execve exit exit_group fork vfork wait4 waitid getpid getppid gettid getpgid setpgid getpgrp getsid setsid
        set_tid_address set_robust_list rseq arch_prctl getrlimit setrlimit getrusage times futex futex_waitv
        sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min
        sched_rr_get_interval getpriority ioprio_get getcpu""",
    "signals: who may be reached is the namespace's and Landlock's affair; strict forbids sending": """
        rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack pause
        restart_syscall kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo""",
    "time: reading it and waiting for it": """
        clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time timer_create timer_settime timer_gettime
        timer_getoverrun timer_delete alarm setitimer getitimer""",
    "identity and machine: reading it": """
        getuid geteuid getgid getegid getresuid getresgid getgroups capget uname sysinfo getrandom""",
    "sockets: only ends of a pair exist, asyncio's and subprocess's; they can neither connect nor bind": """
        recvfrom recvmsg recvmmsg sendmsg sendmmsg shutdown getsockname getpeername getsockopt""",
    "confining oneself further": "seccomp",
}

# --- An episode: said to have succeeded, without effect -----------------------------------------------------------
# A read-only descriptor of a host file lets its owner change mode, owner, times and attributes; shutil.copy and tar
# want these calls to succeed all the same. Flushing and cache advice would slow the neighbours down, and nothing an
# episode writes outlives it.
PRETENDED = """
    chmod fchmod fchmodat chown fchown lchown fchownat utime utimes futimesat setxattr lsetxattr fsetxattr
    removexattr lremovexattr fremovexattr fsync fdatasync sync syncfs sync_file_range fadvise64"""

# --- An episode: refused by name, with an error that says so -------------------------------------------------------
FORBIDDEN = {
    "namespaces and mounts": """
        unshare setns mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick
        mount_setattr""",
    "other processes' memory, descriptors and scheduling": """
        ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp pidfd_open pidfd_getfd
        pidfd_send_signal move_pages migrate_pages sched_setscheduler sched_setparam sched_setattr ioprio_set""",
    "kernel doors that user code does not need": """
        bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register kexec_load kexec_file_load
        init_module finit_module delete_module keyctl add_key request_key name_to_handle_at open_by_handle_at
        lookup_dcookie fanotify_init fanotify_mark quotactl quotactl_fd acct swapon swapoff reboot syslog vhangup
        nfsservctl modify_ldt iopl ioperm personality vmsplice splice tee""",
    "memory outside the episode's account": """
        memfd_create memfd_secret shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl
        mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr mlock mlock2 mlockall mbind
        set_mempolicy""",
    "rules that the kernel keeps": "landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    "the machine's settings": "sethostname setdomainname settimeofday clock_settime adjtimex clock_adjtime",
    "identity and device files": """
        setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset mknod mknodat""",
}
NETWORK = "socket connect bind listen accept accept4"

# --- An episode: depends on the arguments --------------------------------------------------------------------------
AF_UNIX, SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET = 1, 1, 2, 3, 5
CLONE_THREAD = 0x10000
_CLONE_NEW = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
_CLONE_PARENT = 0x8000
OWN_NAMESPACES = 0x10000000 | 0x20000000 | 0x40000000 | 0x8000000 | 0x4000000
"""User, pid, network, ipc, uts: what the zygote puts an episode into."""

FORBIDDEN_CLONE = (*_CLONE_NEW, _CLONE_PARENT)
"""New namespaces, and children that count as the zygote's own."""

_PRCTL = {
    1: "SET_PDEATHSIG",
    2: "GET_PDEATHSIG",
    3: "GET_DUMPABLE",
    4: "SET_DUMPABLE",
    7: "GET_KEEPCAPS",
    15: "SET_NAME",
    16: "GET_NAME",
    21: "GET_SECCOMP",
    22: "SET_SECCOMP",
    23: "CAPBSET_READ",
    25: "GET_TSC",
    27: "GET_SECUREBITS",
    29: "SET_TIMERSLACK",
    30: "GET_TIMERSLACK",
    36: "SET_CHILD_SUBREAPER",
    37: "GET_CHILD_SUBREAPER",
    38: "SET_NO_NEW_PRIVS",
    39: "GET_NO_NEW_PRIVS",
    40: "GET_TID_ADDRESS",
    41: "SET_THP_DISABLE",
    42: "GET_THP_DISABLE",
    52: "GET_SPECULATION_CTRL",
    0x53564D41: "SET_VMA",
}
_FCNTL = {
    0: "DUPFD",
    1: "GETFD",
    2: "SETFD",
    3: "GETFL",
    4: "SETFL",
    5: "GETLK",
    6: "SETLK",
    7: "SETLKW",
    9: "GETOWN",
    36: "OFD_GETLK",
    37: "OFD_SETLK",
    38: "OFD_SETLKW",
    1025: "GETLEASE",
    1027: "DUPFD_QUERY",
    1030: "DUPFD_CLOEXEC",
    1032: "GETPIPE_SZ",
    1034: "GET_SEALS",
}
# SETOWN, SETSIG and SETOWN_EX send any signal to any process of the user; a lease or a notification holds up others'
# files; pipe buffers are counted against a user that all episodes share.
_FCNTL_FORBIDDEN = {8: "SETOWN", 10: "SETSIG", 15: "SETOWN_EX", 1024: "SETLEASE", 1026: "NOTIFY", 1031: "SETPIPE_SZ"}
_IOCTL = {
    0x5401: "TCGETS",
    0x802C542A: "TCGETS2",
    0x540F: "TIOCGPGRP",
    0x5413: "TIOCGWINSZ",
    0x541B: "FIONREAD",
    0x5421: "FIONBIO",
    0x5450: "FIONCLEX",
    0x5451: "FIOCLEX",
    0x40049409: "FICLONE",
}
_IOCTL_FORBIDDEN = {0x5412: "TIOCSTI", 0x541C: "TIOCLINUX"}
# NORMAL to DONTNEED, FREE to DOFORK, HUGEPAGE to KEEPONFORK, POPULATE_*, GUARD_*: not merging, poisoning or paging out.
_MADVISE = (0, 1, 2, 3, 4, 8, 9, 10, 11, 14, 15, 16, 17, 18, 19, 22, 23, 102, 103)
_MAP_SHARED, _MAP_PRIVATE, _MAP_TYPE, _MAP_ANONYMOUS = 1, 2, 0xF, 0x20
_SOL_SOCKET = 1
_SETSOCKOPT = {16: "PASSCRED", 20: "RCVTIMEO", 21: "SNDTIMEO", 66: "RCVTIMEO", 67: "SNDTIMEO"}
# What lies in a socket is the kernel's memory, which no limit of a process counts: buffers keep their size, silently,
# because whoever asks for a larger one goes on with a smaller one.
_SETSOCKOPT_PRETENDED = {7: "SNDBUF", 8: "RCVBUF"}


def clone_rules(*, fork: bool) -> list[Rule]:
    """``clone`` without new namespaces; without ``fork`` only threads. ``clone3`` hides its flags from a filter."""
    mask = sum(FORBIDDEN_CLONE)
    wanted = Test(0, 0, mask) if fork else Test(0, CLONE_THREAD, mask | CLONE_THREAD)
    rules = [Rule("clone3", error=errno.ENOSYS), Rule("clone", (wanted,))]
    rules += [Rule("clone", (Test(0, flag, flag),), errno.EPERM) for flag in FORBIDDEN_CLONE]
    if not fork:
        rules.append(Rule("clone", (Test(0, 0, mask | CLONE_THREAD),), errno.EAGAIN))
    return rules


def argument_rules() -> list[Rule]:
    """Calls that are right or wrong by their arguments, ``clone`` apart."""
    rules = [Rule("prctl", (Test(0, option),)) for option in _PRCTL]
    rules += [Rule("fcntl", (Test(1, command),)) for command in _FCNTL]
    rules += [Rule("fcntl", (Test(1, command),), errno.EPERM) for command in _FCNTL_FORBIDDEN]
    rules += [Rule("ioctl", (Test(1, request),)) for request in _IOCTL]
    rules += [Rule("ioctl", (Test(1, request),), errno.EPERM) for request in _IOCTL_FORBIDDEN]
    rules += [Rule("madvise", (Test(2, advice),)) for advice in _MADVISE]
    # Anonymous shared memory stays when all but one page of it is unmapped, and then no limit and no account sees it.
    rules.append(Rule("mmap", (Test(3, 0, _MAP_ANONYMOUS),)))
    rules.append(Rule("mmap", (Test(3, _MAP_ANONYMOUS | _MAP_PRIVATE, _MAP_ANONYMOUS | _MAP_TYPE),)))
    rules.append(Rule("mmap", (Test(3, _MAP_ANONYMOUS | _MAP_SHARED, _MAP_ANONYMOUS | _MAP_TYPE),), errno.EPERM))
    rules += [Rule("setsockopt", (Test(1, _SOL_SOCKET), Test(2, option))) for option in _SETSOCKOPT]
    rules += [Rule("setsockopt", (Test(1, _SOL_SOCKET), Test(2, option)), 0) for option in _SETSOCKOPT_PRETENDED]
    # A datagram socket of a pair can still send to any address; streams and packets cannot.
    for kind in (SOCK_STREAM, SOCK_SEQPACKET):
        rules.append(Rule("socketpair", (Test(0, AF_UNIX), Test(1, kind, 0xF))))
    for kind in (SOCK_DGRAM, SOCK_RAW):
        rules.append(Rule("socketpair", (Test(0, AF_UNIX), Test(1, kind, 0xF)), errno.EACCES))
    rules.append(Rule("sendto", (Test(4, 0, _ALL),)))
    rules.append(Rule("sendto", (Test(4, 0, negate=True),), errno.EACCES))
    # Process 0 is the caller; by any other number these reach every process of the same user.
    for name in ("prlimit64", "sched_setaffinity"):
        rules.append(Rule(name, (Test(0, 0, _ALL),)))
        rules.append(Rule(name, (Test(0, 0, negate=True),), errno.EPERM))
    rules.append(Rule("setpriority", (Test(0, 0), Test(1, 0))))
    # Pretended too, but for "this path, now": pathlib's touch creates a file only after that has failed.
    rules.append(Rule("utimensat", (Test(1, 0, negate=True), Test(2, 0, _ALL)), errno.EPERM))
    rules.append(Rule("utimensat", (Test(2, 0, negate=True),), 0))
    rules.append(Rule("utimensat", (Test(1, 0, _ALL), Test(2, 0, _ALL)), 0))
    return rules


def episode_rules(*, strict: bool) -> list[Rule]:
    """Every rule of the ``base`` filter, or of ``strict`` for hosts that cannot keep episodes' processes apart.

    Strict adds: no new processes, only threads; no signals, not even to itself.
    """
    allowed = [name for names in EPISODE.values() for name in names.split()]
    refused = {name: errno.EPERM for names in FORBIDDEN.values() for name in names.split()}
    refused |= dict.fromkeys(NETWORK.split(), errno.EACCES)
    refused |= dict.fromkeys(PRETENDED.split(), 0)
    if strict:
        refused |= {"fork": errno.EAGAIN, "vfork": errno.EAGAIN}
        refused |= dict.fromkeys(["kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"], errno.EPERM)
    rules = [Rule(name) for name in allowed if name not in refused]
    rules += [Rule(name, error=error) for name, error in refused.items()]
    return rules + clone_rules(fork=not strict) + argument_rules()


# --- The container ---------------------------------------------------------------------------------------------------
ZYGOTE = {
    "confining episodes: user namespaces without privileges, own ids where capabilities are given, Landlock": """
        landlock_create_ruleset landlock_add_rule landlock_restrict_self unshare setuid setgid setreuid setregid
        setresuid setresgid setfsuid setfsgid setgroups capset""",
    "reaching the host: one connection, then descriptors": "connect bind listen accept accept4 sendto setsockopt",
    "sharing decoded frames": "memfd_create mlock mlock2 munlock mincore splice tee",
    "watching over episodes": """
        pidfd_open pidfd_send_signal prlimit64 sched_setaffinity sched_setscheduler sched_setparam sched_setattr
        sched_getattr setpriority ioprio_set get_robust_list""",
    "files of its own": PRETENDED
    + " utimensat mknod mknodat readahead execveat inotify_init1 inotify_add_watch inotify_rm_watch",
    "whatever their arguments": "mmap prctl fcntl ioctl madvise socketpair",
    "newer than some engines' libseccomp, which then leaves them out": """
        cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue mseal""",
}
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""Plain Linux, 32-bit and old-release variants, and asking which it is."""


def container_rules() -> list[Rule]:
    """Every rule of the container profile: what episodes may do, plus what the trusted zygote needs.

    It is narrower than what engines allow by default but for new namespaces: no io_uring, System V IPC, ptrace,
    keyrings or sockets other than local ones.
    """
    allowed = [name for table in (EPISODE, ZYGOTE) for names in table.values() for name in names.split()]
    mask = sum(_CLONE_NEW)
    rules = [Rule(name) for name in allowed]
    rules += [Rule("clone3", error=errno.ENOSYS), Rule("clone", (Test(0, 0, mask),))]
    rules += [Rule("clone", (Test(0, OWN_NAMESPACES, mask),))]
    rules += [Rule("socket", (Test(0, AF_UNIX, _ALL),))]
    rules += [Rule("socket", (Test(0, AF_UNIX, negate=True),), errno.EACCES)]
    rules += [Rule("personality", (Test(0, value),)) for value in PERSONALITIES]
    named = {rule.name for rule in rules}
    refused = [name for names in FORBIDDEN.values() for name in names.split() if name not in named]
    return rules + [Rule(name, error=errno.EPERM) for name in refused]
