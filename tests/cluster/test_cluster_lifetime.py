"""How a sandbox over a cluster begins and ends: full, lost, joined, closed and killed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import ray
from samples import RED, plain
from typer.testing import CliRunner

from cluster.nodes import SHORT, Nodes, containers, ended, wait_until, zygotes
from pyvision_env.cli.app import app
from pyvision_env.config import Limits
from pyvision_env.errors import (
    SandboxBusyError,
    SandboxClosedError,
    SandboxError,
    SandboxLostError,
    SandboxStartError,
    SandboxUnavailableError,
)
from pyvision_env.sandbox import make_sandbox


def test_when_all_nodes_are_full_episodes_wait_their_turn_until_the_deadline(nodes: Nodes) -> None:
    with nodes.sandbox("pair", episodes_per_container=1, open_timeout_s=120) as sandbox:
        assert wait_until(lambda: len(sandbox.start().nodes) == 2)
        first, second = sandbox.open(), sandbox.open()
        served: list[int] = []

        def wait_my_turn(number: int) -> None:
            with sandbox.open():
                served.append(number)

        threads = []
        for number in range(4):
            threads.append(threading.Thread(target=wait_my_turn, args=(number,)))
            threads[-1].start()
            assert wait_until(lambda number=number: len(sandbox._queue) == number + 1)
        assert served == []
        first.close()
        for thread in threads:
            thread.join(120)
        assert served == [0, 1, 2, 3]
        with sandbox.open():
            object.__setattr__(sandbox.config, "open_timeout_s", 0.5)
            with pytest.raises(SandboxBusyError, match=r"within 0\.5 s: 2 actor\(s\) hold 2 episodes in 2 slot\(s\)"):
                sandbox.open()
        second.close()


def test_a_lost_node_fails_its_episodes_and_others_go_on(nodes: Nodes) -> None:
    hosts = [nodes.add("victim"), nodes.add("victim")]
    with nodes.sandbox("victim", limits=Limits(code_timeout_s=120)) as sandbox:
        assert wait_until(lambda: len(sandbox.start().nodes) == 2)
        episodes = [sandbox.open(images=[plain(RED)]) for _ in range(4)]
        assert [node.episodes for node in sandbox.nodes] == [2, 2]
        victim = next(node for node in sandbox.nodes if node.node_id == hosts[0].node_id)
        left_behind = [psutil.Process(victim.pid), *zygotes(victim.pid)]
        outcomes: dict[int, Any] = {}

        def work(number: int) -> None:
            # What runs on the node that goes would never end by itself, however late it goes.
            doomed = episodes[number]._place[0].key[0] == victim.node_id
            code = f"import time\ntime.sleep({100 if doomed else 3})\nprint(image_clue_0.size)"
            try:
                outcomes[number] = episodes[number].run(code).text
            except SandboxLostError as error:
                outcomes[number] = error

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        nodes.kill(hosts[0])
        for thread in threads:
            thread.join(120)
        lost = [outcome for outcome in outcomes.values() if isinstance(outcome, SandboxLostError)]
        assert len(lost) == 2, outcomes
        assert [outcome for outcome in outcomes.values() if outcome not in lost] == ["(120, 80)\n"] * 2
        assert all(victim.name in str(error) and "has no result" in str(error) for error in lost)
        later = [sandbox.open(images=[plain(RED)]) for _ in range(2)]
        assert [episode.run("image_clue_0.size").text for episode in later] == ["(120, 80)\n"] * 2
        assert {node.node_id for node in sandbox.nodes} == {hosts[1].node_id}
        assert wait_until(lambda: ended(left_behind)), "its workers outlive the node"
        joined = nodes.add("victim")
        assert wait_until(lambda: {node.node_id for node in sandbox.nodes} == {hosts[1].node_id, joined.node_id})
        with sandbox.open() as episode:
            assert episode.run("1").text == "1\n"
            assert [node.episodes for node in sandbox.nodes if node.node_id == joined.node_id] == [1]
    nodes.kill(hosts[1])
    nodes.kill(joined)


@pytest.fixture
def joined(nodes: Nodes) -> Iterator[None]:
    """The program itself joins the cluster, so that a test can look at it."""
    ray.init(address=nodes.address, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("joined")
def test_closing_ends_running_steps_and_leaves_no_actor_process_or_object(nodes: Nodes) -> None:
    sandbox = nodes.sandbox("pair", limits=Limits(code_timeout_s=120))
    assert wait_until(lambda: len(sandbox.start().nodes) == 2)
    episode = sandbox.open(images=[plain(RED, 1200, 900)])
    assert wait_until(lambda: stored_bytes() > 0)
    processes = [psutil.Process(node.pid) for node in sandbox.nodes]
    processes += [each for node in sandbox.nodes for each in zygotes(node.pid)]
    assert len(processes) >= 4
    caught: list[Exception] = []

    def run() -> None:
        try:
            episode.run("import time; time.sleep(100)")
        except SandboxClosedError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: bool(caught), 0.5)
    sandbox.close()
    sandbox.close()
    thread.join(120)
    assert [str(error) for error in caught] == ["this sandbox is closed; make a new one"]
    for use in (sandbox.open, sandbox.start, lambda: episode.run("1")):
        with pytest.raises(SandboxClosedError):
            use()
    episode.close()
    assert wait_until(lambda: ended(processes)), processes
    assert wait_until(lambda: stored_bytes() == 0)
    assert ray.is_initialized(), "who had joined the cluster before stays in it"


def stored_bytes() -> float:
    """What the object stores of the living nodes hold; differences of free memory would count nodes that died."""
    return ray.cluster_resources()["object_store_memory"] - ray.available_resources()["object_store_memory"]


CLIENT = """
import sys
from pyvision_env.cli.app import app
from pyvision_env.config import Limits
from pyvision_env.sandbox import make_sandbox
cluster = {"address": sys.argv[1], "node_kind": sys.argv[2], "cpus": 0, "resource": "pair"}
limits = Limits(code_timeout_s=600)
sandbox = make_sandbox("ray", limits=limits, containers=1, episodes_per_container=3, cluster=cluster)
while len(sandbox.start().nodes) < 2:
    pass
