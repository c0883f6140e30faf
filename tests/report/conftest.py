"""A folder of three traces, and a real browser to look at pages with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hand_made import Episode, Step, answer_step, record, small_image
from playwright.sync_api import Browser, expect, sync_playwright
from watched import Seen

CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A folder with a correct, a wrong and an unfinished episode."""
    crop = "Look closer.\n<code>```python\nplt.imshow(image_clue_0.crop((0, 0, 40, 40)))\nplt.show()\n```</code>"
    looked = Step(crop, "New images: image_clue_1 (40x40)", images=[small_image(1, 40, 40)])
    episodes = (
        Episode(
            "bird", "Which bird is it?", "heron", [looked, answer_step("heron", True)], [small_image(0)], correct=True
        ),
        Episode("boat", "How many boats?", "7", [answer_step("5", False)], [small_image(0)], correct=False),
        Episode("tower", "Which tower leans?", "B", [looked], [small_image(2)], end=None),
    )
    for episode in episodes:
        record(tmp_path / "traces", episode)
    return tmp_path / "traces"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        reason = "Chromium is missing, and the page must be seen in a browser: apt-get install chromium"
        if "browser" in os.environ.get("PYVISION_TEST_REQUIRE", "").split(","):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS), timeout=120_000)
        yield chromium
        chromium.close()


@pytest.fixture
def look(browser: Browser) -> Iterator[Callable[..., Seen]]:
    """Open a page from disk; keyword arguments are those of the browser's context (colour scheme, viewport)."""
    contexts = []

    def open_page(path: Path, **options: Any) -> Seen:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        seen = Seen(context.new_page())
        seen.page.goto(path.as_uri())
        return seen

    yield open_page
    for context in contexts:
        context.close()
