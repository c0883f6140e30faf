"""Which worker an episode gets, who waits and who is sent away: with workers that speak the real control protocol."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.errors import SandboxBusyError, SandboxClosedError, SandboxStartError
from pyvision_env.sandbox import Sandbox
from pyvision_env.sandbox.link import Lease, WorkerLink
from pyvision_env.sandbox.worker import wire
from pyvision_env.sandbox.workers import Workers
from tests.sandbox.workers import wait_until

HELLO = wire.Hello(wire.PROTOCOL, "3", {}, "userns+landlock", {}, [], 4)


class Zygote:
    """A worker without processes: an episode lives until it is killed."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._control.send(wire.pack(HELLO))
        self._thread.start()

    def _serve(self) -> None:
        with self._control, contextlib.suppress(OSError):  # the host hangs up whenever it likes
            while True:
                data, fds, _, _ = socket.recv_fds(self._control, 1 << 16, 1)
                if not data:
                    return
                for fd in fds:
                    os.close(fd)
                request = wire.from_host_decoder.decode(data)
                if isinstance(request, wire.Kill):
                    self._control.send(wire.pack(wire.Exited(request.episode, "killed")))

    @property
    def has_ended(self) -> bool:
        self._thread.join(30)
        return not self._thread.is_alive()

    def tell_memory(self, megabytes: int) -> None:
        self._control.send(wire.pack(wire.Load(megabytes)))


class Stage:
    """A launcher of such workers, each of which takes its time to start."""

    container = False
    kind = "local"

    def __init__(self, slots: int, workers: int, single_use: bool = False, warm: int = 0) -> None:
        self.slots, self.workers, self.single_use, self.warm = slots, workers, single_use, warm
        self.may_start = threading.Event()
        self.may_start.set()
        self.zygotes: list[Zygote] = []
        self.started = 0
        self.failure: SandboxStartError | None = None
        self.abandoned = False

    def launch(self, on_change: Callable[[], None]) -> WorkerLink:
        self.started += 1
        assert self.may_start.wait(30)
        if self.failure is not None:
            raise self.failure
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        zygote = Zygote(theirs)
        self.zygotes.append(zygote)
        link = WorkerLink(ours, lambda: None, f"worker {len(self.zygotes)}", on_change)
        link.greet(time.monotonic() + 30, threading.Event())
        return link

    def abandon(self) -> None:
        self.abandoned = True
        self.may_start.set()

    def close(self) -> None:
        pass


@pytest.fixture
def workers_on() -> Iterator[Callable[..., Workers]]:
    made: list[Workers] = []

    def make(stage: Stage, **options: int) -> Workers:
        config = SandboxConfig(kind="local", container_memory_mb=1000, **options)
        made.append(Workers(stage, config, lambda: None, list))
        made[-1].start(time.monotonic() + 30)
        return made[-1]

    yield make
    for workers in made:
        for link in workers.close():
            for lease in list(link._leases.values()):
                lease.sock.close()
            link.close(wait=False)


def place(workers: Workers, seconds: float = 30) -> tuple[WorkerLink, Lease]:
    return workers.place(time.monotonic() + seconds, 0)


def test_episodes_go_where_there_is_most_room(workers_on: Callable[..., Workers]) -> None:
    stage = Stage(slots=4, workers=2)
    workers = workers_on(stage)
    # The second worker is started while the first one still has room: nobody has to wait for it.
    placed = [place(workers)[0] for _ in range(2)]
    assert wait_until(lambda: len(workers.links) == 2, 30)
    placed += [place(workers)[0] for _ in range(6)]
    assert [placed.count(link) for link in workers.links] == [4, 4]


def test_a_worker_short_of_memory_gets_no_further_episodes(workers_on: Callable[..., Workers]) -> None:
    stage = Stage(slots=8, workers=2)
    workers = workers_on(stage)
    for _ in range(4):
        place(workers)
    assert wait_until(lambda: len(workers.links) == 2, 30)
    first, second = workers.links
    stage.zygotes[0].tell_memory(700)
    assert wait_until(lambda: first.memory_mb == 700, 30)
    # By episodes alone the first one would get some of these.
    assert [place(workers)[0] for _ in range(5)] == [second] * 5
    stage.zygotes[0].tell_memory(950)
    stage.zygotes[1].tell_memory(950)
    assert wait_until(lambda: (first.memory_mb, second.memory_mb) == (950, 950), 30)
    with pytest.raises(SandboxBusyError):
        place(workers, seconds=0.2)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(place, workers)
        stage.zygotes[1].tell_memory(100)
        assert waiting.result(30)[0] is second


def test_hundreds_wait_in_order_and_each_gets_its_turn(workers_on: Callable[..., Workers]) -> None:
    workers = workers_on(Stage(slots=4, workers=1))
    lock = threading.Lock()
    turns, served, alive = itertools.count(), [], []
    most = 0

    def episode(number: int) -> None:
        nonlocal most
        link, lease = place(workers, seconds=120)
        with lock:
            served.append((next(turns), number))
            alive.append(number)
            most = max(most, len(alive))
        time.sleep(0.001)
        with lock:
            alive.remove(number)
        workers.end(link, lease)

    held = [place(workers) for _ in range(4)]
    threads = []
    for number in range(300):
        threads.append(threading.Thread(target=episode, args=(number,)))
        threads[-1].start()
        # In line before the next one comes, so that the order is known.
        assert wait_until(lambda n=number: len(workers._line) == n + 1, 30)
    for link, lease in held:
        workers.end(link, lease)
    for thread in threads:
        thread.join(120)
    assert len(served) == 300
    assert most <= 4
    # Threads that got their place may overtake each other before they write it down, by no more than the slots.
    assert all(abs(turn - number) <= 8 for turn, number in served)
    assert workers.crowded is False


