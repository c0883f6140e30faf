"""Chaos: containers, zygotes, episodes, clients and the engine are killed at random moments while episodes run.

    python benchmarks/chaos.py [--sandbox docker] [--episodes 2000] [--seed 0] [--kill-engine] [--json]

Every episode must end with its own output or with a typed error, and nothing may be left over. The order of the kills,
the episode counts at which they happen and the choice of each victim follow from the seed. ``--kill-engine`` wants an
engine of its own (``PYVISION_ENGINE_OWN=1 .ci/engine start``): it kills the daemon that ``PYVISION_ENGINE_RUN`` names.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import queue
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import docker.errors
import psutil
import requests
from holdings import containers_of, families, wait_until, zygotes_of

_CLIENT = Path(__file__).with_name("chaos_client.py")
_SILENCE_S = 180.0
_GONE_S = 60.0
_RESTART_S = 300.0
_GROUPS = Path("/sys/fs/cgroup")
KINDS = ("container", "zygote", "episode", "client")


@dataclass
class Chaos:
    """What happened.

    Attributes:
        ok: Episodes that gave their own output to the end.
        errors: Typed errors, by type; after each the episode was tried again.
        given_up: Episodes that met only typed errors.
        untyped: Episodes that ended with another error: none is allowed.
        wrong: Episodes that gave an output not their own: none is allowed.
        lost: Episodes of a living client that were never heard of again: none is allowed.
        interrupted: Episodes that were running in a client when it was killed; they were run again.
        kills: Kills by kind.
        ended_s: After each kill of a client, seconds until the last of its workers' processes was gone.
        removed_s: The same until the engine knew none of its containers any more.
        left: What was left over at the end: nothing is allowed.
    """

    ok: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    given_up: int = 0
    untyped: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[dict[str, Any]] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    interrupted: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    ended_s: list[float] = field(default_factory=list)
    removed_s: list[float] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing happened that must not."""
        return not (self.untyped or self.wrong or self.lost or self.left)


class Client:
    """A running client and what it has told so far."""

    def __init__(self, kind: str, episodes: list[int], at_once: int, options: dict[str, Any], scratch: str) -> None:
        settings = {"kind": kind, "episodes": episodes, "at_once": at_once, "options": options}
        self.waiting = list(episodes)
        self.running: set[int] = set()
        self.process = subprocess.Popen(
            [sys.executable, str(_CLIENT), json.dumps(settings)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": scratch},
        )  # fmt: skip
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def next(self) -> dict[str, Any] | None:
        """The next line, None at the end.

        Raises:
            queue.Empty: Nothing came for a long time.
        """
        line = self._lines.get(timeout=_SILENCE_S)
        if line is None:
            return None
        told: dict[str, Any] = json.loads(line)
        if "begin" in told:
            self.waiting.remove(told["begin"])
            self.running.add(told["begin"])
        elif "end" in told:
            self.running.remove(told["end"])
        return told

    def close(self) -> None:
        """Wait for its end."""
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Killer:
    """Chooses victims and kills them."""

    def __init__(self, client: docker.DockerClient | None, rng: random.Random, result: Chaos) -> None:
        self._engine = client
        self._rng = rng
        self._result = result
        self.seen: set[psutil.Process] = set()

    def strike(self, kind: str, victim: Client) -> bool:
        """Kill something of ``victim``; whether there was anything of that kind just then."""
        pid = victim.process.pid
        self.seen.update(families(zygotes_of(self._engine, pid)))
        if kind == "client":
            self._kill_client(victim)
        elif kind == "engine":
            kill_engine()
        elif kind == "container" and self._engine is not None:
            running = [each for each in containers_of(self._engine, pid) if each.status == "running"]
            if not running:
                return False
            with contextlib.suppress(docker.errors.APIError):
                self._rng.choice(sorted(running, key=lambda each: each.name)).kill()
        else:
            zygotes = zygotes_of(self._engine, pid)
            found = zygotes if kind == "zygote" else [each for each in families(zygotes) if each not in zygotes]
            if kind == "container":
                found = [parent for each in zygotes if (parent := each.parent()) is not None]
            if not found:
                return False
            with contextlib.suppress(psutil.NoSuchProcess):
                self._rng.choice(sorted(found, key=lambda each: each.pid)).kill()
        self._result.kills[kind] += 1
        return True

    def _kill_client(self, victim: Client) -> None:
        family = {*families(zygotes_of(self._engine, victim.process.pid))}
        family.update(psutil.Process(victim.process.pid).children(recursive=True))
        began = time.monotonic()
        victim.process.send_signal(signal.SIGKILL)
        if not wait_until(lambda: not any(process.is_running() for process in family), _GONE_S):
            self._result.left.append(f"processes of a killed client: {[p for p in family if p.is_running()]}")
        self._result.ended_s.append(time.monotonic() - began)
        if self._engine is None:
            return
        engine = self._engine
        if not wait_until(lambda: not containers_of(engine, victim.process.pid), _GONE_S):
            self._result.left.append("containers of a killed client")
        self._result.removed_s.append(time.monotonic() - began)


def kill_engine() -> None:
    """SIGKILL the daemon that ``.ci/engine start`` started for ``PYVISION_ENGINE_RUN``, and start it anew."""
    run = Path(os.environ["PYVISION_ENGINE_RUN"])
    daemon = psutil.Process(int((run / "pid").read_text()))
    command = daemon.cmdline()
    if not command[0].endswith("dockerd") or not any(str(run) in word for word in command):
        raise SystemExit(f"process {daemon.pid} is not the engine of {run}: {command}")
    daemon.kill()
    daemon.wait(_GONE_S)
    with (run / "log").open("ab") as log:

        def begin() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )  # fmt: skip

        started = begin()

        def answers() -> bool:
            nonlocal started
            if started.poll() is not None:
                # It gives up when its containerd is slow to answer; whoever supervises an engine starts it again.
                started = begin()
            try:
                with contextlib.closing(docker.from_env(timeout=5)) as engine:
                    return bool(engine.ping())
            except (docker.errors.DockerException, requests.RequestException):
                return False

        if not wait_until(answers, _RESTART_S, 0.2):
            raise SystemExit("the engine did not come up again")


