"""Accidents that happen to honest code and tricks of dishonest code: each is told in one line and harms nobody else."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from telling import assert_answers, assert_told

from pyvision_env.sandbox import Episode, Sandbox, make_sandbox

LIMIT_OF_MEMORY = "MemoryError: the memory limit of the runtime was reached"
NOBODY = "EOFError: input() and sys.stdin are not available here: nobody is there to answer"

# Code, and how the line begins that tells what came of it (None: nothing went wrong).
ACCIDENTS: dict[str, list[tuple[str, str | tuple[str, ...] | None]]] = {
    "output": [
        ("for _ in range(200): print('y' * 1_000_000)", None),
        ("import os\nfor _ in range(100): n = os.write(2, b'z' * 100_000); n = os.write(1, bytes(range(256)))", None),
        ("import os; c = os.system('echo shell; head -c 1000000 /dev/urandom')", None),
        ("print('\\x1b[2J\\x00\\ud800\\udcff' * 1000)", None),
        ("raise ValueError('m' * 10_000_000 + '\\nsecond line')", "ValueError: mmm"),
        ("raise ValueError('\\x1b[31m\\ud800\\r\\n')", "ValueError: \\x1b[31m\\ud800"),
        ("class Odd(Exception):\n    def __str__(self): raise KeyError\nraise Odd", "Odd"),
        ("raise BaseExceptionGroup('many', [ValueError(i) for i in range(1000)])", "ExceptionGroup: many (1000 sub-"),
        ("import os\nfor fd in (0, 1, 2): os.close(fd)\nprint('still')", None),
        ("import sys; sys.stdout.write(b'bytes')", "TypeError: write() argument must be str"),
    ],
    "ends": [
        ("import sys; sys.exit()", None),
        ("raise SystemExit('because')", "SystemExit: because"),
        ("quit(7)", "SystemExit: 7"),
        ("import os; os._exit(3)", "RuntimeLost: the Python runtime ended (exit code 3)"),
        ("import ctypes; ctypes.string_at(0)", "RuntimeLost: the Python runtime ended (killed by SIGSEGV)"),
        ("import os; os.abort()", "RuntimeLost: the Python runtime ended (killed by SIG"),
        ("import os, signal\nfor pid in (os.getpid(), 1): os.kill(pid, signal.SIGKILL)", None),
        ("import os; os.execv('/bin/true', ['true'])", "RuntimeLost: the Python runtime ended (exit code 0)"),
        ("import os; os.execv('/bin/sleep', ['sleep', '60'])", "RuntimeLost: the runtime closed its connection"),
    ],
    "depth": [
        ("def f(): return f()\nf()", "RecursionError: maximum recursion depth exceeded"),
        ("x = []\nfor _ in range(100_000): x = [x]\nprint(x)", "RecursionError: "),
        ("import json; json.loads('[' * 1_000_000)", "RecursionError: "),
        ("eval('(' * 100_000)", "SyntaxError: "),
        ("eval('-' * 1_000_000 + '1')", "MemoryError: "),
        ("x = 1\n\x00", ("SyntaxError: source code", "ValueError: source code")),
        (
            "import sys; sys.setrecursionlimit(10**9)\nclass A:\n    def __repr__(self): return repr(self)\nA()",
            "RuntimeLost: the Python runtime ended (killed by SIGSEGV)",
        ),
    ],
    "limits": [
        ("input('? ')", NOBODY),
        ("import sys; sys.stdin.readline()", NOBODY),
        ("import resource; resource.setrlimit(resource.RLIMIT_AS, (0, 0)); x = bytearray(10**8)", LIMIT_OF_MEMORY),
        ("import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "ValueError: not allowed to raise"),
        ("import resource; resource.setrlimit(resource.RLIMIT_NPROC, (9999, 9999))", "ValueError: not allowed to "),
        ("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (9999, 9999))", "ValueError: not allowed to "),
        ("open('/proc/self/oom_score_adj', 'w').write('-1000')", "PermissionError: [Errno 13] Permission denied"),
        ("import os; os.nice(-5)", "PermissionError: [Errno 1] Operation not permitted"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind_of_accident", ACCIDENTS)
def test_an_accident_is_told_in_one_line_and_harms_nobody(
    attacker: Episode, neighbour: Episode, kind_of_accident: str
) -> None:
    for code, expected in ACCIDENTS[kind_of_accident]:
        assert_told(attacker.run(code, timeout=20), expected, code)
        assert_answers(neighbour)
        after = attacker.run("print(image_clue_0.size)", timeout=20)
        if after.state_lost:  # what the step did to itself shows only now
            after = attacker.run("print(image_clue_0.size)", timeout=20)
        assert after.text == "(80, 60)\n", (code, after)


def test_every_way_of_showing_shows_and_lost_images_are_the_codes_own_affair(
    attacker: Episode, neighbour: Episode
) -> None:
    for code in (
        "plt . imshow(image_clue_0) ; plt . show( )",
        "import matplotlib.pyplot as pp; pp.imshow(image_clue_0); (show := pp.show)()",
        "from pylab import *; imshow(image_clue_0); show(block=True)",
        "fig, ax = plt.subplots(); ax.plot([1, 2]); fig.show()",
        "image_clue_0.show()",
        "from PIL import ImageShow; ImageShow.show(image_clue_0)",
        "display(image_clue_0)",
        "image_clue_0.rotate(90)",
        "import matplotlib; matplotlib.use('TkAgg'); plt.figure().show()",
    ):
        result = attacker.run(code, timeout=20)
        assert (len(result.images), result.error) == (1, None), (code, result)
    assert_told(attacker.run("del image_clue_0\nimage_clue_0"), "NameError: name 'image_clue_0' is not defined", "del")
    assert len(attacker.run("image_clue_1.show()").images) == 1
    assert attacker.run("print(image_clue_10.size)").error is None
    assert_answers(neighbour)


def test_what_a_thread_or_process_prints_after_its_step_belongs_to_no_step(
    attacker: Episode, neighbour: Episode
) -> None:
    code = """
import os, threading, time
threading.Timer(2, print, ['late thread']).start()
if os.fork() == 0:
    time.sleep(2); os.write(1, b'late process'); os._exit(0)
"""
    assert_told(attacker.run(code, timeout=20), None, code)
    time.sleep(5)
    assert attacker.run("print('now')").text == "now\n"
    assert_answers(neighbour)


@pytest.mark.timeout(900)
def test_two_hundred_episodes_at_once_keep_their_time_limit_and_their_own_answers(
    sandbox: Sandbox, neighbour: Episode
) -> None:
    strict = sandbox.kind == "docker-strict"
    # A strict episode starts a container of its own: fewer of them, and still more than there are places.
    number = 12 if strict else 200
    places = {"episodes_per_container": 3 if strict else 16, "open_timeout_s": 600}
    gate = threading.Barrier(number)

    def live(index: int) -> tuple[str, str]:
        gate.wait()
        with crowded.open() as episode:
            stuck = episode.run("while True: pass", timeout=0.2).error if index % 10 == 0 else ""
            return str(stuck), episode.run(f"x = {index}\nprint(x)", timeout=60).text

    with make_sandbox(sandbox.config, limits=sandbox.limits, **places) as crowded, ThreadPoolExecutor(number) as pool:
        outcomes = list(pool.map(live, range(number)))
    for index, (stuck, text) in enumerate(outcomes):
        assert text == f"{index}\n"
        assert stuck.startswith("Timeout: the code ran longer than 0.2 s and ") or index % 10
    assert_answers(neighbour)
