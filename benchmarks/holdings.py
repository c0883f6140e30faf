"""What a sandbox's client and its workers hold at a moment, seen from outside; for the soak and the chaos benchmark."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import docker
import docker.errors
import psutil

from pyvision_env.sandbox.containers import LABEL


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.01) -> bool:
    """Poll ``condition``; whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return condition()
        time.sleep(pause)
    return True


def containers_of(client: docker.DockerClient, pid: int) -> list[docker.models.containers.Container]:
    """Containers that the process ``pid`` started, the ended ones included."""
    return client.containers.list(all=True, ignore_removed=True, filters={"label": f"{LABEL}={pid}"})


def zygotes_of(client: docker.DockerClient | None, pid: int) -> list[psutil.Process]:
    """The zygotes of the process ``pid``: what its containers began with, or the children of its local launchers."""
    found = []
    if client is not None:
        for container in containers_of(client, pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [psutil.Process(container.attrs["State"]["Pid"])] if container.status == "running" else []
        return found
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(word.endswith("local_root.py") for word in child.cmdline()):
                    found += child.children()
    return found


def families(zygotes: list[psutil.Process]) -> list[psutil.Process]:
    """The zygotes with all their descendants."""
    found = []
    for zygote in zygotes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [zygote, *zygote.children(recursive=True)]
    return found


def measure(client: docker.DockerClient | None, zygotes: list[psutil.Process]) -> dict[str, float]:
    """Of this process and its idle workers: counts, and memory in MiB."""
    with os.scandir("/proc/self/fd") as entries:
        descriptors = sum(1 for _ in entries) - 1
    held = {
        "client_rss_mib": psutil.Process().memory_info().rss / 2**20,
        "client_descriptors": descriptors,
        "client_threads": threading.active_count(),
        "containers": 0 if client is None else len(containers_of(client, os.getpid())),
        "worker_processes": len(families(zygotes)),
        "zygote_pss_mib": sum(map(pss_mib, zygotes)),
        "zygote_descriptors": sum(zygote.num_fds() for zygote in zygotes),
        "slots_tmpfs_kib": sum(map(slots_kib, zygotes)),
    }
    return {name: float(value) for name, value in held.items()}


def pss_mib(process: psutil.Process) -> float:
    """Memory of a process, pages in common divided among their holders."""
    for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {process.pid} tells no PSS")


def slots_kib(zygote: psutil.Process) -> float:
    """What lies in the file systems of a zygote's slots."""
    used = 0.0
    for slot in Path(f"/proc/{zygote.pid}/root/s").iterdir():
        status = os.statvfs(slot)
        used += (status.f_blocks - status.f_bfree) * status.f_frsize / 1024
    return used
