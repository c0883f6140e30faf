"""What a model meets when its code runs: state, order, errors, time, a runtime that died."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pyvision_env.config import Limits
from pyvision_env.sandbox import Episode, Sandbox, make_sandbox

GREY = np.full((60, 80, 3), 128, np.uint8)
FRESH = "A fresh runtime was started: variables are gone, image_clue_k and video_clue_j are bound anew."


def test_variables_functions_and_imports_persist_over_steps(episode: Episode) -> None:
    assert episode.run("import math\nx = 2\ndef twice(n):\n    return n * x").text == ""
    assert episode.run("print(twice(math.floor(3.5)))").text == "6\n"


def test_files_persist_over_steps(episode: Episode) -> None:
    episode.run("open('note.txt', 'w').write('kept')")
    assert episode.run("print(open('note.txt').read())").text == "kept\n"


def test_blocks_run_in_order_and_stop_at_the_first_error(episode: Episode) -> None:
    result = episode.run(["print('one')", "1 / 0", "print('three')"])
    assert result.text.startswith("one\nTraceback")
    assert "three" not in result.text
    assert result.error == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("code", "shown"),
    [("6 * 7", "42\n"), ("'a'", "'a'\n"), ("None", ""), ("x = 5", ""), ("print('p')\n'last'", "p\n'last'\n")],
)
def test_the_value_of_a_last_expression_is_shown(episode: Episode, code: str, shown: str) -> None:
    assert episode.run(code).text == shown


def test_common_names_are_there_without_an_import(episode: Episode) -> None:
    assert episode.run("print(np.add(1, 1), Image.new('L', (2, 3)).size, plt.figure is not None)").text == (
        "2 (2, 3) True\n"
    )


def test_a_traceback_names_the_codes_own_lines_only(episode: Episode) -> None:
    result = episode.run("def inner():\n    raise ValueError('bad value')\ninner()")
    assert result.error == "ValueError: bad value"
    assert 'File "<step 1>", line 3, in <module>' in result.text
    assert 'File "<step 1>", line 2, in inner' in result.text
    assert "raise ValueError('bad value')" in result.text
    assert "runtime.py" not in result.text
    assert "exec(" not in result.text


def test_a_chained_exception_shows_both_causes(episode: Episode) -> None:
    result = episode.run("try:\n    {}['k']\nexcept KeyError as e:\n    raise RuntimeError('second') from e")
    assert "KeyError: 'k'" in result.text
    assert "direct cause" in result.text
    assert result.error == "RuntimeError: second"


def test_a_syntax_error_points_at_the_line(episode: Episode) -> None:
    result = episode.run("x = 1\nif x\n    pass")
    assert result.error is not None
    assert result.error.startswith("SyntaxError")
    assert "line 2" in result.text


def test_an_exception_that_cannot_be_printed_is_still_told(episode: Episode) -> None:
    code = "class Odd(Exception):\n    def __str__(self):\n        raise KeyError\nraise Odd()"
    result = episode.run(code)
    assert result.error is not None
    assert "Odd" in result.error
    assert episode.run("1").text == "1\n"


def test_the_workers_own_future_imports_do_not_leak_into_the_code(episode: Episode) -> None:
    assert episode.run("def f(x: int): pass\nprint(f.__annotations__['x'])").text == "<class 'int'>\n"


def test_leaving_the_program_leaves_the_runtime_alive(episode: Episode) -> None:
    result = episode.run("x = 1\nimport sys\nsys.exit()")
    assert result.error is None
    assert result.text == "[the code called exit(); the runtime goes on]"
    assert episode.run("sys.exit('because')").error == "SystemExit: because"
    assert episode.run("x").text == "1\n"


def test_a_syntax_error_shows_the_codes_own_line_only(episode: Episode) -> None:
    result = episode.run("x = 1\nprint(1")
    assert result.text == "File \"<step 1>\", line 2\n    print(1\n         ^\nSyntaxError: '(' was never closed"
    result = episode.run("class Bad:\n    def __repr__(self):\n        return 1 / 0\nBad()")
    assert result.text.startswith('Traceback (most recent call last):\n  File "<step 2>", line 3, in __repr__')
    result = episode.run("exec('1 / 0')")
    places = [line for line in result.text.splitlines() if line.startswith('  File "')]
    assert places == ['  File "<step 3>", line 1, in <module>', '  File "<string>", line 1, in <module>']


def test_warnings_are_one_line_without_the_machines_paths(episode: Episode) -> None:
    assert episode.run("import warnings; warnings.warn('careful')").text == "<step 1>:1: UserWarning: careful\n"
    result = episode.run("plt.title('\u65e5'); plt.show()")
    assert result.text.startswith("UserWarning: Glyph 26085")
    assert "/" not in result.text


def test_hashes_are_the_same_in_every_worker(episode: Episode) -> None:
    code = "print(hash('pyvision'), list({'a', 'b', 'c', 'd', 'e', 'f'}))"
    here = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": "0"}, capture_output=True, check=True)
    assert episode.run(code).text == here.stdout.decode()


def test_input_is_refused_with_a_reason(episode: Episode) -> None:
    result = episode.run("input('? ')")
    assert result.error == "EOFError: input() and sys.stdin are not available here: nobody is there to answer"


def test_endless_recursion_is_an_error(episode: Episode) -> None:
    result = episode.run("def f():\n    return f()\nf()")
    assert result.error is not None
    assert result.error.startswith("RecursionError")
    assert len(result.text) < 4000


def test_running_out_of_memory_is_an_error_and_the_runtime_lives_on(episode: Episode) -> None:
    result = episode.run("kept = 1\nhoard = []\nwhile True:\n    hoard.append(bytearray(10_000_000))")
    assert result.error == "MemoryError: the memory limit of the runtime was reached"
    assert not result.state_lost
    assert episode.run("del hoard\nprint(kept)").text == "1\n"


def test_a_loop_is_interrupted_in_time_and_state_is_kept(patient: Episode) -> None:
    result = patient.run("x = 'kept'\nwhile True:\n    pass", timeout=2)
    assert result.error == "Timeout: the code ran longer than 2 s and was interrupted; variables are kept"
    assert not result.state_lost
    assert patient.run("x").text == "'kept'\n"


def test_sleeping_and_waiting_for_a_process_are_interrupted_too(patient: Episode) -> None:
    for code in ("import time; time.sleep(60)", "import subprocess; subprocess.run(['sleep', '60'])"):
        result = patient.run(code, timeout=2)
        assert result.error is not None, code
        assert result.error.startswith("Timeout"), code
        assert not result.state_lost, code


def test_what_was_printed_before_a_time_out_is_kept(patient: Episode) -> None:
    result = patient.run("print('so far')\nwhile True: pass", timeout=2)
    assert result.text.startswith("so far\nTimeout: ")


def test_time_that_is_up_where_nothing_can_catch_it_is_told_all_the_same(
    patient: Episode,
) -> None:
    for code in (
        "class Slow:\n    def __del__(self):\n        while True: pass\nx = Slow(); del x\nwhile True: pass",
        "import os, time\nos.register_at_fork(before=lambda: time.sleep(9))\nos.fork()\nwhile True: pass",
    ):
        result = patient.run(code, timeout=2)
        reason = "Timeout: the code ran longer than 2 s and was interrupted; variables are kept"
        assert (result.text, result.error) == (reason, reason), code


def test_what_is_raised_where_nothing_can_catch_it_is_one_line(episode: Episode) -> None:
    result = episode.run("class Bad:\n    def __del__(self):\n        raise ValueError('late')\nx = Bad(); del x\n1")
    assert result.text == "Exception ignored in Bad.__del__: ValueError: late\n1\n"
    assert result.error is None


def test_code_that_cannot_be_interrupted_loses_its_state_and_says_so(sandbox: Sandbox) -> None:
    with sandbox.open(images=[GREY]) as episode:
        episode.run("x = 1")
        assert len(episode.run("image_clue_0.crop((0, 0, 64, 64)).show()").images) == 1
        result = episode.run("sum(range(10**12))", timeout=0.5)
        reason = "Timeout: the code ran longer than 0.5 s and could not be interrupted"
        assert result.error == reason
        assert result.text == f"{reason}. {FRESH}"
        assert result.state_lost
        assert episode.run("x").error == "NameError: name 'x' is not defined"
        assert episode.run("print(image_clue_0.size, image_clue_1.size)").text == "(80, 60) (64, 64)\n"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import os; os._exit(3)", "exit code 3"),
        ("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV"),
    ],
)
def test_a_runtime_that_dies_is_replaced_and_the_cause_named(episode: Episode, code: str, cause: str) -> None:
    episode.run("x = 1")
    result = episode.run(code)
    assert result.error == f"RuntimeLost: the Python runtime ended ({cause})"
    assert result.text == f"{result.error}. {FRESH}"
    assert result.state_lost
    assert result.images == ()
    assert episode.run("print('x' in globals())").text == "False\n"


def test_a_runtime_that_died_between_two_steps_is_noticed(episode: Episode) -> None:
    code = "import os, threading\nthreading.Timer(2, os._exit, [7]).start()"
    assert episode.run(code).error is None, "it must outlive the step"
    assert episode._lease is not None
    assert episode._lease.ended.wait(60)
    result = episode.run("print('late')")
    assert result.error == "RuntimeLost: the Python runtime ended (exit code 7)"
    assert result.state_lost


def test_processor_time_is_bounded() -> None:
    with make_sandbox("local", limits=Limits(code_timeout_s=200), containers=1, cpu_seconds=1) as sandbox:
        result = sandbox.open().run("while True: pass")
        assert result.error == "RuntimeLost: the Python runtime ended (its 1 s of processor time were used up)"


def test_a_process_that_the_code_forks_answers_nothing_but_its_output_counts(episode: Episode) -> None:
    code = "import os\npid = os.fork()\nprint('child' if pid == 0 else (os.waitpid(pid, 0), 'parent')[1])"
    assert episode.run(code).text == "child\nparent\n"
    assert episode.run("print('next')").text == "next\n"


def test_many_processes_with_little_memory_of_their_own_are_not_taken_for_hoarders(sandbox: Sandbox) -> None:
    # Each holds a share of the zygote's memory; counted in full, sixteen of them would exceed the bound.
    code = """
