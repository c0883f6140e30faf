"""One local sandbox for a module's environments, and a maker of environments that closes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from samples import image_task

from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.env import PyVisionEnv
from pyvision_env.sandbox import Sandbox, shared_sandbox
from pyvision_env.types import Task


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Held for the whole module, so that every environment made with ``sandbox="local"`` shares it."""
    held = shared_sandbox(SandboxConfig(kind="local"), Limits())
    yield held.sandbox
    held.close()


@pytest.fixture
def make(sandbox: Sandbox) -> Iterator[Any]:
    made: list[PyVisionEnv] = []

    def build(*tasks: Task, **keywords: Any) -> PyVisionEnv:
        made.append(PyVisionEnv(tasks or (image_task(),), **{"sandbox": sandbox, **keywords}))
        return made[-1]

    yield build
    for env in made:
        env.close()
