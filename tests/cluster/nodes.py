"""A real Ray cluster of several nodes on this machine, which listens on the loopback device only."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
import psutil

from pyvision_env.config import Limits
from pyvision_env.sandbox.containers import LABEL
from pyvision_env.sandbox.interface import SandboxLike

SHORT = Limits(code_timeout_s=4, kill_grace_s=1)
# Ray needs at least this much for an object store.
_STORE_BYTES = 80 << 20


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


class Nodes:
    """The cluster; nodes carry a resource, so that a test can use some of them and leave the others alone."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, **self._options()}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)

    @staticmethod
    def _options() -> dict[str, Any]:
        return {"node_ip_address": "127.0.0.1", "object_store_memory": _STORE_BYTES}

    @property
    def address(self) -> str:
        return self._cluster.address

    def add(self, resource: str) -> Any:
        return self._cluster.add_node(num_cpus=1, resources={resource: 1}, **self._options())

    def kill(self, node: Any) -> None:
        """As a power cut would: none of its processes says goodbye."""
        self._cluster.remove_node(node, allow_graceful=False)

    def sandbox(self, resource: str, **options: Any) -> SandboxLike:
        """A sandbox on the nodes with this resource; it claims no processor, so that several fit on a node."""
        from pyvision_env.sandbox import make_sandbox

        limits = options.pop("limits", SHORT)
        return make_sandbox(self.config(resource, **options), limits=limits)

    def config(self, resource: str, **options: Any) -> dict[str, Any]:
        cluster = {"address": self.address, "node_kind": "local", "cpus": 0, "resource": resource}
        return {
            "kind": "ray", "containers": 1, "episodes_per_container": 4, "memory_mb": 512, "disk_mb": 16,
            "cluster": cluster, **options,
        }  # fmt: skip

    def shutdown(self) -> None:
        self._cluster.shutdown()


@contextlib.contextmanager
def cluster() -> Iterator[Nodes]:
    folder = tempfile.mkdtemp(prefix="pv-ray-")  # short, since paths of sockets are
    settings = {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    nodes = Nodes()
    try:
        yield nodes
    finally:
        nodes.shutdown()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


def zygotes(actor: int) -> list[psutil.Process]:
    """The living processes of an actor's sandbox."""
    return [process for process in psutil.Process(actor).children(recursive=True) if _runs(process)]


def ended(processes: list[psutil.Process]) -> bool:
    return not any(_runs(process) for process in processes)


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def containers(client: docker.DockerClient, actor: int) -> list[str]:
    """Names of the containers of an actor's sandbox."""
    listed = client.containers.list(all=True, ignore_removed=True, filters={"label": f"{LABEL}={actor}"})
    return [container.name for container in listed]
