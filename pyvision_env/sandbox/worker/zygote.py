"""The zygote: a warm interpreter that forks a confined runtime for every episode.

One thread, one poll loop. The host's requests arrive on the control socket; when it closes, the zygote ends, and with
it every process of its pid namespace. Forking from a process that has imported and warmed everything makes an episode
ready in milliseconds and lets episodes share that memory.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import os
import platform
import select
import signal
import socket
import stat
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import confine, figures, kernel, runtime, video
from .wire import PROTOCOL, Exited, Failed, Hello, Kill, Spawn, from_host_decoder, pack

_LIBRARIES = {
    "numpy": (),
    "PIL": ("PIL.ImageDraw", "PIL.ImageFont", "PIL.ImageFilter", "PIL.ImageOps", "PIL.ImageEnhance", "PIL.ImageChops"),
    "matplotlib": ("matplotlib.patches", "matplotlib.gridspec", "mpl_toolkits.axes_grid1"),
    "scipy": ("scipy.ndimage", "scipy.signal", "scipy.stats", "scipy.spatial", "scipy.optimize"),
    "skimage": (
        "skimage.color", "skimage.exposure", "skimage.feature", "skimage.filters", "skimage.measure",
        "skimage.morphology", "skimage.segmentation", "skimage.transform", "skimage.io", "skimage.draw",
    ),
    "sklearn": ("sklearn.cluster",),
    "cv2": (),
    "av": (),
}  # fmt: skip
_WATCH_MS = 250
_MAX_DATAGRAM = 1 << 16


@dataclass
class Settings:
    """What the launcher tells the zygote.

    Attributes:
        slots: Directories, one for each episode that may run at once.
        private_root: Nothing of the host is visible but the runtime.
        quota: Every slot is a file system of bounded size.
        unconfined: Run even where nothing can be confined.
        notes: What the launcher could not give, for the isolation report.
    """

    slots: list[str]
    private_root: bool
    quota: bool
    unconfined: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass
class _Episode:
    number: int
    slot: Path
    memory_bytes: int
    baseline: int = 0
    cause: str | None = None


class Zygote:
    """Forks, watches and buries episodes."""

    def __init__(self, control: socket.socket, settings: Settings) -> None:
        self._control = control
        self._settings = settings
        self._free = [Path(slot) for slot in settings.slots]
        self._living: dict[int, _Episode] = {}
        self._worker = Path(__file__).parent

    def start(self) -> None:
        """Import and warm everything, choose the confinement, greet the host.

        Raises:
            ConfinementError: This host cannot keep episodes apart.
        """
        settings = self._settings
        kernel.set_subreaper()
        self._rung = confine.choose_rung(
            private_root=settings.private_root,
            single=len(settings.slots) == 1,
            quota=settings.quota,
            unconfined=settings.unconfined,
        )
        libraries = _import_libraries()
        figures.warm()
        figures.install()
        empty_directory(self._free[0])
        video.install_decord()
        self._readable = confine.runtime_paths(self._worker)
        gc.collect()
        gc.freeze()
        self._tell(
            Hello(
                protocol=PROTOCOL,
                python=platform.python_version(),
                libraries=libraries,
                rung=self._rung.name,
                guarantees=self._rung.guarantees,
                notes=[*settings.notes, *self._rung.notes],
                slots=len(settings.slots),
            )
        )

    def serve(self) -> None:
        """Work until the host closes the control socket."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._private = (wake_read, wake_write, self._control.fileno())
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        watched = time.monotonic()
        while True:
            ready = {fd for fd, _ in poll.poll(_WATCH_MS if self._living else None)}
            if wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
            self._bury()
            if self._control.fileno() in ready and not self._obey():
                return
            if self._living and time.monotonic() - watched > _WATCH_MS / 1000:
                self._watch_memory()
                watched = time.monotonic()

    def _obey(self) -> bool:
        """Carry out one request of the host; False when it has gone."""
        try:
            data, ancillary, _, _ = self._control.recvmsg(_MAX_DATAGRAM, socket.CMSG_SPACE(4))
        except ConnectionResetError:
            return False
        if not data:
            return False
        request = from_host_decoder.decode(data)
        if isinstance(request, Spawn):
            fds = array.array("i", ancillary[0][2][:4])
            self._spawn(request, fds[0])
            os.close(fds[0])
        elif isinstance(request, Kill):
            for pid, episode in self._living.items():
                if episode.number == request.episode:
                    os.kill(pid, signal.SIGKILL)
        return True

    def _tell(self, message: Hello | Failed | Exited) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.send(pack(message))

    def _spawn(self, request: Spawn, fd: int) -> None:
        if not self._free:
            self._tell(Exited(request.episode, "no slot is free"))
            return
        slot = self._free.pop()
        read, write = os.pipe2(os.O_CLOEXEC)
        bounds = request.confinement
        first = os.fork()
        if first == 0:
            self._become_episode(request, slot, fd, write)
        os.close(write)
        pid = first
        if self._rung.namespaces:
            # The first child entered the namespaces, forked the episode into them and is gone; the episode is ours.
            told = os.read(read, 16)
            os.waitpid(first, 0)
            pid = int(told or 0)
        os.close(read)
        if pid == 0:
            self._clean(slot)
            self._tell(Exited(request.episode, "the episode's namespaces could not be made"))
            return
        self._living[pid] = _Episode(request.episode, slot, bounds.memory_mb << 20)

    def _become_episode(self, request: Spawn, slot: Path, fd: int, write: int) -> None:
        """In the child: confine and serve; never returns."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for private in self._private:
                os.close(private)
            if self._rung.namespaces:
                confine.enter_namespaces()
                pid = os.fork()
                if pid:
                    os.write(write, str(pid).encode())
                    os._exit(0)
            os.close(write)
            sock = socket.socket(fileno=os.dup(fd))
            os.close(fd)
            spool = os.open(slot / ".output", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.unlink(slot / ".output")
            confine.confine(self._rung, request.confinement, slot, self._readable)
            gc.enable()
            runtime.run_episode(sock, spool)
        except BaseException as error:  # noqa: BLE001 - a child must never run on into the zygote's loop
            with contextlib.suppress(OSError):
                os.write(2, f"episode {request.episode}: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)

    def _bury(self) -> None:
        """Reap what has died, free its slot, tell the host."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            episode = self._living.pop(pid, None)
            if episode is not None:
                self._clean(episode.slot)
                self._tell(Exited(episode.number, episode.cause or _cause(status)))

    def _clean(self, slot: Path) -> None:
        empty_directory(slot)
        self._free.append(slot)

    def _watch_memory(self) -> None:
        """Kill episodes whose processes together use more memory than they may."""
        usage = _memory_by_root(set(self._living))
        for pid, used in usage.items():
            episode = self._living[pid]
            if not episode.baseline:
                episode.baseline = used
            if used - episode.baseline > episode.memory_bytes:
                episode.cause = f"its processes used more than {episode.memory_bytes >> 20} MiB of memory"
                os.kill(pid, signal.SIGKILL)


