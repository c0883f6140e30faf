"""The soak benchmark, shorter: a leak of whatever kind shows."""

from __future__ import annotations

import os

import pytest
from soak import Soak, soak

from pyvision_env.sandbox import make_sandbox

BATCHES = 6


def grown(result: Soak, name: str) -> float:
    """How much more there is after the last batch than after the first."""
    return result.samples[name][-1] - result.samples[name][0]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["local", pytest.param("docker", marks=pytest.mark.docker)])
def test_after_hundreds_of_episodes_nothing_has_grown(kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "docker":
        request.getfixturevalue("sandbox_image")
    with make_sandbox(kind, containers=1, episodes_per_container=8) as sandbox:
        result = soak(sandbox, episodes=120, batches=BATCHES, at_once=4, warm_up=60)
    assert result.wrong == 0
    assert result.changed_counts() == {}
    assert result.samples["worker_processes"][-1] == 1
    assert set(result.samples["slots_tmpfs_kib"]) == {0}
    # A picture is 0.3 MiB here, so that one kept for each episode would be forty.
    assert grown(result, "client_rss_mib") < 15
    assert grown(result, "zygote_pss_mib") < 15


@pytest.mark.timeout(900)
def test_a_leak_of_a_descriptor_or_of_memory_is_seen() -> None:
    """What the test above relies on: the same run with leaks of ours does not pass."""
    hoard: list[bytearray] = []
    descriptors: list[int] = []

    def leak() -> None:
        descriptors.append(os.open("/dev/null", os.O_RDONLY))
        hoard.append(bytearray(b"x") * (1 << 20))

    with make_sandbox("local", containers=1, episodes_per_container=8) as sandbox:
        result = soak(sandbox, episodes=40, batches=2, at_once=4, warm_up=4, after_each=leak)
    for descriptor in descriptors:
        os.close(descriptor)
    assert set(result.changed_counts()) == {"client_descriptors"}
    assert grown(result, "client_rss_mib") > 15
