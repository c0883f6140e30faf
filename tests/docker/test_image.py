"""The sandbox image on a real engine: what it holds, who runs in it, and that a wrong one is told apart."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import socket
from collections.abc import Iterator
from typing import Any

import docker
import docker.errors
import pytest

from pyvision_env.errors import SandboxImageError, SandboxUnavailableError
from pyvision_env.sandbox.image import RECIPE_LABEL, WORKER_LABEL, ImageInfo, build_image, check_image, worker_digest
from pyvision_env.sandbox.image_base import find_base, pull

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]
MODULES = ["numpy", "PIL", "matplotlib", "scipy", "skimage", "sklearn", "cv2", "av", "msgspec", "pandas", "sympy"]


def run(client: docker.DockerClient, image: ImageInfo, code: str, **options: Any) -> Any:
    """What ``code`` prints as JSON in a container as bare as the sandbox's own."""
    output = client.containers.run(
        image.id,
        ["-I", "-c", code],
        entrypoint="/opt/venv/bin/python",
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        tmpfs={"/tmp": "size=64m"},
        remove=True,
        **options,
    )
    return json.loads(output.decode().splitlines()[-1])


@pytest.fixture
def tagged(docker_client: docker.DockerClient, sandbox_image: ImageInfo) -> Iterator[Any]:
    """Make an image from lines of a Dockerfile on top of the sandbox image; it is removed afterwards."""
    name = "pyvision-sandbox-test:wrong"

    def make(*lines: str) -> str:
        text = "\n".join([f"FROM {sandbox_image.name}", *lines]).encode()
        docker_client.images.build(fileobj=io.BytesIO(text), tag=name, rm=True)
        return name

    yield make
    with contextlib.suppress(docker.errors.ImageNotFound):
        docker_client.images.remove(name, force=True)


def test_image_carries_the_digests_of_worker_and_recipe(
    docker_client: docker.DockerClient, sandbox_image: ImageInfo
) -> None:
    labels = docker_client.images.get(sandbox_image.id).labels
    assert labels[WORKER_LABEL] == worker_digest()
    assert labels[RECIPE_LABEL] == sandbox_image.recipe
    assert sandbox_image.size_bytes < 900e6


def test_image_names_no_index_proxy_or_certificate_in_its_history(
    docker_client: docker.DockerClient, sandbox_image: ImageInfo
) -> None:
    image = docker_client.images.get(sandbox_image.id)
    written = json.dumps([image.attrs["Config"], image.history()])
    assert not any(word in written for word in ("INDEX_URL", "index-url", "PIP_", "build-ca", "_proxy", "_PROXY"))
    found = "import json, pathlib; print(json.dumps([str(p) for p in pathlib.Path('/opt').rglob('build-ca*')]))"
    assert run(docker_client, sandbox_image, found) == []


def test_every_package_imports_without_network_as_an_unprivileged_user(
    docker_client: docker.DockerClient, sandbox_image: ImageInfo
) -> None:
    code = f"""
import importlib, json, os
for name in {MODULES!r}:
    importlib.import_module(name)
print(json.dumps([os.getuid(), os.getgid(), importlib.util.find_spec("pip") is None]))
"""
    assert run(docker_client, sandbox_image, code) == [10001, 10001, True]


def test_worker_in_the_image_is_readable_and_cannot_be_changed_by_its_user(
    docker_client: docker.DockerClient, sandbox_image: ImageInfo
) -> None:
    code = """
import json, os, pathlib
root = pathlib.Path("/opt/pyvision/worker")
files = [path for path in root.rglob("*") if path.is_file()]
writable = [str(p) for top in (root, pathlib.Path("/opt/venv")) for p in top.rglob("*") if os.access(p, os.W_OK)]
print(json.dumps([len(files), all(os.access(path, os.R_OK) for path in files), writable]))
"""
    count, readable, writable = run(docker_client, sandbox_image, code)
    assert count > 5
    assert readable
    # Links report their target's mode; a read-only root would hide a wrong owner, so this says who owns what.
    assert writable == []
    owners = "import json, os; print(json.dumps(os.stat('/opt/pyvision/worker/main.py').st_uid))"
    assert run(docker_client, sandbox_image, owners) == 0


def test_font_list_is_baked_in(docker_client: docker.DockerClient, sandbox_image: ImageInfo) -> None:
    code = "import json, os; print(json.dumps(os.listdir(os.environ['MPLCONFIGDIR'])))"
    assert any(name.startswith("fontlist") for name in run(docker_client, sandbox_image, code))


def test_second_build_is_quick_and_gives_the_same_image(
    docker_client: docker.DockerClient, sandbox_image: ImageInfo
) -> None:
    first = build_image(client=docker_client)
    log: list[str] = []
    assert build_image(client=docker_client, progress=log.append).id == first.id
    steps = [line.partition(" : ")[2] for line in log if line.startswith("Step ")]
    # The stages' bases, and the argument that names them, have nothing to be cached.
    begun = sum(step.startswith(("FROM ", "ARG BASE_IMAGE")) for step in steps)
    assert len(steps) > begun, log
    assert sum("Using cache" in line for line in log) == len(steps) - begun, log


def test_check_passes_for_an_image_extended_by_its_user(docker_client: docker.DockerClient, tagged: Any) -> None:
    assert check_image(docker_client, tagged("ENV MINE=1")).worker == worker_digest()


def test_check_tells_another_worker_apart(docker_client: docker.DockerClient, tagged: Any) -> None:
    name = tagged(f"LABEL {WORKER_LABEL}=0123456789abcdef")
    with pytest.raises(SandboxImageError, match=r"holds worker 0123456789ab, this package has worker .* sandbox build"):
        check_image(docker_client, name)


def test_check_names_the_command_when_the_image_is_missing(docker_client: docker.DockerClient) -> None:
    with pytest.raises(SandboxImageError, match=r"no image no-such-sandbox.*pyvision-env sandbox build"):
        check_image(docker_client, "no-such-sandbox")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_check_says_when_no_engine_answers() -> None:
    client = docker.DockerClient(base_url="unix:///nonexistent/docker.sock", version="1.41")
    with pytest.raises(SandboxUnavailableError, match="did not answer"):
        check_image(client)
    client.close()
    gc.collect()  # the SDK leaves the socket open that it could not connect; let it go here, where that is ignored


def test_failing_build_tells_the_end_of_its_log(docker_client: docker.DockerClient, sandbox_image: ImageInfo) -> None:
    with pytest.raises(SandboxImageError, match="no such option: --no-such-option"):
        build_image("pyvision-sandbox-test:failing", extra_packages=["--no-such-option"], client=docker_client)


def test_pull_gives_up_on_a_registry_that_does_not_answer(docker_client: docker.DockerClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        name = f"127.0.0.1:{silent.getsockname()[1]}/nothing:1"
        reason = pull(docker_client, name, lambda _line: None, stall_s=1.0)
    assert reason == "the registry did not answer for 1 s"


def test_base_that_cannot_be_had_is_named(docker_client: docker.DockerClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        name = f"127.0.0.1:{closed.getsockname()[1]}/nothing:1"
    with pytest.raises(SandboxImageError, match=f"{name} is not on this engine and cannot be pulled"):
        find_base(docker_client, name, lambda _line: None)
