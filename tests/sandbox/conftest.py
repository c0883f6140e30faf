from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pyvision_env.sandbox import Episode, Sandbox


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def sandbox(request: pytest.FixtureRequest, sandbox_of: Callable[[str], Sandbox]) -> Sandbox:
    return sandbox_of(request.param)


@pytest.fixture
def episode(sandbox: Sandbox) -> Iterator[Episode]:
    with sandbox.open() as opened:
        yield opened