idle, busy = sandbox.open(), sandbox.open()
print("actors", *(node.pid for node in sandbox.nodes), flush=True)
busy.run("sum(range(10**13))")
"""


@pytest.mark.parametrize("kind", ["local", pytest.param("docker", marks=pytest.mark.docker)])
def test_a_killed_driver_leaves_no_actor_worker_or_container(
    kind: str, nodes: Nodes, request: pytest.FixtureRequest
) -> None:
    if kind == "docker":
        request.getfixturevalue("sandbox_image")
    command = [sys.executable, "-c", CLIENT, nodes.address, kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        # Ray tells of other nodes on the same stream.
        told = next(line for line in client.stdout if line.startswith(b"actors "))
        actors = [int(pid) for pid in told.split()[1:]]
        family = [psutil.Process(pid) for pid in actors]
        family += [each for pid in actors for each in zygotes(pid)]
        assert len(family) >= (4 if kind == "local" else 2)
        if kind == "docker":
            engine = request.getfixturevalue("docker_client")
            assert all(containers(engine, pid) for pid in actors)
        client.kill()
    assert wait_until(lambda: ended(family)), family
    if kind == "docker":
        assert wait_until(lambda: not any(containers(engine, pid) for pid in actors))


def test_without_a_cluster_the_error_says_how_to_get_one() -> None:
    with make_sandbox("ray", cluster={"address": "127.0.0.1:1"}) as sandbox:
        for use in (sandbox.start, sandbox.open):
            with pytest.raises(SandboxUnavailableError, match=r"no Ray cluster can be joined .*`ray start --head`"):
                use()


def test_the_doctor_tries_the_cluster_when_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    result = CliRunner().invoke(app, ["doctor", "--sandbox", "ray"])
    assert result.exit_code == 3
    assert "sandbox ray" in result.output and "name a cluster in RAY_ADDRESS" in result.output


def test_where_no_node_fits_the_error_says_what_an_actor_claims(nodes: Nodes) -> None:
    with nodes.sandbox("elsewhere", start_timeout_s=2, open_timeout_s=2, limits=SHORT) as sandbox:
        for use in (sandbox.start, sandbox.open):
            with pytest.raises(SandboxStartError, match=r"0 of them with what an actor claims \(0 CPU\(s\), the resou"):
                use()


def test_where_a_nodes_sandbox_cannot_start_its_reason_is_told(nodes: Nodes) -> None:
    options = nodes.config("pair", image="pyvision-no-such-image")
    options["cluster"]["node_kind"] = "docker"
    said = r"the sandbox actor on node .* cannot be used: .*pyvision-env (doctor|sandbox build)"
    with make_sandbox(options) as sandbox, pytest.raises(SandboxError, match=said):
        sandbox.open()
