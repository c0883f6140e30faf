"""Every attack meets every kind of sandbox, and every time a neighbour must come out of it unharmed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from pyvision_env.sandbox import Episode, Sandbox

GREY = np.full((60, 80, 3), 128, np.uint8)
KINDS = [
    "local",
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("docker-strict", marks=pytest.mark.docker),
]


@pytest.fixture(params=KINDS)
def sandbox(request: pytest.FixtureRequest, sandbox_of: Callable[[str], Sandbox]) -> Sandbox:
    return sandbox_of(request.param)


@pytest.fixture(scope="session")
def neighbours() -> Iterator[dict[Sandbox, Episode]]:
    opened: dict[Sandbox, Episode] = {}
    yield opened
    for episode in opened.values():
        episode.close()


@pytest.fixture(autouse=True)
def neighbour(sandbox: Sandbox, neighbours: dict[Sandbox, Episode]) -> Iterator[Episode]:
    """An episode that lives next to all attackers (same worker, but for strict) and must not notice them."""
    if sandbox not in neighbours:
        episode = neighbours[sandbox] = sandbox.open(images=[GREY])
        episode.run(
            "secret = 'untouched'; import os; open('diary.txt', 'w').write('dear diary'); os.environ['KEY'] = 'k'"
        )
    episode = neighbours[sandbox]
    yield episode
    result = episode.run("print(secret, open('diary.txt').read(), image_clue_0.getpixel((3, 3)))", timeout=10)
    if result.state_lost:
        del neighbours[sandbox]
        episode.close()
    assert result.text == "untouched dear diary (128, 128, 128)\n", f"the neighbour was harmed: {result}"


@pytest.fixture
def attacker(sandbox: Sandbox, neighbour: Episode) -> Iterator[Episode]:
    del neighbour
    with sandbox.open(images=[GREY]) as episode:
        yield episode
