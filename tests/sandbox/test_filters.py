"""The committed seccomp filters: what they decide on paper, and what works and fails under them in a real kernel."""

from __future__ import annotations

import errno
import json
import platform
import subprocess
import sys
from pathlib import Path

import make_seccomp
import pyseccomp
import pytest
import seccomp_tables as tables
from bpf import ALLOW, AUDIT_ARCH, AUDIT_ARCH_I386, KILL_PROCESS, X32_BIT, decide, errno_of

FILTERS = make_seccomp.FILTERS
ARCHITECTURES = tuple(make_seccomp.ARCHITECTURES)
SAME_UID_PID = 4321

# name, arguments, and what an episode gets: an errno, 0 for a call without effect, None for a call that runs.
DECISIONS: list[tuple[str, tuple[int, ...], int | None]] = [
    ("read", (), None),
    ("openat", (), None),
    ("getrandom", (), None),
    ("futex", (), None),
    ("unshare", (0x10000000,), errno.EPERM),
    ("setns", (), errno.EPERM),
    ("mount", (), errno.EPERM),
    ("chroot", (), errno.EPERM),
    ("fsopen", (), errno.EPERM),
    ("ptrace", (), errno.EPERM),
    ("process_vm_readv", (), errno.EPERM),
    ("pidfd_getfd", (), errno.EPERM),
    ("bpf", (), errno.EPERM),
    ("io_uring_setup", (), errno.EPERM),
    ("perf_event_open", (), errno.EPERM),
    ("userfaultfd", (), errno.EPERM),
    ("keyctl", (), errno.EPERM),
    ("memfd_create", (), errno.EPERM),
    ("shmget", (), errno.EPERM),
    ("personality", (), errno.EPERM),
    ("socket", (1, 1), errno.EACCES),
    ("socket", (2, 1), errno.EACCES),
    ("connect", (), errno.EACCES),
    ("bind", (), errno.EACCES),
    ("socketpair", (1, 1 | 0o2000000), None),
    ("socketpair", (1, 5), None),
    ("socketpair", (1, 2), errno.EACCES),
    ("sendto", (3, 0, 5, 0, 0, 0), None),
    ("sendto", (3, 0, 5, 0, 0x7FFF00001000, 16), errno.EACCES),
    ("sendto", (3, 0, 5, 0, 1 << 32, 16), errno.EACCES),
    ("mmap", (0, 4096, 3, 0x22, 2**64 - 1, 0), None),
    ("mmap", (0, 4096, 3, 0x20022, 2**64 - 1, 0), None),  # a thread's stack
    ("mmap", (0, 4096, 1, 0x01, 3, 0), None),  # a file, shared
    ("mmap", (0, 4096, 3, 0x21, 2**64 - 1, 0), errno.EPERM),
    ("mmap", (0, 4096, 3, 1 << 32 | 0x21, 2**64 - 1, 0), errno.EPERM),  # the kernel looks at the lower half only
    ("landlock_create_ruleset", (), errno.EPERM),
    ("setsockopt", (3, 1, 26), errno.ENOSYS),  # SO_ATTACH_FILTER
    ("setsockopt", (3, 1, 7), 0),  # SO_SNDBUF
    ("setsockopt", (3, 1, 8), 0),  # SO_RCVBUF
    ("setsockopt", (3, 1, 20), None),  # SO_RCVTIMEO
    ("chmod", (), 0),
    ("fchmodat", (), 0),
    ("utimensat", (3, 0, 0), 0),
    ("utimensat", (3, 0x7FFF00001000, 0x7FFF00002000), 0),
    ("utimensat", (3, 0x7FFF00001000, 0), errno.EPERM),
    ("fsetxattr", (), 0),
    ("sync", (), 0),
    ("clone3", (), errno.ENOSYS),
    ("clone", (0x3D0F00,), None),
    ("clone", (0x3D0F00 | 0x10000000,), errno.EPERM),
    ("clone", (0x8000 | 17,), errno.EPERM),
    ("ioctl", (0, 0x5401), None),
    ("ioctl", (0, 0x5412), errno.EPERM),
    ("ioctl", (0, 1 << 32 | 0x5412), errno.EPERM),  # the kernel drops the upper half
    ("ioctl", (0, 0x541C), errno.EPERM),
    ("ioctl", (0, 0x6685), errno.ENOSYS),  # FS_IOC_ENABLE_VERITY
    ("fcntl", (0, 1030), None),
    ("fcntl", (0, 10), errno.EPERM),
    ("fcntl", (0, 15), errno.EPERM),
    ("prctl", (15,), None),
    ("prctl", (35,), errno.ENOSYS),  # PR_SET_MM
    ("prlimit64", (0, 7), None),
    ("prlimit64", (SAME_UID_PID, 7), errno.EPERM),
    ("sched_setaffinity", (SAME_UID_PID,), errno.EPERM),
    ("setpriority", (0, 0, 5), None),
    ("setpriority", (2, 0, 19), errno.ENOSYS),
    ("madvise", (0, 4096, 14), None),
    ("madvise", (0, 4096, 12), errno.ENOSYS),
]
STRICT_DECISIONS: list[tuple[str, tuple[int, ...], int | None]] = [
    ("clone", (17,), errno.EAGAIN),
    ("clone", (0x4000 | 0x100 | 17,), errno.EAGAIN),
    ("clone", (0x3D0F00,), None),
    ("clone", (0x3D0F00 | 0x20000000,), errno.EPERM),
    ("kill", (1, 9), errno.EPERM),
    ("tgkill", (), errno.EPERM),
    ("rt_sigqueueinfo", (), errno.EPERM),
]


