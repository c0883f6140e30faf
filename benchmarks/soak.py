"""Soak: thousands of short episodes; memory, descriptors, processes, containers, tmpfs and latency must stay flat.

    python benchmarks/soak.py [--sandbox docker] [--episodes 20000] [--json]

Between batches, when no episode runs, everything is measured. Of each figure the slope over the episodes is told with
its 95% confidence interval (Theil-Sen: neither an outlier nor a busy minute of the machine moves it).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from holdings import families, measure, wait_until, zygotes_of
from scipy import stats

from pyvision_env.sandbox import Sandbox, make_sandbox

COUNTS = ("client_descriptors", "client_threads", "containers", "worker_processes", "zygote_descriptors")
GAUGES = ("client_rss_mib", "zygote_pss_mib", "slots_tmpfs_kib", "latency_ms")
STEPS = (
    "print(TOKEN, image_clue_0.getpixel((3, 4)))",
    "open('note.txt', 'w').write('x' * 100_000)\nimage_clue_0.crop((0, 0, 80, 60)).show()",
)
_QUIET_S = 60.0


@dataclass
class Soak:
    """What was measured.

    Attributes:
        episodes: Episodes run, those of the warm-up left out.
        wrong: Episodes that gave anything but their own output.
        samples: Of each figure, one value after each batch; ``episodes`` tells after how many.
        seconds: Wall time.
    """

    episodes: int = 0
    wrong: int = 0
    samples: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0

    def slope(self, name: str) -> tuple[float, float, float]:
        """Change of a figure over a thousand episodes, with its 95% confidence interval."""
        thousands = np.asarray(self.samples["episodes"]) / 1000
        slope, _, low, high = stats.theilslopes(self.samples[name], thousands)
        return float(slope), float(low), float(high)

    def changed_counts(self) -> dict[str, list[float]]:
        """Counts that were not the same after every batch."""
        return {name: self.samples[name] for name in COUNTS if len(set(self.samples[name])) > 1}


def soak(
    sandbox: Sandbox,
    episodes: int,
    batches: int,
    at_once: int = 8,
    warm_up: int = 200,
    after_each: Callable[[], None] = lambda: None,
    seconds: float = math.inf,
) -> Soak:
    """Run ``episodes`` in ``batches`` and measure after each batch.

    Args:
        sandbox: Where.
        episodes: How many, the warm-up left out.
        batches: How often to measure.
        at_once: Episodes at once.
        warm_up: Episodes before the first batch.
        after_each: Called after every episode, by its thread.
        seconds: Begin no further batch after that time.
    """
    engine = None
    if sandbox.kind.startswith("docker"):
        import docker

        engine = docker.from_env()
    images = [np.full((240, 320, 3), shade, np.uint8) for shade in range(0, 250, 5)]
    pictures = [sandbox.picture(image) for image in images]
    result = Soak()
    latencies: list[float] = []

    def one(number: int) -> None:
        began = time.perf_counter()
        shade = number % len(images)
        with sandbox.open(images=[pictures[shade]]) as episode:
            said = episode.run(STEPS[0].replace("TOKEN", str(number)))
            shown = episode.run(STEPS[1])
        latencies.append((time.perf_counter() - began) * 1e3)
        right = said.text == f"{number} {(shade * 5,) * 3}\n" and len(shown.images) == 1
        result.wrong += not (right and bool((shown.images[0] == shade * 5).all()))
        after_each()

    began = time.monotonic()
    try:
        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(one, range(max(warm_up, at_once))))
            bounds = np.linspace(0, episodes, batches + 1).astype(int)
            for first, last in itertools.pairwise(bounds):
                if time.monotonic() - began > seconds:
                    break
                latencies.clear()
                list(threads.map(one, range(first, last)))
                result.episodes = int(last)
                zygotes = zygotes_of(engine, os.getpid())
                wait_until(lambda zygotes=zygotes: len(families(zygotes)) == len(zygotes), _QUIET_S)
                held = measure(engine, zygotes)
                held |= {"episodes": float(last), "latency_ms": statistics.median(latencies)}
                for name, value in held.items():
                    result.samples.setdefault(name, []).append(value)
    finally:
        if engine is not None:
            engine.close()
    result.seconds = time.monotonic() - began
    return result


def report(result: Soak, sandbox: Sandbox) -> dict[str, Any]:
    """The figures as JSON."""
    rows = {}
    for name in (*COUNTS, *GAUGES):
        values = result.samples[name]
        slope, low, high = result.slope(name)
        rows[name] = {
            "first": round(values[0], 2), "last": round(values[-1], 2), "median": round(statistics.median(values), 2),
            "least": round(min(values), 2), "most": round(max(values), 2),
            "slope_per_1000_episodes": float(f"{slope:.3g}"), "slope_95": [float(f"{low:.3g}"), float(f"{high:.3g}")],
        }  # fmt: skip
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, kernel {platform.release()}",
        "sandbox": sandbox.kind,
        "rung": sandbox.isolation.rung,
        "episodes": result.episodes,
        "samples": len(result.samples["episodes"]),
        "wrong": result.wrong,
        "seconds": round(result.seconds, 1),
        "figures": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sandbox", default="docker")
    parser.add_argument("--episodes", type=int, default=20_000)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--warm-up", type=int, default=200, help="episodes before the first batch")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no further batch after that time")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with make_sandbox(options.sandbox, containers=1) as sandbox:
        result = soak(
            sandbox, options.episodes, options.batches, options.at_once, options.warm_up, seconds=60 * options.minutes
        )  # fmt: skip
        told = report(result, sandbox)
    if options.json:
        print(json.dumps(told, indent=1))
        return
    print(", ".join(f"{key}: {value}" for key, value in told.items() if key != "figures"))
    for name, row in told["figures"].items():
        low, high = row["slope_95"]
        slope = f"slope {row['slope_per_1000_episodes']:g} ({low:g} to {high:g}) a thousand episodes"
        print(f"{name}: first {row['first']:g}, last {row['last']:g}, {slope}")


if __name__ == "__main__":
    main()
