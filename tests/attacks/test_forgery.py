"""Code that finds the worker's own end of the wire, or its objects, and speaks in its place."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pyvision_env.sandbox import Episode, Sandbox

LOST = ". A fresh runtime was started: variables are gone, image_clue_k and video_clue_j are bound anew."

# What every attacker here starts from: its own end of the episode socket and the seq of the request in progress.
FOUND = """
import gc, os, socket, stat, struct, sys, threading, time, msgspec
wire = sys.modules['_pyvision_worker.wire']
fd = next(n for n in range(3, 256) if os.path.lexists(f'/proc/self/fd/{n}') and stat.S_ISSOCK(os.fstat(n).st_mode))
sock = socket.socket(fileno=os.dup(fd))
frame, seq = sys._getframe(), None
while frame is not None:
    seq = getattr(frame.f_locals.get('request'), 'seq', seq)
    frame = frame.f_back
def header(sizes, **fields):
    data = msgspec.msgpack.encode([sizes, {'type': 'Reply', **fields}])
    return struct.pack('>I', len(data)) + data
"""


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def sandbox(request: pytest.FixtureRequest, sandbox_of: Callable[[str], Sandbox]) -> Sandbox:
    """Without strict: the wire is the same one, and its containers take their time."""
    return sandbox_of(request.param)


def found(attacker: Episode) -> None:
    result = attacker.run(FOUND + "print(type(seq), fd > 2)")
    assert result.text == "<class 'int'> True\n"


def assert_speaks_unasked(attacker: Episode) -> None:
    """Wait until something lies in the host's end that was not asked for."""
    assert attacker._lease is not None
    assert select.select([attacker._lease.sock], [], [], 60)[0], "nothing came"


def open_inodes() -> set[int]:
    """What this process holds open."""
    inodes = set()
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(fd.stat().st_ino)
    return inodes


def test_a_reply_with_a_wrong_number_ends_the_runtime(attacker: Episode) -> None:
    result = attacker.run(FOUND + "sock.sendall(header([], seq=1, text='forged'))")
    assert result.error == "RuntimeLost: the runtime answered a request that was not asked and was ended"
    assert result.text == result.error + LOST
    assert attacker.run("print('honest')").text == "honest\n"


def test_a_second_reply_never_answers_the_next_step(attacker: Episode) -> None:
    # The forged one carries the right number, so it answers its own step; the real one is then one too many.
    result = attacker.run(FOUND + "sock.sendall(header([], seq=seq, text='forged'))")
    assert (result.text, result.error) == ("forged", None)
    assert_speaks_unasked(attacker)
    after = attacker.run("print('honest')")
    assert after.error == "RuntimeLost: the runtime sent data without being asked and was ended"
    assert after.state_lost
    assert attacker.run("print('honest')").text == "honest\n"


def test_a_reply_sent_ahead_by_a_thread_is_discarded(attacker: Episode) -> None:
    found(attacker)
    code = """
def ahead():
    time.sleep(2)  # so long that the step has ended
    sock.sendall(header([], seq=seq, text='ahead') * 5)
threading.Thread(target=ahead).start()
"""
    attacker.run(code)
    assert_speaks_unasked(attacker)
    after = attacker.run("print('honest')")
    assert after.error == "RuntimeLost: the runtime sent data without being asked and was ended"
    assert attacker.run("print('honest')").text == "honest\n"


def test_a_reply_of_an_ended_step_never_answers_a_later_one(attacker: Episode) -> None:
    # The runtime is killed by its time-out; a process it left behind goes on holding the socket.
    code = """
import signal
parent = os.getpid()
if os.fork() == 0:
    while os.getppid() == parent:
        time.sleep(0.05)
    while True:
        try:
            sock.sendall(header([], seq=seq, text='late'))
        except OSError:
            os._exit(0)
        time.sleep(0.05)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
while True: pass
"""
    result = attacker.run(FOUND + code, timeout=2)
    assert result.error == "Timeout: the code ran longer than 2 s and could not be interrupted"
    assert result.state_lost
    for number in range(5):
        after = attacker.run(f"print({number})")
        assert after.text == f"{number}\n"


