"""One cluster for the tests of this folder, with two nodes and a sandbox over them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Read when Ray is imported: without it Ray looks for a cluster on the loopback device at another address.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

from cluster.nodes import Nodes, cluster, wait_until
from pyvision_env.sandbox import SandboxLike


@pytest.fixture(scope="package")
def nodes() -> Iterator[Nodes]:
    with cluster() as started:
        started.add("pair")
        started.add("pair")
        yield started


@pytest.fixture(scope="package")
def pair(nodes: Nodes) -> Iterator[SandboxLike]:
    """A sandbox on two nodes with four slots each."""
    with nodes.sandbox("pair") as sandbox:
        assert wait_until(lambda: len(sandbox.start().nodes) == 2)
        yield sandbox
