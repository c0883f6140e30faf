"""Taking more than one's share: processes, memory, disk, time, output, pixels; and leaving a mess behind."""

from __future__ import annotations

import io
import zlib

import pytest
from PIL import Image

from pyvision_env.errors import MediaError
from pyvision_env.sandbox import Episode, Sandbox

LOST = ". A fresh runtime was started: variables are gone, image_clue_k and video_clue_j are bound anew."


def lives(episode: Episode) -> bool:
    return episode.run("print(image_clue_0.size)").text == "(80, 60)\n"


def answers_soon(neighbour: Episode) -> bool:
    """Not kept waiting by an attack that goes on for ever; generous, since the machine may be busy."""
    return neighbour.run("print(6 * 7)", timeout=20).text == "42\n"


@pytest.mark.parametrize(
    "code",
    [
        "import os\nwhile True:\n    os.fork()",
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
        "import subprocess\nsubprocess.run(['bash', '-c', 'f() { f | f & }; f; sleep 60'])",
    ],
)
def test_a_fork_bomb_stays_in_its_episode(attacker: Episode, neighbour: Episode, sandbox: Sandbox, code: str) -> None:
    result = attacker.run(code, timeout=2)
    assert result.error is not None
    assert result.text.endswith((LOST, "variables are kept")) or "BlockingIOError" in result.text, result
    assert answers_soon(neighbour)
    attacker.close()
    with sandbox.open() as fresh:
        assert fresh.run("1", timeout=10).text == "1\n"


def test_the_number_of_processes_is_bounded(attacker: Episode) -> None:
    code = """
import os, time
count = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(30)
        count += 1
except BlockingIOError as error:
    print(error, 20 < count < 32)
"""
    assert attacker.run(code, timeout=20).text == "[Errno 11] Resource temporarily unavailable True\n"


def test_a_thread_bomb_is_an_error_in_the_code(attacker: Episode, neighbour: Episode) -> None:
    code = "import threading\nwhile True:\n    threading.Thread(target=threading.Event().wait, daemon=True).start()"
    result = attacker.run(code)
    assert result.error == "RuntimeError: can't start new thread"
    assert answers_soon(neighbour)


@pytest.mark.parametrize(
    "code",
    [
        "hoard = []\nwhile True:\n    hoard.append(bytearray(50_000_000))",
        "hoard = [np.ones((4000, 4000)) for _ in range(100)]",
        "np.ones((100_000, 100_000))",
        "x = 'a'\nwhile True:\n    x += x",
        "import mmap\nhoard = [mmap.mmap(-1, 1 << 28, mmap.MAP_PRIVATE) for _ in range(64)]",
    ],
)
def test_a_memory_bomb_is_an_error_in_the_code(attacker: Episode, code: str) -> None:
    result = attacker.run(code, timeout=20)
    assert result.error in (
        "MemoryError: the memory limit of the runtime was reached",
        "OSError: [Errno 12] Cannot allocate memory",
    )
    assert not result.state_lost
    assert attacker.run("hoard = x = None\nprint('alive')").text == "alive\n"


def test_memory_outside_the_account_is_refused(attacker: Episode) -> None:
    for code in (
        "import os; os.memfd_create('x')",
        "from multiprocessing import shared_memory as s; s.SharedMemory('x', True, 99)",
        "import mmap; mmap.mmap(-1, 1 << 20)",
        "import mmap; mmap.mmap(open('/dev/zero', 'r+b').fileno(), 1 << 20)",
    ):
        result = attacker.run(code)
        assert result.error is not None
        assert result.error.startswith(("PermissionError", "FileNotFoundError", "OSError")), result.error


