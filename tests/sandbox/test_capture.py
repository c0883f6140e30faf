"""Text that code writes: order over Python and the descriptors below it, bounds, and nothing unprintable."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvision_env.sandbox import Episode, Sandbox
from pyvision_env.sandbox.worker.capture import Transcript, one_line, printable, shorten


def test_print_processes_and_raw_writes_keep_their_order(episode: Episode) -> None:
    code = """
import os, subprocess, sys
print('one')
os.system('echo two')
os.write(1, b'three\\n')
sys.stderr.write('four\\n')
subprocess.run(['echo', 'five'])
os.write(2, b'six\\n')
print('seven', file=sys.__stdout__)
sys.stdout.buffer.write(b'eight\\n')
"""
    assert episode.run(code).text == "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\n6\n"


def test_long_text_keeps_both_ends_around_a_marker(episode: Episode) -> None:
    result = episode.run("for i in range(3000): print(i)")
    assert result.truncated
    assert result.text.startswith("0\n1\n")
    assert "characters left out] ..." in result.text
    assert len(result.text) <= 8192 + 200


def test_an_error_after_long_text_is_still_told(episode: Episode) -> None:
    result = episode.run("print('x' * 100_000)\nraise ValueError('the end')")
    assert result.text.rstrip().endswith("ValueError: the end")
    assert result.truncated
    assert result.error == "ValueError: the end"


def test_an_error_with_a_huge_message_is_cut_to_one_short_line(episode: Episode) -> None:
    result = episode.run("raise ValueError('m' * 1_000_000 + '\\nsecond line')")
    assert result.error is not None
    assert len(result.error) <= 500
    assert "\n" not in result.error
    assert len(result.text) <= 8192 + 200


def test_two_hundred_megabytes_from_python_and_from_a_process_are_cut(sandbox: Sandbox) -> None:
    codes = ("for _ in range(200): print('y' * 1_000_000)", "import os; os.system('yes | head -c 200000000')")
    with sandbox.open() as episode:
        for code in codes:
            result = episode.run(code, timeout=20)
            assert result.truncated, code
            assert not result.state_lost, code
            assert "left out]" in result.text, code
            assert len(result.text) <= 8192 + 200, code
        assert episode.run("print('fine')").text == "fine\n"


def test_control_characters_and_surrogates_become_printable(episode: Episode) -> None:
    result = episode.run(r"print('\x1b[31mred\x1b[0m \x00 \x07 \ud800 tab\tend')")
    assert result.text == "\\x1b[31mred\\x1b[0m \\x00 \\x07 \\ud800 tab\tend\n"


def test_bytes_that_are_not_text_are_replaced(episode: Episode) -> None:
    assert episode.run(r"import os; n = os.write(1, b'\xff\xfe ok\n')").text == "\ufffd\ufffd ok\n"


def test_a_progress_bar_leaves_its_last_state(episode: Episode) -> None:
    assert episode.run(r"for i in range(3): print(f'\r{i}/2', end='')").text == "2/2"


def test_text_is_made_printable_in_time_that_grows_with_its_length() -> None:
    """A reply's text is hostile, and while the host looks at it nothing else of its process runs."""
    assert printable("\r" + "a" * 4_000_000) == "a" * 4_000_000
    assert printable("a\rb\r\r\nc\r\n\rd\r") == "b\nc\nd"


def test_writing_something_else_than_text_is_the_codes_error(episode: Episode) -> None:
    assert (
        episode.run("import sys; sys.stdout.write(b'x')").error == "TypeError: write() argument must be str, not bytes"
    )


def test_what_a_thread_prints_between_two_steps_belongs_to_neither(episode: Episode) -> None:
    timer = "threading.Timer(2, lambda: (print('from the past'), open('said', 'w').close())).start()"
    assert episode.run(f"import os, threading, time\n{timer}").text == ""
    time.sleep(5)
    assert episode.run("print('now')").text == "now\n"
    assert episode.run("os.path.exists('said')").text == "True\n", "it printed after a step, or nothing was tested"


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=200))
def test_printable_text_is_utf8_without_control_characters(text: str) -> None:
    result = printable(text)
    result.encode("utf-8")
    assert not any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in result)


@given(st.text(max_size=400), st.integers(0, 200))
def test_a_shortened_text_never_grows_and_says_how_much_is_missing(text: str, limit: int) -> None:
    short = shorten(text, limit)
    if len(text) <= limit:
        assert short == text
    else:
        assert f"[{len(text) - limit} characters left out]" in short
        assert len(short) <= limit + 60


@given(st.text(max_size=2000))
def test_one_line_is_one_printable_line(text: str) -> None:
    line = one_line(text, 100)
    assert "\n" not in line
    assert len(line) <= 100


@pytest.fixture
def spool(tmp_path: Path) -> int:
    return os.open(tmp_path / "spool", os.O_RDWR | os.O_CREAT | os.O_APPEND)


def test_a_transcript_merges_raw_output_in_order_and_counts_what_it_drops(spool: int) -> None:
    transcript = Transcript(10, spool)
    transcript.write("ab")
    os.write(spool, b"cd")
    transcript.write("ef" * 10)
    assert transcript.take() == ("abcdefefef\n... [14 more characters left out]", True)
    transcript.begin()
    assert transcript.take() == ("", False)
    os.close(spool)