def chaos(
    kind: str, episodes: int, seed: int, kinds: tuple[str, ...] = KINDS, every: int = 20, at_once: int = 8,
    options: dict[str, Any] | None = None,
) -> Chaos:  # fmt: skip
    """Play ``episodes`` while on average after every ``every`` of them something of ``kinds`` is killed."""
    rng = random.Random(seed)
    kills = max(len(kinds), episodes // every)
    # Each kind at least once, at moments all over the run.
    plan = [*kinds, *rng.choices(kinds, k=kills - len(kinds))]
    rng.shuffle(plan)
    moments = sorted(rng.sample(range(1, episodes), kills))
    result = Chaos()
    engine = docker.from_env() if kind.startswith("docker") else None
    options = {"containers": 2, "episodes_per_container": 8, **(options or {})}
    with tempfile.TemporaryDirectory(prefix="pyvision-chaos-") as scratch, contextlib.ExitStack() as stack:
        if engine is not None:
            stack.callback(engine.close)
        clients: list[int] = []
        killer = Killer(engine, rng, result)
        todo = list(range(episodes))
        done = 0
        while todo:
            client = Client(kind, todo, at_once, options, scratch)
            clients.append(client.process.pid)
            told: dict[str, Any] | None = {}
            while told is not None:
                try:
                    told = client.next()
                except queue.Empty:
                    client.process.kill()
                    break
                if told and "outcome" in told:
                    done += "end" in told
                    _count(result, told)
                if told and any(count > 0 for count in told.get("left", {}).values()):
                    result.left.append(f"in the client after closing: {told['left']}")
                if moments and done >= moments[0] and client.running and client.process.poll() is None:
                    time.sleep(rng.uniform(0, 0.2))
                    kind_of_kill = plan.pop(0)
                    if killer.strike(kind_of_kill, client):
                        moments.pop(0)
                    else:
                        plan.append(kind_of_kill)
            killed = client.process.wait() == -signal.SIGKILL and told is None
            client.close()
            if not killed:
                # It went to its end, or hung: whoever has not been heard of is lost.
                result.lost += [*client.running, *client.waiting]
                break
            result.interrupted += len(client.running)
            todo = sorted([*client.running, *client.waiting])
        _look_around(result, engine, scratch, clients, killer.seen)
    return result


def _count(result: Chaos, told: dict[str, Any]) -> None:
    if told["outcome"] == "ok":
        result.ok += 1
    elif told["outcome"] == "error":
        result.errors[told["type"]] += 1
        result.given_up += "end" in told
    else:
        (result.wrong if told["outcome"] == "wrong" else result.untyped).append(told)


def _look_around(
    result: Chaos, engine: docker.DockerClient | None, scratch: str, clients: list[int], seen: set[psutil.Process]
) -> None:
    """Nothing of any client may be left: processes (and with them their tmpfs), containers, files, control groups."""

    def left() -> list[str]:
        found = [f"process {process.pid}" for process in seen if process.is_running()]
        found += [f"file {path.name}" for path in Path(scratch).iterdir()]
        found += [f"control group {group}" for pid in clients for group in _GROUPS.glob(f"**/pyvision-{pid}-*")]
        if engine is not None:
            found += [f"container {each.name}" for pid in clients for each in containers_of(engine, pid)]
        return found

    wait_until(lambda: not left(), _GONE_S, 0.2)
    result.left += left()


def report(result: Chaos, kind: str, seed: int, seconds: float) -> dict[str, Any]:
    """The figures as JSON."""

    def spread(values: list[float]) -> dict[str, float] | None:
        if not values:
            return None
        return {
            "n": len(values), "median": round(statistics.median(values), 3), "most": round(max(values), 3),
        }  # fmt: skip

    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, kernel {platform.release()}",
        "sandbox": kind, "seed": seed, "seconds": round(seconds, 1), "sound": result.sound,
        "ok": result.ok, "typed_errors": dict(result.errors), "given_up": result.given_up,
        "interrupted_and_run_again": result.interrupted,
        "untyped": result.untyped, "wrong": result.wrong, "lost": result.lost, "left": result.left,
        "kills": dict(result.kills),
        "killed_client_processes_gone_s": spread(result.ended_s),
        "killed_client_containers_gone_s": spread(result.removed_s),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sandbox", default="docker")
    parser.add_argument("--episodes", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=20, help="episodes between two kills on average")
    parser.add_argument("--kill-engine", action="store_true", help="kill the engine of PYVISION_ENGINE_RUN too")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    kinds = (*KINDS, "engine") if options.kill_engine else KINDS
    began = time.monotonic()
    result = chaos(options.sandbox, options.episodes, options.seed, kinds, options.every)
    told = report(result, options.sandbox, options.seed, time.monotonic() - began)
    print(json.dumps(told, indent=1) if options.json else "\n".join(f"{key}: {value}" for key, value in told.items()))
    sys.exit(not result.sound)


if __name__ == "__main__":
    main()
