"""Numbers written in words: "one hundred and twenty", "minus five"."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

SCALES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9}
_SMALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUES = {word: i for i, word in enumerate(_SMALL + _TEENS)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}

NUMBER_WORD = "|".join(sorted([*_VALUES, *SCALES], key=len, reverse=True))
_RUN = re.compile(
    rf"(?:(?<![\w)])-)?(?:\ba\s+(?=hundred|thousand|million|billion))?\b(?:{NUMBER_WORD})\b"
    rf"(?:(?:[-\s]|(?<=hundred)\s+and\s|(?<=thousand)\s+and\s)\s*+(?:{NUMBER_WORD})\b)*+",
    re.IGNORECASE,
)
# "Two thirds", "two and a half", "two point five", "twenty-first", "two and three": the words go on.
_GOES_ON = re.compile(
    rf"\s+(?:point|hal(?:f|ves)|thirds?|quarters?|fourths?|fifths?|tenths?|and\s+(?:a\s+)?(?:half|{NUMBER_WORD}))\b|-",
    re.IGNORECASE,
)


class WordNumber(NamedTuple):
    """A number in words and its place; nan where the words are no single number ("one two three")."""

    value: float
    start: int
    end: int


def word_numbers(text: str) -> Iterator[WordNumber]:
    """All numbers in words of a text, in order."""
    for run in _RUN.finditer(text):
        words = [word for word in re.split(r"[\s-]+", run[0].lower()) if word not in {"", "a", "and"}]
        value = math.nan if _GOES_ON.match(text, run.end()) else _value(words)
        yield WordNumber(-value if run[0].startswith("-") else value, run.start(), run.end())


def _value(words: Sequence[str]) -> float:
    """The value of "one hundred twenty three thousand four"; nan where the parts do not descend."""
    total, part, limit, room = 0.0, 0.0, math.inf, math.inf
    empty = True
    for word in words:
        if word in _VALUES:
            value = _VALUES[word]
            if value >= room or (value == 0 and len(words) > 1):
                return math.nan
            part, empty = part + value, False
            room = 10 if value >= 20 else 0
        elif word == "hundred":
            if not empty and not 0 < part < 10:
                return math.nan
            part, empty, room = (1.0 if empty else part) * 100, False, 100
        else:
            scale = SCALES[word]
            if scale >= limit:
                return math.nan
            total, limit = total + (1.0 if empty else part) * scale, scale
            part, empty, room = 0.0, True, math.inf
    return total + part
