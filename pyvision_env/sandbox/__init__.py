"""Isolated Python runtimes for model-written code: ``make_sandbox`` and what it gives back."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from pydantic import ValidationError

from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.errors import ConfigError, SandboxError, SandboxUnavailableError
from pyvision_env.sandbox.episode import Episode
from pyvision_env.sandbox.interface import EpisodeLike, SandboxLike
from pyvision_env.sandbox.isolation import IsolationReport
from pyvision_env.sandbox.pool import Sandbox
from pyvision_env.sandbox.workers import Launcher

__all__ = [
    "Episode",
    "EpisodeLike",
    "IsolationReport",
    "Sandbox",
    "SandboxLike",
    "SharedSandbox",
    "make_sandbox",
    "shared_sandbox",
]

_log = logging.getLogger(__name__)


def make_sandbox(
    kind: str | SandboxConfig | dict[str, Any] = "auto", *, limits: Limits | None = None, **options: Any
) -> SandboxLike:
    """A sandbox; nothing is started before its first ``open``, except that ``auto`` looks for an engine.

    Args:
        kind: ``docker``, ``docker-strict``, ``local``, ``local-unconfined``, ``auto`` (docker where an engine answers
            and has the image, else local), ``ray`` (one of these on each node of a cluster), or a whole configuration.
        limits: Budgets of each episode.
        **options: Fields of ``SandboxConfig``.

    Raises:
        ConfigError: An option is unknown or has a wrong value.
        SandboxUnavailableError: The kind is ``ray`` and Ray is not installed.
    """
    config = sandbox_config(kind, **options)
    limits = limits if limits is not None else Limits()
    if config.kind == "ray":
        return _cluster_sandbox(config, limits)
    return Sandbox(_launcher(config), config, limits)


def sandbox_config(kind: str | SandboxConfig | dict[str, Any] = "auto", **options: Any) -> SandboxConfig:
    """The configuration that ``make_sandbox`` takes from its arguments.

    Raises:
        ConfigError: An option is unknown or has a wrong value.
    """
    try:
        if isinstance(kind, SandboxConfig):
            return SandboxConfig.model_validate({**kind.model_dump(), **options})
        if isinstance(kind, dict):
            return SandboxConfig.model_validate({**kind, **options})
        return SandboxConfig.model_validate({"kind": kind, **options})
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors())
        fields = ", ".join(SandboxConfig.model_fields)
        raise ConfigError(f"not a sandbox configuration: {details}. Its fields are: {fields}") from None


def _launcher(config: SandboxConfig) -> Launcher:
    from pyvision_env.sandbox.containers import DockerLauncher
    from pyvision_env.sandbox.local import LocalLauncher

    kind = config.kind
    if kind == "auto":
        kind = "docker" if _docker_is_ready(config) else "local"
    if kind in ("docker", "docker-strict"):
        return DockerLauncher(config, strict=kind == "docker-strict")
    return LocalLauncher(config, unconfined=kind == "local-unconfined")


def _cluster_sandbox(config: SandboxConfig, limits: Limits) -> SandboxLike:
    try:
        import ray  # noqa: F401 - an optional dependency of which only the cluster's modules know
    except ImportError:
        raise SandboxUnavailableError(
            'the ray sandbox needs Ray, which is not installed: pip install "pyvision-rl[ray]", here and on every node'
        ) from None
    from pyvision_env.sandbox.cluster.pool import ClusterSandbox

    return ClusterSandbox(config, limits)


def _docker_is_ready(config: SandboxConfig) -> bool:
    from pyvision_env.sandbox.containers import connect
    from pyvision_env.sandbox.image import check_image

    try:
        client = connect(timeout=5)
    except SandboxUnavailableError as error:
        _log.info("auto: the local sandbox is used because %s", error)
        return False
    try:
        check_image(client, config.image)
    except SandboxError as error:
        _log.warning("auto: an engine answers, but the local sandbox is used: %s", error)
        return False
    finally:
        client.close()
    return True


class SharedSandbox:
    """A handle on a sandbox that equal configurations of this process share; the last ``close`` ends it."""

    def __init__(self, key: tuple[int, str, str], sandbox: SandboxLike) -> None:
        self._key = key
        self.sandbox = sandbox
        self._closed = False

    def close(self) -> None:
        """Let go of the sandbox; idempotent."""
        if self._closed:
            return
        self._closed = True
        with _shared_lock:
            sandbox, holders = _shared.get(self._key, (None, 0))
            if sandbox is not self.sandbox:
                return
            if holders > 1:
                _shared[self._key] = (self.sandbox, holders - 1)
                return
            del _shared[self._key]
        self.sandbox.close()


_shared: dict[tuple[int, str, str], tuple[SandboxLike, int]] = {}
_shared_lock = threading.Lock()


def shared_sandbox(config: SandboxConfig, limits: Limits) -> SharedSandbox:
    """Take part in the process-wide sandbox of this configuration, made on first use.

    Environments of one process (of a vector environment, say) thereby use the same containers.
    """
    key = (os.getpid(), config.model_dump_json(), limits.model_dump_json())
    with _shared_lock:
        sandbox, holders = _shared.get(key, (None, 0))
        if sandbox is None:
            sandbox = make_sandbox(config, limits=limits)
        _shared[key] = (sandbox, holders + 1)
    return SharedSandbox(key, sandbox)