@pytest.mark.parametrize(
    "each",
    [
        "hoard = bytearray(150_000_000)",
        "import mmap\n    m = mmap.mmap(-1, 150_000_000, mmap.MAP_PRIVATE)\n    m.write(b'x' * 150_000_000)",
        "import ctypes\n    ctypes.CDLL(None).prctl(4, 0)\n    hoard = np.ones(18_000_000)",
    ],
    ids=["heap", "mapped", "undumpable"],
)
def test_memory_spread_over_processes_is_counted_together(attacker: Episode, neighbour: Episode, each: str) -> None:
    code = (
        f"import os, time\nfor _ in range(8):\n  if os.fork() == 0:\n    {each}\n    time.sleep(600)\ntime.sleep(600)"
    )
    result = attacker.run(code, timeout=120)
    assert result.error == "RuntimeLost: the Python runtime ended (its processes used more than 512 MiB of memory)"
    assert result.text == result.error + LOST
    assert answers_soon(neighbour)
    assert lives(attacker)


def test_memory_that_processes_share_is_counted_once(attacker: Episode) -> None:
    code = """
import os, time
m = bytearray(b'x') * 150_000_000
for _ in range(8):
    if os.fork() == 0:
        sum(m[::4096])
        time.sleep(1.5)
        os._exit(0)
time.sleep(1.5)
print('done')
"""
    assert attacker.run(code, timeout=60).text == "done\n"


def test_a_full_disk_is_an_error_and_the_next_episode_finds_it_empty(sandbox: Sandbox) -> None:
    with sandbox.open() as attacker:
        code = "for i in range(40):\n    with open(f'f{i}', 'wb') as f:\n        f.write(bytes(1_000_000))"
        assert attacker.run(code).error == "OSError: [Errno 28] No space left on device"
        assert attacker.run("print('still')").text == "still\n"
        assert attacker.run("f = open('big', 'wb')\nf.truncate(1 << 40)").error == "OSError: [Errno 27] File too large"
    for _ in range(3):
        with sandbox.open() as fresh:
            assert fresh.run("n = open('x', 'wb').write(bytes(10_000_000))\nn").text == "10000000\n"


def test_inodes_run_out_for_the_episode_alone(attacker: Episode, neighbour: Episode) -> None:
    code = "import os\nfor i in range(100_000):\n    os.mkdir(str(i))"
    error = attacker.run(code, timeout=60).error
    assert error is not None and error.startswith("OSError: [Errno 28]"), error
    assert neighbour.run("open('new', 'w').close()").error is None
    assert attacker.run("print('still')").text == "still\n"


def test_descriptors_run_out_for_the_episode_alone(attacker: Episode, neighbour: Episode) -> None:
    result = attacker.run("import os\nhoard = []\nwhile True:\n    hoard.append(os.open('.', os.O_RDONLY))")
    assert result.error == "OSError: [Errno 24] Too many open files: '.'"
    assert answers_soon(neighbour)
    assert attacker.run("for fd in hoard: os.close(fd)\nprint('closed')").text == "closed\n"


def test_pending_signals_and_timers_run_out_for_the_episode_alone(attacker: Episode, neighbour: Episode) -> None:
    code = """
import ctypes, signal
libc = ctypes.CDLL(None, use_errno=True)
made = 0
while libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p())) == 0 and made < 100_000:
    made += 1
print(made < 300)
"""
    assert attacker.run(code).text == "True\n"
    assert (
        neighbour.run(
            "import signal; signal.setitimer(signal.ITIMER_REAL, 5); signal.setitimer(signal.ITIMER_REAL, 0)"
        ).error
        is None
    )


def test_full_pipes_and_sockets_do_not_starve_the_neighbour(attacker: Episode, neighbour: Episode) -> None:
    code = """
import os, socket
hoard = []
try:
    while True:
        pair = socket.socketpair()
        hoard.append(pair)
        pair[0].setblocking(False)
        try:
            while True:
                pair[0].send(bytes(65536))
        except BlockingIOError:
            pass
except OSError as error:
    print(error.errno)
"""
    assert attacker.run(code).text == "24\n"
    code = "import subprocess; print(subprocess.run(['echo', 'a'], capture_output=True).stdout)"
    assert neighbour.run(code).text == "b'a\\n'\n"


