"""Options written into a question as lettered lines, read as a list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

# "A. text", "A) text", "A: text", "(A) text", "[A] text"; the letter stands alone, so "A dog" is no option.
_LABEL = r"(?:\((?P<round>[A-Z])\)|\[(?P<square>[A-Z])\]|(?P<bare>[A-Z])[.):])"
_AT_LINE_START = re.compile(rf"^[ \t]*{_LABEL}[ \t]*(?=\S)", re.MULTILINE)
_IN_LINE = re.compile(rf"(?:^|(?<=\s)){_LABEL}[ \t]+(?=\S)", re.MULTILINE)


def parse_options(question: str) -> tuple[str, ...]:
    """Read the options of a question whose wording plainly holds them.

    Options are plain when their labels run A, B, C, ... without a gap, each at the start of a line or all in one line;
    anything else yields nothing, because a wrong reading would make an open question a multiple-choice one.

    Returns:
        The options' texts in letter order; empty when there are fewer than two.
    """
    for pattern in (_AT_LINE_START, _IN_LINE):
        options = _read(question, list(pattern.finditer(question)))
        if options:
            return options
    return ()


def _read(question: str, labels: Sequence[re.Match[str]]) -> tuple[str, ...]:
    letters = [label["round"] or label["square"] or label["bare"] for label in labels]
    if len(letters) < 2 or letters != list(ascii_uppercase[: len(letters)]):
        return ()
    ends = [label.start() for label in labels[1:]] + [len(question)]
    texts = [question[label.end() : end] for label, end in zip(labels, ends, strict=True)]
    # What follows the last option after a line break is an instruction ("Answer with the letter"), not its text.
    texts[-1] = texts[-1].strip().split("\n")[0]
    options = tuple(" ".join(text.split()) for text in texts)
    return options if all(options) else ()


def strip_labels(options: Sequence[str]) -> tuple[str, ...]:
    """Remove the labels of an explicit list such as ``["A. cat", "B. dog"]``; other lists come back stripped."""
    matches = [_AT_LINE_START.match(option) for option in options]
    if all(matches):
        letters = [match["round"] or match["square"] or match["bare"] for match in matches if match]
        if letters == list(ascii_uppercase[: len(letters)]):
            return tuple(option[match.end() :].strip() for option, match in zip(options, matches, strict=True) if match)
    return tuple(option.strip() for option in options)
