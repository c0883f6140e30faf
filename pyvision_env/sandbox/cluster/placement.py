"""Which nodes of a cluster host sandboxes, and which of them gets the next episode: plain rules on plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pyvision_env.config import ClusterConfig


@dataclass(frozen=True, slots=True)
class Host:
    """A node of the cluster that can host sandboxes.

    Attributes:
        node_id: Ray's id of it.
        name: For messages: its host name and the beginning of its id, since several nodes may share a machine.
        cores: Processors it offers to Ray.
    """

    node_id: str
    name: str
    cores: float


def hosts(nodes: Iterable[Mapping[str, Any]], config: ClusterConfig) -> list[Host]:
    """The living nodes that have, busy or not, what an actor claims.

    Args:
        nodes: As ``ray.nodes()`` gives them.
        config: What an actor claims and which custom resource marks the nodes to use.
    """
    found = []
    for node in nodes:
        offers = node["Resources"]
        if not node["Alive"] or (config.resource is not None and not offers.get(config.resource)):
            continue
        if offers.get("CPU", 0) < config.cpus or offers.get("memory", 0) < (config.memory_mb or 0) << 20:
            continue
        name = f"{node['NodeManagerHostname']}:{node['NodeID'][:8]}"
        found.append(Host(node["NodeID"], name, offers.get("CPU", 0) or 1.0))
    return found


class Room(Protocol):
    """What placement looks at of an actor.

    Attributes:
        load: Episodes placed on it.
        slots: Episodes it takes at most.
        cores: Processors it may count on.
        memory_free_mb: Memory free on its node when it last answered, MiB.
    """

    load: int
    slots: int
    cores: float
    memory_free_mb: int


AnyRoom = TypeVar("AnyRoom", bound=Room)


def choose(rooms: Iterable[AnyRoom], episode_mb: int) -> AnyRoom | None:
    """The actor whose processors would be shared by the fewest episodes; of equals, the one with most memory free.

    Args:
        rooms: Those that may be chosen.
        episode_mb: Memory one episode may use: a node that has less left gets none.
    """
    free = [room for room in rooms if room.load < room.slots and room.memory_free_mb >= episode_mb]
    return min(free, key=lambda room: ((room.load + 1) / room.cores, -room.memory_free_mb), default=None)