@pytest.mark.parametrize(
    ("sent", "misdeed"),
    [
        ("b'\\xff\\xff\\xff\\xff'", "broke the protocol (a reply header of 4294967295 bytes exceeds the limit"),
        ("struct.pack('>I', 20) + bytes(20)", "broke the protocol (a reply that cannot be decoded: "),
        ("b'GET / HTTP/1.1\\r\\n\\r\\n'", "broke the protocol (a reply header of 1195725856 bytes exceeds the limit"),
        ("struct.pack('>I', 100_000) + b'\\x91' * 100_000", "broke the protocol (a reply that cannot be decoded: "),
        ("struct.pack('>I', 5) + b'\\xdd\\xff\\xff\\xff\\xff'", "broke the protocol (a reply that cannot be decoded: "),
        ("header([3], seq=seq)", "broke the protocol (a reply whose pictures and blobs disagree)"),
        ("header([], seq=seq, pictures=[dict(width=9, height=9)])", "broke the protocol (a reply whose pictures and"),
        ("header([0], seq=seq, pictures=[dict(width=0, height=9)])", "broke the protocol (a reply whose pictures and"),
        (
            "header([3 << 60], seq=seq, pictures=[dict(width=1 << 30, height=1 << 30)])",
            "broke the protocol (a reply with 3458764513820540928 bytes of pictures exceeds the limit of 48000000)",
        ),
        ("header([], seq=seq, videos=[{}] * 100_000)", "broke the protocol (a reply that cannot be decoded: "),
        (
            "header([6_000_003], seq=seq, pictures=[dict(width=2_000_001, height=1)]) + bytes(6_000_003)",
            "sent more or larger images than allowed",
        ),
        ("header([3] * 9, seq=seq, pictures=[dict(width=1, height=1)] * 9) + bytes(27)", "sent more or larger images"),
    ],
)  # fmt: skip
def test_a_malformed_reply_ends_the_runtime_with_the_reason(attacker: Episode, sent: str, misdeed: str) -> None:
    result = attacker.run(FOUND + f"sock.sendall({sent})\ntime.sleep(5)")
    assert result.error is not None
    assert result.error.startswith(f"RuntimeLost: the runtime {misdeed}")
    assert result.error.endswith(" and was ended")
    assert "\n" not in result.error
    assert len(result.error) < 300
    assert result.text == result.error + LOST
    assert result.images == ()
    assert attacker.run("print(image_clue_0.size)").text == "(80, 60)\n"


def test_bytes_that_drip_do_not_hold_the_host_beyond_its_deadline(attacker: Episode) -> None:
    code = "sock.sendall(struct.pack('>I', 1 << 20))\nfor _ in range(10**6):\n    sock.sendall(b'x'); time.sleep(0.02)"
    began = time.monotonic()
    result = attacker.run(FOUND + code, timeout=2)
    assert time.monotonic() - began < 100
    assert result.state_lost
    assert attacker.run("print('honest')").text == "honest\n"


def test_pixels_that_drip_do_not_hold_the_host_either(attacker: Episode) -> None:
    code = """
import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)
sock.sendall(header([30_000], seq=seq, pictures=[dict(width=100, height=100)]))
while True:
    sock.sendall(b'x'); time.sleep(0.02)
"""
    began = time.monotonic()
    result = attacker.run(FOUND + code, timeout=2)
    assert time.monotonic() - began < 100
    assert result.error == "Timeout: the code ran longer than 2 s and could not be interrupted"


def test_a_flood_on_the_wire_costs_the_host_nothing(attacker: Episode) -> None:
    result = attacker.run(FOUND + "while True:\n    sock.sendall(bytes(1 << 20))", timeout=2)
    assert result.state_lost
    assert attacker.run("print('honest')").text == "honest\n"


def test_a_runtime_that_stops_reading_is_ended_at_the_deadline(attacker: Episode) -> None:
    # The request is larger than the socket holds, so sending it cannot finish.
    attacker.run("import threading, time\nx = 1")
    stop = """
import signal
signal.signal(signal.SIGALRM, signal.SIG_IGN)
sock.sendall(header([], seq=seq))
time.sleep(60)
"""
    assert attacker.run(FOUND + stop).error is None
    result = attacker.run("#" * 500_000, timeout=0.5)
    assert result.error == "Timeout: the code ran longer than 0.5 s and could not be interrupted"
    assert attacker.run("print('honest')").text == "honest\n"


@pytest.mark.parametrize("code", ["os.close(fd)", "os.closerange(3, 256)", "sock.shutdown(socket.SHUT_RDWR)"])
def test_a_runtime_that_closes_its_wire_is_replaced(attacker: Episode, code: str) -> None:
    result = attacker.run(FOUND + f"{code}\ntime.sleep(0.1)")
    assert result.error is not None
    assert result.error.startswith("RuntimeLost: the ")
    assert attacker.run("print('honest')").text == "honest\n"


def test_a_runtime_that_hangs_up_but_lives_on_is_ended(attacker: Episode) -> None:
    result = attacker.run(FOUND + "sock.shutdown(socket.SHUT_RDWR)\nwhile True: pass", timeout=3)
    assert result.error == "RuntimeLost: the runtime closed its connection and was ended"
    assert attacker.run("print('honest')").text == "honest\n"


