"""Plain and Unicode notation of mathematics, as LaTeX: "2√3", "x²", "[2,∞)", "x**2", "sin x"."""

from __future__ import annotations

import re

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ⁽⁾", "0123456789+-n()")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ⁽⁾]+")
_LOWERED = re.compile(r"[₀₁₂₃₄₅₆₇₈₉]+")
_ROOT = re.compile(
    r"(?:√|(?<![A-Za-z\\])sqrt)\s*(?:\((?P<round>[^()]*)\)|\{(?P<curly>[^{}]*)\}|(?P<bare>\d+(?:\.\d+)?|[A-Za-z](?![A-Za-z])))"
)
_STARS = re.compile(r"(?<=[\w)\]}])\*\*(?=[\w({\\-])")
_FUNCTION = re.compile(
    r"(?<![A-Za-z\\])(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp)(?![A-Za-z])"
)
_SYMBOLS = str.maketrans(
    {"∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "×": r"\times ", "·": r"\cdot ",
     "⋅": r"\cdot ", "÷": "/", "\u2044": "/", "\u2212": "-", "∪": r"\cup ", "∩": r"\cap "}
)  # fmt: skip


def to_latex(text: str) -> str:
    """Text with Unicode and plain notation of mathematics rewritten as LaTeX.

    To be called before Unicode normalisation, which turns "x²" into "x2".
    """
    text = _RAISED.sub(lambda found: "^{" + found[0].translate(_SUPERSCRIPTS) + "}", text)
    text = _LOWERED.sub(lambda found: "_{" + found[0].translate(_SUBSCRIPTS) + "}", text)
    text = _ROOT.sub(_root, _STARS.sub("^", text))
    return _FUNCTION.sub(r"\\\1 ", text.translate(_SYMBOLS))


def _root(match: re.Match[str]) -> str:
    content = next(group for group in match.groups() if group is not None)
    return rf"\sqrt{{{content}}}"
