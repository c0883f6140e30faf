"""Code that has read the worker: it walks to its objects, descriptors and modules, and turns them on the others."""

from __future__ import annotations

import time

import pytest
from telling import LOST, assert_answers

from pyvision_env.sandbox import Episode, Sandbox
from pyvision_env.types import ToolResult

# Each group is run step by step in one runtime; whatever it does to itself, nobody else may notice.
INSIDE: dict[str, list[str]] = {
    "the zygote's objects": [
        """
import gc, sys
zygotes = [o for o in gc.get_objects() if type(o).__name__ == 'Zygote'] + [
    f.f_locals['self'] for f in [sys._getframe()] if 'self' in f.f_locals]
frame = sys._getframe()
while frame:
    zygotes += [v for v in frame.f_locals.values() if type(v).__name__ == 'Zygote']
    frame = frame.f_back
wire = sys.modules['_pyvision_worker.wire']
for zygote in zygotes:
    for pid, episode in zygote._living.items():
        for use in (lambda: __import__('os').kill(pid, 9), lambda: open(f'{episode.slot}/diary.txt'),
                    lambda: open(f'/proc/{pid}/mem', 'rb'), lambda: zygote._clean(episode.slot)):
            try:
                use()
            except OSError:
                pass
    for message in (wire.Kill(1), wire.Kill(2), wire.Exited(1, 'forged'), wire.Failed('forged')):
        try:
            zygote._control.send(wire.pack(message))
        except OSError:
            pass
""",
        "import gc\nfor o in gc.get_objects():\n    if type(o).__name__ == 'Zygote': o.end()",
        "import sys; sys.modules['_pyvision_worker.cleaning'].empty_directory('/s')",
    ],
    "descriptors": [
        """
import os
for fd in map(int, os.listdir('/proc/self/fd')):
    for use in (lambda: os.write(fd, b'junk'), lambda: os.lseek(fd, 0, 2), lambda: os.ftruncate(fd, 0)):
        try:
            use()
        except OSError:
            pass
""",
        "import os\nfor fd in range(3, 256):\n    try: os.dup2(1, fd)\n    except OSError: pass",
        "import os\nos.closerange(0, 256)",
        "import os\nfor fd in range(3, 256):\n    try: os.set_blocking(fd, False)\n    except OSError: pass",
    ],
    "modules": [
        "import sys\nfor n in list(sys.modules):\n    if '_pyvision' in n: sys.modules[n] = None",
        "import sys; w = sys.modules['_pyvision_worker.wire']; w.Reply = w.Picture = dict",
        "import sys; r = sys.modules['_pyvision_worker.runtime']; r.send = lambda *a: None",
        "import sys; r = sys.modules['_pyvision_worker.runtime']; r.receive_request = lambda *a: 1 / 0",
        "import sys; p = sys.modules['_pyvision_worker.pictures']; p.check_size = p.fit_pixels = lambda *a: (9, 9)",
        "import sys; c = sys.modules['_pyvision_worker.capture']; c.Transcript.take = lambda s: ('x' * 9**7, False)",
        "import sys; k = sys.modules['_pyvision_worker.kernel']; k._libc = None; k.load_seccomp = print",
        "import sys; m = sys.modules['__main__']; m.__class__ = type('M', (type(m),), {'__dict__': property(exit)})",
    ],
    "builtins": [
        "import builtins\nfor n in dir(builtins):\n    if n != 'print': setattr(builtins, n, None)",
        "import builtins; builtins.__import__ = lambda *a: 1 / 0; builtins.__build_class__ = None",
        "__builtins__.clear() if isinstance(__builtins__, dict) else vars(__builtins__).clear()",
        "import builtins; builtins.compile = builtins.exec = lambda *a, **k: print('mine')",
    ],
    "signals and finalizers": [
        "import signal\ndef ring(*a): raise RuntimeError('later')\n"
        "signal.signal(signal.SIGPROF, ring); signal.setitimer(signal.ITIMER_PROF, 1e-4, 1e-4)\nsum(range(10**6))",
        "import signal\nsignal.signal(signal.SIGALRM, lambda *a: None); signal.setitimer(signal.ITIMER_REAL, .01, .01)",
        "class D:\n    def __del__(self):\n        print('finalized'); plt.figure(); image_clue_0.show(); 1 / 0\n"
        "d = D(); d.me = d",
        "import weakref, os\nclass W: pass\nw = W(); weakref.finalize(w, os._exit, 9)\ndel w",
        "import gc\ngc.set_threshold(1); gc.callbacks.append(lambda *a: 1 / 0)",
        "import sys; sys.addaudithook(lambda *a: 1 / 0)",
        "import sys, threading; sys.setprofile(lambda *a: 1 / 0); threading.setprofile(lambda *a: 1 / 0)",
        "import atexit, os; atexit.register(os.kill, os.getpid(), 9); os.register_at_fork(before=lambda: 1 / 0)",
    ],
    "values that lie": [
        "class R:\n    def __repr__(self): return 'r' * 10**8\nR()",
        "class R:\n    def __repr__(self): return 7\nR()",
        "class R:\n    def __reduce__(self): return (print, ('unpickled',))\n"
        "    __class__ = property(lambda s: 1 / 0)\nR()",
        "class P(Image.Image):\n    def copy(self): return self\n    def tobytes(self, *a): return b'short'\n"
        "p = P(); p.__dict__.update(image_clue_0.__dict__); p.show()",
        "class P(type(image_clue_0)):\n    size = width = height = property(lambda s: 10**9)\n"
        "image_clue_0.__class__ = P; image_clue_0.show()",
        "class A:\n    __array_interface__ = {'shape': (9**9, 9**9), 'typestr': '|u1', 'data': (1, True)}\n"
        "import cv2; cv2.imshow('', A())",
        "class S(str):\n    def encode(self, *a): return 7\n    def __len__(self): return -1\nprint(S('s')); S('t')",
        "import sys; sys.stdout.write = lambda *a: 1 / 0; sys.displayhook = sys.excepthook = None; print('x')\n1",
    ],
}  # fmt: skip


