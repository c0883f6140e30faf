"""Local workers: the same zygote and confinement without a container around them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import IO

from pyvision_env.config import SandboxConfig
from pyvision_env.errors import SandboxError, SandboxStartError, SandboxUnavailableError
from pyvision_env.sandbox.link import WorkerLink
from pyvision_env.sandbox.memory_groups import MemoryGroupError, MemoryGroups, beside_this_process

_log = logging.getLogger(__name__)
_PACKAGE = Path(__file__).parent.parent
_WORKER = _PACKAGE / "sandbox" / "worker"
_STOP_S = 10.0
_FONTS_S = 300.0
WORKER_ENVIRONMENT = {
    # Without it every thread reserves 128 MiB of the episode's address space.
    "MALLOC_ARENA_MAX": "2",
    # The same code gives the same order of a set in every episode, and again in a replay.
    "PYTHONHASHSEED": "0",
}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class LocalLauncher:
    """Starts zygotes as processes of this machine, in a private root where the host allows one."""

    container = False
    single_use = False
    warm = 0

    def __init__(self, config: SandboxConfig, unconfined: bool) -> None:
        self._config = config
        self._unconfined = unconfined
        self.kind = "local-unconfined" if unconfined else "local"
        self.slots = config.episodes_per_container
        self.workers = config.containers
        self._abandoned = threading.Event()

    def launch(self, on_change: Callable[[], None]) -> WorkerLink:
        """Start one worker process and wait until it greets.

        Raises:
            SandboxUnavailableError: This machine allows no confinement.
            SandboxStartError: The worker did not start in time.
        """
        if sys.platform != "linux":
            raise SandboxUnavailableError(
                f"the local sandbox needs Linux, this is {sys.platform}; use sandbox='docker'"
            )
        scratch = Path(tempfile.gettempdir()) / f"pyvision-{uuid.uuid4().hex}"
        fonts = _font_cache()
        # Fonts are looked through once a machine, however long that takes: no worker is late for it.
        deadline = time.monotonic() + self._config.start_timeout_s
        groups, refusal = self._memory_groups()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        options = {
            "python": sys.executable,
            "main": str(_WORKER / "main.py"),
            "binds": _binds(fonts),
            "hidden": _hidden(),
            "slots": self.slots,
            "disk_mb": self._config.disk_mb,
            "scratch": str(scratch),
            "control": theirs.fileno(),
            "unconfined": self._unconfined,
            "environment": _environment(fonts),
            "groups": None if groups is None else str(groups.path),
        }
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        try:
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-I", str(_WORKER / "local_root.py"), json.dumps(options)],
                    stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, close_fds=True,
                    pass_fds=[theirs.fileno()], start_new_session=True, cwd="/",
                )  # fmt: skip
        except OSError as error:
            ours.close()
            errors.close()
            if groups is not None:
                groups.remove()
            raise SandboxStartError(f"the local worker could not be started: {error}") from None

        def stop() -> None:
            _await_end(process)
            errors.close()
            # The worker takes its scratch directory and groups along unless it is killed.
            shutil.rmtree(scratch, ignore_errors=True)
            if groups is not None:
                groups.remove()

        link = WorkerLink(ours, stop, f"local worker {process.pid}", on_change)
        try:
            link.greet(deadline, self._abandoned)
            if groups is None:
                link.notes = (f"{refusal}: a watchdog and process limits bound the memory of each episode",)
            else:
                link.grant(groups)
        except SandboxError as error:
            said = _tail(errors)
            link.close(wait=True)
            hint = "; name sandbox='local-unconfined' to run without isolation, or use Docker"
            wanted = hint if isinstance(error, SandboxUnavailableError) else ""
            raise type(error)(f"{error}{wanted}" + (f"; it said: {said}" if said else "")) from None
        return link

    def abandon(self) -> None:
        """Have launches in progress give up; further ones do so at once."""
        self._abandoned.set()

    def close(self) -> None:
        """Nothing is held between launches."""

    def _memory_groups(self) -> tuple[MemoryGroups | None, str]:
        """Groups for a worker's slots, or why there are none."""
        if self._unconfined:
            return None, "unconfined code could leave a control group"
        try:
            return beside_this_process(self.slots, self._config.container_memory_mb << 20), ""
        except MemoryGroupError as error:
            return None, str(error)


def _binds(fonts: Path) -> list[str]:
    """What the private root keeps of the host: the interpreter, system libraries, fonts, the worker."""
    system = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/fonts", "/etc/localtime"]
    interpreter = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    wanted = [*system, *sorted(interpreter), str(_WORKER), str(fonts)]
    # A path through a link is found under its real name too.
    return list(dict.fromkeys([*wanted, *(os.path.realpath(path) for path in wanted)]))


def _hidden() -> list[str]:
    """The packages of this project: an installed one brings along the answers of the demo's tasks."""
    packages = [_PACKAGE, _PACKAGE.with_name("pyvision_train")]
    return list(dict.fromkeys(name for package in packages for name in (str(package), os.path.realpath(package))))


def _environment(fonts: Path) -> dict[str, str]:
    """A clean one: what stands in it can be read by model-written code."""
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "MPLCONFIGDIR": str(fonts), "MPLBACKEND": "Agg"}
    return environment | dict.fromkeys(_THREADS, "1") | WORKER_ENVIRONMENT


def _font_cache() -> Path:
    """A directory with matplotlib's font list, made once; holds nothing of the user's own configuration."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyvision-rl"
    try:
        base.mkdir(parents=True, exist_ok=True)
        probe = base / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError:
        base = Path(tempfile.gettempdir()) / f"pyvision-rl-{os.getuid()}"
    # Every version looks for a list of its own format.
    directory = base / f"matplotlib-{metadata.version('matplotlib')}"
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    if not any(directory.glob("fontlist-*.json")):
        command = [sys.executable, "-I", "-c", "import matplotlib.font_manager"]
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(directory), "MPLCONFIGDIR": str(directory)}
        try:
            subprocess.run(command, env=environment, check=False, capture_output=True, timeout=_FONTS_S)
        except subprocess.TimeoutExpired:
            raise SandboxStartError(
                f"matplotlib did not list this machine's fonts within {_FONTS_S:g} s; run once by hand: "
                f"MPLCONFIGDIR={directory} {sys.executable} -c 'import matplotlib.font_manager'"
            ) from None
    return directory


def _await_end(process: subprocess.Popen[bytes]) -> None:
    """The worker ends by itself when its control socket closes; kill it if it does not."""
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        _log.warning("local worker %d did not end by itself and is killed", process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def _tail(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", "replace").strip()[-800:]