def test_descriptors_sent_to_the_host_are_dropped(attacker: Episode) -> None:
    code = """
import array
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [fd] * 200))]
message = header([], seq=seq, text=str(os.fstat(fd).st_ino))
sock.sendmsg([message], rights)
time.sleep(1)
"""
    result = attacker.run(FOUND + code)
    assert result.text.isdigit(), result
    assert int(result.text) not in open_inodes()


def test_forged_text_is_bounded_and_made_printable(attacker: Episode) -> None:
    forged = "header([], seq=seq, text='\\x1b[2J' + 'x' * 1_000_000, error='first\\x07\\nsecond' + 'e' * 1_000_000)"
    result = attacker.run(FOUND + f"sock.sendall({forged})\ntime.sleep(5)")
    assert result.text.startswith("\\x1b[2Jxxx")
    assert len(result.text) < 20_000
    assert result.error == "first\\x07"


def test_a_forged_reply_earns_nothing_but_text_and_pictures(attacker: Episode) -> None:
    forged = "header([], seq=seq, text='ok', reward=1.0, terminated=True, correct=True, extra={'a': [1] * 99})"
    result = attacker.run(FOUND + f"sock.sendall({forged})\ntime.sleep(5)")
    assert (result.text, result.images, result.error) == ("ok", (), None)
    assert not hasattr(result, "reward")


def test_a_pickle_is_never_opened(attacker: Episode) -> None:
    code = """
import pickle
class Evil:
    def __reduce__(self):
        return (os.system, ('touch /tmp/pwned',))
data = pickle.dumps(Evil())
sock.sendall(struct.pack('>I', len(data)) + data)
time.sleep(5)
"""
    result = attacker.run(FOUND + code)
    assert result.error is not None
    assert result.error.startswith("RuntimeLost: the runtime broke the protocol (a reply that cannot be decoded: ")


@pytest.mark.parametrize(
    "code",
    [
        "import builtins; builtins.print = None",
        "import builtins\nbuiltins.len = lambda x: 0\nbuiltins.isinstance = lambda *a: True",
        "import sys; sys.stdout = sys.stderr = sys.__stdout__ = None",
        "import matplotlib.pyplot as p; p.show = p.figure = p.imshow = None; plt.close = lambda *a: 1 / 0",
        "import os; os.getpid = lambda: 1; os.fstat = os.pread = os.ftruncate = None",
        "import sys\nfor m in [m for n, m in sys.modules.items() if '_pyvision' in n]:\n    m.__dict__.clear()",
        "import sys, linecache\nlinecache.cache = None\nsys.modules.clear()",
        "import gc\nfor o in gc.get_objects():\n    if type(o).__name__ == 'Runtime':\n        o.__dict__.clear()",
        "import gc\nfor o in gc.get_objects():\n if 'runtime.' in repr(getattr(o, '__code__', 0)):\n  del o.__code__",
        "import msgspec, json; msgspec.msgpack.encode = json.dumps = None",
        "import signal; signal.signal = signal.setitimer = None",
        "import sys; sys.settrace(lambda *a: 1 / 0)",
        "import sys; sys.setrecursionlimit(60)",
        "globals().clear()",
        "import gc; gc.disable(); gc.set_threshold(1); del image_clue_0",
        "import PIL.Image; PIL.Image.Image.convert = PIL.Image.Image.copy = lambda *a: 1 / 0",
    ],
)  # fmt: skip
def test_sawing_at_the_runtime_hurts_only_oneself(attacker: Episode, code: str) -> None:
    """Whatever a step makes of its own runtime, each later step gets an answer or a fresh runtime, soon."""
    for step in (code, *["image_clue_0.show()\nprint(1)"] * 3):
        result = attacker.run(step, timeout=1)
        if result.state_lost:
            assert result.text == f"{result.error}{LOST}"
        elif step is not code:
            assert result.text or result.error or result.images, step


def test_exits_in_every_corner_are_survived(attacker: Episode) -> None:
    for code in (
        "import atexit, os; atexit.register(os._exit, 5)\nraise SystemExit(3)",
        "raise KeyboardInterrupt",
        "raise GeneratorExit",
        "raise BaseException('odd')",
        "import sys; sys.excepthook = None; 1 / 0",
        "import threading; threading.Thread(target=exit).start()",
        "class Meta(type(Exception)):\n    pass\nclass E(Exception, metaclass=Meta):\n    pass\nraise E",
    ):
        result = attacker.run(code)
        assert not result.state_lost, code
    assert attacker.run("print('alive')").text == "alive\n"
