"""Build the sandbox image and check that an image holds the worker this package speaks to."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyvision_env.errors import SandboxImageError, SandboxUnavailableError
from pyvision_env.sandbox.image_base import find_base
from pyvision_env.sandbox.image_context import (
    RECIPE_FILES,
    WORKER_DIR,
    build_arguments,
    digest,
    names_loopback,
    recipe_dir,
    worker_files,
    write_context,
)

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image

DEFAULT_IMAGE = "pyvision-sandbox"
WORKER_LABEL = "org.pyvision-rl.worker"
RECIPE_LABEL = "org.pyvision-rl.recipe"


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """A sandbox image on the engine.

    Attributes:
        name: The name it was asked for by.
        id: The engine's id of it (``sha256:...``).
        worker: Digest of the worker program inside; empty when the image does not say.
        recipe: Digest of the Dockerfile and requirements it was built from; empty when the image does not say.
        size_bytes: Size on the engine, shared layers included.
    """

    name: str
    id: str
    worker: str
    recipe: str
    size_bytes: int


def worker_digest() -> str:
    """SHA-256 (hex) of the worker program of this package: the names and bytes of all its files."""
    return digest(WORKER_DIR, worker_files())


def recipe_digest() -> str:
    """SHA-256 (hex) of the Dockerfile and the locked requirements of this package."""
    folder = recipe_dir()
    return digest(folder, [folder / name for name in RECIPE_FILES])


def check_image(client: DockerClient, name: str = DEFAULT_IMAGE) -> ImageInfo:
    """Return what the engine knows of image ``name`` if it holds exactly this package's worker.

    Raises:
        SandboxImageError: The image is missing or holds another worker.
        SandboxUnavailableError: The engine does not answer.
    """
    import docker.errors
    import requests

    try:
        image = client.images.get(name)
    except docker.errors.ImageNotFound as error:
        raise SandboxImageError(f"The engine has no image {name}. Build it with: pyvision-env sandbox build") from error
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise SandboxUnavailableError(
            f"The Docker engine did not answer when asked for image {name}: {error}"
        ) from error
    info = _info(name, image)
    ours = worker_digest()
    if info.worker != ours:
        held = f"worker {info.worker[:12]}" if info.worker else "no worker of this package"
        raise SandboxImageError(
            f"The image {name} holds {held}, this package has worker {ours[:12]}. Both must be the same, because they "
            "speak one protocol. Build the image anew with: pyvision-env sandbox build"
        )
    return info


def build_image(
    name: str = DEFAULT_IMAGE,
    *,
    base: str | None = None,
    extra_packages: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _line: None,
    client: DockerClient | None = None,
) -> ImageInfo:
    """Build the sandbox image and return what came of it; a second build with nothing changed takes seconds.

    Args:
        name: Name of the image to make.
        base: None or ``auto`` to pull ``python:3.11-slim`` and fall back to a base made from Debian packages,
            ``offline`` for that base at once, or the name of any image with Python 3.11 and its ``venv``.
        extra_packages: Further pip requirements to install, such as ``shapely==2.1.2``.
        progress: Receives what is being done, a line at a time.
        client: The engine; None for the one that ``DOCKER_HOST`` names or the default.

    Raises:
        SandboxImageError: No base image can be had, or a step of the build failed (the message holds the log's end).
        SandboxUnavailableError: No engine answers.
    """
    import docker
    import docker.errors
    import requests

    own = None
    try:
        if client is None:
            client = own = docker.from_env()
        client.ping()
        return _build(client, name, base, extra_packages, progress)
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise SandboxUnavailableError(
            f"The Docker engine did not answer while building {name}: {error}. Start it, or set DOCKER_HOST."
        ) from error
    finally:
        if own is not None:
            own.close()


def _build(
    client: DockerClient, name: str, base: str | None, extra_packages: Sequence[str], progress: Callable[[str], None]
) -> ImageInfo:
    import docker.errors

    replaced = _image(client, name)
    arguments = build_arguments()
    use_host = names_loopback(arguments) or not _bridge_leads_out(client)
    arguments |= {
        "BASE_IMAGE": find_base(client, base, progress),
        "EXTRA_PACKAGES": " ".join(extra_packages),
        "RECIPE_DIGEST": recipe_digest(),
    }
    with tempfile.TemporaryDirectory(prefix="pyvision-image-") as folder:
        worker = write_context(Path(folder))
        # Of the files that go in, not of those in the package, which somebody may be editing just now.
        arguments["WORKER_DIGEST"] = digest(worker, worker_files(worker))
        progress(f"building {name} on {arguments['BASE_IMAGE']}")
        log = client.api.build(
            path=folder,
            dockerfile="sandbox_image/Dockerfile",
            tag=name,
            buildargs=arguments,
            network_mode="host" if use_host else None,
            rm=True,
            forcerm=True,
            decode=True,
        )
        _follow(name, log, progress)
    info = _info(name, client.images.get(name))
    if replaced is not None and replaced.id != info.id:
        # What an edit of the worker leaves behind; the engine refuses where a container still runs on it.
        with suppress(docker.errors.APIError):
            replaced.reload()
            if not replaced.tags:
                client.images.remove(str(replaced.id))
    return info


def _image(client: DockerClient, name: str) -> Image | None:
    import docker.errors

    try:
        return client.images.get(name)
    except docker.errors.ImageNotFound:
        return None


def _bridge_leads_out(client: DockerClient) -> bool:
    """Whether a build on the engine's default network reaches beyond it; otherwise it has to use the host's network."""
    masquerade = "com.docker.network.bridge.enable_ip_masquerade"
    bridges = [network.attrs for network in client.networks.list(names=["bridge"])]
    return any((attrs.get("Options") or {}).get(masquerade) != "false" for attrs in bridges)


def _follow(name: str, log: Iterable[dict[str, Any]], progress: Callable[[str], None]) -> None:
    last: deque[str] = deque(maxlen=15)
    error = ""
    # Read to its end even after an error: a log left half read keeps the connection open.
    for message in log:
        error = error or str(message.get("error", ""))
        for line in str(message.get("stream", "")).splitlines():
            if line.strip():
                last.append(line.rstrip())
                progress(line.rstrip())
    if error:
        raise SandboxImageError(f"Building {name} failed: {error}\n" + "\n".join(last))


def _info(name: str, image: Image) -> ImageInfo:
    labels = image.labels
    return ImageInfo(
        name=name,
        id=str(image.id),
        worker=labels.get(WORKER_LABEL, ""),
        recipe=labels.get(RECIPE_LABEL, ""),
        size_bytes=int(image.attrs["Size"]),
    )
