"""Memory control groups: found, made, entered, bounded and taken away; on the kernel's own files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from workers import local_workers, wait_until

from pyvision_env.sandbox import make_sandbox
from pyvision_env.sandbox.memory_groups import (
    Hierarchy,
    MemoryGroupError,
    MemoryGroups,
    _empty,
    _offer,
    beside_this_process,
    hierarchy_of,
    inside_container,
)
from pyvision_env.sandbox.worker.slot_group import SlotGroup

MIB = 1 << 20


@pytest.fixture
def groups() -> Iterator[MemoryGroups]:
    """Two groups of 256 MiB together, where this user may make any."""
    try:
        made = beside_this_process(2, 256 * MIB)
    except MemoryGroupError as error:
        assert os.getuid() != 0 or "offers no" in str(error) or "Read-only" in str(error), error
        pytest.skip(f"this user may make no control groups: {error}")
    yield made
    made.remove()


def slots(groups: MemoryGroups) -> dict[int | None, list[int]]:
    """The files of each slot, kept open."""
    return {slot: [os.dup(fd) for fd in fds] for slot, fds in groups.files()}


def in_group(group: SlotGroup, megabytes: int) -> int:
    """Exit status of a child that enters the group and touches so much memory."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            group.enter()
            hoard = bytearray(megabytes * MIB)
            hoard[:: os.sysconf("SC_PAGESIZE")] = bytes([1]) * len(hoard[:: os.sysconf("SC_PAGESIZE")])
            os._exit(0)
        os._exit(1)
    return os.waitpid(pid, 0)[1]


def test_the_kernel_ends_what_exceeds_its_groups_bound_and_tells(groups: MemoryGroups) -> None:
    files = slots(groups)
    try:
        group, other = SlotGroup(files[0]), SlotGroup(files[1])
        group.prepare(16 * MIB, 0)
        assert in_group(group, 8) == 0
        assert not group.exceeded
        assert os.WTERMSIG(in_group(group, 200)) == signal.SIGKILL
        assert group.exceeded
        assert not other.exceeded
        group.prepare(16 * MIB, 0)
        assert not group.exceeded, "what an earlier episode did is not held against the next"
    finally:
        for fd in [fd for fds in files.values() for fd in fds]:
            os.close(fd)


def test_memory_that_an_earlier_process_of_a_slot_left_in_use_is_not_the_next_episodes(groups: MemoryGroups) -> None:
    """As the frames of a decoder that has gone, which rollouts still read."""
    files = slots(groups)
    group = SlotGroup(files[0])
    shared = os.memfd_create("frames")
    try:
        os.ftruncate(shared, 64 * MIB)
        group.prepare(80 * MIB, 0)
        pid = os.fork()
        if pid == 0:
            group.enter()
            os.pwrite(shared, b"x" * (64 * MIB), 0)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert group.held >= 60 * MIB
        # With a bound of 94 MiB on all that the group holds the kernel would end this one.
        group.prepare(30 * MIB, 0)
        assert in_group(group, 60) == 0
        assert not group.exceeded
    finally:
        os.close(shared)
        for fd in [fd for fds in files.values() for fd in fds]:
            os.close(fd)


def test_the_groups_lie_within_the_bound_of_all_and_go_with_the_worker(groups: MemoryGroups) -> None:
    own = hierarchy_of(os.getpid())
    assert int((groups.path / own.limit).read_text()) == 256 * MIB
    assert sorted(path.name for path in groups.path.iterdir() if path.is_dir()) == ["0", "1"]
    groups.remove()
    groups.remove()
    assert not groups.path.exists()


