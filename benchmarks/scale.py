"""Hundreds of episodes at once on one machine: do all complete, with which memory, and how near to the floor's rate?

    python benchmarks/scale.py [--json] [--episodes 512] [--rounds 3] [--parts rates waiting together]

An episode is one image, five steps, one of them a plot, every result checked. The crowd runs twice: with the default
bounds, where most episodes wait for a slot, and with slots for all, where all of them are alive at the same time after
their plot. The floor is the processor time of the same steps in a warm interpreter of this process, image decoded.
Needs Docker: memory and processor time are those of the containers' control groups.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import numpy as np
from env_speed import MIXED, Floor, figure, photo_like

from pyvision_env.sandbox import Sandbox, make_sandbox
from pyvision_env.sandbox.containers import LABEL

CONCURRENT = (1, 8, 32, 128)
PARTS = ("rates", "waiting", "together")


class Containers:
    """What this process's containers have used, from their control groups (version 1 or 2)."""

    def __init__(self) -> None:
        self._client = docker.from_env()

    def processor_s(self) -> float:
        """Processor seconds of all of them, ended processes included."""
        total = 0.0
        for folders in self._folders():
            v1 = _first(folders, "cpuacct.usage")
            v2 = _first(folders, "cpu.stat")
            total += int(v1) / 1e9 if v1 else int(v2.split()[1]) / 1e6
        return total

    def memory_mib(self) -> float:
        """Memory they hold now, MiB."""
        files = ("memory.current", "memory.usage_in_bytes")
        return sum(int(next(filter(None, (_first(f, n) for n in files)), "0")) for f in self._folders()) / 2**20

    def _folders(self) -> list[list[Path]]:
        found = []
        for container in self._client.containers.list(filters={"label": f"{LABEL}={os.getpid()}"}):
            lines = Path(f"/proc/{container.attrs['State']['Pid']}/cgroup").read_text().splitlines()
            root = Path("/sys/fs/cgroup")
            pairs = [line.split(":", 2)[1:] for line in lines]
            found.append([root / (names or "unified") / path.lstrip("/") for names, path in pairs])
            found[-1] += [root / path.lstrip("/") for names, path in pairs if not names]
        return found


def _first(folders: list[Path], name: str) -> str:
    return next(((folder / name).read_text() for folder in folders if (folder / name).exists()), "")


class Crowd:
    """Episodes whose every result is checked."""

    def __init__(self, sandbox: Sandbox, paths: list[Path], together: int = 0) -> None:
        self._sandbox = sandbox
        self._paths = paths
        self._means = [f"{round(float(sandbox.picture(path).pixels.mean()), 2)}\n" for path in paths]
        self._plots: dict[int, np.ndarray[Any, Any]] = {}
        self._barrier = threading.Barrier(together) if together else None
        self.completed = 0
        self._lock = threading.Lock()

    def episode(self, number: int) -> None:
        """One of them; raises where a result is not the expected one."""
        which = number % len(self._paths)
        with self._sandbox.open(images=[self._paths[which]]) as episode:
            results = [episode.run(code) for code in MIXED]
            texts = [result.text for result in results]
            assert texts == ["(1920, 1440)\n", self._means[which], "", "(64, 64)\n", "1\n"], texts
            (plot,) = results[2].images
            assert np.array_equal(plot, self._plots.setdefault(which, plot)), "two plots of one picture differ"
            with self._lock:
                self.completed += 1
            if self._barrier is not None:
                self._barrier.wait(1800)


