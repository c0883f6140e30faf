"""Options written into a question with letters before them: the one reading that loading, grading and wording share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

_BULLET = r"[ \t]*(?:[-*•–·+>][ \t]+)?"
# "A. text", "A) text", "A: text", "(A) text", "[A]. text", "A、text", "**A.** text"; the letter stands alone, so
# "A dog" is no option. Without a space after it "A.D." must not be one either.
_WRAPPED = r"\*{0,3}(?:[(（](?P<round>[A-Za-z])[)）]|\[(?P<square>[A-Za-z])\])[.:]?\*{0,3}[ \t]*"
_BARE = r"\*{0,3}(?P<bare>[A-Za-z])\*{0,3}"
_POINT = r"[.)．、：）:]\*{0,3}(?:[ \t]+|(?![A-Za-z]\.))"
_DASH = r"[ \t]+[-–—][ \t]+"
_AT_LINE_START = re.compile(rf"^{_BULLET}(?:{_WRAPPED}|{_BARE}(?:{_POINT}|{_DASH}))(?=\S)", re.MULTILINE)
_IN_LINE = re.compile(
    rf"(?:^{_BULLET}|(?<=[\s;,；，、。？\u3040-\u9fff]))(?:{_WRAPPED}|{_BARE}{_POINT})(?=\S)", re.MULTILINE
)
_SEPARATOR = re.compile(r"(?:[\s;,；，|]|(?<!\w)(?:or|and)(?!\w))++\Z", re.IGNORECASE)


def parse_options(question: str) -> tuple[str, ...]:
    """Read the options of a question whose wording plainly holds them.

    Options are plain when their labels run A, B, C, ... (or a, b, c, ...) without a gap, each at the start of a line or
    all in one line; the last such run of a question counts. Anything else yields nothing, because a wrong reading would
    make an open question a multiple-choice one. Bullets, emphasis and the separators between options are not text.

    Returns:
        The options' texts in letter order; empty when there are fewer than two.
    """
    for pattern in (_AT_LINE_START, _IN_LINE):
        options = _read(question, list(pattern.finditer(question)))
        if options:
            return options
    return ()


def _letter(label: re.Match[str]) -> str:
    return label["round"] or label["square"] or label["bare"]


def _read(question: str, labels: Sequence[re.Match[str]]) -> tuple[str, ...]:
    letters = "".join(map(_letter, labels))
    first = max(letters.rfind("A"), letters.rfind("a"))
    run = letters[first:]
    if first < 0 or len(run) < 2 or run not in (ascii_uppercase[: len(run)], ascii_uppercase[: len(run)].lower()):
        return ()
    labels = labels[first:]
    ends = [label.start() for label in labels[1:]] + [len(question)]
    texts = [question[label.end() : end] for label, end in zip(labels, ends, strict=True)]
    texts[-1] = _without_instruction(texts[-1])
    options = tuple(_clean(text) for text in texts)
    return options if all(options) else ()


def _without_instruction(text: str) -> str:
    """The last option without what follows it on a line of its own ("Answer with the letter"); indented lines go on."""
    first, *others = text.split("\n")
    kept = [first]
    for line in others:
        if not line[:1].isspace() or not line.strip():
            break
        kept.append(line)
    return "\n".join(kept)


def _clean(text: str) -> str:
    return _SEPARATOR.sub("", " ".join(text.replace("**", "").split()))


def strip_labels(options: Sequence[str]) -> tuple[str, ...]:
    """Remove the labels of an explicit list such as ``["A. cat", "B. dog"]``; other lists come back stripped."""
    matches = [_AT_LINE_START.match(option) for option in options]
    if all(matches):
        letters = [_letter(match) for match in matches if match]
        if letters == list(ascii_uppercase[: len(letters)]):
            return tuple(option[match.end() :].strip() for option, match in zip(options, matches, strict=True) if match)
    return tuple(option.strip() for option in options)


def lists_options(question: str, options: Sequence[str]) -> bool:
    """Whether a question already shows these options with their letters, so that nobody need write them again."""
    wanted = [_folded(option) for option in options]
    if [_folded(option) for option in parse_options(question)] == wanted:
        return True
    shown, position = _folded(question), 0
    for letter, option in zip(ascii_uppercase.lower(), wanted, strict=False):
        found = re.compile(rf"(?<!\w){letter}\W{{1,4}}{re.escape(option)}").search(shown, position)
        if not found:
            return False
        position = found.end()
    return len(wanted) <= len(ascii_uppercase)


def _folded(text: str) -> str:
    return " ".join(text.replace("*", "").split()).casefold()
