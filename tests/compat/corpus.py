"""The corpus: Markdown files whose sections are snippets, each with its media, its code and what must come back.

    ## Name of the snippet

    Media: `scene`, `clip`

    ```python
    code of one turn
    ```

    ```check
    text == "(640, 480)\\n"
    images[0].shape == (480, 640, 3)
    ```

Several pairs of blocks are several turns. Each line of a check is one expression that must be true of that turn's
``text``, ``images`` and ``error``; ``np`` and the functions of ``CHECKS`` are at hand. A turn whose check does not
speak of ``error`` must have none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_FENCE = re.compile(r"```(python|check)\n(.*?)\n?```\n", re.DOTALL)


@dataclass(frozen=True)
class Turn:
    """Code, and expressions that must be true afterwards."""

    code: str
    checks: tuple[str, ...]


@dataclass(frozen=True)
class Snippet:
    """What a model might write in one episode."""

    topic: str
    name: str
    media: tuple[str, ...]
    turns: tuple[Turn, ...]

    def __str__(self) -> str:
        return f"{self.topic}: {self.name}"


def load(folder: Path) -> list[Snippet]:
    """All snippets, in the order of files and sections.

    Raises:
        ValueError: A section is not as described above.
    """
    found = []
    for path in sorted(folder.glob("*.md")):
        for section in path.read_text().split("\n## ")[1:]:
            name, _, body = section.partition("\n")
            media = re.search(r"^Media: (.*)$", body, re.MULTILINE)
            blocks = _FENCE.findall(body + "\n")
            kinds = [kind for kind, _ in blocks]
            if not blocks or kinds != ["python", "check"] * (len(kinds) // 2):
                raise ValueError(f"{path.name}, {name!r}: expected python and check blocks in turn, got {kinds}")
            turns = tuple(
                Turn(code, tuple(line for line in check.splitlines() if line.strip()))
                for (_, code), (_, check) in zip(blocks[::2], blocks[1::2], strict=True)
            )
            used = tuple(re.findall(r"`(\w+)`", media[1])) if media else ()
            found.append(Snippet(path.stem, name.strip(), used, turns))
    return found


def near(pixels: Any, colour: tuple[int, int, int], within: int = 12) -> bool:
    """Whether every channel (of the mean of a region) is as expected."""
    mean = np.asarray(pixels, dtype=float).reshape(-1, 3).mean(axis=0)
    return bool(np.all(np.abs(mean - colour) <= within))


def share(image: Any, colour: tuple[int, int, int], within: int = 60) -> float:
    """Share of a picture's pixels that are about of a colour."""
    return float((np.abs(image.astype(int) - colour).max(axis=-1) <= within).mean())


def is_drawn(image: Any) -> bool:
    """Whether a picture is more than one flat colour."""
    return bool(image.std() > 5)


CHECKS: dict[str, Any] = {"np": np, "near": near, "share": share, "is_drawn": is_drawn}
