"""Mathematical equality: cheap comparisons first, a computer algebra system in a process of its own for the rest."""

from __future__ import annotations

import re

from pyvision_env.grading.cleaning import plain, strip_lead, unwrap_commands
from pyvision_env.grading.notation import to_latex
from pyvision_env.grading.numbers import is_number, read_number
from pyvision_env.grading.numeric import best_of_readings, numbers_close
from pyvision_env.grading.symbolic_process import shared_pool

MAX_EXPRESSION_CHARS = 1_000
DEFAULT_TIMEOUT_S = 5

_INLINE_MATH = re.compile(r"\$+([^$]+)\$+|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_LAYOUT = re.compile(
    r"\\(?:left|right|displaystyle|limits|[bB]ig[gG]?[lr]?)(?![A-Za-z])|\\[,!;: ]|\\q?quad(?![A-Za-z])|[$~]"
)
_BARE_PI = re.compile(r"(?<![A-Za-z\\])pi(?![A-Za-z])")
_STYLED_FRACTION = re.compile(r"\\[dtc]frac(?![A-Za-z])")

# What makes a reference worth an algebra system: a LaTeX command, a power or root, a constant, a bracketed pair, or an
# operator between one-letter names and digits. "t-shirt", "yes/no" and "3-5" are none of these.
_MATHS = re.compile(
    r"\\(?!text\b|mathrm\b|%|\$)[a-zA-Z]+|\^|[√π∞≤≥≠±²³⁰¹⁴-⁹]|\w_\{?\w|\bsqrt\b"
    r"|^[(\[{]\s*-?[\w.\\/]+\s*(?:,\s*-?[\w.\\/]+\s*)+[)\]}]$"
    r"|(?<![A-Za-z])(?:\d+|[A-Za-z])\s*[+*=<>]\s*(?:-?\d+|[A-Za-z](?![A-Za-z])|\()"
    r"|(?<![A-Za-z\d])\d*[A-Za-z]\s*[-/]\s*\d|\d\s*[-/]\s*[a-z](?![A-Za-z])"
    r"|^-?\d+[a-z]$|^-?\d*\s*(?:sin|cos|tan|log|ln)\s*\(?\s*(?:\d*[a-zθπ]|\d+)\)?$"
)


def looks_like_maths(text: str) -> bool:
    """Whether ``text`` is plainly an expression and not words or a lone number."""
    return _MATHS.search(text.strip().strip("$")) is not None


def math_equal(reference: str, answer: str, timeout_s: int = DEFAULT_TIMEOUT_S) -> bool:
    """Whether two expressions, in LaTeX or plain notation, are equal. Safe to call from any thread.

    Args:
        reference: The true expression.
        answer: The expression to judge; longer than 1,000 characters it equals nothing.
        timeout_s: Whole seconds of processor time the algebra system may take.

    Raises:
        ExpressionTimeoutError: If it took longer.
        InfrastructureError: If the algebra system's process cannot run.
    """
    wanted, said = expression(reference), expression(answer)
    if not said or len(said) > MAX_EXPRESSION_CHARS:
        return False
    if _squeezed(wanted) == _squeezed(said):
        return True
    if is_number(wanted) and is_number(said):
        numbers = read_number(said), read_number(wanted)
        if numbers[0] and numbers[1]:
            return best_of_readings(numbers[0], numbers[1], lambda a, b: numbers_close(a, b, 0.0, 1e-6)) > 0
    return shared_pool().equal(wanted, said, timeout_s)


def expression(text: str) -> str:
    """The expression in a text: without announcement, delimiters, layout commands and a final full stop.

    Of "So it is $x+1$." only the part between the delimiters counts; with several such parts the whole text does.
    """
    text = to_latex(text)
    parts = [next(filter(None, found.groups())) for found in _INLINE_MATH.finditer(text)]
    text = parts[0] if len(parts) == 1 else strip_lead(plain(text))
    text = _STYLED_FRACTION.sub(r"\\frac", _LAYOUT.sub(" ", unwrap_commands(text)))
    return " ".join(_BARE_PI.sub(r"\\pi ", text).split()).rstrip(".")


def _squeezed(text: str) -> str:
    return re.sub(r"\s+(?![A-Za-z])|(?<![A-Za-z])\s+", "", text)