def assert_own_affair(result: ToolResult, code: str) -> None:
    """Whatever it says, it is bounded, and a lost runtime is told as that."""
    assert len(result.text) <= 20_000, code
    assert len(result.images) <= 8, code
    assert result.error is None or (len(result.error) <= 500 and "\n" not in result.error), code
    if result.state_lost:
        assert result.text == f"{result.error}{LOST}", code


@pytest.mark.parametrize("what", INSIDE)
def test_turning_the_worker_inside_out_hurts_only_oneself(
    attacker: Episode, neighbour: Episode, sandbox: Sandbox, what: str
) -> None:
    # Every lost runtime of a strict episode costs a container, and the worker inside is the same one.
    for code in INSIDE[what][: 1 if sandbox.kind == "docker-strict" else None]:
        assert_own_affair(attacker.run(code, timeout=2), code)
        assert_answers(neighbour)
        # Its own next steps are answered soon, by what it made of its runtime or by a fresh one.
        began = time.monotonic()
        for _ in range(2):
            assert_own_affair(attacker.run("image_clue_0.show()\nprint(1)", timeout=2), code)
        assert time.monotonic() - began < 60, code
        # The next one begins with a fresh runtime.
        attacker.run("import os; os._exit(0)", timeout=2)
        attacker.run("print(1)", timeout=2)


SPEAK = """
import os, socket, stat, struct, sys, threading, time, msgspec
fd = next(n for n in range(3, 256) if os.path.lexists(f'/proc/self/fd/{n}') and stat.S_ISSOCK(os.fstat(n).st_mode))
sock = socket.socket(fileno=os.dup(fd))
frame, seq = sys._getframe(), None
while frame is not None:
    seq = getattr(frame.f_locals.get('request'), 'seq', seq)
    frame = frame.f_back
def say(number, text='forged'):
    data = msgspec.msgpack.encode([[], {'type': 'Reply', 'seq': number, 'text': text}])
    sock.sendall(struct.pack('>I', len(data)) + data)
"""
UNASKED = "RuntimeLost: the runtime answered a request that was not asked and was ended"
AHEAD = "RuntimeLost: the runtime sent data without being asked and was ended"


@pytest.mark.parametrize("number", ["seq + 1", "seq - 1", "seq ^ 1", "0", "-1", "2**63 - 1"])
def test_a_reply_of_the_right_shape_with_a_wrong_number_ends_the_runtime(
    attacker: Episode, neighbour: Episode, number: str
) -> None:
    result = attacker.run(SPEAK + f"say({number})", timeout=20)
    assert (result.error, result.text) == (UNASKED, UNASKED + LOST)
    assert attacker.run("print('honest')", timeout=20).text == "honest\n"
    assert_answers(neighbour)


@pytest.mark.parametrize(
    "later",
    [
        "threading.Timer(0.1, say, [seq]).start()",
        "if os.fork() == 0:\n    time.sleep(0.1); say(seq); os._exit(0)",
        "if os.fork() == 0:\n    if os.fork() == 0:\n        time.sleep(0.1); say(seq); os._exit(0)\n    os._exit(0)",
    ],
    ids=["thread", "child", "orphan"],
)
def test_a_late_reply_answers_no_later_step(attacker: Episode, neighbour: Episode, later: str) -> None:
    assert attacker.run(SPEAK + later, timeout=20).error is None
    # It waits at the door until the next request; there is no other way of noticing it from here.
    deadline = time.monotonic() + 20
    result = attacker.run("print('honest')", timeout=20)
    while result.text == "honest\n" and time.monotonic() < deadline:
        time.sleep(0.1)
        result = attacker.run("print('honest')", timeout=20)
    assert result.error in (AHEAD, UNASKED), result
    assert attacker.run("print('honest')", timeout=20).text == "honest\n"
    assert_answers(neighbour)


def test_a_thread_that_steals_requests_answers_only_for_its_own_episode(
    attacker: Episode, neighbour: Episode, sandbox: Sandbox
) -> None:
    """The runtime belongs to the code: it may lie about its own steps, and earns nothing but text by it."""
    steal = """
def steal():
    while True:
        (size,) = struct.unpack('>I', sock.recv(4, socket.MSG_WAITALL))
        request = msgspec.msgpack.decode(sock.recv(size, socket.MSG_WAITALL))
        say(request[1]['seq'], 'stolen')
import signal
threading.Thread(target=steal).start()
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
threading.Event().wait(0.5)
say(seq, 'begun')
threading.Event().wait()
"""
    assert attacker.run(SPEAK + steal, timeout=20).text == "begun"
    assert {attacker.run(f"print({n})", timeout=20).text for n in range(5)} == {"stolen"}
    assert_answers(neighbour)
    with sandbox.open() as fresh:
        assert fresh.run("print('honest')", timeout=20).text == "honest\n"