def test_what_a_client_left_that_was_killed_with_its_worker_is_swept(groups: MemoryGroups) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    left = groups.path.with_name(f"pyvision-{ended.pid}-{uuid.uuid4().hex[:8]}")
    (left / "0").mkdir(parents=True)
    beside_this_process(1, MIB).remove()
    assert not left.exists()
    assert groups.path.exists(), "those of a living client stay"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_no_group_outlives_a_local_worker(groups: MemoryGroups, end: signal.Signals) -> None:
    code = (
        "import sys\nfrom pyvision_env.sandbox import make_sandbox\n"
        "sandbox = make_sandbox('local', containers=1)\nepisode = sandbox.open()\nprint('ready', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        made = list(groups.path.parent.glob(f"pyvision-{client.pid}-*"))
        assert len(made) == 1
        client.send_signal(end)
    assert wait_until(lambda: not made[0].exists(), 30)


def test_a_killed_launcher_of_a_local_worker_leaves_no_group_after_closing(groups: MemoryGroups) -> None:
    before = set(local_workers())
    earlier = set(groups.path.parent.glob(f"pyvision-{os.getpid()}-*"))
    with make_sandbox("local", containers=1) as sandbox, sandbox.open() as episode:
        assert sandbox.isolation.guarantees["memory"]
        made = [path for path in groups.path.parent.glob(f"pyvision-{os.getpid()}-*") if path not in earlier]
        (launcher,) = set(local_workers()) - before
        launcher.kill()
        assert episode.run("1").text == "1\n", "the worker itself is another process"
    assert wait_until(lambda: not any(path.exists() for path in made), 30)


def test_an_engine_on_another_machine_gets_no_groups() -> None:
    with pytest.raises(MemoryGroupError, match="another machine"):
        inside_container(os.getpid(), "f" * 64, 1, MIB)


def unified() -> Path:
    """Where version 2 is mounted with a controller to try, which memory is where it is not of version 1."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2":
            mounted = Path(fields[4])
            if (mounted / "cgroup.controllers").read_text().split() and os.access(mounted, os.W_OK):
                return mounted
    pytest.skip("no control groups of version 2 with a controller that this user may use")


def test_version_2_divides_a_container_whose_group_holds_processes() -> None:
    """On the kernel's real hierarchy, with whichever controller version 2 has here; the steps are the same."""
    mounted = unified()
    controllers = (mounted / "cgroup.controllers").read_text().split()
    controller = "memory" if "memory" in controllers else "hugetlb"
    if controller not in controllers:
        pytest.skip(f"no controller to try: {controllers}")
    limit, usage, events = ("max", "current", "events")
    prefix = "memory" if controller == "memory" else "hugetlb.2MB"
    _offer(mounted, controller)
    container = mounted / f"pyvision-test-{uuid.uuid4().hex[:8]}"
    container.mkdir()
    hierarchy = Hierarchy(
        True, container, "cgroup.procs", f"{prefix}.{limit}", f"{prefix}.{usage}", f"{prefix}.{events}",
        f"{prefix}.{events}", ("memory.swap.max", "0"), controller,
    )  # fmt: skip
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            (container / "cgroup.procs").write_text(str(process.pid))
            with pytest.raises(MemoryGroupError):
                MemoryGroups(hierarchy, container, 1, 64 * MIB)
            _empty(container)
            _offer(container, controller)
            groups = MemoryGroups(hierarchy, container, 2, 64 * MIB)
            assert (container / "worker" / "cgroup.procs").read_text().split() == [str(process.pid)]
            files = slots(groups)
            group = SlotGroup(files[1])
            group.prepare(0, 0)
            assert (groups.path / "1" / f"{prefix}.{limit}").read_text().strip() == str(64 * MIB)
            inside = os.fork()
            if inside == 0:
                with contextlib.suppress(BaseException):
                    group.enter()
                    line = [each for each in Path("/proc/self/cgroup").read_text().splitlines() if each[:3] == "0::"]
                    os._exit(0 if line[0].endswith(f"{groups.path.name}/1") else 1)
                os._exit(2)
            assert os.waitpid(inside, 0)[1] == 0
            for fd in [fd for fds in files.values() for fd in fds]:
                os.close(fd)
            groups.remove()
            assert not groups.path.exists()
        finally:
            process.kill()
            process.wait()
            for group_path in [*container.glob("*/*/"), *container.glob("*/"), container]:
                with contextlib.suppress(OSError):
                    group_path.rmdir()
    assert not container.exists()
