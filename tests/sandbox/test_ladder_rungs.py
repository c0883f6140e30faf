"""Every rung of the confinement ladder on kernels that offer less: older Landlock, no user namespaces, no Landlock.

The worker is the real one but for its sight of the kernel: an older Landlock is asked for no more than it offered.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest

from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.errors import SandboxUnavailableError
from pyvision_env.sandbox import Sandbox, local
from pyvision_env.sandbox.containers import DockerLauncher
from pyvision_env.sandbox.local import LocalLauncher
from pyvision_env.sandbox.worker import kernel

SHORT = Limits(code_timeout_s=20, kill_grace_s=2)
WORKER = Path(local.__file__).parent / "worker"
MASK = """

_offered = landlock_abi
_unshare, _clone = unshare, clone


def landlock_abi():
    return min({abi}, _offered())


def unshare(flags):
    if not {namespaces} and flags & CLONE_NEWUSER:
        raise OSError(28, "unshare: No space left on device")  # what user.max_user_namespaces=0 gives
    _unshare(flags)


def clone(flags):
    if not {namespaces} and flags & CLONE_NEWUSER:
        raise OSError(28, "clone: No space left on device")
    return _clone(flags)
"""


def masked(abi: int, namespaces: bool) -> str:
    return (WORKER / "kernel.py").read_text() + MASK.format(abi=abi, namespaces=namespaces)


ATTACKS = """
import os, signal, socket
def attempt(what, use):
    try:
        print('WORKED', what, use())
    except OSError:
        pass
for path in ('HOME/diary.txt', 'HOME', '/s', '/s/0', '/s/1', '/etc/shadow', '/proc/PID/environ', '/proc/PID/mem',
             '/proc/PID/cwd/diary.txt', '/proc/PID/fd', '/proc/1/environ', '/root', '/tmp', '/sys', 'SECRET'):
    attempt('read ' + path, lambda: os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(10))
    attempt('write ' + path, lambda: open(path, 'ab'))
    attempt('make ' + path, lambda: os.mkdir(path + '/planted'))
    attempt('link ' + path, lambda: os.link(path, 'mine'))
    attempt('rename ' + path, lambda: os.rename(path, 'mine'))
    attempt('remove ' + path, lambda: os.remove(path))
if os.readlink('/proc/self') != 'PID':
    attempt('kill', lambda: os.kill(PID, signal.SIGKILL))
if os.getppid():
    attempt('kill the zygote', lambda: os.kill(os.getppid(), signal.SIGKILL))
for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_NETLINK):
    attempt('socket', lambda: socket.socket(family))
attempt('abstract', lambda: socket.socketpair()[0].connect('\\0x'))
attempt('namespaces', lambda: os.unshare(0x10000000) if hasattr(os, 'unshare') else open('/proc/self/uid_map', 'w'))
print('done')
"""


def attack(sandbox: Sandbox, secret: Path, truncation: bool) -> None:
    """Two episodes side by side (one where there is a single slot): neither learns or changes anything of the other."""
    with sandbox.open() as one:
        single = sandbox._launcher.single_use
        other = one if single else sandbox.open()
        lines = "open('diary.txt', 'w').write('mine'); import os; print(os.getcwd(), os.readlink('/proc/self'))"
        home, pid = other.run(lines).text.split()
        code = ATTACKS.replace("HOME", "/s/7" if single else home).replace("PID", pid).replace("SECRET", str(secret))
        if truncation and not single:
            code += f"attempt('truncate', lambda: os.truncate('{home}/diary.txt', 0))\n"
        assert one.run(code).text == "done\n", sandbox.isolation
        assert other.run("print(open('diary.txt').read())").text == "mine\n"
        threads = "import threading\nt = threading.Thread(target=print, args=('t',)); t.start(); t.join()"
        assert one.run(threads).text == "t\n"
        if other is not one:
            other.close()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text("the answer is B")
    return path


@pytest.mark.parametrize(("abi", "namespaces"), [(1, True), (3, True), (5, True), (2, False), (4, False), (6, False)])
def test_each_landlock_keeps_episodes_apart_with_and_without_namespaces(
    abi: int, namespaces: bool, tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel.landlock_abi() < abi:
        pytest.skip(f"this kernel offers Landlock {kernel.landlock_abi()}")
    worker = tmp_path / "worker"
    shutil.copytree(WORKER, worker, ignore=shutil.ignore_patterns("__pycache__"))
    (worker / "kernel.py").write_text(masked(abi, namespaces))
    monkeypatch.setattr(local, "_WORKER", worker)
    config = SandboxConfig(kind="local", containers=1, episodes_per_container=2)
    with Sandbox(LocalLauncher(config, unconfined=False), config, SHORT) as sandbox:
        report = sandbox.isolation
        assert report.rung == ("userns+landlock" if namespaces else "landlock")
        assert report.guarantees["other_episodes"]
        assert report.guarantees["signals"]
        assert report.guarantees["processes"] is namespaces
        # Before Landlock 3 a file whose path is known can be emptied; the paths of others cannot be known.
        attack(sandbox, secret, truncation=abi >= 3)


class Masked(DockerLauncher):
    """Containers whose worker sees less of the kernel."""

    def __init__(self, config: SandboxConfig, strict: bool, kernel_file: Path) -> None:
        super().__init__(config, strict)
        self._kernel_file = kernel_file

    def _options(self, name: str, directory: Path) -> dict[str, Any]:
        options = super()._options(name, directory)
        bind = {"bind": "/opt/pyvision/worker/kernel.py", "mode": "ro"}
        return {**options, "volumes": {**options["volumes"], str(self._kernel_file): bind}}


@pytest.fixture
def container(sandbox_image: Any, tmp_path: Path) -> Callable[..., Sandbox]:
    del sandbox_image

    def make(strict: bool, abi: int, namespaces: bool) -> Sandbox:
        path = tmp_path / "kernel.py"
        path.write_text(masked(abi, namespaces))
        path.chmod(0o644)
        config = SandboxConfig(
            kind="docker-strict" if strict else "docker", containers=1, episodes_per_container=2, warm=0
        )
        return Sandbox(Masked(config, strict, path), config, SHORT)

    return make


def capabilities(sandbox: Sandbox, client: docker.DockerClient) -> set[str]:
    """What the processes of a sandbox's container may do beyond an ordinary user, as the kernel says."""
    names = [link.name.removeprefix("container ") for link in sandbox._links]
    pids = [row[1] for name in names for row in client.containers.get(name).top(ps_args="-eo user,pid")["Processes"]]
    assert pids
    status = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return {line.split()[1] for text in status for line in text.splitlines() if line.startswith("Cap")}


