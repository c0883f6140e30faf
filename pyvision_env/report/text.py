"""Untrusted text made presentable: invisible characters made visible, code highlighted, both safe to put into HTML."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any, Literal

from pyvision_env.errors import UserError
from pyvision_env.protocol import from_structured, parse
from pyvision_env.types import Action, RunCode, ToolCalls

# Text that reorders or hides what stands next to it could make code read otherwise than it runs.
_BIDI = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_CONTROLS = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: "\u2421"}
_OPENING = re.compile(r"<\s*+code\s*+>\s*+(?:`{3,}+\w*+)?\s*+\Z", re.IGNORECASE)
_CLOSING = re.compile(r"\s*+(?:`{3,}+)?\s*+<\s*+/\s*+code\s*+>", re.IGNORECASE)
_MAX_HIGHLIGHT = 50_000
"""Characters of one code block that are highlighted; a longer one is shown plain, for the sake of the page's size."""


def visible(text: str) -> str:
    """Show control characters as pictures (``␛``), direction marks as escapes and lone surrogates as ``�``."""
    text = text.replace("\r\n", "\n").translate(_CONTROLS)
    text = _BIDI.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return _SURROGATES.sub("\ufffd", text)


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a model's turn: ``prose``, ``code``, or a ``tag`` that encloses code."""

    kind: Literal["prose", "code", "tag"]
    text: str


def spans(action: str | list[Any]) -> tuple[Span, ...]:
    """Cut a model's turn into its parts; in order they hold all of it but white space at their edges."""
    if not isinstance(action, str):
        return _structured(action)
    parts: list[Span] = []
    rest = action
    for block in _code(parse(action, max_blocks=max(8, action.count("<")))):
        before, found, after = rest.partition(block)
        # The parser may have dedented a block; then it stands nowhere verbatim and the turn is shown as it came.
        if not found:
            break
        parts += [*_prose(before), Span("code", block.strip("\n"))]
        rest = after
    parts += _prose(rest)
    return tuple(part for part in parts if part.text)


def _prose(text: str) -> list[Span]:
    closing = _CLOSING.match(text)
    begin = closing.end() if closing else 0
    opening = _OPENING.search(text, begin)
    end = opening.start() if opening else len(text)
    return [
        Span("tag", text[:begin].strip()),
        Span("prose", text[begin:end].strip()),
        Span("tag", text[end:].strip()),
    ]


def _structured(action: list[Any]) -> tuple[Span, ...]:
    try:
        blocks = _code(from_structured(action))
    except UserError:
        blocks = []
    return tuple(Span("code", block) for block in blocks) or (Span("prose", repr(action)),)


def _code(action: Action) -> list[str]:
    calls = action.calls if isinstance(action, ToolCalls) else (action,)
    return [block for call in calls if isinstance(call, RunCode) for block in call.blocks]


def highlight(code: str) -> str:
    """Python as HTML with classes only; every character of the code is escaped."""
    from pygments import highlight as render

    code = visible(code)
    python, plain, formatter = _pygments()
    html: str = render(code, python if len(code) <= _MAX_HIGHLIGHT else plain, formatter)
    # The formatter ends every line, also one that the code does not end.
    return html if code.endswith("\n") else html.removesuffix("\n")


@functools.cache
def _pygments() -> tuple[Any, Any, Any]:
    """Lexers and formatter, made once: making them costs more than using them."""
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer
    from pygments.lexers.special import TextLexer

    exact = {"stripnl": False, "ensurenl": False}
    return PythonLexer(**exact), TextLexer(**exact), HtmlFormatter(nowrap=True, classprefix="h-")


@functools.cache
def highlight_css() -> str:
    """Style rules of highlighted code, for light and dark."""
    from pygments.formatters import HtmlFormatter

    def rules(style: str) -> str:
        lines = HtmlFormatter(style=style, classprefix="h-").get_style_defs(".code").splitlines()
        # The rules of the block itself (background, line numbers) belong to the page's own design.
        return "\n".join(line for line in lines if line.startswith(".code .h-"))

    return f"{rules('tango')}\n@media (prefers-color-scheme: dark) {{\n{rules('github-dark')}\n}}"
