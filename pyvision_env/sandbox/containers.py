"""Docker workers: containers without network, capabilities or writable root that each hold one zygote."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyvision_env.config import SandboxConfig
from pyvision_env.errors import SandboxError, SandboxStartError, SandboxUnavailableError
from pyvision_env.sandbox.image import check_image
from pyvision_env.sandbox.leftovers import LABEL, labels, new_directory, sweep
from pyvision_env.sandbox.link import WorkerLink
from pyvision_env.sandbox.local import WORKER_ENVIRONMENT
from pyvision_env.sandbox.memory_groups import MemoryGroupError, inside_container

if TYPE_CHECKING:
    import docker

__all__ = ["LABEL", "DockerLauncher", "connect"]

_log = logging.getLogger(__name__)
_DEFAULT_HOST = "unix:///var/run/docker.sock"
_USER = 10001
_CONTROL_DIR = "/run/pyvision"
_SOCKET = "control.sock"
_SLOTS = "/s"
_STOP_S = 10.0
# What episodes together leave of a container's memory, so that they never have the zygote killed.
_ZYGOTE_BYTES = 384 << 20
_RUNTIME_THREADS = 256


def connect(timeout: float = 60.0) -> docker.DockerClient:
    """A client of the Docker engine that the environment names (``DOCKER_HOST`` or the default socket).

    Raises:
        SandboxUnavailableError: No engine answers.
    """
    import docker
    import docker.errors

    try:
        _knock(timeout)
        client = docker.from_env(timeout=int(timeout))
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise SandboxUnavailableError(
            f"no Docker engine answers ({error}). Start one (Debian: apt-get install docker.io, then dockerd as root) "
            "or use sandbox='local'; `pyvision-env doctor` tells what this machine offers"
        ) from None
    return client


def _knock(timeout: float) -> None:
    """Connect once ourselves: the client library leaves a socket open that it could not connect.

    Raises:
        OSError: Nobody listens.
    """
    address = os.environ.get("DOCKER_HOST") or _DEFAULT_HOST
    if address.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as knock:
            knock.settimeout(timeout)
            knock.connect(address.removeprefix("unix://"))


class DockerLauncher:
    """Starts hardened containers, shared by many episodes or (``strict``) one for each."""

    container = True

    def __init__(self, config: SandboxConfig, strict: bool) -> None:
        self._config = config
        self.kind = "docker-strict" if strict else "docker"
        self.single_use = strict
        self.slots = 1 if strict else config.episodes_per_container
        self.workers = config.containers * config.episodes_per_container if strict else config.containers
        self.warm = config.warm if strict else 0
        self._client: docker.DockerClient | None = None
        self._image_id: str | None = None
        self._abandoned = threading.Event()
        self._connecting = threading.Lock()

    def launch(self, on_change: Callable[[], None]) -> WorkerLink:
        """Start one container and wait until its worker greets.

        Raises:
            SandboxUnavailableError: No engine answers, or the worker cannot confine episodes in a container here.
            SandboxImageError: The image is missing or holds another worker.
            SandboxStartError: The container did not start or its worker did not greet in time.
        """
        import docker.errors

        deadline = time.monotonic() + self._config.start_timeout_s
        client, image_id = self._engine()
        name = f"pyvision-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        # The engine's socket may be unreachable for the container's user; the directory holds nothing but our socket.
        directory, lock = new_directory()
        # Other users of this machine can neither list the outer directory nor guess the inner one's name.
        inner = directory / secrets.token_hex(16)
        try:
            inner.mkdir(mode=0o711)
            directory.chmod(0o711)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
                _bind(listener, inner)
                listener.listen(1)
                try:
                    container = client.containers.create(image_id, **self._options(name, inner))
                    container.start()
                except docker.errors.APIError as error:
                    raise SandboxStartError(f"the engine refused to start a container: {error.explanation}") from None
                control = self._accept(listener, container, deadline)
        except (docker.errors.DockerException, OSError) as error:
            # By name: one that was made too late for the answer is there too.
            _remove(client, name)
            raise SandboxStartError(f"a container could not be started: {error}") from None
        except SandboxError:
            _remove(client, name)
            raise
        finally:
            # Nothing is left to connect to: the one connection that will ever exist is made.
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)
        link = WorkerLink(control, lambda: _await_end(container), f"container {name}", on_change)
        try:
            link.greet(deadline, self._abandoned)
            self._bound_memory(link, container)
        except SandboxError as error:
            logs = _logs(container)
            link.close(wait=True)
            if logs:
                raise type(error)(f"{error}; its last words: {logs}") from None
            raise
        return link

    def close(self) -> None:
        """Let go of the engine."""
        if self._client is not None:
            sweep(self._client)
            self._client.close()

    def abandon(self) -> None:
        """Have launches in progress give up; further ones do so at once."""
        self._abandoned.set()

    def _engine(self) -> tuple[docker.DockerClient, str]:
        """The one client of all launches, and the image they start."""
        with self._connecting:
            if self._client is None:
                self._client = connect()
                sweep(self._client)
            if self._image_id is None:
                self._image_id = check_image(self._client, self._config.image).id
            return self._client, self._image_id

    def _accept(self, listener: socket.socket, container: Any, deadline: float) -> socket.socket:
        """The worker's connection, or an error as soon as the container has ended without one."""
        listener.settimeout(0.5)
        while True:
            try:
                return listener.accept()[0]
            except TimeoutError:
                pass
            if self._abandoned.is_set():
                raise SandboxStartError("the container is not wanted any more")
            if not _runs(container):
                raise SandboxStartError(f"the container ended while starting: {_logs(container) or 'it said nothing'}")
            if time.monotonic() > deadline:
                raise SandboxStartError("the worker did not connect in time; raise start_timeout_s")

    def _bound_memory(self, link: WorkerLink, container: Any) -> None:
        """Give each slot a memory group where this process may make them; the container as a whole is bounded anyway.

        It takes the engine on this machine and the right to write control groups, root's as a rule. Nothing of it lies
        inside the container: no capability, no mount, only the files that the worker is handed.
        """
        if self.single_use:
            # The container is the episode's, and so is its bound.
            link.bounds_memory = True
            return
        import docker.errors

        bound = self._config.container_memory_mb << 20
        try:
            container.reload()
            pid, identity = container.attrs["State"]["Pid"], container.id
            link.grant(inside_container(pid, identity, self.slots, max(bound // 2, bound - _ZYGOTE_BYTES)))
        except (docker.errors.DockerException, OSError) as error:
            raise SandboxStartError(f"the engine went away while {link.name} was started: {error}") from None
        except MemoryGroupError as error:
            link.notes = (
                f"{error}: a watchdog and process limits bound the memory of each episode, the container that of all",
            )

    def _options(self, name: str, directory: Path) -> dict[str, Any]:
        config = self._config
        memory = config.memory_mb + 512 if self.single_use else config.container_memory_mb
        slots = [f"{_SLOTS}/{number}" for number in range(self.slots)]
        quota = f"size={config.disk_mb}m,nr_inodes=4096,mode=0700,uid={_USER},gid={_USER},nosuid,nodev,noexec"
        settings = {
            "control": f"{_CONTROL_DIR}/{_SOCKET}",
            "slots": slots,
            "private_root": True,
            "quota": True,
            "single_use": self.single_use,
        }
        profile = (resources.files("pyvision_env.sandbox") / "docker_seccomp.json").read_text()
        options: dict[str, Any] = {
            "name": name,
            "command": [json.dumps(settings)],
            "labels": labels(directory.parent),
            "detach": True,
            "auto_remove": True,
            "network_mode": "none",
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges", f"seccomp={profile}"],
            "user": f"{_USER}:{_USER}",
            "ipc_mode": "none",
            "log_config": {"type": "json-file", "config": {"max-size": "64k", "max-file": "1"}},
            "pids_limit": self.slots * (config.processes + 1) + 16,
            "mem_limit": f"{memory}m",
            "memswap_limit": f"{memory}m",
            "tmpfs": {"/tmp": "size=64m,mode=0700,nosuid,nodev,noexec", **dict.fromkeys(slots, quota)},
            "volumes": {str(directory): {"bind": _CONTROL_DIR, "mode": "ro"}},
            "hostname": "sandbox",
            "environment": WORKER_ENVIRONMENT,
        }
        if config.cpus is not None:
            options["nano_cpus"] = int(config.cpus * 1e9)
        if config.runtime is not None:
            options["runtime"] = config.runtime
            # A kernel in user space has threads of its own.
            options["pids_limit"] += _RUNTIME_THREADS
        return options


def _bind(listener: socket.socket, directory: Path) -> None:
    """Bind through a descriptor: the path of a socket may have 107 characters only."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{fd}/{_SOCKET}")
    finally:
        os.close(fd)
    (directory / _SOCKET).chmod(0o666)


def _runs(container: Any) -> bool:
    import docker.errors

    try:
        container.reload()
    except docker.errors.NotFound:
        return False
    return bool(container.status in ("created", "running"))


def _logs(container: Any) -> str:
    import docker.errors

    with contextlib.suppress(docker.errors.DockerException, OSError):
        return str(container.logs(tail=5).decode("utf-8", "replace").strip()[-800:])
    return ""


def _remove(client: docker.DockerClient, name: str) -> None:
    import docker.errors

    with contextlib.suppress(docker.errors.DockerException, OSError):
        client.containers.get(name).remove(force=True)


def _await_end(container: Any) -> None:
    """Wait until the container is gone; it ends by itself when its control socket closes."""
    import docker.errors

    deadline = time.monotonic() + _STOP_S
    try:
        while time.monotonic() < deadline:
            container.reload()
            time.sleep(0.05)
        container.remove(force=True)
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as error:
        if error.status_code != 409:  # 409: its removal is already in progress
            _log.warning("container %s may be left over: %s", container.name, error)
    except (docker.errors.DockerException, OSError) as error:
        _log.warning("the engine went away before container %s was seen to end: %s", container.name, error)