def crowd_row(name: str, paths: list[Path], episodes: int, together: bool, **options: Any) -> dict[str, Any]:
    """Start all episodes at once and watch the memory until the last has ended."""
    with make_sandbox("docker", open_timeout_s=1800, start_timeout_s=600, **options) as sandbox:
        sandbox.start()
        crowd = Crowd(sandbox, paths, episodes if together else 0)
        containers = Containers()
        peaks: list[tuple[float, float]] = []
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.5):
                peaks.append((containers.memory_mib(), _own_mib()))

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.perf_counter()
        with ThreadPoolExecutor(episodes) as threads:
            results = [threads.submit(crowd.episode, number) for number in range(episodes)]
        wall = time.perf_counter() - began
        done.set()
        watcher.join()
    failures = [repr(error) for each in results if (error := each.exception()) is not None]
    return {
        "name": name,
        "episodes": episodes,
        "completed and right": crowd.completed,
        "failures": failures[:3],
        "seconds": round(wall, 1),
        "containers at most, MiB": round(max(containers for containers, _ in peaks)),
        "this process at most, MiB": round(max(own for _, own in peaks)),
        "together at most, MiB": round(max(map(sum, peaks))),
    }


def _own_mib() -> float:
    """Proportional share of this process, pictures handed to episodes included."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def floor_cpu_s(paths: list[Path], rounds: int) -> list[float]:
    """Processor seconds of the five steps of an episode with nothing isolated, image decoded before."""
    floor = Floor()
    samples = []
    for _ in range(rounds + 1):
        namespace = floor.namespace(paths[0])
        began = time.process_time()
        for code in MIXED:
            floor.run(code, namespace)
        samples.append(time.process_time() - began)
    return samples[1:]


def rate_rows(paths: list[Path], rounds: int) -> list[dict[str, Any]]:
    """Episodes a second and processor seconds an episode at several degrees of concurrency."""
    floor = floor_cpu_s(paths, 10 * rounds)
    floor_s = figure(floor)["median"]
    rows: list[dict[str, Any]] = [{"name": "floor, processor time an episode", "unit": "s", "floor": figure(floor)}]
    cores = len(os.sched_getaffinity(0))
    with make_sandbox("docker", open_timeout_s=1800, start_timeout_s=600) as sandbox:
        sandbox.start()
        crowd = Crowd(sandbox, paths)
        containers = Containers()
        for concurrent in CONCURRENT:
            taken = [_rate(crowd.episode, containers, concurrent, max(8, concurrent)) for _ in range(rounds + 1)]
            rates, seconds = zip(*taken[1:], strict=True)
            rows.append(
                {
                    "name": f"mixed episodes, {concurrent} at once",
                    "episodes/s": figure(list(rates)),
                    "of what the floor allows on the cores": figure(
                        [r * floor_s / min(cores, concurrent) for r in rates]
                    ),
                    "processor time an episode, s": figure(list(seconds)),
                    "floor / ours, processor time": figure([floor_s / s for s in seconds]),
                }
            )
    return rows


def _rate(one: Callable[[int], None], containers: Containers, concurrent: int, total: int) -> tuple[float, float]:
    used, own = containers.processor_s(), time.process_time()
    began = time.perf_counter()
    with ThreadPoolExecutor(concurrent) as threads:
        list(threads.map(one, range(total)))
    wall = time.perf_counter() - began
    own = time.process_time() - own
    return total / wall, (containers.processor_s() - used + own) / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        paths = []
        for seed in range(4):
            paths.append(Path(directory) / f"{seed}.jpg")
            photo_like(1920, 1440, seed).save(paths[-1], quality=92)
        count = options.episodes
        enough = -(-count // 64)
        made: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "rates": lambda: rate_rows(paths, options.rounds),
            "waiting": lambda: [crowd_row(f"{count} at once, default bounds (256 slots)", paths, count, False)],
            "together": lambda: [crowd_row(f"{count} alive together", paths, count, True, containers=enough)],
        }
        rows = [row for part in options.parts for row in made[part]()]
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, kernel {platform.release()}",
        "python": platform.python_version(),
        "load at the end": os.getloadavg()[0],
        "rows": rows,
    }
    if options.json:
        print(json.dumps(report, indent=1))
        return
    for row in rows:
        print(", ".join(f"{key}: {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