@pytest.mark.parametrize(
    "code",
    [
        "sum(range(10**13))",
        "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass",
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
        "import signal; signal.setitimer(signal.ITIMER_REAL, 0)\nwhile True: pass",
        "import sys, time\nsys.setswitchinterval(1000)\nwhile True:\n    try:\n        time.sleep(9)\n    except: pass",
        "import os; os.system('sleep 60')",
    ],
)
def test_a_step_that_cannot_be_interrupted_is_ended(attacker: Episode, neighbour: Episode, code: str) -> None:
    # The others must have come to their loop when the time is up.
    seconds = 0.4 if code.startswith("sum") else 2
    result = attacker.run(code, timeout=seconds)
    reason = f"Timeout: the code ran longer than {seconds:g} s and could not be interrupted"
    assert result.error == reason
    assert result.text == reason + LOST
    assert answers_soon(neighbour)
    assert lives(attacker)


@pytest.mark.parametrize(
    "code",
    [
        "import re; re.match('(a+)+$', 'a' * 40 + 'b')",
        "10 ** 10 ** 10",
        "while True:\n    try:\n        while True: pass\n    except BaseException:\n        pass",
        "class Slow:\n    def __repr__(self):\n        while True: pass\nSlow()",
        "class Slow(Exception):\n    def __str__(self):\n        while True: pass\nraise Slow()",
    ],
)
def test_a_step_that_resists_its_interruption_ends_in_time_all_the_same(attacker: Episode, code: str) -> None:
    result = attacker.run(code, timeout=0.4)
    assert result.error is not None
    assert result.error.startswith("Timeout: the code ran longer than 0.4 s and ") or "str() failed" in result.error
    assert lives(attacker)


def test_processes_left_behind_do_not_starve_the_neighbour(attacker: Episode, neighbour: Episode) -> None:
    code = "import os\nfor _ in range(25):\n    if os.fork() == 0:\n        while True: pass\nprint('left')"
    assert attacker.run(code, timeout=120).text == "left\n"
    for _ in range(3):
        assert answers_soon(neighbour)
    attacker.close()
    assert answers_soon(neighbour)


def test_a_giant_figure_is_refused_before_it_is_drawn(attacker: Episode) -> None:
    result = attacker.run("plt.figure(figsize=(300, 300)); plt.plot([1]); plt.show()")
    assert result.error is not None
    assert result.error.endswith("a figure of 30000x30000 pixels is larger than the limit of 40,000,000 pixels")
    assert result.images == ()
    plt_close = attacker.run("plt.close('all'); plt.plot([1]); plt.show()")
    assert len(plt_close.images) == 1


def test_a_giant_picture_is_refused_before_it_is_copied(attacker: Episode) -> None:
    for code in (
        "Image.new('L', (30000, 10000)).show()",
        "import cv2; cv2.imshow('', np.broadcast_to(np.uint8(7), (100_000, 100_000)))",
    ):
        result = attacker.run(code, timeout=20)
        assert result.error is not None
        assert "is larger than the limit of 40,000,000 pixels" in result.error
        assert not result.state_lost


def test_ten_thousand_figures_are_counted_not_drawn(attacker: Episode) -> None:
    code = "for _ in range(10_000):\n    image_clue_0.show()"
    result = attacker.run(code, timeout=10)
    assert len(result.images) == 8
    assert result.text == "[9992 more image(s) were not shown: the image budget is used up]"
    many = attacker.run("for _ in range(10_000):\n    plt.figure()", timeout=2)
    assert many.error is not None
    assert many.error.startswith(("Timeout", "MemoryError", "RuntimeLost"))
    assert len(many.text) < 9000


