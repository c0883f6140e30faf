"""What tests of a sandbox look at from outside: its processes and containers."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

import docker
import psutil

from pyvision_env.sandbox.containers import LABEL


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def local_workers(client: int | None = None) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(client).children():
        # Other tests may leave a child that has ended and was not waited for yet.
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("local_root.py" in word or "main.py" in word for word in child.cmdline()):
                found.append(child)
    return found


def is_running(process: psutil.Process) -> bool:
    """Whether it has not ended; one that nobody has waited for yet has."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def names_below(process: psutil.Process) -> set[str]:
    """Names of the programs that run below it."""
    names = set()
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            names.add(child.name())
    return names


def ours(client: docker.DockerClient, pid: int | None = None) -> set[str]:
    label = f"{LABEL}={os.getpid() if pid is None else pid}"
    return {
        container.name for container in client.containers.list(all=True, ignore_removed=True, filters={"label": label})
    }