import os, time
for _ in range(16):
    if os.fork() == 0:
        time.sleep(1.2)
        os._exit(0)
time.sleep(1)
print('done')
"""
    with sandbox.open() as episode:
        assert episode.run(code, timeout=60).text == "done\n"


def test_subprocess_threads_and_asyncio_work(episode: Episode) -> None:
    code = """
import asyncio, subprocess, threading
print(subprocess.run(['echo', 'sub'], capture_output=True, text=True).stdout.strip())
t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()
async def main():
    await asyncio.sleep(0); print('async')
asyncio.run(main())
"""
    assert episode.run(code).text == "sub\nthread\nasync\n"


def test_threads_are_bounded_by_their_number_not_by_their_address_space(sandbox: Sandbox) -> None:
    code = """
import threading
stop = threading.Event()
threads = [threading.Thread(target=stop.wait) for _ in range(28)]
for thread in threads:
    thread.start()
stop.set()
print('all started')
"""
    with sandbox.open() as episode:
        assert episode.run(code).text == "all started\n"


def test_scikit_learn_works_under_confinement(episode: Episode) -> None:
    code = (
        "from sklearn.cluster import KMeans\nprint(sorted(KMeans(2, n_init=1).fit([[0.], [9.], [8.], [1.]]).labels_))"
    )
    result = episode.run(code, timeout=20)
    assert result.error is None, result.text
    assert result.text.count("0") == 2


def test_pixels_drawn_into_an_image_stay_in_the_episode(sandbox: Sandbox) -> None:
    with sandbox.open(images=[GREY]) as one, sandbox.open(images=[GREY]) as other:
        one.run("image_clue_0.paste((255, 0, 0), (0, 0, 80, 60)); print(image_clue_0.getpixel((1, 1)))")
        assert other.run("image_clue_0.getpixel((1, 1))").text == "(128, 128, 128)\n"
        assert one.run("image_clue_0.getpixel((1, 1))").text == "(255, 0, 0)\n"


def test_code_that_is_too_long_is_refused_without_harm(episode: Episode) -> None:
    episode.run("x = 1")
    result = episode.run("#" * 3_000_000)
    assert result.error is not None
    assert result.error.startswith("the code is too long")
    assert episode.run("x").text == "1\n"


def test_code_with_lone_surrogates_is_run_as_escapes(episode: Episode) -> None:
    assert episode.run("print('a\udcffb')").error is None


def test_large_images_do_not_eat_the_codes_memory(sandbox: Sandbox) -> None:
    large = np.zeros((5000, 6000, 3), np.uint8)
    with sandbox.open(images=[large] * 6) as episode:
        result = episode.run("a = bytearray(300_000_000)\nprint(image_clue_5.size)")
        assert result.text == "(6000, 5000)\n"


def test_unseeded_random_numbers_are_the_same_in_every_episode(sandbox: Sandbox) -> None:
    code = "import random\nprint(random.random(), np.random.rand(3))"
    with sandbox.open() as one, sandbox.open() as two:
        first = one.run(code).text
        assert first == two.run(code).text
        assert one.run(code).text != first
