"""Equality of words: the same answer whatever its case, spacing, punctuation, articles and Unicode form."""

from __future__ import annotations

import re
import unicodedata

from pyvision_env.grading.cleaning import plain, strip_lead

_APOSTROPHE = re.compile(r"['’‘`]")
# A point or comma between digits and a minus before a number belong to the number.
_PUNCTUATION = re.compile(
    r"(?<!\d)[.,]|[.,](?!\d)|[:;!?\"“”„«»()\[\]{}<>…_*。、]|(?<=\S)[-‐‑–—](?!\d)|(?<=\w)[-‐‑–—]|[‐‑–—]"
)
_ARTICLES = frozenset({"a", "an", "the"})


def normalize_text(text: str) -> str:
    """The form in which two answers are compared: NFKC, case-folded, without punctuation, articles and extra spaces.

    Points and commas inside numbers and a leading minus stay. Articles stay when nothing else is left, and text of
    nothing but punctuation stays as it is.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).replace("\u2212", "-")
    words = _PUNCTUATION.sub(" ", _APOSTROPHE.sub("", folded)).split()
    content = [word for word in words if word not in _ARTICLES] or words
    return " ".join(content) or " ".join(folded.split())


def text_equal(reference: str, answer: str) -> bool:
    """Whether an answer says the same words as the reference, an announcement ("The answer is ...") left aside."""
    wanted = {normalize_text(reference), normalize_text(plain(reference))}
    said = {normalize_text(answer), normalize_text(plain(answer)), normalize_text(strip_lead(plain(answer)))}
    return bool((wanted & said) - {""})
