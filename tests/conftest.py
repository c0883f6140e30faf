"""Fixtures of several folders: the engine, the sandbox image, and one sandbox of each kind for the whole session."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import docker
import pytest
from hypothesis import HealthCheck, settings

from pyvision_env.config import Limits
from pyvision_env.errors import SandboxImageError, SandboxUnavailableError
from pyvision_env.sandbox import Sandbox, make_sandbox
from pyvision_env.sandbox.containers import connect
from pyvision_env.sandbox.image import DEFAULT_IMAGE, ImageInfo, build_image, check_image, recipe_digest

# No property is about seconds, and a busy machine takes ten times as long.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

# Patient with code that works, for busy machines; a test that waits for a time-out sets its own.
LIMITS = Limits(code_timeout_s=30, kill_grace_s=1)
SMALL: dict[str, dict[str, Any]] = {
    "local": {"containers": 1, "episodes_per_container": 6, "open_timeout_s": 300},
    "docker": {"containers": 1, "episodes_per_container": 6, "container_memory_mb": 3072, "open_timeout_s": 300},
    "docker-strict": {"containers": 1, "episodes_per_container": 4, "warm": 2, "open_timeout_s": 300},
}
BOUNDS = {"memory_mb": 512, "disk_mb": 16, "processes": 32}


def _missing(what: str, reason: str) -> NoReturn:
    """Leave the test out, or fail it where ``PYVISION_TEST_REQUIRE`` names what is missing."""
    if what in os.environ.get("PYVISION_TEST_REQUIRE", "").split(","):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    try:
        client = connect()
    except SandboxUnavailableError as error:
        _missing("docker", f'{error}; start one: eval "$(.ci/engine start)"')
    yield client
    client.close()


@pytest.fixture(scope="session")
def runsc(docker_client: docker.DockerClient) -> str:
    """The name of gVisor's runtime, where the engine offers it."""
    if "runsc" not in docker_client.info()["Runtimes"]:
        _missing("gvisor", "the engine has no runtime runsc: apt-get install runsc before `.ci/engine start`")
    return "runsc"


@pytest.fixture(scope="session")
def sandbox_image(docker_client: docker.DockerClient) -> ImageInfo:
    """The image of this checkout's worker and recipe, built if the engine's is another."""
    try:
        info = check_image(docker_client, DEFAULT_IMAGE)
        if info.recipe == recipe_digest():
            return info
    except SandboxImageError:
        pass
    log: list[str] = []
    try:
        return build_image(DEFAULT_IMAGE, client=docker_client, progress=log.append)
    except SandboxImageError as error:
        pytest.fail("\n".join([*log[-30:], f"the sandbox image cannot be built: {error}"]), pytrace=False)


@pytest.fixture(scope="session")
def sandbox_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Sandbox]]:
    """The session's sandbox of a kind: one worker (strict: a few), small bounds."""
    made: dict[str, Sandbox] = {}

    def get(kind: str) -> Sandbox:
        if kind not in made:
            if kind.startswith("docker"):
                request.getfixturevalue("sandbox_image")
            made[kind] = make_sandbox(kind, limits=LIMITS, **BOUNDS, **SMALL[kind])
        return made[kind]

    yield get
    for sandbox in made.values():
        sandbox.close()
