"""The chaos benchmark, shorter: things are killed at random moments, and nothing is lost, mixed up or left over."""

from __future__ import annotations

import pytest
from chaos import KINDS, chaos


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "episodes"), [("local", 48), pytest.param("docker", 48, marks=[pytest.mark.docker])])
def test_whatever_is_killed_every_episode_ends_with_its_own_output_or_a_typed_error(
    kind: str, episodes: int, request: pytest.FixtureRequest
) -> None:
    if kind == "docker":
        request.getfixturevalue("sandbox_image")
    result = chaos(kind, episodes, seed=1, every=12, options={"container_memory_mb": 3072})
    assert result.untyped == []
    assert result.wrong == []
    assert result.lost == []
    assert result.left == []
    assert result.ok == episodes
    assert set(result.kills) <= set(KINDS)
    assert sum(result.kills.values()) >= 2
    assert result.kills["client"] == len(result.ended_s) >= 1
