"""What code written for a notebook expects: magic and shell lines, ``IPython.display``, Colab's ``cv2_imshow``.

A magic line that only sets up a notebook does nothing; a shell line is run; an installation says in one line that
nothing can be installed and what is there. Source that is Python is never touched.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import os
import re
import sys
from collections.abc import Callable, MutableMapping
from types import ModuleType
from typing import Any

from PIL import Image

LINE = "_notebook_line"
"""Name under which the code's namespace holds ``run_line``."""

_MAX_LINES = 200
_SETS_UP = frozenset({"matplotlib", "pylab", "config", "load_ext", "reload_ext", "autoreload", "capture", "time"})
_INSTALLS = re.compile(r"[!%]\s*(sudo\s+)?(python3?\s+-m\s+)?(pip3?|conda|mamba|uv|apt|apt-get)\b.*\binstall\b")
_TIMES_ONE = re.compile(r"%time(?:it)?\s+(?=[^\s-])")
_LIBRARIES = ("numpy", "PIL", "matplotlib", "scipy", "skimage", "sklearn", "cv2", "decord", "pandas", "sympy", "tqdm")


def parse(source: str, name: str) -> ast.Module:
    """Parse source whose lines may start with ``%`` or ``!`` as in a notebook.

    Raises:
        SyntaxError: It is neither Python nor made so by replacing such lines.
    """
    try:
        return ast.parse(source, name)
    except SyntaxError as error:
        first, found = error, error
    lines = source.split("\n")
    for _ in range(_MAX_LINES):
        # The parser names the line it cannot read: what looks like a magic line inside a string is none.
        number = (found.lineno or 0) - 1
        if not 0 <= number < len(lines) or lines[number].lstrip()[:1] not in ("%", "!"):
            break
        _replace(lines, number)
        try:
            return ast.parse("\n".join(lines), name)
        except SyntaxError as error:
            found = error
    raise first


def _replace(lines: list[str], number: int) -> None:
    """Put Python in place of a notebook's line, and of those it goes on in; the count of lines stays."""
    place, line = number, lines[number]
    indent = line[: len(line) - len(line.lstrip())]
    text = line.strip()
    while text.endswith("\\") and number + 1 < len(lines):
        number += 1
        text = f"{text[:-1].rstrip()} {lines[number].strip()}"
        lines[number] = ""
    timed = _TIMES_ONE.match(text)
    lines[place] = indent + (text[timed.end() :] if timed else f"{LINE}({text!r})")


def run_line(line: str) -> None:
    """Do what a notebook's line asks for, as far as that makes sense here."""
    if _INSTALLS.match(line):
        there = ", ".join(name for name in _LIBRARIES if name in sys.modules or importlib.util.find_spec(name))
        print(f"[nothing can be installed here, there is no network; libraries at hand: {there}]")  # noqa: T201
    elif line.startswith("!"):
        os.system(line[1:])
    else:
        magic = line.lstrip("%").split(None, 1)[0] if line.strip("% ") else ""
        if magic not in _SETS_UP:
            print(f"[%{magic} is not available here; the line was left out]")  # noqa: T201


def _image(data: Any = None, url: Any = None, filename: Any = None, **options: Any) -> Image.Image:
    """``IPython.display.Image`` as far as it names a file or holds its bytes."""
    del url, options
    source = data if filename is None else filename
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)


def _text(data: Any = None, **options: Any) -> str:
    """``HTML``, ``Markdown`` and the like: there is nothing to render them, their text is told."""
    del options
    return str(data)


def _nothing(*args: Any, **options: Any) -> None:
    del args, options


def install(
    modules: MutableMapping[str, ModuleType], display: Callable[..., None], show_bgr: Callable[[Any], None]
) -> None:
    """Put ``IPython.display`` and ``google.colab.patches`` into ``modules``.

    Args:
        modules: Usually ``sys.modules``.
        display: Shows or prints values.
        show_bgr: Shows an array in OpenCV's order of channels.
    """
    shown = dict.fromkeys(("HTML", "Markdown", "Latex", "Pretty", "JSON"), _text)
    _add(modules, "IPython", get_ipython=_nothing, display=None)
    _add(modules, "IPython.display", display=display, clear_output=_nothing, Image=_image, **shown)
    _add(modules, "IPython.core")
    _add(modules, "IPython.core.display", display=display, Image=_image, **shown)
    if importlib.util.find_spec("google") is None:
        _add(modules, "google")
    _add(modules, "google.colab")
    _add(modules, "google.colab.patches", cv2_imshow=show_bgr)


def _add(modules: MutableMapping[str, ModuleType], name: str, **members: Any) -> None:
    module = ModuleType(name, "Stands in for the module of this name.")
    vars(module).update(members, __path__=[])
    modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent in modules:
        setattr(modules[parent], child, module)
