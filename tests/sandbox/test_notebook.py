"""Notebook lines in code: Python is left alone, what is none is replaced line by line, errors name their own line."""

from __future__ import annotations

import ast
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvision_env.sandbox.worker import notebook


def parsed(source: str) -> str:
    return ast.unparse(notebook.parse(source, "<code>"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("%matplotlib inline\nx = 1", "_notebook_line('%matplotlib inline')\nx = 1"),
        ("if x:\n    !ls -l\ny = 2", "if x:\n    _notebook_line('!ls -l')\ny = 2"),
        ("%time y = f(1)", "y = f(1)"),
        ("!pip install \\\n    a b\nx = 1", "_notebook_line('!pip install a b')\nx = 1"),
        ("!echo it's\n!echo \"that", "_notebook_line(\"!echo it's\")\n_notebook_line('!echo \"that')"),
        ('s = """\n!ls\n"""\n!ls', "s = '\\n!ls\\n'\n_notebook_line('!ls')"),
        ("!ls\n!ls", "_notebook_line('!ls')\n_notebook_line('!ls')"),
    ],
)
def test_a_notebooks_line_becomes_a_call(source: str, expected: str) -> None:
    assert parsed(source) == expected


@pytest.mark.parametrize(
    "source", ['s = """\n%matplotlib inline\n!ls\n"""', "x = (a\n% b)", "x = a \\\n% b", "print('!', '%d' % 3)"]
)
def test_python_is_left_alone(source: str) -> None:
    assert ast.dump(notebook.parse(source, "<code>")) == ast.dump(ast.parse(source))


def test_lines_keep_their_numbers() -> None:
    tree = notebook.parse("!pip install a \\\n  b\n\nx = 1", "<code>")
    assert [node.lineno for node in tree.body] == [1, 4]


@pytest.mark.parametrize("source", ["x = = 1", "%matplotlib inline\nx = = 1", "def f(:\n!ls", "?help", "x = !ls"])
def test_what_is_no_python_even_so_is_the_first_error_found(source: str) -> None:
    with pytest.raises(SyntaxError) as expected:
        ast.parse(source)
    with pytest.raises(SyntaxError) as raised:
        notebook.parse(source, "<code>")
    assert (raised.value.msg, raised.value.lineno) == (expected.value.msg, expected.value.lineno)


@given(st.text(alphabet="%!ab =('\"\\\n\t#:", max_size=60))
def test_any_text_parses_or_is_a_syntax_error(source: str) -> None:
    with contextlib.suppress(SyntaxError):
        notebook.parse(source, "<code>")