def test_more_than_may_wait_are_sent_away_at_once(workers_on: Callable[..., Workers]) -> None:
    workers = workers_on(Stage(slots=1, workers=1), max_waiting=3)
    held = place(workers)
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(place, workers) for _ in range(3)]
        assert wait_until(lambda: len(workers._line) == 3, 30)
        assert workers.crowded
        with pytest.raises(SandboxBusyError, match=r"3 episodes wait for a place already, and no more may \(max_wait"):
            place(workers)
        workers.end(*held)
        for each in waiting:
            workers.end(*each.result(30))
    workers.end(*place(workers))


def test_a_start_that_fails_is_told_to_all_who_wait_for_it(workers_on: Callable[..., Workers]) -> None:
    stage = Stage(slots=1, workers=1)
    workers = Workers(stage, SandboxConfig(kind="local"), lambda: None, list)
    stage.may_start.clear()
    with ThreadPoolExecutor(5) as threads:
        waiting = [threads.submit(place, workers) for _ in range(5)]
        assert wait_until(lambda: len(workers._line) == 5, 30)
        stage.failure = SandboxStartError("no image")
        stage.may_start.set()
        for each in waiting:
            with pytest.raises(SandboxStartError, match="no image"):
                each.result(30)
    assert stage.started == 1, "one failed start answers everybody"


def test_single_use_workers_are_made_ready_ahead_and_nobody_waits_for_that(workers_on: Callable[..., Workers]) -> None:
    stage = Stage(slots=1, workers=8, single_use=True, warm=2)
    workers = workers_on(stage)
    assert wait_until(lambda: len(workers.links) == 2, 30)
    # From here on a start takes for ever; those that are warm are given out all the same.
    stage.may_start.clear()
    one, two = place(workers, seconds=5), place(workers, seconds=5)
    assert one[0] is not two[0]
    assert wait_until(lambda: stage.started == 3, 30), "one at a time is made ready in the background"
    time.sleep(0.1)
    assert stage.started == 3
    stage.may_start.set()
    assert wait_until(lambda: len(workers.links) == 4, 30)
    workers.end(*one)
    workers.end(*two)
    assert wait_until(lambda: len(workers.links) == 2, 30)


def test_a_further_start_that_failed_is_tried_again_though_nothing_else_happens(
    workers_on: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyvision_env.sandbox.workers._RETRY_S", 0.3)
    stage = Stage(slots=1, workers=2)
    workers = workers_on(stage)
    stage.failure = SandboxStartError("the engine is busy")
    first = place(workers)
    assert wait_until(lambda: stage.started == 2, 30)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(place, workers)
        assert wait_until(lambda: stage.started >= 3, 30)
        stage.failure = None
        assert waiting.result(30)[0] is not first[0]


def test_an_episode_waits_for_a_worker_that_is_still_starting_beyond_its_own_time() -> None:
    stage = Stage(slots=1, workers=1)
    stage.may_start.clear()
    with Sandbox(stage, SandboxConfig(kind="local", open_timeout_s=0.2), Limits()) as sandbox:
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(sandbox.place, time.monotonic() + 0.2, 0)
            assert not wait_until(waiting.done, 1)
            stage.may_start.set()
            link, lease = waiting.result(30)
        with pytest.raises(SandboxBusyError, match="are full"):
            sandbox.place(time.monotonic() + 0.2, 0)
        sandbox.end(link, lease)


def test_a_start_that_takes_too_long_is_called_that_and_not_a_lack_of_slots() -> None:
    stage = Stage(slots=1, workers=1)
    stage.may_start.clear()
    stage.failure = SandboxStartError("did not become ready in time; raise start_timeout_s")
    with (
        Sandbox(stage, SandboxConfig(kind="local", open_timeout_s=0.1), Limits()) as sandbox,
        ThreadPoolExecutor(1) as threads,
    ):
        waiting = threads.submit(sandbox.place, time.monotonic() + 0.1, 0)
        assert not wait_until(waiting.done, 0.5)
        stage.may_start.set()
        with pytest.raises(SandboxStartError, match="raise start_timeout_s"):
            waiting.result(30)


def test_closing_a_sandbox_waits_for_the_starts_under_way() -> None:
    stage = Stage(slots=1, workers=1)
    stage.may_start.clear()
    sandbox = Sandbox(stage, SandboxConfig(kind="local"), Limits())
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(sandbox.place, time.monotonic() + 30, 0)
        assert wait_until(lambda: stage.started == 1, 30)
        sandbox.close()
        with pytest.raises(SandboxClosedError):
            waiting.result(30)
    assert stage.abandoned
    assert len(stage.zygotes) == 1
    assert stage.zygotes[0].has_ended
    assert all(not start.is_alive() for start in sandbox._workers._starts)


def test_a_forked_child_is_told_at_once_even_if_a_thread_of_the_parent_held_the_lock() -> None:
    sandbox = Sandbox(Stage(slots=1, workers=1), SandboxConfig(kind="local"), Limits())
    calls: tuple[Callable[[], object], ...] = (sandbox.start, sandbox.open, lambda: sandbox.isolation)
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with sandbox._workers._lock:
            held.set()
            free.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        told = 0
        for call in calls:
            with contextlib.suppress(SandboxClosedError):
                call()
                told -= 1
            told += 1
        os._exit(told)
    free.set()
    holder.join(30)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == len(calls)
    sandbox.close()
