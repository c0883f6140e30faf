"""Strategies of the reference agent: turns written beforehand, filled in with what earlier turns brought to light."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from string import Template

_NOTE = re.compile(r"^([a-z][a-z_]*): *(\S.*?) *$", re.MULTILINE)
_OPTION = re.compile(r"^([A-Z])\. (.+)$", re.MULTILINE)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Strategy:
    """How to go about one sort of question.

    Attributes:
        question: The wording it is for; named groups become notes.
        turns: Texts of the turns; ``$name`` stands for a note: a named group of the question, ``$options`` (a JSON
            list), or what an earlier turn's code printed as ``name: value``. The note ``finding`` is the answer.
    """

    question: re.Pattern[str]
    turns: tuple[str, ...]

    def write(self, index: int, notes: Mapping[str, str]) -> str | None:
        """The turn at ``index``; None when a note it needs was never brought to light."""
        try:
            return Template(self.turns[index]).substitute(notes)
        except KeyError:
            return None


def strategy(question: str, *turns: str) -> Strategy:
    """A strategy for questions that match the pattern ``question`` somewhere."""
    return Strategy(re.compile(question, re.DOTALL), turns)


def code(thought: str, source: str) -> str:
    """A turn that runs Python."""
    return f"{thought}\n<code>```python\n{source.strip()}\n```</code>"


def frames(thought: str, request: str) -> str:
    """A turn that fetches frames; ``request`` is the JSON of the frames action."""
    return f"{thought}\n<frames>{request}</frames>"


def read_notes(match: re.Match[str], texts: Iterable[str]) -> dict[str, str]:
    """What is known: the question's named groups, its options, and ``name: value`` lines of the observations."""
    notes = {name: value for name, value in match.groupdict().items() if value is not None}
    notes["options"] = json.dumps(list(read_options(match.string).values()))
    for text in texts:
        notes.update(_NOTE.findall(text))
    return notes


def read_options(question: str) -> dict[str, str]:
    """The options of a question, by letter."""
    return dict(_OPTION.findall(question))


def choose(finding: str, options: Mapping[str, str]) -> str:
    """The answer for a finding: the letter of the option that says it, else the one with the nearest number.

    A finding that no option says is the answer itself.
    """
    said = finding.casefold()
    for fits in (lambda text: text == said, lambda text: said in text, lambda text: text in said):
        letters = [letter for letter, text in options.items() if fits(text.casefold())]
        if len(letters) == 1:
            return letters[0]
    numbers = {letter: float(text) for letter, text in options.items() if _NUMBER.fullmatch(text)}
    if numbers and _NUMBER.fullmatch(finding):
        return min(numbers, key=lambda letter: abs(numbers[letter] - float(finding)))
    return finding
