"""A sandbox as a whole: starting late, waiting one's turn, clean slots, closing, forking, dying workers and clients."""

from __future__ import annotations

import gc
import logging
import os
import resource
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import numpy as np
import psutil
import pytest

from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.errors import (
    ConfigError,
    MediaError,
    SandboxBusyError,
    SandboxClosedError,
    SandboxImageError,
    SandboxLostError,
    SandboxStartError,
    SandboxUnavailableError,
)
from pyvision_env.sandbox import Sandbox, make_sandbox, shared_sandbox
from pyvision_env.sandbox.containers import LABEL

SHORT = Limits(code_timeout_s=5, kill_grace_s=1)
GREY = np.full((60, 80, 3), 128, np.uint8)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def local_workers(client: int | None = None) -> list[psutil.Process]:
    children = psutil.Process(client).children()
    return [
        child for child in children if any("local_root.py" in word or "main.py" in word for word in child.cmdline())
    ]


@pytest.fixture(scope="module")
def single() -> Iterator[Sandbox]:
    """One worker with one slot."""
    with make_sandbox("local", limits=SHORT, containers=1, episodes_per_container=1, open_timeout_s=20) as sandbox:
        yield sandbox.start()


def test_nothing_starts_before_the_first_use(tmp_path: Path) -> None:
    before = set(local_workers())
    sandbox = make_sandbox("local", containers=1)
    assert sandbox.kind == "local"
    assert set(local_workers()) == before
    sandbox.close()
    with pytest.raises(SandboxClosedError):
        sandbox.open()


def test_the_isolation_report_names_what_is_kept_apart(sandbox: Sandbox) -> None:
    report = sandbox.isolation
    assert report.kind == sandbox.kind
    assert report.rung == "userns+landlock"
    assert report.guarantees["container"] == sandbox.kind.startswith("docker")
    given = ("network", "host_files", "other_episodes", "signals", "processes", "syscalls", "disk")
    assert {name: report.guarantees[name] for name in given} == dict.fromkeys(given, True)
    assert {"numpy", "PIL", "matplotlib", "av"} <= set(report.libraries)


def test_an_open_beyond_the_last_slot_is_busy_at_its_deadline_and_then_gets_its_turn() -> None:
    with make_sandbox("local", containers=1, episodes_per_container=1, open_timeout_s=0.5) as sandbox:
        first = sandbox.start().open()
        began = time.monotonic()
        with pytest.raises(SandboxBusyError, match=r"within 0\.5 s: 1 worker\(s\) of 1 slot\(s\) are full"):
            sandbox.open()
        assert 0.4 < time.monotonic() - began < 2
        first.close()
        with sandbox.open() as second:
            assert second.run("1").text == "1\n"


