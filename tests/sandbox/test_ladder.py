"""What a sandbox does on hosts that allow less: no user namespaces, no private root, an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import seccomp_tables as tables
from workers import is_running, wait_until

from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.sandbox import Episode, Sandbox
from pyvision_env.sandbox.containers import DockerLauncher

SHORT = Limits(code_timeout_s=20, kill_grace_s=1)
CLIENT = """
import json, os, sys
if sys.argv[1] == 'refuse':
    import pyseccomp
    refused = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    refused.add_rule(pyseccomp.ERRNO(1), 'unshare')
    refused.add_rule(pyseccomp.ERRNO(1), 'clone', pyseccomp.Arg(0, pyseccomp.MASKED_EQ, 0x10000000, 0x10000000))
    refused.load()
from pyvision_env.config import Limits
from pyvision_env.sandbox import make_sandbox
limits = Limits(code_timeout_s=5, kill_grace_s=6)
with make_sandbox('local', limits=limits, containers=1, episodes_per_container=3) as sandbox:
    report = sandbox.isolation
    one, other = sandbox.open(), sandbox.open()
    other.run("open('diary.txt', 'w').write('mine')")
    home = other.run("import os; print(os.getcwd())").text.strip()
    outcome = {
        'rung': report.rung, 'guarantees': report.guarantees, 'notes': report.notes,
        'steps': [one.run(code.replace('HOME', home).replace('PID', str(os.getpid()))).text for code in STEPS],
        'other': other.run("print(open('diary.txt').read())").text,
    }
    print(json.dumps(outcome), flush=True)
    if sys.argv[2:] == ['hang']:
        one.run("import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)\\nwhile True: pass", timeout=600)
"""
STEPS = [
    "x = 6\nprint(x * 7)",
    "import os\nos.fork()",
    "import threading\nt = threading.Thread(target=print, args=('thread',)); t.start(); t.join()",
    "os.kill(PID, 9)",
    "open('HOME/diary.txt').read()",
    "open('/etc/shadow').read()",
    "import socket\nsocket.socket()",
    "while True: pass",
    "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass",
    "open('new.txt', 'w').write('n'); print('fresh')",
]


def client(tmp_path: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    source = CLIENT.replace("STEPS", repr(STEPS))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [*prefix, sys.executable, "-c", source, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def outcome_of(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err.decode()
    outcome: dict[str, Any] = json.loads(out)
    assert outcome["other"] == "mine\n"
    # A hint in brackets may follow the error.
    told = [[line for line in text.splitlines() if line.strip() and line[0] != "["] for text in outcome["steps"]]
    last = [lines[-1] for lines in told]
    assert last[0] == "42"
    assert last[2] == "thread"
    assert last[4].startswith("PermissionError")
    assert last[5].startswith(("PermissionError", "FileNotFoundError"))
    assert last[6] == "PermissionError: [Errno 13] Permission denied"
    assert last[7] == "Timeout: the code ran longer than 5 s and was interrupted; variables are kept"
    assert last[8].startswith("Timeout: the code ran longer than 5 s and could not be interrupted. A fresh runtime")
    assert last[9] == "fresh"
    outcome["last"] = last
    return outcome


def test_without_namespaces_landlock_alone_confines_and_the_report_says_so(tmp_path: Path) -> None:
    outcome = outcome_of(client(tmp_path, "refuse"))
    assert outcome["rung"] == "landlock"
    missing = {name for name, given in outcome["guarantees"].items() if not given}
    assert missing - {"memory"} == {"processes", "disk", "private_root", "container"}
    assert ("memory" in missing) == any("a watchdog and process limits bound" in note for note in outcome["notes"])
    notes = " ".join(outcome["notes"])
    assert "no private root ([Errno 1] unshare: Operation not permitted)" in notes
    assert "user namespaces are refused: code cannot start processes" in notes
    assert outcome["last"][1] == "BlockingIOError: [Errno 11] Resource temporarily unavailable"
    assert outcome["last"][3] == "PermissionError: [Errno 1] Operation not permitted"
    assert list(tmp_path.iterdir()) == []


def test_without_namespaces_a_killed_client_still_leaves_nothing(tmp_path: Path) -> None:
    with client(tmp_path, "refuse", "hang") as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.5)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 3
        assert len(list(tmp_path.iterdir())) == 1
        process.kill()
    assert wait_until(lambda: not any(is_running(p) for p in family), 60), family
    assert wait_until(lambda: not list(tmp_path.iterdir()), 60)


def test_an_ordinary_user_gets_the_full_confinement(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    assert unshare is not None, "util-linux is part of every Linux"
    ordinary = (unshare, "--user", "--map-user=1000", "--map-group=1000")
    outcome = outcome_of(client(tmp_path, "allow", prefix=ordinary))
    assert outcome["rung"] == "userns+landlock"
    assert {name for name, given in outcome["guarantees"].items() if not given} - {"memory"} == {"container"}
    assert outcome["last"][3].startswith("ProcessLookupError")


REFUSALS = {
    "unshare": ('"unshare"', '"vhangup"'),
    "clone": (f'"valueTwo": {tables.OWN_NAMESPACES}', '"valueTwo": 33554432'),
}


class Refusing(DockerLauncher):
    """Containers of an engine whose profile refuses one or both ways to user namespaces."""

    def __init__(self, config: SandboxConfig, *refused: str, strict: bool = False) -> None:
        super().__init__(config, strict)
        self._refused = refused

    def _options(self, name: str, directory: Path) -> dict[str, Any]:
        options = super()._options(name, directory)
        security = options["security_opt"]
        for allowed, other in (REFUSALS[call] for call in self._refused):
            assert any(allowed in option for option in security)
            security = [option.replace(allowed, other) for option in security]
        return {**options, "security_opt": security}


@pytest.fixture(scope="module")
def bare(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    request.getfixturevalue("sandbox_image")
    config = SandboxConfig(kind="docker", containers=1, episodes_per_container=4, processes=16)
    with Sandbox(Refusing(config, "unshare", "clone"), config, SHORT) as sandbox:
        yield sandbox


@pytest.mark.docker
@pytest.mark.usefixtures("sandbox_image")
@pytest.mark.parametrize("refused", ["unshare", "clone"])
def test_either_way_to_namespaces_will_do(refused: str) -> None:
    config = SandboxConfig(kind="docker", containers=1, episodes_per_container=2)
    with Sandbox(Refusing(config, refused), config, SHORT) as sandbox, sandbox.open() as episode:
        assert sandbox.isolation.rung == "userns+landlock"
        assert episode.run("import os; print(os.getpid(), os.fork() >= 0)").text.startswith("1 True\n")


@pytest.mark.docker
def test_containers_without_namespaces_confine_by_landlock(bare: Sandbox) -> None:
    assert bare.isolation.rung == "landlock"
    assert bare.isolation.missing == ("processes",)
    with bare.open() as one, bare.open() as other:
        assert one.run("import os; os.fork()").error == "BlockingIOError: [Errno 11] Resource temporarily unavailable"
        assert one.run("os.kill(1, 9)").error == "PermissionError: [Errno 1] Operation not permitted"
        assert other.run("print('alive')").text == "alive\n"


@pytest.mark.docker
def test_threads_of_one_episode_are_not_counted_against_another(bare: Sandbox) -> None:
    """All episodes are one user there; a bound on that user's processes would be a bound on all of them."""
    code = """
import threading
threads = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(12)]
for thread in threads:
    thread.start()
print(len(threads))
"""

    def start(episode: Episode, answers: list[str]) -> None:
        answers.append(episode.run(code).text)

    answers: list[str] = []
    episodes = [bare.open() for _ in range(4)]
    workers = [threading.Thread(target=start, args=(episode, answers)) for episode in episodes]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for episode in episodes:
        episode.close()
    assert answers == ["12\n"] * 4


