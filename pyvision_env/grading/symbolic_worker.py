"""The program of a math process: reads one comparison a line on stdin, writes one verdict a line on stdout.

It runs as a script and imports nothing of this package, so that it starts quickly and holds no state of its parent.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
from typing import TextIO

MEMORY_BYTES = 2 * 2**30


def main() -> None:
    """Serve until stdin closes, which also happens when the parent dies."""
    requests, replies = sys.stdin, _own_stdout()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # math-verify warns at every call that its time-outs are off; here the processor limit below stands in for them.
    logging.disable(logging.CRITICAL)
    import math_verify  # noqa: F401 - so that "ready" means that no comparison pays for the import

    _say(replies, {"ready": True})
    for line in requests:
        request = json.loads(line)
        _limit_processor_time(request["cpu_s"])
        _say(replies, {"equal": _equal(request["reference"], request["answer"])})


def _own_stdout() -> TextIO:
    """The real stdout; what libraries print goes nowhere, so that it cannot pass for a verdict."""
    replies = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return replies


def _say(replies: TextIO, message: dict[str, bool]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _limit_processor_time(seconds: int) -> None:
    """Have the kernel end this process (SIGXCPU) when the comparison has used ``seconds`` more of a processor.

    Unlike a signal handler in Python this also stops one long computation in C, and unlike a wall clock it does not
    call an answer wrong because the machine is busy.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, hard))


def _equal(reference: str, answer: str) -> bool:
    from math_verify import LatexExtractionConfig, parse, verify

    # Only the LaTeX reader: the one for plain expressions evaluates text as Python.
    config = [LatexExtractionConfig()]
    try:
        gold = parse(f"${reference}$", config, parsing_timeout=None)
        said = parse(f"${answer}$", config, parsing_timeout=None)
        return bool(gold) and bool(said) and bool(verify(gold, said, timeout_seconds=None))
    except Exception:  # noqa: BLE001 - whatever the reader of a hostile expression trips over, it is no equality
        return False


if __name__ == "__main__":
    main()
