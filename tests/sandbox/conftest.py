from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pyvision_env.config import Limits
from pyvision_env.sandbox import Episode, Sandbox, make_sandbox


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def sandbox(request: pytest.FixtureRequest, sandbox_of: Callable[[str], Sandbox]) -> Sandbox:
    return sandbox_of(request.param)


@pytest.fixture
def episode(sandbox: Sandbox) -> Iterator[Episode]:
    with sandbox.open() as opened:
        yield opened


@pytest.fixture(scope="session")
def patient_sandbox() -> Iterator[Sandbox]:
    """One that waits long for interrupted code to answer, so that its state is lost by no busy machine."""
    with make_sandbox("local", limits=Limits(code_timeout_s=30, kill_grace_s=30), containers=1) as sandbox:
        yield sandbox


@pytest.fixture
def patient(patient_sandbox: Sandbox) -> Iterator[Episode]:
    with patient_sandbox.open() as opened:
        yield opened


@pytest.fixture(scope="session")
def single() -> Iterator[Sandbox]:
    """One worker with one slot."""
    with make_sandbox(
        "local",
        limits=Limits(code_timeout_s=5, kill_grace_s=1),
        containers=1,
        episodes_per_container=1,
        open_timeout_s=20,
    ) as sandbox:
        yield sandbox.start()