def bomb(side: int) -> bytes:
    """A valid PNG of ``side`` squared pixels that packs to almost nothing."""
    packer = zlib.compressobj(9)
    rows = packer.compress(bytes(1 + side * 3) * 64) if side < 1000 else b""
    for _ in range(0 if rows else side):
        rows += packer.compress(bytes(1 + side * 3))
    rows += packer.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes((8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_decompression_bomb_as_input_is_refused_by_the_host(sandbox: Sandbox) -> None:
    with pytest.raises(MediaError, match="larger than the cap"):
        sandbox.open(images=[small_bomb()])


def small_bomb() -> bytes:
    """The header of a huge picture over the data of a small one: refused by its size alone."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = (20_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def test_a_decompression_bomb_in_code_is_an_error_or_its_own_memory(attacker: Episode) -> None:
    packed = bomb(14_000)  # 588 MB of pixels in some hundred kilobytes
    assert len(packed) < 1_000_000
    unpack = "import io; Image.MAX_IMAGE_PIXELS = None; Image.open(io.BytesIO(open('b.png', 'rb').read())).load()"
    code = f"open('b.png', 'wb').write(__import__('zlib').decompress({zlib.compress(packed, 9)!r}))"
    assert attacker.run(code).error is None
    result = attacker.run(unpack, timeout=120)
    assert result.error == "MemoryError: the memory limit of the runtime was reached"
    assert lives(attacker)


MESSES = {
    "deep": "import os\nfor _ in range(3000):\n    os.mkdir('d'); os.chdir('d')",
    "closed": "import os\nfor i in range(50):\n    os.makedirs(f'a{i}/b'); open(f'a{i}/b/c', 'w').close()\n"
    "os.umask(0o777)\nfor i in range(50):\n    os.mkdir(f'z{i}', 0); os.mkdir(f'a{i}/z', 0); os.mkdir(f'a{i}/b/z', 0)",
    "links": "import os\nfor i in range(20):\n    os.symlink('..', f'u{i}'); os.symlink(f'l{i}', f'l{i}')\n"
    "os.symlink('/s/0', 'slot'); os.symlink('/usr', 'usr'); os.symlink('../..', 'up')",
    "many": "import os\nfor i in range(3500):\n    open(f'f{i}', 'w').close()",
    "names": "import os\nfor name in (b'\\xff\\xfe', b'a\\nb', b'-rf', b'n' * 255, b'\\x01'):\n"
    "    os.mkdir(name); os.mkdir(name + b'/' + name); open(name + b'/' + name + b'/f', 'w').close()",
    "hard links": "import os\nopen('f', 'w').close()\nfor i in range(200):\n    os.link('f', f'h{i}')",
    "locked": "import fcntl; f = open('locked', 'w'); fcntl.flock(f, fcntl.LOCK_EX)",
    "busy": "import os\nif os.fork() == 0:\n  for i in range(10**9):\n    os.makedirs(f'x{i % 999}/y', exist_ok=True)",
}


@pytest.mark.parametrize("mess", MESSES)
def test_whatever_mess_is_left_the_slot_is_clean_for_the_next(sandbox: Sandbox, mess: str) -> None:
    with sandbox.open() as attacker:
        result = attacker.run(MESSES[mess], timeout=60)
        assert result.error is None, result.text
    # More often than there are slots, so that the same one is met again.
    for _ in range(6 if sandbox.kind != "docker-strict" else 1):
        with sandbox.open() as fresh:
            code = "import os; print(os.listdir('.')); n = open('f', 'wb').write(bytes(1000)); os.getcwd().count('/')"
            assert fresh.run(code).text == "[]\n3\n"


def test_an_array_that_claims_to_be_small_is_not_believed(attacker: Episode) -> None:
    code = """
import cv2
class Liar(np.ndarray):
    shape = (1, 1, 3)
cv2.imshow('', np.zeros((7000, 7000, 3), np.uint8).view(Liar))
"""
    result = attacker.run(code, timeout=60)
    assert result.error is not None and result.error.startswith("PictureTooLargeError"), result
    assert not result.state_lost
    assert result.images == ()
    assert lives(attacker)


def test_a_picture_wider_than_any_screen_fits_the_budget(attacker: Episode) -> None:
    result = attacker.run("Image.fromarray(np.zeros((1, 9_000_000), np.uint8)).show()")
    assert [image.shape for image in result.images] == [(1, 2_000_000, 3)]
    assert lives(attacker)
