"""What a Ray cluster adds: the same steps through it and in the same node's own sandbox, in turn within one run.

    python benchmarks/cluster_speed.py [--sandbox local] [--json] [--rounds 15]

The cluster has one node, on this machine, so that both sides have the same processors; a network would add its time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# Read when Ray is imported: everything stays on the loopback device.
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}

import ray
from env_speed import MIXED, PLOT, PRINT, SIZE, clock, figure, photo_like
from ray.cluster_utils import Cluster

from pyvision_env.sandbox import SandboxLike, make_sandbox


def compare(name: str, unit: str, rounds: int, cluster: Callable[[], float], local: Callable[[], float]) -> Any:
    """A sample of each in turn, after one that does not count; ratios within each pair."""
    cluster(), local()
    pairs = [(cluster(), local()) for _ in range(rounds)]
    ratio = statistics.median(a / b for a, b in pairs)
    added = statistics.median(a - b for a, b in pairs)
    return {
        "name": name,
        "unit": unit,
        "cluster": figure([a for a, _ in pairs]),
        "local": figure([b for _, b in pairs]),
        "cluster_over_local": float(f"{ratio:.4g}"),
        "cluster_minus_local": float(f"{added:.4g}"),
    }


def rows(cluster: SandboxLike, local: SandboxLike, path: Path, rounds: int) -> list[dict[str, Any]]:
    found = []

    def reset(sandbox: SandboxLike) -> float:
        def once() -> None:
            with sandbox.open(images=[path]) as episode:
                assert episode.run(SIZE).text == "(1920, 1440)\n"

        return clock(once)

    name = "reset to first print, 1x1920x1440, further rollout of a group"
    found.append(compare(name, "ms", rounds, lambda: reset(cluster), lambda: reset(local)))
    with cluster.open(images=[path]) as there, local.open(images=[path]) as here:
        for name, code in (("print(1) step", PRINT), ("crop + imshow + show step", PLOT)):
            for _ in range(20):
                there.run(PRINT), here.run(PRINT)
            found.append(
                compare(
                    name,
                    "ms",
                    rounds * (20 if code is PRINT else 1),
                    lambda code=code: clock(lambda: there.run(code)),
                    lambda code=code: clock(lambda: here.run(code)),
                )
            )

    def episode(sandbox: SandboxLike) -> None:
        with sandbox.open(images=[path]) as opened:
            for code in MIXED:
                assert opened.run(code).error is None

    def seconds_each(sandbox: SandboxLike, concurrent: int) -> float:
        with ThreadPoolExecutor(concurrent) as pool:
            total = max(4, 2 * concurrent)
            return clock(lambda: list(pool.map(lambda _: episode(sandbox), range(total)))) / total

    for concurrent in (1, 8):
        found.append(
            compare(
                f"mixed episode, {concurrent} at once",
                "ms an episode",
                max(3, rounds // 3),
                lambda c=concurrent: seconds_each(cluster, c),
                lambda c=concurrent: seconds_each(local, c),
            )
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sandbox", default="local")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pv-") as directory:
        path = Path(directory) / "photo.jpg"
        photo_like(1920, 1440, 0).save(path, quality=92)
        os.environ["RAY_TMPDIR"] = directory
        node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 200 << 20}
        nodes = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **node})
        there = {"address": nodes.address, "node_kind": options.sandbox}
        try:
            with make_sandbox("ray", cluster=there) as cluster, make_sandbox(options.sandbox) as local:
                cluster.start(), local.start()
                report = {
                    "date": time.strftime("%Y-%m-%d"),
                    "machine": f"{os.cpu_count()} cores, {platform.machine()}, kernel {platform.release()}",
                    "python": platform.python_version(),
                    "ray": ray.__version__,
                    "sandbox": local.kind,
                    "rows": rows(cluster, local, path, options.rounds),
                }
        finally:
            nodes.shutdown()
    if options.json:
        print(json.dumps(report, indent=1))
        return
    print(", ".join(f"{key}: {value}" for key, value in report.items() if key != "rows"))
    for row in report["rows"]:
        sides = {key: row[key] for key in ("cluster", "local")}
        shown = ", ".join(f"{key} {side['median']:g} ({side['q1']:g} to {side['q3']:g})" for key, side in sides.items())
        print(f"{row['name']} [{row['unit']}], n={row['cluster']['n']}: {shown}, {row['cluster_over_local']:g}x")


if __name__ == "__main__":
    main()
