"""Program of ``test_filters.py``: load a filter, then try things under it and print what came of each, as JSON.

Usage: ``python filter_probe.py FILTER CHECK...`` in a folder that may be written to. Everything but ``ctypes`` is
imported under the filter.
"""

from __future__ import annotations

import ctypes
import errno
import json
import sys
from pathlib import Path

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
NUMBERS = {"unshare": (272, 97), "bpf": (321, 280), "clone3": (435, 435), "unknown": (999, 999)}
libc = ctypes.CDLL(None, use_errno=True)


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def load(path: str) -> None:
    code = Path(path).read_bytes()
    program = Program(len(code) // 8, code)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program)) == 0, ctypes.get_errno()


def raw(name: str, *args: int) -> None:
    import platform

    number = NUMBERS[name][platform.machine() == "aarch64"]
    ctypes.set_errno(0)
    if libc.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), name)


def unshare() -> None:
    raw("unshare", 0x10000000)


def bpf() -> None:
    raw("bpf", 0, 0, 0)


def clone3() -> None:
    raw("clone3", 0, 0)


def unknown_call() -> None:
    raw("unknown")


def internet_socket() -> None:
    import socket

    socket.socket()


def local_socket() -> None:
    import socket

    socket.socket(socket.AF_UNIX)


def socket_pair() -> None:
    import socket

    left, right = socket.socketpair()
    left.sendall(b"x")
    assert right.recv(1) == b"x"


def datagram_pair() -> None:
    import socket

    socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)


def memory_file() -> None:
    import os

    os.memfd_create("m")


def signal_by_descriptor() -> None:
    import fcntl

    fcntl.fcntl(0, fcntl.F_SETSIG, 9)


def limits_of_another() -> None:
    import os
    import resource

    resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0))


def own_limits() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def niceness_of_all() -> None:
    import os

    os.setpriority(os.PRIO_USER, 0, 19)


def chmod_without_effect() -> None:
    file = Path("mode")
    file.touch()
    before = file.stat().st_mode
    file.chmod(0o777)
    assert file.stat().st_mode == before


def fork() -> None:
    import os

    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def kill() -> None:
    import os

    os.kill(os.getpid(), 0)


def numpy() -> None:
    import numpy as np

    square = np.random.default_rng(0).random((300, 300))
    assert np.abs(square @ np.linalg.inv(square) - np.eye(300)).max() < 1e-6


def matplotlib() -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    axes.plot([1, 2, 3])
    axes.set_title("a title $x^2$")
    figure.savefig("plot.png")
    assert Path("plot.png").stat().st_size > 1000


def pillow() -> None:
    from PIL import Image

    Image.new("RGB", (30, 20)).save("picture.jpg")
    with Image.open("picture.jpg") as picture:
        assert picture.resize((60, 40), Image.Resampling.LANCZOS).size == (60, 40)


def opencv() -> None:
    import cv2
    import numpy as np

    small = cv2.resize(np.full((64, 64, 3), 9, np.uint8), (32, 32))
    assert cv2.imwrite("small.png", cv2.GaussianBlur(small, (5, 5), 0))
    assert np.asarray(cv2.imread("small.png")).shape == (32, 32, 3)


def scipy() -> None:
    import numpy as np
    from scipy import ndimage, optimize

    assert abs(optimize.brentq(lambda x: x * x - 2, 0, 2) ** 2 - 2) < 1e-9
    assert ndimage.label(np.eye(5))[1] == 5


def skimage() -> None:
    import numpy as np
    from skimage import filters, measure

    assert filters.sobel(np.eye(16)).shape == (16, 16)
    assert measure.label(np.ones((4, 4))).max() == 1


def sklearn() -> None:
    import numpy as np
    from sklearn.cluster import KMeans

    assert len(KMeans(3, n_init=2).fit(np.random.default_rng(0).random((60, 2))).cluster_centers_) == 3


def av() -> None:
    import av
    import numpy as np

    with av.open("video.mp4", "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        for shade in range(0, 240, 20):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), shade, np.uint8), format="rgb24")))
        out.mux(stream.encode(None))
    with av.open("video.mp4") as container:
        container.streams.video[0].thread_type = "AUTO"
        assert sum(1 for _ in container.decode(video=0)) == 12


def threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda x: x * x, range(10))) == 285


def loop() -> None:
    import asyncio

    async def work() -> int:
        await asyncio.sleep(0.01)
        return await asyncio.to_thread(lambda: 7)

    assert asyncio.run(work()) == 7


def files() -> None:
    import shutil
    import sqlite3
    import tempfile

    with tempfile.TemporaryDirectory(dir=".") as folder:
        source = Path(folder, "a")
        source.write_text("x")
        shutil.copy2(source, Path(folder, "b"))
        shutil.make_archive(str(Path(folder, "z")), "zip", folder, ".")
        database = sqlite3.connect(Path(folder, "d.sqlite"))
        database.execute("create table t (a)")
        database.commit()
        database.close()
        assert sorted(path.name for path in Path(folder).iterdir()) == ["a", "b", "d.sqlite", "z.zip"]


def child() -> None:
    import os
    import subprocess

    shell = subprocess.run("echo hello | tr a-z A-Z", shell=True, capture_output=True, text=True, check=True)
    assert shell.stdout == "HELLO\n"
    assert subprocess.check_output([sys.executable, "-c", "print(6 * 7)"]) == b"42\n"
    assert os.system("true") == 0


def async_child() -> None:
    import asyncio
    from asyncio.subprocess import PIPE

    async def work() -> bytes:
        process = await asyncio.create_subprocess_exec("echo", "hi", stdout=PIPE)
        return (await process.communicate())[0]

    assert asyncio.run(work()) == b"hi\n"


def main() -> None:
    filter_path, *checks = sys.argv[1:]
    load(filter_path)
    report = {}
    for check in checks:
        try:
            globals()[check]()
        except OSError as error:
            report[check] = errno.errorcode.get(error.errno or 0, repr(error))
        except Exception as error:  # noqa: BLE001 - whatever a library raises is what the test wants to see
            report[check] = repr(error)
        else:
            report[check] = "ok"
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
