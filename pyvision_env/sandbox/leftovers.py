"""What a client leaves that was killed while it started a container: found by its locks, swept by the next client.

A container that has started ends by itself with its client. Before that, a directory for its socket and a container
that was made and not started can be left. The starting client holds a lock on the directory, which the kernel takes
back from the dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import docker

LABEL = "org.pyvision-rl.sandbox"
"""Label of every container: the process that started it."""
_START_LABEL = "org.pyvision-rl.start"
_PREFIX = "pyvision-control-"
_STALE_S = 3600.0


def new_directory() -> tuple[Path, int]:
    """A directory for the socket of a worker that is being started, and the descriptor that holds its lock."""
    made = Path(tempfile.mkdtemp(prefix=".pyvision-"))
    lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    # Only now can it be taken for a leftover.
    directory = made.with_name(f"{_PREFIX}{secrets.token_hex(8)}")
    made.rename(directory)
    return directory, lock


def labels(directory: Path) -> dict[str, str]:
    """Labels of a container whose start holds the lock of ``directory``."""
    return {LABEL: str(os.getpid()), _START_LABEL: f"{_whereabouts()}:{directory}"}


def sweep(client: docker.DockerClient) -> None:
    """Remove what clients left that were killed while they started a container."""
    import docker.errors

    filters: dict[str, Any] = {"label": LABEL, "status": "created"}
    with contextlib.suppress(docker.errors.DockerException, OSError):
        for container in client.containers.list(all=True, ignore_removed=True, filters=filters):
            if _is_left(container.labels.get(_START_LABEL, ""), container.attrs["Created"]):
                with contextlib.suppress(docker.errors.DockerException):
                    container.remove(force=True)
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), _locked(directory) as dead:
            if dead and directory.stat().st_uid == os.getuid():
                shutil.rmtree(directory, ignore_errors=True)


def _is_left(start: str, created: str) -> bool:
    where, _, directory = start.rpartition(":")
    if where == _whereabouts():
        with _locked(Path(directory)) as dead:
            return dead
    # Started elsewhere: there is no telling whether somebody is still at it.
    return datetime.fromisoformat(created[:19] + "+00:00").timestamp() < time.time() - _STALE_S


def _whereabouts() -> str:
    """Boot of this machine and view of its file systems: only where both are the same does a lock say anything."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/mnt').readlink()}"


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Whether nobody holds the lock of ``directory`` any more; while asked, we do."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(fd)
