"""The zygote: a warm interpreter that forks a confined runtime for every episode.

One thread, one poll loop. The host's requests arrive on the control socket; when it closes, the zygote ends, and with
it every process of its pid namespace. Forking from a process that has imported and warmed everything makes an episode
ready in milliseconds and lets episodes share that memory.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import gc
import os
import platform
import secrets
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import confine, figures, frame_server, kernel, notebook, older_names, runtime, video
from .cleaning import empty_directory, remove_groups
from .libraries import import_libraries
from .memory_watch import Living, MemoryWatch
from .slot_group import Pool, SlotGroup
from .wire import PROTOCOL, Exited, Failed, Grant, Hello, Kill, Load, Spawn, from_host_decoder, pack

_MAX_DATAGRAM = 1 << 16
_MOST_FDS = 4


@dataclass
class Settings:
    """What the launcher tells the zygote.

    Attributes:
        slots: Directories, one for each episode that may run at once.
        private_root: Nothing of the host is visible but the runtime.
        quota: Every slot is a file system of bounded size.
        single_use: There is one episode in the zygote's life.
        scratch: Directory above the slots that goes with the zygote, if any.
        groups: Control groups that go with the zygote, if it can see them.
        unconfined: Run even where nothing can be confined.
        notes: What the launcher could not give, for the isolation report.
    """

    slots: list[str]
    private_root: bool
    quota: bool
    single_use: bool = False
    scratch: str | None = None
    groups: str | None = None
    unconfined: bool = False
    notes: list[str] = field(default_factory=list)


class Zygote:
    """Forks, watches and buries episodes."""

    def __init__(self, control: socket.socket, settings: Settings) -> None:
        self._control = control
        self._settings = settings
        self._free = [Path(slot) for slot in settings.slots]
        self._groups: dict[Path, SlotGroup] = {}
        self._living: dict[int, Living] = {}
        self._watch: MemoryWatch
        self._worker = Path(__file__).parent

    def start(self) -> None:
        """Import and warm everything, choose the confinement, greet the host.

        Raises:
            ConfinementError: This host cannot keep episodes apart.
        """
        settings = self._settings
        kernel.set_subreaper()
        kernel.keep_freed_memory()
        self._rung = confine.choose_rung(
            private_root=settings.private_root,
            single=settings.single_use,
            quota=settings.quota,
            unconfined=settings.unconfined,
        )
        libraries = import_libraries()
        figures.warm()
        figures.install()
        older_names.install()
        notebook.install(sys.modules, runtime.display, figures.show_bgr)
        empty_directory(self._free[0])
        video.install_decord()
        self._readable = confine.runtime_paths(self._worker)
        gc.collect()
        gc.freeze()
        self._watch = MemoryWatch(self._living)
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
        # From here on that is looked at in the loop.
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        fcntl.fcntl(self._control, fcntl.F_SETFL, fcntl.fcntl(self._control, fcntl.F_GETFL) & ~os.O_ASYNC)
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._private = (wake_read, wake_write, self._control.fileno())
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        watched = 0.0
        while True:
            interval_s = self._watch.interval_s
            ready = {fd for fd, _ in poll.poll(1000 * interval_s if self._living else None)}
            if wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
            self._bury()
            if not self._free and not self._living:
                # No slot can be emptied any more: another worker has to take over.
                return
            if self._control.fileno() in ready and not self._obey():
                return
            if self._living and time.monotonic() - watched > interval_s:
                self._watch.look()
                load_mb = self._watch.new_load_mb()
                if load_mb is not None:
                    self._tell(Load(load_mb))
                watched = time.monotonic()

    def _obey(self) -> bool:
        """Carry out one request of the host; False when it has gone."""
        try:
            data, ancillary, _, _ = self._control.recvmsg(_MAX_DATAGRAM, socket.CMSG_SPACE(4 * _MOST_FDS))
        except ConnectionResetError:
            return False
        if not data:
            return False
        request = from_host_decoder.decode(data)
        fds = array.array("i", ancillary[0][2] if ancillary else b"")
        if isinstance(request, Spawn):
            self._spawn(request, fds[0])
            os.close(fds[0])
        elif isinstance(request, Kill):
            for pid, episode in self._living.items():
                if episode.number == request.episode:
                    os.kill(pid, signal.SIGKILL)
        elif isinstance(request, Grant):
            self._groups[Path(self._settings.slots[request.slot])] = SlotGroup(fds)
            self._watch.by_groups = True
        else:
            self._watch.pool = Pool(fds, request.limit)
        return True

    def _tell(self, message: Hello | Failed | Exited | Load) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.send(pack(message))

    def _spawn(self, request: Spawn, fd: int) -> None:
        if not self._free:
            self._tell(Exited(request.episode, "no slot is free"))
            return
        slot = self._free.pop()
        group = self._groups.get(slot)
        bounds = request.confinement
        memory_bytes = self._watch.inherited + ((bounds.memory_mb + bounds.mapped_mb) << 20)
        try:
            if group is not None:
                group.prepare(memory_bytes, bounds.disk_mb << 20)
            pid = self._fork(request, slot, fd)
            reason = "the episode's namespaces could not be made"
        except OSError as error:
            pid, reason = 0, f"no process could be started: {error.strerror}"
        if pid:
            self._living[pid] = Living(request.episode, slot, bounds, memory_bytes, group)
        else:
            self._clean(slot)
            self._tell(Exited(request.episode, reason))

    def _fork(self, request: Spawn, slot: Path, fd: int) -> int:
        """The episode's process, a child of ours; 0 if its namespaces were refused."""
        if self._rung.clones:
            with contextlib.suppress(OSError):
                pid = confine.clone_into_namespaces()
                if pid == 0:
                    self._become_episode(request, slot, fd, None)
                return pid
        # Where an engine's profile knows unshare only, the kernel tells less (gVisor), or a library has threads.
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
            if pid == 0:
                os.close(read)
                self._become_episode(request, slot, fd, write)
        finally:
            os.close(write)
            told = os.read(read, 16)
            os.close(read)
        if self._rung.namespaces:
            # The first child entered the namespaces, forked the episode into them and is gone; the episode is ours.
            os.waitpid(pid, 0)
            return int(told or 0)
        return pid

    def _become_episode(self, request: Spawn, slot: Path, fd: int, write: int | None) -> None:
        """In the child: confine and serve; never returns."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if slot in self._groups:
                # Before anything else: what is touched from now on is counted there.
                self._groups[slot].enter()
            for private in self._private:
                os.close(private)
            for group in self._groups.values():
                for private in group.fds:
                    os.close(private)
            if self._watch.pool is not None:
                for private in self._watch.pool.fds:
                    os.close(private)
            if write is not None:
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
            # Landlock leaves stat() and, on old kernels, truncate() open: others must not guess the names of files.
            home = slot / secrets.token_hex(8)
            home.mkdir(mode=0o700)
            confine.confine(self._rung, request.confinement, str(home), self._readable)
            gc.enable()
            if request.decoder:
                frame_server.run_decoder(sock, spool)
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
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            episode = self._living.pop(pid, None)
            if episode is not None:
                if episode.group is not None and episode.cause is None and episode.group.exceeded:
                    episode.cause = episode.greed
                self._clean(episode.slot)
                used_s = usage.ru_utime + usage.ru_stime
                cause = episode.cause or _cause(status, used_s, episode.bounds.cpu_seconds)
                self._tell(Exited(episode.number, cause))

    def _clean(self, slot: Path) -> None:
        try:
            empty_directory(slot)
        except OSError as error:
            # Its leftovers must not meet another episode.
            sys.stderr.write(f"slot {slot} cannot be emptied and is given up: {error}\n")
            return
        self._free.append(slot)

    def end(self) -> None:
        """Kill what still lives, and leave nothing on the disk."""
        for pid in self._living:
            os.kill(pid, signal.SIGKILL)
        for pid in self._living:
            os.waitpid(pid, 0)
        if self._settings.scratch is not None:
            empty_directory(Path(self._settings.scratch))
            os.rmdir(self._settings.scratch)
        if self._settings.groups is not None:
            remove_groups(Path(self._settings.groups))


def _cause(status: int, used_s: float, bound_s: int) -> str:
    # The kernel holds the limit against whole clock ticks, and on a busy machine they say more than what was used.
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and used_s > bound_s / 2:
        return f"its {bound_s} s of processor time were used up"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"killed by {signal.Signals(number).name}"
        except ValueError:
            return f"killed by signal {number}"
    return f"exit code {os.WEXITSTATUS(status)}"


def run(control: socket.socket, settings: Settings) -> int:
    """Be the zygote of ``control`` until the host goes; returns the exit code."""
    zygote = Zygote(control, settings)
    try:
        zygote.start()
    except (confine.ConfinementError, OSError) as error:
        with contextlib.suppress(OSError):
            control.send(pack(Failed(str(error))))
        return 1
    try:
        zygote.serve()
    finally:
        zygote.end()
    return 0
