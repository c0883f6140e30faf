"""Code as published models write it runs unchanged and gives what its author expects, in every sandbox alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from corpus import CHECKS, Snippet, load
from media import IMAGES, write_clip

from pyvision_env.protocol import parse
from pyvision_env.sandbox import Sandbox
from pyvision_env.types import RunCode

CORPUS = load(Path(__file__).with_name("corpus"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("compat") / "clip.mp4")


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def sandbox(request: pytest.FixtureRequest, sandbox_of: Callable[[str], Sandbox]) -> Sandbox:
    return sandbox_of(request.param)


@pytest.mark.parametrize("snippet", CORPUS, ids=str)
def test_a_snippet_gives_what_its_author_expects(snippet: Snippet, sandbox: Sandbox, clip: Path) -> None:
    images = [IMAGES[name]() for name in snippet.media if name != "clip"]
    videos = [clip] * snippet.media.count("clip")
    with sandbox.open(images=images, videos=videos) as episode:
        for number, turn in enumerate(snippet.turns, 1):
            result = episode.run(turn.code, timeout=60)
            about = f"turn {number}: {result.text!r}, {[image.shape for image in result.images]}"
            names = {**CHECKS, "text": result.text, "images": result.images, "error": result.error}
            checks = turn.checks
            if not any("error" in check for check in checks):
                checks = ("error is None", *checks)
            for check in checks:
                assert eval(check, dict(names)), f"not true: {check}\n{about}"


@pytest.mark.parametrize("snippet", CORPUS, ids=str)
def test_a_snippet_reaches_the_sandbox_as_the_model_wrote_it(snippet: Snippet) -> None:
    for turn in snippet.turns:
        action = parse(f"I look closer.\n<code>\n```python\n{turn.code}\n```\n</code>")
        assert isinstance(action, RunCode)
        assert [block.strip() for block in action.blocks] == [turn.code.strip()]


def test_the_corpus_is_as_large_as_promised_and_names_nothing_twice() -> None:
    names = [str(snippet) for snippet in CORPUS]
    assert len(names) >= 60
    assert len(set(names)) == len(names)