def number(architecture: str, name: str) -> int:
    return int(pyseccomp.resolve_syscall(make_seccomp.ARCHITECTURES[architecture], name))


def blob(architecture: str, kind: str) -> bytes:
    return (FILTERS / f"{architecture}-{kind}.bpf").read_bytes()


def by_table(rules: list[tables.Rule], name: str, args: tuple[int, ...]) -> set[int | None]:
    """What the rules of the tables say on a call; several where an action overlaps another."""

    def holds(test: tables.Test) -> bool:
        value = args[test.index]
        return value != test.value if test.negate else value & test.mask == test.value

    found = {rule.error for rule in rules if rule.name == name and all(holds(test) for test in rule.tests)}
    return found or {errno.ENOSYS}


@pytest.mark.parametrize("kind", make_seccomp.KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_filter_decides_as_written_down_here(architecture: str, kind: str) -> None:
    program = blob(architecture, kind)
    replaced = {(name, args) for name, args, _ in STRICT_DECISIONS}
    decisions = [case for case in DECISIONS if kind == "base" or case[:2] not in replaced]
    for name, args, expected in decisions + (STRICT_DECISIONS if kind == "strict" else []):
        syscall = number(architecture, name)
        if syscall >= 0:  # aarch64 has fewer: no chmod, no fork
            decided = errno_of(decide(program, AUDIT_ARCH[architecture], syscall, args))
            assert decided == expected, (name, args)


@pytest.mark.parametrize("kind", make_seccomp.KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_committed_filter_says_what_the_tables_say(architecture: str, kind: str) -> None:
    program = blob(architecture, kind)
    rules = tables.episode_rules(strict=kind == "strict")
    compared = 0
    for name in sorted({rule.name for rule in rules}):
        syscall = number(architecture, name)
        if syscall < 0:
            continue
        tests = [rule.tests for rule in rules if rule.name == name]
        samples: set[tuple[int, ...]] = {(0,) * 6, (1,) * 6, (2**64 - 1,) * 6, (1 << 32,) * 6}
        for group in tests:
            for change in (0, 1, 1 << 32):
                values = [0] * 6
                for test in group:
                    values[test.index] = test.value ^ change
                samples.add(tuple(values))
        for args in samples:
            decided = errno_of(decide(program, AUDIT_ARCH[architecture], syscall, args))
            assert decided in by_table(rules, name, args), (name, args)
            compared += 1
    assert compared > 1000


@pytest.mark.parametrize("kind", make_seccomp.KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_committed_filter_decides_like_a_fresh_one(architecture: str, kind: str) -> None:
    # Compared by decision: other releases of libseccomp order the same rules differently.
    committed, fresh = blob(architecture, kind), make_seccomp.make_filter(architecture, kind)
    for syscall in range(600):
        for args in ((), (0x10000000,) * 6, (1, 1, 1, 1, 1, 1), (17,) * 6, (0, 0x5401), (0, 1030)):
            decided = decide(committed, AUDIT_ARCH[architecture], syscall, args)
            assert decided == decide(fresh, AUDIT_ARCH[architecture], syscall, args), (syscall, args)


def test_committed_container_profile_is_the_one_the_tables_make() -> None:
    assert make_seccomp.PROFILE.read_text() == make_seccomp.make_profile()


@pytest.mark.parametrize("kind", make_seccomp.KINDS)
def test_other_architectures_calls_kill(kind: str) -> None:
    assert decide(blob("x86_64", kind), AUDIT_ARCH_I386, 3) == KILL_PROCESS
    assert decide(blob("x86_64", kind), AUDIT_ARCH["x86_64"], X32_BIT | 0) == KILL_PROCESS
    assert decide(blob("aarch64", kind), AUDIT_ARCH["x86_64"], 0) == KILL_PROCESS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_calls_newer_than_the_tables_do_not_exist(architecture: str) -> None:
    for syscall in range(470, 600):
        assert errno_of(decide(blob(architecture, "base"), AUDIT_ARCH[architecture], syscall)) == errno.ENOSYS


def test_every_call_has_one_place_in_the_tables() -> None:
    tabled = [*tables.EPISODE.values(), *tables.FORBIDDEN.values(), tables.PRETENDED, tables.NETWORK]
    names = [name for group in tabled for name in group.split()]
    names += sorted({rule.name for rule in tables.argument_rules() + tables.clone_rules(fork=True)})
    assert sorted(name for name in set(names) if names.count(name) > 1) == []
    assert ALLOW not in {number("x86_64", name) for name in names}


def test_container_profile_keeps_the_doors_of_the_kernel_shut() -> None:
    allowed = {rule.name for rule in tables.container_rules() if rule.error is None and not rule.tests}
    assert {"unshare", "landlock_create_ruleset", "memfd_create", "connect"} <= allowed
    assert not allowed & {
        "mount",
        "setns",
        "bpf",
        "ptrace",
        "keyctl",
        "io_uring_setup",
        "userfaultfd",
        "clone3",
        "socket",
    }


def run_probe(kind: str, checks: list[str], cwd: Path) -> dict[str, str]:
    """What each check of ``filter_probe.py`` said under a filter in this kernel."""
    path = FILTERS / f"{platform.machine()}-{kind}.bpf"
    command = [sys.executable, str(Path(__file__).with_name("filter_probe.py")), str(path), *checks]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return report


KERNEL = {
    "unshare": "EPERM",
    "bpf": "EPERM",
    "clone3": "ENOSYS",
    "unknown_call": "ENOSYS",
    "internet_socket": "EACCES",
    "local_socket": "EACCES",
    "socket_pair": "ok",
    "datagram_pair": "EACCES",
    "memory_file": "EPERM",
    "signal_by_descriptor": "EPERM",
    "limits_of_another": "EPERM",
    "own_limits": "ok",
    "niceness_of_all": "ENOSYS",
    "chmod_without_effect": "ok",
}


@pytest.mark.parametrize(
    ("kind", "own"), [("base", {"fork": "ok", "kill": "ok"}), ("strict", {"fork": "EAGAIN", "kill": "EPERM"})]
)
def test_kernel_refuses_and_permits_under_the_filter(kind: str, own: dict[str, str], tmp_path: Path) -> None:
    assert run_probe(kind, [*KERNEL, *own], tmp_path) == KERNEL | own


LIBRARIES = ["numpy", "matplotlib", "pillow", "opencv", "scipy", "skimage", "sklearn", "av"]
IN_PROCESS = [*LIBRARIES, "threads", "loop", "files"]


@pytest.mark.parametrize("kind", make_seccomp.KINDS)
def test_the_libraries_work_under_the_filter(kind: str, tmp_path: Path) -> None:
    checks = [*IN_PROCESS, "child", "async_child"] if kind == "base" else IN_PROCESS
    assert run_probe(kind, checks, tmp_path) == dict.fromkeys(checks, "ok")
