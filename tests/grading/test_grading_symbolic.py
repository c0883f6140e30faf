from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from pyvision_env.errors import InfrastructureError
from pyvision_env.grading import math_equal
from pyvision_env.grading.symbolic import looks_like_maths
from pyvision_env.grading.symbolic_process import ExpressionTimeoutError, SymbolicPool

HANGS = r"10^{10^{10^{10}}}"


def workers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        # One that ends while it is looked at is none.
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE and any("symbolic_worker" in part for part in child.cmdline()):
                found.append(child)
    return found


def lives(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


@pytest.fixture(scope="module")
def pool() -> Iterator[SymbolicPool]:
    pool = SymbolicPool(processes=1)
    yield pool
    pool.close()


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (r"\frac{1}{2}", "0.5"),
        (r"\frac{1}{2}", r"\dfrac{1}{2}"),
        ("x^2+2x+1", "(x+1)^2"),
        (r"2\sqrt{3}", r"\sqrt{12}"),
        (r"2\sqrt{3}", "2*sqrt(3)"),
        (r"\frac{\pi}{2}", "π/2"),
        (r"\sqrt{2}", r"So the answer is $\sqrt{2}$."),
        (r"\sqrt{2}", r"\boxed{\sqrt{2}}"),
        (r"\left(1, 2\right)", "(1,2)"),
        (r"\{1,2\}", r"\{2,1\}"),
        ("x=5", "5"),
        ("2x", "x+x"),
        ("1,000", "1000"),
    ],
)
def test_equal_expressions_are_equal(reference: str, answer: str) -> None:
    assert math_equal(reference, answer)


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (r"\sqrt{2}", ""),
        (r"\sqrt{2}", "$ $"),
        (r"\sqrt{2}", "I do not know"),
        (r"\sqrt{2}", r"\sqrt{2}, \sqrt{3}"),
        (r"\sqrt{2}", r"$\sqrt{2}$ or $\sqrt{3}$"),
        (r"\sqrt{2}", r"1 2 3 \sqrt{2}"),
        (r"\sqrt{2}", r"\sqrt{2}=\sqrt{3}"),
        (r"\sqrt{2}", "x"),
        ("(1,2)", "(2,1)"),
        ("[0,1)", "[0,1]"),
        (r"\pi", "3.14"),
        ("0.3", "0.31"),
        ("x", "}{"),
        (r"\sqrt{2}", r"\sqrt{2}" + "+0" * 1_000),
    ],
)
def test_other_expressions_are_not(reference: str, answer: str) -> None:
    assert not math_equal(reference, answer)


def test_easy_comparisons_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pool() -> SymbolicPool:
        raise AssertionError("a process was asked for")

    monkeypatch.setattr("pyvision_env.grading.symbolic.shared_pool", no_pool)
    assert math_equal(r"\frac{1}{2}", r"$\dfrac{1}{2}$")
    assert math_equal(r"\frac{1}{2}", "0.5")
    assert not math_equal("7", "8")


def test_an_answer_is_not_run_as_python(pool: SymbolicPool, tmp_path: object) -> None:
    marker = f"{tmp_path}/ran"
    for answer in (f"__import__('os').mkdir('{marker}')", f"$ $ __import__('os').mkdir('{marker}')"):
        assert not pool.equal("x", answer, 2)
    assert not os.path.exists(marker)  # noqa: PTH110


@pytest.mark.parametrize("answer", [HANGS, r"\sum_{i=1}^{10^9} \frac{1}{i}"])
def test_a_hanging_expression_is_stopped_and_the_next_one_is_served(pool: SymbolicPool, answer: str) -> None:
    with pytest.raises(ExpressionTimeoutError):
        pool.equal("x^2+1", answer, 1)
    assert pool.equal("2x", "x+x", 60)


def test_many_threads_share_few_processes() -> None:
    before = {worker.pid for worker in workers()}
    pool = SymbolicPool(processes=2)
    try:
        with ThreadPoolExecutor(16) as threads:
            pairs = [(f"(x+{i})^2", f"x^2+{2 * i}x+{i * i + i % 2}") for i in range(1, 17)]
            found = list(threads.map(lambda pair: pool.equal(*pair, 60), pairs))
            assert len({worker.pid for worker in workers()} - before) <= 2
        assert found == [i % 2 == 0 for i in range(1, 17)]
    finally:
        pool.close()


def test_a_process_killed_from_outside_is_replaced(pool: SymbolicPool) -> None:
    assert pool.equal("2x", "x+x", 60)
    for worker in workers():
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    assert pool.equal("2x", "x+x", 60)


def test_a_process_that_is_killed_again_and_again_is_an_infrastructure_error(pool: SymbolicPool) -> None:
    stop = threading.Event()

    def kill_all() -> None:
        while not stop.wait(0.02):
            for worker in workers():
                # One that has ended meanwhile must not end this thread.
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        with pytest.raises(InfrastructureError):
            pool.equal("x^2+1", HANGS, 60)
    finally:
        stop.set()
        killer.join()


def test_closing_leaves_no_process_behind() -> None:
    before = {worker.pid for worker in workers()}
    pool = SymbolicPool(processes=1)
    pool.equal("2x", "x+x", 60)
    assert {worker.pid for worker in workers()} > before
    pool.close()
    assert {worker.pid for worker in workers()} <= before


@pytest.mark.parametrize("end", ["normal", "killed"])
def test_no_process_outlives_the_interpreter(end: str) -> None:
    program = (
        "import sys, psutil\n"
        "from pyvision_env.grading import math_equal\n"
        "assert not psutil.Process().children(), 'a process was started at import'\n"
        "assert math_equal('2x', 'x+x')\n"
        "print(psutil.Process().children()[0].pid, flush=True)\n"
        "if sys.argv[1] == 'killed': sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, end], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        if end == "killed":
            parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while lives(pid):
        assert time.monotonic() < deadline, "the worker is still there"
        time.sleep(0.05)


@pytest.mark.parametrize(
    "text",
    ["x+1", "2x", r"\frac12", "(1,2)", "[0,1)", "x=5", "a=b", r"\pi", "2π", "x^2", r"$\sqrt{2}$", "1/x", "y = 2x + 1"],
)
def test_expressions_look_like_maths(text: str) -> None:
    assert looks_like_maths(text)


@pytest.mark.parametrize(
    "text",
    ["red", "t-shirt", "yes/no", "and/or", "3-5", "10:30", "2024-01-05", "A-B", r"\text{red}", "C++", "3D", "5%"],
)
def test_words_and_numbers_do_not(text: str) -> None:
    assert not looks_like_maths(text)
