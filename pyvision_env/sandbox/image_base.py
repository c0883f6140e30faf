"""The image that the sandbox image builds on: from a registry, or made on this host from Debian packages."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pyvision_env.errors import SandboxImageError

if TYPE_CHECKING:
    from docker import DockerClient

REGISTRY_BASE = "python:3.11-slim"
OFFLINE_BASE = "pyvision-sandbox-base:bookworm"

_STALL_S = 40.0
_DEBIAN = "bookworm"
_PACKAGES = "python3,python3-venv,ca-certificates"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Progress = Callable[[str], None]


def find_base(client: DockerClient, wanted: str | None, progress: Progress) -> str:
    """Make sure that the engine has a base image and return its name.

    Args:
        client: The engine.
        wanted: None or ``auto`` (a registry if one answers, else the offline base), ``offline``, or an image name.
        progress: Receives what is being done, a line at a time.

    Raises:
        SandboxImageError: Neither way works, or the named image cannot be had.
    """
    if wanted == "offline":
        return _offline_base(client, progress)
    if wanted not in (None, "auto"):
        if not _present(client, wanted) and (reason := pull(client, wanted, progress)):
            raise SandboxImageError(
                f"The base image {wanted} is not on this engine and cannot be pulled: {reason}. Give another base, or "
                "'offline' to make one from Debian packages."
            )
        return wanted
    # What is there already comes first, so that a rebuild never waits for a registry that does not answer.
    for name in (REGISTRY_BASE, OFFLINE_BASE):
        if _present(client, name):
            return name
    reason = pull(client, REGISTRY_BASE, progress)
    if reason is None:
        return REGISTRY_BASE
    progress(f"{REGISTRY_BASE} cannot be pulled ({reason}); making a base image from Debian packages instead")
    return _offline_base(client, progress)


def pull(client: DockerClient, name: str, progress: Progress, *, stall_s: float = _STALL_S) -> str | None:
    """Pull an image; None if it came, else why not. Gives up when ``stall_s`` seconds pass without a sign of progress.

    The SDK waits for ever on a registry that does not answer, hence the thread that does the waiting.
    """
    import docker.errors
    import requests

    progress(f"pulling {name}")
    messages: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

    def drain() -> None:
        try:
            # Read to its end even after an error: a log left half read keeps the connection open.
            for message in client.api.pull(name, stream=True, decode=True):
                kind = "failed" if "error" in message else "alive"
                messages.put((kind, str(message.get("error") or message.get("status", ""))))
        except (docker.errors.DockerException, requests.RequestException) as error:
            messages.put(("failed", str(getattr(error, "explanation", None) or error)))
        else:
            messages.put(("done", ""))

    threading.Thread(target=drain, name="pyvision-pull", daemon=True).start()
    while True:
        try:
            kind, text = messages.get(timeout=stall_s)
        except queue.Empty:
            return f"the registry did not answer for {stall_s:g} s"
        if kind == "done":
            return None
        if kind == "failed":
            return " ".join(text.split())
        if text.startswith(("Pulling from", "Pull complete", "Status:")):
            progress(text)


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where things that are dear to make are kept between runs (``XDG_CACHE_HOME`` is honoured)."""
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyvision-rl"


def _present(client: DockerClient, name: str) -> bool:
    import docker.errors

    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        return False
    return True


def _offline_base(client: DockerClient, progress: Progress) -> str:
    if _present(client, OFFLINE_BASE):
        return OFFLINE_BASE
    architecture = str(client.version()["Arch"])
    tar = cache_dir() / f"base-{_DEBIAN}-{architecture}.tar"
    if tar.is_file():
        progress(f"using {tar}")
    else:
        make_base_tar(tar, architecture, progress)
    progress(f"importing {tar.name} as {OFFLINE_BASE}")
    repository, tag = OFFLINE_BASE.split(":")
    client.api.import_image(str(tar), repository=repository, tag=tag, changes=[f"ENV {_PATH}", 'CMD ["/bin/bash"]'])
    if not _present(client, OFFLINE_BASE):
        raise SandboxImageError(f"The engine did not import {tar}. Delete that file and build again.")
    return OFFLINE_BASE


def make_base_tar(tar: Path, architecture: str, progress: Progress) -> None:
    """Write a minimal Debian root with Python to ``tar``, or nothing at all.

    Raises:
        SandboxImageError: mmdebstrap is missing or fails, or ``tar`` cannot be written.
    """
    program = shutil.which("mmdebstrap")
    if program is None:
        raise SandboxImageError(
            f"No registry gave {REGISTRY_BASE}, and mmdebstrap, which makes a base image without a registry, is not "
            "installed. Install it (sudo apt-get install mmdebstrap debian-archive-keyring) and build again, or give "
            "a base image that this engine can pull."
        )
    try:
        tar.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=tar.parent, prefix=".base-") as folder:
            half = Path(folder) / tar.name
            command = [program, "--variant=minbase", f"--include={_PACKAGES}", f"--architectures={architecture}"]
            command += [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "info", "locale")]
            command += [_DEBIAN, str(half)]
            progress(f"making {tar} from Debian packages (about a minute)")
            _run(command, progress)
            half.replace(tar)
    except OSError as error:
        raise SandboxImageError(
            f"The base image cannot be kept in {tar.parent}: {error}. Free it up, or set XDG_CACHE_HOME."
        ) from error


def _run(command: list[str], progress: Progress) -> None:
    last: deque[str] = deque(maxlen=12)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            last.append(line.strip())
            if line.startswith("I: "):
                progress(line[3:].strip())
    if process.returncode:
        raise SandboxImageError(
            f"{Path(command[0]).name} ended with status {process.returncode} while making the base image:\n"
            + "\n".join(last)
        )
