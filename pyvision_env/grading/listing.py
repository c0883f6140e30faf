"""The lettered options that a question lists in its own wording."""

from __future__ import annotations

import re

_MARKER = re.compile(r"(?:(?<=\s)|(?<=[;,])|^)(?:\(([A-Z])\)[.:]?|([A-Z])[.):])(?=\s*\S)")
MIN_OPTIONS = 2


def listed_options(question: str) -> tuple[str, ...]:
    """Texts of the options in letter order, or ``()`` if the question does not plainly list any.

    A list is at least two markers in the order A, B, ... in one of the forms "A.", "A)", "(A)" and "A:", one a line or
    all on a line; the last list of a question counts. A text ends at the next marker or at the end of its line.
    """
    markers = list(_MARKER.finditer(question))
    letters = [marker[1] or marker[2] for marker in markers]
    for first in range(len(letters) - 1, -1, -1):
        if letters[first] != "A":
            continue
        run = [markers[first]]
        for marker, letter in zip(markers[first + 1 :], letters[first + 1 :], strict=True):
            if ord(letter) - ord("A") == len(run):
                run.append(marker)
        if len(run) >= MIN_OPTIONS:
            ends = [marker.start() for marker in run[1:]] + [len(question)]
            texts = (question[marker.end() : end].strip() for marker, end in zip(run, ends, strict=True))
            return tuple(text.split("\n")[0].strip(" ;,\t\r") for text in texts)
    return ()
