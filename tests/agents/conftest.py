from __future__ import annotations

from collections.abc import Iterator

import pytest

from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.sandbox import Sandbox, shared_sandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A local sandbox with the time that fetching frames may take on a busy machine."""
    held = shared_sandbox(SandboxConfig(kind="local"), Limits(code_timeout_s=120))
    yield held.sandbox
    held.close()