@pytest.mark.docker
@pytest.mark.parametrize(
    ("strict", "abi", "namespaces", "rung"),
    [
        (False, 99, True, "userns+landlock"),
        (False, 1, True, "userns+landlock"),
        (False, 1, False, "landlock"),
        (True, 0, True, "userns"),
        (True, 0, False, "seccomp"),
    ],
)
def test_no_rung_of_a_container_has_or_needs_a_capability(
    container: Callable[..., Sandbox], docker_client: docker.DockerClient, secret: Path,
    strict: bool, abi: int, namespaces: bool, rung: str,
) -> None:  # fmt: skip
    with container(strict, abi, namespaces) as sandbox:
        assert sandbox.isolation.rung == rung
        assert sandbox.isolation.guarantees["other_episodes"]
        if "landlock" in rung:
            assert capabilities(sandbox, docker_client) == {"0" * 16}
            attack(sandbox, secret, truncation=abi >= 3)
            return
        # Alone in its container it may look around there; nothing of anybody else's is in it.
        assert {"processes", "signals"} & set(sandbox.isolation.missing) == (
            set() if namespaces else {"processes", "signals"}
        )
        with sandbox.open() as episode:
            assert capabilities(sandbox, docker_client) == {"0" * 16}
            assert (
                episode.run("import socket; socket.socket()").error == "PermissionError: [Errno 13] Permission denied"
            )
            assert episode.run(f"open('{secret}')").error is not None
            assert episode.run("open('/etc/passwd', 'a')").error is not None
            assert episode.run("import os; print(os.environ.get('DOCKER_HOST'))").text == "None\n"


@pytest.mark.docker
@pytest.mark.parametrize("namespaces", [True, False])
def test_without_landlock_episodes_do_not_share_a_container(
    container: Callable[..., Sandbox], namespaces: bool
) -> None:
    with container(False, 0, namespaces) as sandbox, pytest.raises(SandboxUnavailableError) as caught:
        sandbox.open()
    assert "this host allows no confinement of an episode" in str(caught.value)
    assert "the kernel offers no Landlock" in str(caught.value)


LOCAL = """
from pyvision_env.sandbox import make_sandbox
with make_sandbox('local', containers=1, episodes_per_container=2) as sandbox, sandbox.open() as episode:
    status = episode.run("[line.split()[1] for line in open('/proc/self/status') if line.startswith('Cap')]").text
    print(sandbox.isolation.rung, sorted({*sandbox.isolation.missing} - {'memory'}), set(eval(status)))
"""


def test_the_local_sandbox_does_without_sys_admin(tmp_path: Path) -> None:
    """As in a container whose root may not mount: namespaces of a user's own are enough."""
    setpriv = shutil.which("setpriv")
    assert setpriv is not None, "util-linux is part of every Linux"
    without = [setpriv, "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"] if os.getuid() == 0 else []
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [*without, sys.executable, "-c", LOCAL]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    # Whether memory is bounded is a matter of the host's control groups.
    assert done.stdout == f"userns+landlock ['container'] {{'{'0' * 16}'}}\n"