@pytest.mark.docker
@pytest.mark.usefixtures("sandbox_image")
def test_a_strict_container_without_namespaces_serves_one_episode() -> None:
    config = SandboxConfig(kind="docker-strict", containers=1, episodes_per_container=2, warm=0)
    with Sandbox(Refusing(config, "unshare", "clone", strict=True), config, SHORT) as sandbox:
        assert sandbox.isolation.rung == "landlock"
        with sandbox.open() as episode:
            assert episode.run("print('served')").text == "served\n"


NOTHING = """
import sys
import pyseccomp
from pyvision_env.errors import SandboxUnavailableError
from pyvision_env.sandbox import make_sandbox
refused = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
for name in ('unshare', 'landlock_create_ruleset', 'seccomp'):
    refused.add_rule(pyseccomp.ERRNO(1), name)
refused.add_rule(pyseccomp.ERRNO(1), 'clone', pyseccomp.Arg(0, pyseccomp.MASKED_EQ, 0x10000000, 0x10000000))
refused.add_rule(pyseccomp.ERRNO(1), 'prctl', pyseccomp.Arg(0, pyseccomp.EQ, 22))
refused.load()
with make_sandbox('local', containers=1) as sandbox:
    try:
        sandbox.open()
    except SandboxUnavailableError as error:
        print(error)
with make_sandbox('local-unconfined', containers=1) as sandbox:
    print(sandbox.isolation.rung, any(sandbox.isolation.guarantees.values()))
    with sandbox.open() as episode:
        print(episode.run('6 * 7').text)
"""


def test_with_nothing_to_confine_code_only_the_unconfined_sandbox_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", NOTHING], capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    refusal, unconfined, answer = done.stdout.splitlines()[:3]
    assert "this host allows no confinement of an episode: user namespaces are refused" in refusal
    assert "the kernel offers no Landlock" in refusal
    assert "name sandbox='local-unconfined' to run without isolation, or use Docker" in refusal
    assert unconfined == "none False"
    assert answer == "42"
    assert list(tmp_path.iterdir()) == []
