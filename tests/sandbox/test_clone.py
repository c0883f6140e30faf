"""Forking straight into namespaces: the child must be as sound as one of ``os.fork``."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CHILD = """
import os, sys, threading
from pyvision_env.sandbox.worker import kernel
kernel.set_subreaper()
forks = []
os.register_at_fork(after_in_child=lambda: forks.append(os.getpid()))
pid = kernel.clone(int(sys.argv[1]))
if pid == 0:
    told = []
    inside = int(sys.argv[1]) != 0
    told.append(os.getpid() == (1 if inside else threading.get_native_id()))
    told.append(forks[-1] == os.getpid())
    thread = threading.Thread(target=lambda: told.append(True))
    thread.start()
    thread.join()
    lock = threading.RLock()
    with lock, lock:
        inner = os.fork()
        if inner == 0:
            os._exit(7)
    told.append(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]) == 7)
    print(told, flush=True)
    os._exit(0 if all(told) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
inner = os.fork()
if inner == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]) == 7
print('parent lives', flush=True)
"""
NAMESPACES = 0x10000000 | 0x20000000


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In an interpreter of one thread, as the zygote is."""
    single = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=single)


@pytest.mark.parametrize("flags", [0, NAMESPACES], ids=["none", "user and pid"])
def test_a_child_of_clone_is_as_sound_as_one_of_fork(flags: int) -> None:
    done = run(CHILD, str(flags))
    assert done.returncode == 0, done.stderr
    assert "[True, True, True, True]" in done.stdout
    assert "parent lives" in done.stdout


def test_what_the_kernel_refuses_is_an_error_in_the_parent_and_leaves_no_child() -> None:
    code = f"""
import errno, os, resource
from pyvision_env.sandbox.worker import kernel
import pyseccomp
refused = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
refused.add_rule(pyseccomp.ERRNO(1), 'clone', pyseccomp.Arg(0, pyseccomp.MASKED_EQ, 0x10000000, 0x10000000))
refused.load()
try:
    kernel.clone({NAMESPACES})
except OSError as error:
    assert error.errno == errno.EPERM
    print(error)
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print('no child')
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert "Operation not permitted" in done.stdout
    assert "no child" in done.stdout


def test_a_process_with_threads_is_not_cloned() -> None:
    code = f"""
import os, threading
from pyvision_env.sandbox.worker import kernel
kernel.set_subreaper()
gate = threading.Event()
thread = threading.Thread(target=gate.wait)
thread.start()
try:
    kernel.clone({NAMESPACES})
except OSError as error:
    print(error)
gate.set()
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[Errno 16] clone: this process has threads\n"
