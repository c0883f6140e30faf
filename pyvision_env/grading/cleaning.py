"""Wrappings that models put around an answer, taken off before a rule reads it."""

from __future__ import annotations

import re
import unicodedata

_TEXT_COMMAND = re.compile(r"\\(?:text(?:bf|it|rm|sf)?|math(?:rm|bf|it|sf)|mbox|boxed|operatorname)\s*\{([^{}]*)\}")
_MATH_DELIMITER = re.compile(r"\\[()\[\]]|\$")
# Stars with a word on one side only; the star of "3 * 4" and "3*4" stays.
_EMPHASIS = re.compile(r"(?<![\w*)])\*+(?=\S)|(?<=\S)\*+(?![\w*(])|`+")
# What NFKC leaves of East Asian punctuation, and the edge between a Latin letter and an ideograph, which has no space.
_CJK_MARKS = {ord("。"): ". ", ord("、"): ", "}
_CJK_EDGE = re.compile(r"(?<=[\u3040-\u9fff\uac00-\ud7af])(?=[A-Za-z(])|(?<=[A-Za-z)])(?=[\u3040-\u9fff\uac00-\ud7af])")
_SPACES = re.compile(r"[^\S\n]+")
_LINES = re.compile(r"\s*\n\s*")

_LEAD = re.compile(
    r"(?:(?:so|thus|therefore|hence|i think|i believe)\b[,:]?\s*+(?:that\s+)?)*+"
    r"(?:(?:the|my)\s+)?(?:(?:final|correct|right|best|single)\s+)*+"
    r"(?:answer|ans|option|choice)\b\.?(?:\s+(?:to the question|here))?"
    r"\s*(?:is|was|would be|should be|must be|:|=)[:\s]*+",
    re.IGNORECASE,
)
_IT_IS = re.compile(r"(?:it|this|that)(?:['’]s| is)\s+", re.IGNORECASE)
_HEADING = re.compile(r"^#+\s+", re.MULTILINE)


def plain(text: str) -> str:
    r"""Text without ``\text{}``-like commands, math delimiters and Markdown marks, NFKC, one space between words.

    Line breaks stay, one at a time.
    """
    text = _CJK_EDGE.sub(" ", unwrap_commands(unicodedata.normalize("NFKC", text).translate(_CJK_MARKS)))
    text = _HEADING.sub("", _EMPHASIS.sub("", _MATH_DELIMITER.sub("", text)))
    return _LINES.sub("\n", _SPACES.sub(" ", text)).strip()


def unwrap_commands(text: str) -> str:
    r"""Replace ``\text{B}``, ``\mathrm{B}``, ``\boxed{B}`` and the like by their content, nested ones too."""
    for _ in range(8):
        text, found = _TEXT_COMMAND.subn(r" \1 ", text)
        if not found:
            break
    return text


def strip_lead(text: str) -> str:
    """Text without an announcement such as "The answer is", "So the final answer:" or "It is" at its start."""
    lead = _LEAD.match(text) or _IT_IS.match(text)
    return text[lead.end() :] if lead else text


def after_last_announcement(text: str) -> str | None:
    """What follows the last "the answer is"; None without one."""
    end = None
    for lead in _LEAD.finditer(text):
        end = lead.end()
    return None if end is None else text[end:]
