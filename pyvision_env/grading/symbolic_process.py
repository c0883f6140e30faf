"""A small pool of processes that compare expressions, so that none can hang or crash the caller.

Processes start on first use, serve any number of threads, and end with the interpreter. math-verify's own time-outs
work by signal and thus in the main thread only; a process can be stopped from anywhere.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from pyvision_env.errors import InfrastructureError

_WORKER = Path(__file__).with_name("symbolic_worker.py")
_PROCESSES = 2
_START_S = 120.0
_WALL_S = 60.0
"""Beyond its processor time a comparison may wait this long, in seconds, for a busy machine."""
_BY_EXPRESSION = frozenset({signal.SIGXCPU, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE})


class ExpressionTimeoutError(Exception):
    """The comparison used up its processor time or brought its process down."""


class _LostError(Exception):
    """The process ended, or fell silent, for a reason outside the expression."""


class _Process:
    """One worker at the other end of a socket; used by one thread at a time."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            # -P: the worker's folder must not shadow the standard library.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_WORKER)],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
            )
        try:
            self._reply(_START_S)
        except (_LostError, ExpressionTimeoutError) as error:
            self.kill()
            raise InfrastructureError("The math grader's process did not start; is math-verify installed?") from error

    def equal(self, reference: str, answer: str, cpu_s: int) -> bool:
        request = {"reference": reference, "answer": answer, "cpu_s": cpu_s}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise _LostError from error
        return bool(self._reply(cpu_s + _WALL_S)["equal"])

    def _reply(self, seconds: float) -> dict[str, bool]:
        self._socket.settimeout(seconds)
        line = b""
        while not line.endswith(b"\n"):
            try:
                chunk = self._socket.recv(4096)
            except TimeoutError as error:
                raise _LostError from error
            except OSError:
                chunk = b""
            if not chunk:
                by_expression = -self._process.wait() in _BY_EXPRESSION
                raise ExpressionTimeoutError if by_expression else _LostError
            line += chunk
        reply: dict[str, bool] = json.loads(line)
        return reply

    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.close()


class SymbolicPool:
    """At most a few worker processes, started one by one as they are needed."""

    def __init__(self, processes: int = _PROCESSES) -> None:
        self._free = threading.Semaphore(processes)
        self._lock = threading.Lock()
        self._idle: list[_Process] = []

    def equal(self, reference: str, answer: str, cpu_s: int) -> bool:
        """Whether two LaTeX expressions are equal.

        Raises:
            ExpressionTimeoutError: If the comparison used ``cpu_s`` seconds of a processor, or all memory.
            InfrastructureError: If the process could not start or was killed from outside, twice.
        """
        with self._free:
            try:
                return self._once(reference, answer, cpu_s)
            except _LostError:
                # The machine may have killed it (low memory); a second loss is not the expression's doing either.
                try:
                    return self._once(reference, answer, cpu_s)
                except _LostError as error:
                    raise InfrastructureError("The math grader's process was lost twice in a row.") from error

    def _once(self, reference: str, answer: str, cpu_s: int) -> bool:
        process = self._idle_one() or _Process()
        try:
            equal = process.equal(reference, answer, cpu_s)
        except BaseException:
            process.kill()
            raise
        with self._lock:
            self._idle.append(process)
        return equal

    def _idle_one(self) -> _Process | None:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.alive():
                    return process
                process.kill()
        return None

    def close(self) -> None:
        """End all idle processes; the pool may be used again."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.kill()


# By process id: a fork inherits the parent's pool, and two owners of one pipe would read each other's verdicts.
_pools: dict[int, SymbolicPool] = {}


def shared_pool() -> SymbolicPool:
    """The pool of the calling process, closed when the interpreter exits."""
    pool = _pools.get(os.getpid())
    if pool is None:
        fresh = SymbolicPool()
        pool = _pools.setdefault(os.getpid(), fresh)
        if pool is fresh:
            atexit.register(pool.close)
    return pool
