"""One sandbox actor as the driver sees it, and the one way to call it: Ray's errors come out as our own."""

from __future__ import annotations

import contextlib
import textwrap
import time
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import pyvision_env
from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.errors import SandboxError, SandboxLostError, SandboxStartError
from pyvision_env.sandbox.cluster.node import Hello, Reply, SandboxNode
from pyvision_env.sandbox.cluster.placement import Host
from pyvision_env.sandbox.isolation import IsolationReport

# Threads of an actor beyond those of its running episodes: for opening and closing others, and for its state.
_SPARE_THREADS = 16
_REASON_CHARS = 240
_Actor = ray.remote(SandboxNode)


class Member:
    """An actor with a sandbox on one node; it ends with this process, however that one dies.

    Attributes:
        host: Its node.
        key: Node id and number of the actor on that node.
        name: For messages.
        cores: Processors it may count on.
        slots: Episodes it takes at most.
        load: Episodes placed on it.
        memory_free_mb: Memory free on its node when it last answered, MiB.
        media_made: Images and videos it had to fetch and prepare.
        isolation: What its sandbox keeps apart.
        pid: Its process, as its own node counts.
        unreachable_since: ``time.monotonic()`` since when it does not answer; None while it does.
        alive: False once it is known to be gone.
        waiting: One token for each thread that waits for an answer.
    """

    isolation: IsolationReport
    pid: int

    def __init__(self, host: Host, number: int, config: SandboxConfig, limits: Limits) -> None:
        cluster = config.cluster
        self.host = host
        self.key = (host.node_id, number)
        self.name = f"the sandbox actor on node {host.name}"
        self.cores = host.cores / cluster.actors_per_node
        self.slots = config.containers * config.episodes_per_container
        self.load = 0
        self.memory_free_mb = 0
        self.media_made = 0
        self.unreachable_since: float | None = None
        self.alive = True
        self.waiting: set[object] = set()
        claims: dict[str, Any] = {} if cluster.memory_mb is None else {"memory": cluster.memory_mb << 20}
        self._actor = _Actor.options(
            num_cpus=cluster.cpus,
            max_concurrency=self.slots + _SPARE_THREADS,
            # A call that is run again, or an actor that comes back empty, would give an episode a wrong state.
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(host.node_id, soft=False),
            **claims,
        ).remote(config.model_copy(update={"kind": cluster.node_kind}), limits)

    def greet(self, timeout: float) -> None:
        """Wait until its sandbox is ready.

        Raises:
            SandboxError: The sandbox cannot be had there, or not in time.
        """
        try:
            hello: Hello = self.ask("hello", timeout=timeout)
        except SandboxLostError as error:
            raise SandboxStartError(
                f"{self.name} did not become ready: {error}. Is pyvision-rl installed there, and are the CPUs and the "
                "memory that an actor claims free?"
            ) from None
        except SandboxError as error:
            raise type(error)(f"{self.name} cannot be used: {error}") from None
        if hello.version != pyvision_env.__version__:
            raise SandboxStartError(
                f"{self.name} runs pyvision-rl {hello.version}, here it is {pyvision_env.__version__}; install the same"
            )
        self.isolation, self.pid = hello.isolation, hello.pid

    def ask(self, method: str, *arguments: Any, timeout: float) -> Any:
        """Call a method of the actor and wait for its value; raises what ``take`` raises."""
        return self.take(self.send(method, *arguments), timeout)

    def take(self, reference: Any, timeout: float) -> Any:
        """The value of a call that was sent.

        Raises:
            SandboxLostError: The actor or its node died, or does not answer.
            PyVisionError: As the call raised it there.
        """
        token = object()
        self.waiting.add(token)
        try:
            reply: Reply = ray.get(reference, timeout=timeout)
        except ray.exceptions.GetTimeoutError:
            self.unreachable_since = self.unreachable_since or time.monotonic()
            raise SandboxLostError(f"{self.name} did not answer within {timeout:.0f} s") from None
        except ray.exceptions.RayTaskError as error:
            raise SandboxError(f"{self.name} failed: {_last_line(error)}") from None
        except ray.exceptions.ActorDiedError as error:
            self.alive = False
            raise SandboxLostError(f"{self.name} died: {_last_line(error)}") from None
        except ray.exceptions.RayError as error:
            self.unreachable_since = self.unreachable_since or time.monotonic()
            raise SandboxLostError(f"{self.name} cannot be reached ({type(error).__name__})") from None
        finally:
            self.waiting.discard(token)
        self.memory_free_mb, self.media_made = reply.memory_free_mb, reply.media_made
        self.unreachable_since = None
        if reply.error is not None:
            raise reply.error
        return reply.value

    def send(self, method: str, *arguments: Any) -> Any:
        """Call a method of the actor without waiting; what comes back is Ray's reference to its reply."""
        return getattr(self._actor, method).remote(*arguments)

    def tell(self, method: str, *arguments: Any) -> None:
        """Call a method of the actor and never ask what came of it."""
        with contextlib.suppress(ray.exceptions.RayError):
            getattr(self._actor, method).options(num_returns=0).remote(*arguments)

    def kill(self) -> None:
        """End the actor's process and with it every worker of its sandbox; idempotent."""
        self.alive = False
        if ray.is_initialized():  # else its cluster has ended it, and this call would start another one
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(self._actor, no_restart=True)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return textwrap.shorten(lines[-1], _REASON_CHARS) if lines else type(error).__name__
