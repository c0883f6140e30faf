"""How a sandbox begins and ends: late starts, wrong options, closing, forking, dying workers and clients."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import docker
import numpy as np
import psutil
import pytest
from workers import is_running, local_workers, names_below, ours, wait_until

from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.errors import (
    ConfigError,
    SandboxClosedError,
    SandboxImageError,
    SandboxLostError,
    SandboxStartError,
    SandboxUnavailableError,
)
from pyvision_env.sandbox import Sandbox, make_sandbox, shared_sandbox

SHORT = Limits(code_timeout_s=20, kill_grace_s=1)
GREY = np.full((60, 80, 3), 128, np.uint8)


def test_nothing_starts_before_the_first_use(tmp_path: Path) -> None:
    before = set(local_workers())
    sandbox = make_sandbox("local", containers=1)
    assert sandbox.kind == "local"
    assert set(local_workers()) == before
    sandbox.close()
    with pytest.raises(SandboxClosedError):
        sandbox.open()


def test_closing_is_idempotent_and_final(single: Sandbox) -> None:
    episode = single.open()
    episode.close()
    episode.close()
    with pytest.raises(SandboxClosedError, match="this episode is closed"):
        episode.run("1")
    with pytest.raises(SandboxClosedError):
        episode.frames(0, indices=[0])


def test_closing_the_sandbox_ends_running_steps_with_a_clear_error() -> None:
    before = set(local_workers())
    sandbox = make_sandbox("local", limits=Limits(code_timeout_s=60), containers=1)
    episode = sandbox.open()
    caught: list[Exception] = []

    def run() -> None:
        try:
            episode.run("import subprocess; subprocess.run(['sleep', '500'])", timeout=600)
        except SandboxClosedError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    (worker,) = set(local_workers()) - before
    assert wait_until(lambda: "sleep" in names_below(worker), 60)
    sandbox.close()
    sandbox.close()
    thread.join(60)
    assert not thread.is_alive()
    assert [str(error) for error in caught] == ["this sandbox is closed; make a new one"]
    with pytest.raises(SandboxClosedError, match="this sandbox is closed"):
        episode.run("1")
    episode.close()


def test_a_forked_child_gets_an_error_and_its_parent_keeps_its_runtimes(sandbox: Sandbox) -> None:
    with sandbox.open() as episode:
        episode.run("x = 'parent'")
        pid = os.fork()
        if pid == 0:
            wrong = 0
            for use in (lambda: episode.run("x = 'child'"), sandbox.open, sandbox.start):
                try:
                    use()
                    wrong += 1
                except SandboxClosedError as error:
                    wrong += "after the fork" not in str(error)
            episode.close()
            sandbox.close()
            os._exit(wrong)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert episode.run("x").text == "'parent'\n"
        with sandbox.open() as another:
            assert another.run("1").text == "1\n"


def test_a_worker_that_was_killed_is_an_infrastructure_error_and_is_replaced() -> None:
    with make_sandbox("local", limits=SHORT, containers=1) as sandbox:
        before = set(local_workers())
        running, idle = sandbox.open(), sandbox.open()
        (worker,) = set(local_workers()) - before
        (zygote,) = worker.children()
        threading.Timer(0.5, zygote.kill).start()
        began = time.monotonic()
        with pytest.raises(SandboxLostError, match="died while the episode was running; its last step has no result"):
            running.run("import time; time.sleep(100)", timeout=120)
        assert time.monotonic() - began < 60
        with pytest.raises(SandboxLostError):
            idle.run("1")
        with sandbox.open() as fresh:
            assert fresh.run("2").text == "2\n"
        assert idle.run("3").text == "3\n", "after the report the same episode may go on afresh"


def test_a_worker_that_comes_late_to_a_dead_runtime_still_tells_its_cause() -> None:
    with make_sandbox("local", limits=SHORT, containers=1) as sandbox:
        before = set(local_workers())
        episode = sandbox.open()
        (worker,) = set(local_workers()) - before
        (zygote,) = worker.children()
        zygote.suspend()
        late = threading.Timer(2, zygote.resume)
        late.start()
        try:
            result = episode.run("import os; os._exit(3)", timeout=120)
        finally:
            late.join()
        assert result.error == "RuntimeLost: the Python runtime ended (exit code 3)"


def test_a_killed_worker_is_noticed_before_its_launcher_has_noticed() -> None:
    with make_sandbox("local", limits=SHORT, containers=1) as sandbox:
        before = set(local_workers())
        episode = sandbox.open()
        (worker,) = set(local_workers()) - before
        (zygote,) = worker.children()
        worker.suspend()
        try:
            threading.Timer(0.5, zygote.kill).start()
            with pytest.raises(SandboxLostError, match="died while the episode was running"):
                episode.run("import time; time.sleep(100)", timeout=120)
        finally:
            worker.resume()


@pytest.mark.docker
@pytest.mark.usefixtures("sandbox_image")
@pytest.mark.parametrize("kind", ["docker", "docker-strict"])
def test_a_container_that_was_killed_is_an_infrastructure_error_and_is_replaced(
    kind: str, docker_client: docker.DockerClient
) -> None:
    with make_sandbox(kind, limits=SHORT, containers=1, warm=0, episodes_per_container=2) as sandbox:
        episode = sandbox.open()
        name = sandbox._links[0].name.removeprefix("container ")
        threading.Timer(0.5, docker_client.containers.get(name).kill).start()
        with pytest.raises(SandboxLostError, match=f"container {name} died while the episode was running"):
            episode.run("import time; time.sleep(100)", timeout=120)
        with sandbox.open() as fresh:
            assert fresh.run("2").text == "2\n"
            names = {name, *(link.name.removeprefix("container ") for link in sandbox._links)}
            assert len(names) >= 2
    assert wait_until(lambda: not names & ours(docker_client), 90)


CLIENT = """
import sys
from pyvision_env.config import Limits
from pyvision_env.sandbox import make_sandbox
sandbox = make_sandbox(sys.argv[1], limits=Limits(code_timeout_s=600), containers=1, episodes_per_container=3)
idle, busy = sandbox.open(), sandbox.open()
idle.run("import os, time\\nif os.fork() == 0:\\n    time.sleep(600)")
print("ready", flush=True)
busy.run("sum(range(10**13))")
"""


@pytest.mark.parametrize("kind", ["local", pytest.param("docker", marks=pytest.mark.docker)])
def test_a_killed_client_leaves_no_process_container_or_file(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    engine = None
    if kind == "docker":
        request.getfixturevalue("sandbox_image")
        engine = request.getfixturevalue("docker_client")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", CLIENT, kind], stdout=subprocess.PIPE, env=environment) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        time.sleep(0.3)
        family = psutil.Process(client.pid).children(recursive=True)
        assert engine is not None or len(family) >= 4
        client.kill()
    if engine is not None:
        assert wait_until(lambda: not ours(engine, client.pid), 90), ours(engine, client.pid)
    assert wait_until(lambda: not any(is_running(process) for process in family), 60), family
    assert wait_until(lambda: not list(tmp_path.iterdir()), 60)


def test_a_worker_that_hangs_does_not_hold_the_client_beyond_its_deadline() -> None:
    with make_sandbox("local", limits=SHORT, containers=1, open_timeout_s=10) as sandbox:
        before = set(local_workers())
        running = sandbox.start().open()
        (worker,) = set(local_workers()) - before
        (zygote,) = worker.children()
        zygote.suspend()
        try:
            began = time.monotonic()
            with pytest.raises(SandboxStartError, match="an episode did not become ready"):
                sandbox.open()
            assert time.monotonic() - began < 60
            assert running.run("'goes on'").text == "'goes on'\n"
        finally:
            zygote.resume()


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("podman", {}, "kind"),
        ("local", {"containerz": 2}, "containerz"),
        ("local", {"containers": 0}, "containers"),
        ({"kind": "local", "memory_mb": "much"}, {}, "memory_mb"),
    ],
)
def test_a_wrong_option_is_a_config_error_that_names_it(kind: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        make_sandbox(kind, **options)
    assert "Its fields are: kind, image," in str(caught.value)


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize("kind", ["docker", "docker-strict"])
def test_without_an_engine_the_error_says_what_to_do(kind: str) -> None:
    with make_sandbox(kind) as sandbox, pytest.raises(SandboxUnavailableError) as caught:
        sandbox.open()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("no Docker engine answers (")
    assert "sandbox='local'" in message
    assert "pyvision-env doctor" in message


@pytest.mark.usefixtures("no_engine")
def test_auto_takes_the_local_sandbox_where_no_engine_answers() -> None:
    with make_sandbox("auto") as sandbox:
        assert sandbox.kind == "local"


@pytest.mark.docker
@pytest.mark.usefixtures("docker_client")
def test_a_missing_image_names_the_command_that_builds_it() -> None:
    missing = make_sandbox("docker", image="pyvision-no-such-image")
    with missing as sandbox, pytest.raises(SandboxImageError, match="pyvision-env sandbox build"):
        sandbox.open()


@pytest.mark.docker
@pytest.mark.usefixtures("docker_client")
def test_auto_says_why_it_does_not_use_the_engine(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), make_sandbox("auto", image="pyvision-no-such-image") as sandbox:
        assert sandbox.kind == "local"
    assert "pyvision-env sandbox build" in caplog.text


def test_equal_configurations_share_a_sandbox_until_the_last_holder_lets_go() -> None:
    config = SandboxConfig(kind="local", containers=1)
    one, two = shared_sandbox(config, SHORT), shared_sandbox(config, SHORT)
    other = shared_sandbox(config, Limits())
    assert one.sandbox is two.sandbox
    assert other.sandbox is not one.sandbox
    one.close()
    one.close()
    assert two.sandbox.check_usable() is None
    two.close()
    other.close()
    with pytest.raises(SandboxClosedError):
        two.sandbox.open()


@pytest.mark.docker
def test_a_strict_episode_has_its_container_to_itself_and_takes_it_along(
    sandbox_of: Callable[[str], Sandbox], docker_client: docker.DockerClient
) -> None:
    sandbox = sandbox_of("docker-strict")
    with sandbox.open() as one, sandbox.open() as two:
        assert one.run("import os; os.getcwd().startswith('/s/0/')").text == "True\n"
        assert two.run("import os; os.getcwd().startswith('/s/0/')").text == "True\n"
        names = {link.name.removeprefix("container ") for link in sandbox._links}
        assert len(names) >= 2
        assert names <= ours(docker_client)
    assert wait_until(lambda: len(ours(docker_client) & names) <= len(names) - 2, 90)


def test_workers_are_out_of_reach_of_the_terminals_interrupt(single: Sandbox) -> None:
    with single.open():
        assert all(os.getsid(worker.pid) != os.getsid(0) for worker in local_workers())
