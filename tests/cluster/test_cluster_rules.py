"""The cluster's rules on plain data: which nodes, which actor next, what is kept, what is promised."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import pytest

from pyvision_env.config import ClusterConfig
from pyvision_env.sandbox.cluster.cache import BoundedCache
from pyvision_env.sandbox.cluster.isolation import combine
from pyvision_env.sandbox.cluster.placement import choose, hosts
from pyvision_env.sandbox.isolation import IsolationReport


@dataclass
class Room:
    name: str
    load: int = 0
    slots: int = 10
    cores: float = 4
    memory_free_mb: int = 8_000


def placed(rooms: list[Room], episodes: int) -> list[int]:
    for _ in range(episodes):
        chosen = choose(rooms, 512)
        assert chosen is not None
        chosen.load += 1
    return [room.load for room in rooms]


def test_equal_nodes_share_episodes_evenly() -> None:
    assert placed([Room("a"), Room("b"), Room("c")], 9) == [3, 3, 3]


def test_a_node_with_more_processors_gets_more_episodes() -> None:
    assert placed([Room("small", cores=2), Room("large", cores=8)], 10) == [2, 8]


def test_of_equal_nodes_the_one_with_more_memory_comes_first() -> None:
    assert placed([Room("a", memory_free_mb=1_000), Room("b", memory_free_mb=2_000)], 1) == [0, 1]


def test_full_nodes_and_those_short_of_memory_get_nothing() -> None:
    assert choose([Room("full", load=10), Room("short", memory_free_mb=511)], 512) is None
    assert choose([], 512) is None


def node(number: int, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"NodeID": f"{number:056x}", "Alive": alive, "NodeManagerHostname": "box", "Resources": resources}


def test_only_living_nodes_with_what_an_actor_claims_host_sandboxes() -> None:
    nodes = [
        node(1, CPU=4, memory=8 << 30, sandbox=1),
        node(2, alive=False, CPU=4, memory=8 << 30, sandbox=1),
        node(3, memory=8 << 30, sandbox=1),
        node(4, CPU=4, memory=1 << 30, sandbox=1),
        node(5, CPU=4, memory=8 << 30),
    ]

    def able(**settings: Any) -> list[int]:
        return [int(host.node_id, 16) for host in hosts(nodes, ClusterConfig(**settings))]

    assert able() == [1, 4, 5]
    assert able(cpus=0) == [1, 3, 4, 5]
    assert able(memory_mb=2_048, resource="sandbox") == [1]
    assert next(iter(hosts(nodes, ClusterConfig()))).name == "box:00000000"


@dataclass
class Value:
    nbytes: int


def test_a_value_is_made_once_for_all_who_ask_at_the_same_time() -> None:
    cache: BoundedCache[Value] = BoundedCache(100)
    asked, go = threading.Barrier(8), threading.Event()
    found: list[Value] = []

    def make() -> Value:
        go.wait(30)
        return Value(10)

    def ask() -> None:
        asked.wait(30)
        found.append(cache.get("key", make))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(30)
    assert cache.made == 1 and len(found) == 8 and len({id(value) for value in found}) == 1


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache: BoundedCache[Value] = BoundedCache(100, max_count=3)
    made: list[str] = []

    def get(key: str, nbytes: int = 10) -> Value:
        return cache.get(key, lambda: (made.append(key), Value(nbytes))[1])

    for key in "abcad":  # d is the fourth, b the least recently used
        get(key)
    for key in "acdb":
        get(key)
    assert made == ["a", "b", "c", "d", "b"]
    get("large", 85)
    get("b")
    assert made[-1] == "large", "room is made for it, but no more than needed"
    get("too large", 101)
    get("too large", 101)
    assert made[-2:] == ["too large"] * 2
    get("large", 85)
    assert made[-1] == "too large", "what is never kept throws nothing out"


def test_a_value_that_cannot_be_made_is_tried_again() -> None:
    cache: BoundedCache[Value] = BoundedCache(100)
    with pytest.raises(ZeroDivisionError):
        cache.get("key", lambda: Value(1 // 0))
    assert cache.get("key", lambda: Value(1)).nbytes == 1


def test_the_clusters_report_promises_what_every_node_gives() -> None:
    def report(kind: str, rung: str, notes: tuple[str, ...] = (), python: str = "3.11", **given: bool):
        return IsolationReport(kind, rung, given, notes, python, {"numpy": "2"})

    told = combine(
        "ray",
        {
            "a": report("docker", "userns", network=True, memory=True, container=True),
            "b": report("docker", "userns", network=True, memory=True, container=True),
            "c": report("local", "landlock", ("no namespaces",), "3.12", network=True, memory=False),
        },
    )
    assert told.kind == "ray" and told.rung == "docker: userns, local: landlock"
    assert told.guarantees == {"network": True, "memory": False, "container": False}
    assert told.notes == ("c: no namespaces", "c: another interpreter or other libraries than the first node")
    assert (told.python, told.libraries) == ("3.11", {"numpy": "2"})
