"""Reading the number that an answer states."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from itertools import pairwise

from pyvision_env.grading.cleaning import after_last_announcement, plain
from pyvision_env.grading.number_words import NUMBER_WORD, SCALES, word_numbers

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[\u2010-\u2013\u2212\uFE63\uFF0D]", "-"),
        (r"\u2014", " , "),
        (r"\u2044", "/"),
        (r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r" \1/\2 "),
        (r"\\[dtc]?frac\s*(\d)\s*(\d)", r" \1/\2 "),
        (r"\{,\}", ","),
        (r"\\[,!;:]|\\(?:left|right)\b", ""),
        (r"\\(?:times|cdot)(?![A-Za-z])|[×·⋅]", " * "),
        (r"\\(?:approx|simeq|sim)(?![A-Za-z])|≈", "="),
        (r"\^?\s*\{?\\(?:circ|degree)\b\s*\}?|\u00ba", "°"),
        (r"\\%", "%"),
        (r"\\[$ ]|[$€£¥~]", " "),
        (rf"(?i)\b(?:minus|negative)\s+(?=[.\d]|(?:{NUMBER_WORD})\b)", "-"),
    )
)

_UNITS = {
    name: canonical
    for canonical, names in {
        "%": "% percent",
        "mm": "mm millimeter millimeters millimetre millimetres",
        "cm": "cm centimeter centimeters centimetre centimetres",
        "m": "m meter meters metre metres",
        "km": "km kilometer kilometers kilometre kilometres",
        "in": "inch inches",
        "ft": "ft foot feet",
        "mg": "mg",
        "g": "g gram grams",
        "kg": "kg kilogram kilograms",
        "ml": "ml",
        "l": "l liter liters litre litres",
        "ms": "ms",
        "s": "s sec second seconds",
        "min": "min minute minutes",
        "h": "h hr hour hours",
        "°": "° deg degree degrees",
        "px": "px pixel pixels",
    }.items()
    for name in names.split()
}
_UNIT_NAMES = "|".join(filter(str.isalpha, _UNITS))
_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})++(?!\d)|\d++)(?:\.\d++)?|\.\d++"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\]}}%°])[-+]|(?:(?<=^)|(?<=[=:]\s))-\s)?(?<![\w.^])"
    rf"(?:(?P<whole>\d++)\s+(?=\d+\s*/))?(?:(?P<ten>10)\s*\^|(?P<number>{_UNSIGNED}))"
    rf"(?:(?<=\^)\s*[{{(]?(?P<power>[-+]?\d{{1,3}})[)}}]?"
    rf"|\s*/\s*(?P<below>{_UNSIGNED})"
    rf"|[eE](?P<exp>[-+]?\d{{1,3}})(?![\w.])"
    rf"|\s*[*xX]\s*10\s*\^\s*[{{(]?(?P<times>[-+]?\d{{1,3}})[)}}]?)?"
    rf"(?!\d|\.\d|\s*\^)(?:\s*(?P<scale>hundred|thousand|million|billion)\b)?"
    rf"(?:\s*(?P<unit>%|°(?:\s?[CF]\b)?|per\s?cent\b|(?:{_UNIT_NAMES})(?:\^?[23])?\b(?![\^/])))?"
    # "2x" is an expression and "3D" a word: neither states a number.
    r"(?![A-Za-z](?![A-Za-z]))",
    re.IGNORECASE,
)
# "The red one" speaks of a thing; only here does "one" count.
_BEFORE_ONE = re.compile(r"(?:^|\b(?:is|are|only|exactly|just|about|answer|be)|[:=])\s*\Z", re.IGNORECASE)
_NOT_EQUAL = re.compile(
    r"(?:\bnot|n['’]t|\b(?:more|less|fewer|greater|smaller|higher|lower|other)\s+than|\bat\s+(?:least|most)|[<>≤≥≠]=?)\s*\Z",
    re.IGNORECASE,
)


# What is left of LaTeX after the rewrites: "2\\sqrt{3}" states neither 2 nor 3.
_EXPRESSION = re.compile(r"\\[A-Za-z]|[π√∞]")
_OPERATOR = re.compile(r"\s*[-+*/^x]?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Number:
    """A number in an answer: its value as written (50 for "50%"), its unit if it is a common one, and its place."""

    value: float
    unit: str | None
    start: int
    end: int


def extract_number(answer: str) -> float | None:
    """The number that an answer states, as written: 50 for "50%".

    Reads signs, decimals, thousands separators, fractions and mixed numbers, percent, powers of ten, LaTeX fractions,
    common units, "minus", and numbers in words up to the billions.

    Returns:
        The number; None if there is none, or if several differ and neither "=" nor "the answer is" singles one out.
    """
    number = read_number(answer)
    return None if number is None else number.value


def read_number(answer: str) -> Number | None:
    """As ``extract_number``, with the unit."""
    text = _flatten(answer)
    for part in (text, text.rpartition("=")[2] if "=" in text else None, after_last_announcement(text)):
        found = [] if part is None else _numbers(part)
        if found and len({(number.value, number.unit) for number in found}) == 1 and not _is_sum(found, part or ""):
            return found[0] if math.isfinite(found[0].value) else None
    return None


def _is_sum(numbers: list[Number], text: str) -> bool:
    """Whether numbers are joined to an expression: "5 - 5" is not an answer of 5."""
    gaps = (text[left.end : right.start] for left, right in pairwise(numbers))
    return any(_OPERATOR.fullmatch(gap) for gap in gaps)


def is_number(text: str) -> bool:
    """Whether ``text`` is one number, with a common unit or currency sign at most."""
    flat = _flatten(text).strip(" .")
    found = _numbers(flat)
    return len(found) == 1 and (found[0].start, found[0].end) == (0, len(flat)) and math.isfinite(found[0].value)


def _flatten(text: str) -> str:
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", lambda found: "^" + found[0].translate(_SUPERSCRIPTS), text)
    text = unicodedata.normalize("NFKC", re.sub(r"([¼-¾⅐-⅞])", r" \1", text))
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return plain(text)


def _numbers(text: str) -> list[Number]:
    if _EXPRESSION.search(text):
        return []
    found = [_digits(match) for match in _NUMBER.finditer(text)] or [
        Number(said.value, None, said.start, said.end)
        for said in word_numbers(text)
        if text[said.start : said.end].casefold() != "one"
        or _BEFORE_ONE.search(text, max(0, said.start - 20), said.start)
    ]
    # "More than 5" and "not 5" state no number; nan differs from everything, so the answer then states none.
    return [
        Number(math.nan, number.unit, number.start, number.end)
        if _NOT_EQUAL.search(text, max(0, number.start - 20), number.start)
        else number
        for number in found
    ]


def _digits(match: re.Match[str]) -> Number:
    digits, exponent = ("1", match["power"]) if match["ten"] else (match["number"], match["exp"] or match["times"])
    value = float(f"{digits.replace(',', '')}e{exponent or 0}")
    if match["below"]:
        below = float(match["below"].replace(",", ""))
        value = value / below if below else math.nan
    if match["whole"]:
        value += float(match["whole"])
    value *= SCALES.get((match["scale"] or "").lower(), 1.0)
    if match["sign"] and "-" in match["sign"]:
        value = -value
    return Number(value, _unit(match["unit"]), match.start(), match.end())


def _unit(unit: str | None) -> str | None:
    if unit is None:
        return None
    unit = unit.casefold().replace("per cent", "percent").replace("^", "")
    name = unit.rstrip("23")
    power = unit[len(name) :]
    return f"{_UNITS[name]}{power}" if name in _UNITS else None