def _cause(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"killed by {signal.Signals(number).name}"
        except ValueError:
            return f"killed by signal {number}"
    return f"exit code {os.WEXITSTATUS(status)}"


def _memory_by_root(roots: set[int]) -> dict[int, int]:
    """Private memory in bytes of each root process together with its descendants."""
    parents: dict[int, int] = {}
    private: dict[int, int] = {}
    page = os.sysconf("SC_PAGESIZE")
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            text = Path(f"/proc/{entry}/stat").read_text(errors="replace")
            parents[int(entry)] = int(text.rpartition(")")[2].split()[1])
            _, resident, shared, *_ = Path(f"/proc/{entry}/statm").read_text().split()
            private[int(entry)] = (int(resident) - int(shared)) * page
    totals = dict.fromkeys(roots, 0)
    for pid, used in private.items():
        ancestor = pid
        while ancestor not in roots and ancestor in parents:
            ancestor = parents[ancestor]
        if ancestor in roots:
            totals[ancestor] += used
    return totals


def empty_directory(directory: Path) -> None:
    """Remove everything below ``directory``, however deep, whatever its permissions, without following links.

    Nested directories are first moved to the top, so that depth costs neither recursion nor long paths.
    """
    counter = 0
    pending = True
    while pending:
        pending = False
        for entry in list(os.scandir(directory)):
            mode = entry.stat(follow_symlinks=False).st_mode
            if not stat.S_ISDIR(mode):
                os.unlink(entry.path)
                continue
            if mode & 0o700 != 0o700:
                os.chmod(entry.path, 0o700)
            for inner in list(os.scandir(entry.path)):
                if inner.is_dir(follow_symlinks=False):
                    if inner.stat(follow_symlinks=False).st_mode & 0o200 == 0:
                        os.chmod(inner.path, 0o700)
                    counter += 1
                    os.rename(inner.path, directory / f".moved-{counter}-{os.getpid()}-{time.monotonic_ns()}")
                    pending = True
                else:
                    os.unlink(inner.path)
            os.rmdir(entry.path)


def _import_libraries() -> dict[str, str]:
    """Import what is there and say which versions; a library that is missing is simply not offered."""
    versions = {}
    for name, submodules in _LIBRARIES.items():
        try:
            module = importlib.import_module(name)
            for submodule in submodules:
                importlib.import_module(submodule)
        except ImportError:
            continue
        versions[name] = str(getattr(module, "__version__", "?"))
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)
    from PIL import Image

    Image.init()
    return versions


def run(control: socket.socket, settings: Settings) -> int:
    """Be the zygote of ``control`` until the host goes; returns the exit code."""
    zygote = Zygote(control, settings)
    try:
        zygote.start()
    except (confine.ConfinementError, OSError) as error:
        with contextlib.suppress(OSError):
            control.send(pack(Failed(str(error))))
        return 1
    zygote.serve()
    return 0
