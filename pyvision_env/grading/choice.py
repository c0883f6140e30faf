"""Multiple choice: the option an answer commits to, never a letter met by accident.

A letter counts where the answer presents it as its choice: alone ("B", "(b).", "**B**"), at the start ("B: a red car"),
after a cue ("the answer is B", "Option B") or before a verdict ("B is correct"). "A" and "I" before a word are English,
not letters. An answer that names two options, or one option's letter with another's text, names none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from string import ascii_uppercase

from pyvision_env.errors import UserError
from pyvision_env.grading.cleaning import plain, strip_lead
from pyvision_env.grading.text import normalize_text

DEFAULT_LETTERS = "ABCDEFGH"
"""Letters of a question whose options are unknown."""

_QUOTES = "\"'“”‘’"
_OPEN, _CLOSE = rf"[{_QUOTES}(\[{{]*+\s*+", rf"(?:\s*[{_QUOTES})\]}}])*+"
_FILLER = (
    r"(?:\s*+(?:\b(?:is|was|would be|should be|must be|will be|the|option|choice|letter|probably|clearly|indeed|here)\b"
    r"|[:=]|->|→))*+\s*+"
)
_NEGATION = re.compile(
    r"(?:\bnot|n['’]t|\bnever|\bnor|\bneither|\bexcept|\binstead of|\brather than|\bunlike|\beliminate|\bexclude)"
    r"\s+(?:the\s+)?(?:(?:option|choice|answer)\s+)?[(\[]?\s*\Z",
    re.IGNORECASE,
)
_REJECTED = re.compile(
    r"\s*(?:(?:is|are|was|can|does|do|would|could)(?:n['’]t|\s*not)\b|(?:is|was|seems)\s+(?:clearly\s+)?"
    r"(?:wrong|incorrect|false|out|impossible|unlikely)\b)",
    re.IGNORECASE,
)
_SAYS_A = re.compile(r"\s+(?:is|was|because|since|and|or)\b")


class _Patterns:
    """Ways of presenting one of ``letters``; group 1 is the letter. Strong ones outrank weak ones."""

    def __init__(self, letters: str) -> None:
        one = rf"([{letters}{letters.lower()}])(?!['’]?\w)"
        wrapped = rf"{_OPEN}(?<!\w){one}"
        verdict = r"(?:(?:the|most likely|probably|clearly|definitely)\s+)*+(?:correct|right|best|true|answer)\b"

        def find(pattern: str) -> re.Pattern[str]:
            return re.compile(pattern, re.IGNORECASE)

        self.bare = find(rf"{wrapped}{_CLOSE}[.,:;!]*+\s*+\Z")
        self.leading = find(rf"{wrapped}(?:{_CLOSE}[^\S\n]*+[.:,;)\n]|{_CLOSE}\s+[-–—=]\s|[)\]}}](?=[\s\w]))")
        self.reasoned = find(rf"{wrapped}{_CLOSE},?\s+(?:because|since)\b")
        self.strong = (
            find(rf"\b(?:answers?|ans)\b\.?{_FILLER}{wrapped}"),
            find(rf"\b(?:correct|right|best|my|final)\s+(?:option|choice|letter)\b{_FILLER}{wrapped}"),
            find(rf"\b(?:choose|chose|pick|select|go with)\b{_FILLER}{wrapped}"),
            find(rf"(?<![\w{_QUOTES}]){wrapped}{_CLOSE}\s+(?:is|must be|would be|seems)\s+{verdict}"),
        )
        self.weak = (
            find(rf"\b(?:option|choice|letter)\b{_FILLER}{wrapped}"),
            find(rf"(?:\bit['’]?s|\b(?:it is|must be|should be|so|thus|therefore|hence)\b|→|=>)[,:]?\s+{wrapped}"
                 rf"(?={_CLOSE}[.,;!]*+\s*+\Z)"),
            find(rf"[(\[]\s*{one}(?=\s*[)\]][.!]?\s*\Z)"),
        )  # fmt: skip
        self.bracketed = find(rf"[(\[]\s*{one}(?=\s*[)\]])")
        self.also = find(
            rf"(?:[-–—\s,/&;+|.(){{}}\[\]{_QUOTES}]|\b(?:or|and|then|maybe|also|either|option|choice)\b)*+(?<!\w){one}"
        )
        self.marker = find(rf"(?<![\w{_QUOTES}])(?:\(\s*{one}\s*\)|{one}\s*[.):])(?=\s*\S)")


@lru_cache(maxsize=64)
def _patterns(letters: str) -> _Patterns:
    return _Patterns(letters)


def extract_choice(answer: str, options: Sequence[str] = (), letters: str | Sequence[str] | None = None) -> str | None:
    """The letter of the one option that an answer commits to.

    Args:
        answer: The final answer's text.
        options: Texts of the options in letter order, where known; an answer equal to exactly one of them names it.
        letters: Letters of the options; from ``options`` where left out, A to H if those are unknown too.

    Returns:
        An upper-case letter, or None if the answer commits to no option or to several.

    Raises:
        UserError: If ``letters`` holds anything but letters from A to Z.
    """
    allowed = "".join(letters).upper() if letters else ascii_uppercase[: len(options)] or DEFAULT_LETTERS
    if not (allowed.isascii() and allowed.isalpha()):
        raise UserError(f"The letters of options must be letters from A to Z, but {allowed!r} came")
    texts = _without_own_letters(options, allowed)
    text = plain(answer)
    body = strip_lead(text)
    find = _patterns(allowed)

    if bare := find.bare.match(body):
        return bare[1].upper()
    named = _named_by_text(body, texts, allowed) or _named_by_text(text, texts, allowed)
    if named:
        return named.pop() if len(named) == 1 else None
    claims = [claim for pattern in find.strong for claim in pattern.finditer(text) if _is_claim(claim, text)]
    lead = find.leading.match(body) or find.reasoned.match(body)
    if lead and _is_leading(lead, body, texts, allowed):
        if _lists_others(lead[1].upper(), body[lead.end(1) :], find, texts, allowed):
            return None
        return _agreed([lead[1].upper(), *(claim[1].upper() for claim in claims)])
    # "B red car": no punctuation tells the letter from a word, only the option's own text does.
    if len(body) > 1 and body[0] in allowed and body[1] == " " and body[0] in _named_by_text(body[2:], texts, allowed):
        return body[0]
    if not claims:
        claims = [claim for pattern in find.weak for claim in pattern.finditer(text) if _is_claim(claim, text)]
        # Beside a weak claim every other letter in brackets is a rival: "(A) (B) (C) (D)" names four.
        claims += [claim for claim in find.bracketed.finditer(text) if claims and _is_claim(claim, text)]
    for claim in claims:
        if _contradicted(claim[1].upper(), text[claim.end(1) :], find, texts, allowed):
            return None
    return _agreed([claim[1].upper() for claim in claims])


def _agreed(letters: list[str]) -> str | None:
    return letters[0] if len(set(letters)) == 1 else None


def _without_own_letters(options: Sequence[str], letters: str) -> list[str]:
    pairs = list(zip(options, letters, strict=False))
    own = [re.match(rf"\s*(?:\({letter}\)|{letter}[.):])\s*", option) for option, letter in pairs]
    if len(pairs) == len(options) and all(own):
        return [option[match.end() :] for match, option in zip(own, options, strict=True) if match]
    return list(options)


def _named_by_text(text: str, options: Sequence[str], letters: str) -> set[str]:
    """Letters of the options that ``text`` equals: word for word, or else with articles and punctuation aside."""
    exact = " ".join(text.split()).casefold().rstrip(".!")
    strict = {
        letter
        for letter, option in zip(letters, options, strict=False)
        if " ".join(plain(option).split()).casefold().rstrip(".!") == exact
    }
    if strict or not normalize_text(text):
        return strict
    said = normalize_text(text)
    return {letter for letter, option in zip(letters, options, strict=False) if normalize_text(plain(option)) == said}


def _is_letter(match: re.Match[str], text: str, group: int = 1) -> bool:
    """Whether the matched character stands for an option and not for an English word."""
    letter, before, after = match[group], text[: match.start(group)], text[match.end(group) :]
    if before.endswith(("(", "[")) and after.startswith((")", "]")):
        return True
    if not re.match(r"\s+\w", after) or "\n" in after[:1]:
        return True
    if letter.islower() or letter == "I":
        return False
    return letter != "A" or _SAYS_A.match(after) is not None


def _is_claim(match: re.Match[str], text: str) -> bool:
    if not _is_letter(match, text) or _NEGATION.search(text, max(0, match.start(1) - 40), match.start(1)):
        return False
    return _REJECTED.match(text[match.end(1) :].lstrip(")]\"'")) is None


def _is_leading(match: re.Match[str], text: str, options: Sequence[str], letters: str) -> bool:
    if not _is_claim(match, text):
        return False
    # "A.M." and "B,2" are no choices; "B.red car" is one only if that is the option's text.
    tight = text[match.end() - 1] in ".," and text[match.end() : match.end() + 1].isalnum()
    return not tight or match[1].upper() in _named_by_text(text[match.end() :], options, letters)


def _contradicted(letter: str, rest: str, find: _Patterns, options: Sequence[str], letters: str) -> bool:
    """Whether what follows a letter names another option too, by its letter or by its text."""
    body = rest.lstrip(" \n\t)]}.:,;-–—=" + _QUOTES)
    named = _named_by_text(body, options, letters)
    if named:
        return letter not in named
    also = find.also.match(rest)
    return also is not None and also[1].upper() != letter and _is_letter(also, rest)


def _lists_others(letter: str, rest: str, find: _Patterns, options: Sequence[str], letters: str) -> bool:
    """Whether an answer that begins like an option ("A. red") goes on with others ("B. blue")."""
    if _contradicted(letter, rest, find, options, letters):
        return True
    if letter in _named_by_text(rest.lstrip(" \n\t)]}.:,;-–—="), options, letters):
        return False
    for marker in find.marker.finditer(rest):
        group = 1 if marker[1] else 2
        if marker[group].upper() == letter or not marker[group].isupper():
            continue
        if not _NEGATION.search(rest, max(0, marker.start(group) - 40), marker.start(group)):
            return True
    return False