def test_those_who_wait_are_served_in_order(single: Sandbox) -> None:
    served: list[int] = []

    def wait_my_turn(number: int) -> None:
        with single.open():
            served.append(number)

    with single.open():
        threads = [threading.Thread(target=wait_my_turn, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
            time.sleep(0.05)
        assert served == []
    for thread in threads:
        thread.join(20)
    assert served == [0, 1, 2, 3, 4]


def test_many_threads_share_the_slots(sandbox: Sandbox) -> None:
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        with sandbox.open(images=[GREY]) as episode:
            answers[number] = episode.run(f"print({number} ** 2, image_clue_0.size)").text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == {number: f"{number**2} (80, 60)\n" for number in range(20)}


def test_a_slot_is_clean_when_the_next_episode_gets_it(single: Sandbox) -> None:
    with single.open() as first:
        code = """
import os
os.makedirs('a/b/c'); open('a/b/c/secret', 'w').write('s'); open('.hidden', 'w').write('h')
os.mkdir('closed', 0); os.symlink('/etc/passwd', 'link'); np.leak = 'leak'
print(os.listdir('.'))
"""
        assert "secret" not in first.run(code).text
    with single.open() as second:
        code = "import os\nprint(os.listdir('.'), os.path.exists('../a'), hasattr(np, 'leak'))"
        assert second.run(code).text == "[] False False\n"


def test_a_replaced_runtime_gets_its_slot_back_in_time(single: Sandbox) -> None:
    with single.open() as episode:
        for _ in range(5):
            assert episode.run("import os; os._exit(1)").state_lost
        assert episode.run("'alive'").text == "'alive'\n"


def test_a_picture_that_cannot_be_read_takes_no_slot(single: Sandbox, tmp_path: Path) -> None:
    for _ in range(3):
        with pytest.raises(MediaError):
            single.open(images=[tmp_path / "missing.png"])
        with pytest.raises(MediaError):
            single.open(videos=[tmp_path / "missing.mp4"])
        with pytest.raises(MediaError):
            single.open(videos=[b"not a video"])
        with pytest.raises(MediaError):
            single.open(videos=[42])
    with single.open() as episode:
        assert episode.run("1").text == "1\n"


def test_a_video_that_vanishes_is_a_media_error_and_not_a_broken_runtime(single: Sandbox, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(small_clip())
    with single.open(videos=[clip]) as episode:
        assert episode.run("import os; os._exit(1)").state_lost
        clip.rename(tmp_path / "away.mp4")
        with pytest.raises(MediaError, match=r"clip\.mp4"):
            episode.run("1")
        (tmp_path / "away.mp4").rename(clip)
        assert episode.run("len(video_clue_0)").text == "20\n"


def small_clip() -> bytes:
    from samples import clip

    data = clip().data
    assert data is not None
    return data


def test_closing_is_idempotent_and_final(single: Sandbox) -> None:
    episode = single.open()
    episode.close()
    episode.close()
    with pytest.raises(SandboxClosedError, match="this episode is closed"):
        episode.run("1")
    with pytest.raises(SandboxClosedError):
        episode.frames(0, indices=[0])


def test_closing_the_sandbox_ends_running_steps_with_a_clear_error() -> None:
    sandbox = make_sandbox("local", limits=Limits(code_timeout_s=60), containers=1)
    episode = sandbox.open()
    caught: list[Exception] = []

    def run() -> None:
        try:
            episode.run("import time; time.sleep(60)")
        except SandboxClosedError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    sandbox.close()
    sandbox.close()
    thread.join(5)
    assert time.monotonic() - began < 5
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
            running.run("import time; time.sleep(30)")
        assert time.monotonic() - began < 4
        with pytest.raises(SandboxLostError):
            idle.run("1")
        with sandbox.open() as fresh:
            assert fresh.run("2").text == "2\n"
        assert idle.run("3").text == "3\n", "after the report the same episode may go on afresh"


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
            episode.run("import time; time.sleep(30)")
        with sandbox.open() as fresh:
            assert fresh.run("2").text == "2\n"
            names = {name, *(link.name.removeprefix("container ") for link in sandbox._links)}
            assert len(names) >= 2
    assert wait_until(lambda: not names & ours(docker_client), 10)


def ours(client: docker.DockerClient, pid: int | None = None) -> set[str]:
    label = f"{LABEL}={os.getpid() if pid is None else pid}"
    return {
        container.name for container in client.containers.list(all=True, ignore_removed=True, filters={"label": label})
    }


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
        assert wait_until(lambda: not ours(engine, client.pid), 10), ours(engine, client.pid)
    assert wait_until(lambda: not any(process.is_running() for process in family), 5), family
    assert list(tmp_path.iterdir()) == []


def test_descriptors_above_1023_work(single: Sandbox) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2000:
        pytest.skip("this machine allows no descriptor above 1023")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2000, hard))
    taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        with single.open(images=[GREY]) as episode:
            assert episode.run("image_clue_0.size").text == "(80, 60)\n"
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_running_out_of_descriptors_is_an_infrastructure_error_and_passes(single: Sandbox) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for images in ([], [GREY]):
            with pytest.raises(SandboxStartError, match="raise `ulimit -n`"):
                single.open(images=images)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with single.open(images=[GREY]) as episode:
        assert episode.run("image_clue_0.size").text == "(80, 60)\n"


def test_a_worker_that_hangs_does_not_hold_the_client_beyond_its_deadline() -> None:
    with make_sandbox("local", limits=SHORT, containers=1, open_timeout_s=1) as sandbox:
        before = set(local_workers())
        running = sandbox.start().open()
        (worker,) = set(local_workers()) - before
        (zygote,) = worker.children()
        zygote.suspend()
        try:
            began = time.monotonic()
            with pytest.raises(SandboxStartError, match="an episode did not become ready"):
                sandbox.open()
            assert time.monotonic() - began < 4
            assert running.run("'goes on'").text == "'goes on'\n"
        finally:
            zygote.resume()


def test_produced_pictures_hold_no_descriptors(single: Sandbox) -> None:
    with single.open(images=[GREY]) as episode:
        before = psutil.Process().num_fds()
        for _ in range(5):
            assert len(episode.run("for _ in range(4): image_clue_0.show()").images) == 4
        assert psutil.Process().num_fds() == before


def test_an_episode_never_holds_more_pictures_than_a_fresh_runtime_can_be_given(single: Sandbox) -> None:
    with single.open(images=[GREY] * 195) as episode:
        assert len(episode.run("for _ in range(8): image_clue_0.show()").images) == 5
        assert episode.run("image_clue_0.show()").images == ()
        assert episode.run("import os; os._exit(1)").state_lost
        assert episode.run("image_clue_199.size").text == "(80, 60)\n"


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
def no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    yield
    with warnings.catch_warnings():
        # The client library leaves the socket it could not connect to the collector.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


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
        names = {link.name.removeprefix("container ") for link in sandbox._used}
        assert len(names) >= 2
        assert names <= ours(docker_client)
    assert wait_until(lambda: len(ours(docker_client) & names) <= len(names) - 2, 10)


def test_workers_are_out_of_reach_of_the_terminals_interrupt(single: Sandbox) -> None:
    with single.open():
        assert all(os.getsid(worker.pid) != os.getsid(0) for worker in local_workers())
