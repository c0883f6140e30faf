"""Keeps a sandbox actor on every node that can host one: starts them, watches them, replaces those that died."""

from __future__ import annotations

import logging
import threading
import time

import ray
import ray.exceptions

from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.errors import SandboxError, SandboxLostError, SandboxStartError
from pyvision_env.sandbox.cluster import connection
from pyvision_env.sandbox.cluster.member import Member
from pyvision_env.sandbox.cluster.placement import Host, hosts

_log = logging.getLogger(__name__)
_WATCH_S = 1.0
_ANSWER_S = 5.0
_RETRY_S = 10.0
_GIVE_UP_S = 60.0
_SHUTDOWN_S = 20.0
_POLL_S = 0.01


class Members:
    """The actors of one sandbox.

    Args:
        config: Of the sandbox.
        limits: Of its episodes.
        condition: Guards everything here and is notified of every change.
    """

    def __init__(self, config: SandboxConfig, limits: Limits, condition: threading.Condition) -> None:
        self._config = config
        self._limits = limits
        self._condition = condition
        self._members: dict[tuple[str, int], Member] = {}
        self._starting: dict[tuple[str, int], Member] = {}
        self._retry_at: dict[tuple[str, int], float] = {}
        self._failure: SandboxError | None = None
        self._seen: tuple[int, int] = (0, 0)
        self._closed = False
        self._beginning = threading.Lock()
        self._watcher: threading.Thread | None = None
        self._stop = threading.Event()

    def begin(self) -> None:
        """Join the cluster and start actors in the background; idempotent.

        Raises:
            SandboxUnavailableError: No cluster can be joined.
        """
        with self._beginning:
            if self._watcher is not None or self._closed:
                return
            connection.connect(self._config.cluster.address)
            self._watcher = threading.Thread(target=self._watch, name="cluster-watch", daemon=True)
            self._watcher.start()

    @property
    def ready(self) -> list[Member]:
        """Those that may be given episodes."""
        return [member for member in self._members.values() if member.alive and member.unreachable_since is None]

    def raise_failure(self) -> None:
        """With the lock held: raise what went wrong where no actor is ready and none is on its way.

        Raises:
            SandboxError: As the last actor that could not be started raised it.
        """
        if self._failure is not None and not self._members and not self._starting:
            raise type(self._failure)(str(self._failure))

    def none_ready(self) -> str:
        """Why there is no actor, for messages."""
        nodes, able = self._seen
        cluster = self._config.cluster
        wanted = f"{cluster.cpus:g} CPU(s)"
        wanted += f", {cluster.memory_mb} MiB" if cluster.memory_mb else ""
        wanted += f", the resource {cluster.resource!r}" if cluster.resource else ""
        return f"the cluster has {nodes} node(s), {able} of them with what an actor claims ({wanted})"

    def close(self) -> None:
        """End every actor and what it started, and leave the cluster; idempotent."""
        with self._beginning, self._condition:
            if self._closed:
                return
            self._closed = True
            members, starting = list(self._members.values()), list(self._starting.values())
        self._stop.set()
        if self._watcher is None:
            return
        if ray.is_initialized():
            for member in starting:
                member.kill()
            living = [member.send("shutdown") for member in members if member.alive]
            if living:
                ray.wait(living, num_returns=len(living), timeout=_SHUTDOWN_S, fetch_local=False)
            for member in members:
                member.kill()
        self._watcher.join(_ANSWER_S + _WATCH_S)
        # A thread that waits for an answer must have heard that there is none before Ray goes away under it.
        deadline = time.monotonic() + _ANSWER_S
        while any(member.waiting for member in (*members, *starting)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        connection.disconnect()

    def _watch(self) -> None:
        # Where the program itself has left the cluster there is nothing to watch: Ray would start a new one.
        while not self._stop.is_set() and ray.is_initialized():
            try:
                self._look()
            except ray.exceptions.RayError as error:
                _log.warning("the nodes of the cluster could not be looked at: %s", error)
            except Exception:  # noqa: BLE001 - the watch must go on
                _log.exception("the nodes of the cluster could not be looked at")
            self._stop.wait(_WATCH_S)

    def _look(self) -> None:
        """Once around: forget dead nodes, ask the actors how they are, start the missing ones."""
        nodes = ray.nodes()
        living = {node["NodeID"] for node in nodes if node["Alive"]}
        able = hosts(nodes, self._config.cluster)
        with self._condition:
            self._seen = (len(living), len(able))
            members = list(self._members.values())
        for member in members:
            if member.key[0] not in living:
                member.alive = False
        self._ask_all([member for member in members if member.alive])
        now = time.monotonic()
        for member in members:
            gone_s = 0.0 if member.unreachable_since is None else now - member.unreachable_since
            if not member.alive or gone_s > _GIVE_UP_S:
                member.kill()
                with self._condition:
                    del self._members[member.key]
                    self._condition.notify_all()
                _log.warning("%s was lost; its node is tried again while it lives", member.name)
        for host in able:
            for number in range(self._config.cluster.actors_per_node):
                self._start_if_missing(host, number)

    def _ask_all(self, members: list[Member]) -> None:
        """One round of questions at once, so that an actor that does not answer holds up no other."""
        states = {member.send("state"): member for member in members}
        if states:
            ray.wait(list(states), num_returns=len(states), timeout=_ANSWER_S)
        for state, member in states.items():
            try:
                member.take(state, 0)
            except SandboxLostError as error:
                _log.debug("%s", error)
        with self._condition:
            self._condition.notify_all()

    def _start_if_missing(self, host: Host, number: int) -> None:
        key = (host.node_id, number)
        with self._condition:
            known = key in self._members or key in self._starting
            if known or time.monotonic() < self._retry_at.get(key, 0.0):
                return
        member = Member(host, number, self._config, self._limits)
        with self._condition:
            if self._closed:
                member.kill()
                return
            self._starting[key] = member
        threading.Thread(target=self._start, args=(member,), name="cluster-start", daemon=True).start()

    def _start(self, member: Member) -> None:
        failure: SandboxError | None = None
        try:
            member.greet(self._config.start_timeout_s)
        except SandboxError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - whoever waits for this actor must hear of it
            _log.exception("%s could not be started", member.name)
            failure = SandboxStartError(f"{member.name} could not be started: {type(error).__name__}: {error}")
        with self._condition:
            del self._starting[member.key]
            unwanted = failure is not None or self._closed
            if failure is not None:
                # While others are ready it is nobody's reason to fail, nor later when those are lost and replaced.
                self._failure = None if self._members else failure
                self._retry_at[member.key] = time.monotonic() + _RETRY_S
            elif not self._closed:
                self._members[member.key] = member
                self._failure = None
            closed = self._closed
            self._condition.notify_all()
        if unwanted:
            member.kill()
        if failure is not None and not closed:
            _log.warning("%s", failure)
        elif not closed:
            missing = ", ".join(name for name in member.isolation.missing if name != "container")
            if missing:
                _log.warning("%s does not guarantee: %s", member.name, missing)
