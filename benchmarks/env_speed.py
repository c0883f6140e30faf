"""Speed and memory of the sandbox against the original's design and against the physical floor, interleaved in one run.

    python benchmarks/env_speed.py [--sandbox docker] [--json] [--rounds 15] [--parts speed mixed memory import]

Comparator: ``original_worker.py``. Floor: the same code in a warm interpreter of this process, nothing isolated.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from original_worker import OriginalEpisode
from PIL import Image, ImageFilter

from pyvision_env.sandbox import Sandbox, make_sandbox

PARTS = ("speed", "mixed", "memory", "import")
PRINT = "print(1)"
SIZE = "print(image_clue_0.size)"
PLOT = "crop = image_clue_0.crop((200, 150, 840, 630))\nplt.imshow(crop)\nplt.show()"
MIXED = (
    SIZE,
    "a = np.asarray(image_clue_0).mean()\nprint(round(float(a), 2))",
    PLOT,
    "b = image_clue_0.crop((0, 0, 64, 64)).convert('L')\nprint(b.size)",
    PRINT,
)


def photo_like(width: int, height: int, seed: int) -> Image.Image:
    """Smooth blobs with sensor noise: codecs find in it about what they find in a photo."""
    rng = np.random.default_rng(seed)
    base = Image.fromarray(rng.integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8))
    smooth = np.asarray(base.resize((width, height), Image.Resampling.BICUBIC).filter(ImageFilter.SMOOTH), np.int16)
    noisy = smooth + rng.normal(0, 4, smooth.shape).astype(np.int16)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


class Floor:
    """The physical floor: exec in this process with everything warm."""

    def __init__(self) -> None:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt

        self._plt = plt

    def run(self, code: str, namespace: dict[str, Any]) -> None:
        plt = self._plt

        def show() -> None:
            figure = plt.gcf()
            figure.canvas.draw()
            np.asarray(figure.canvas.buffer_rgba())[..., :3].tobytes()
            plt.close("all")

        output, stdout = io.StringIO(), sys.stdout
        sys.stdout = output
        original, plt.show = plt.show, show
        try:
            exec(compile(code, "<floor>", "exec"), namespace)
        finally:
            sys.stdout, plt.show = stdout, original

    def namespace(self, path: Path) -> dict[str, Any]:
        image = Image.open(path)
        image.load()
        return {"np": np, "plt": self._plt, "Image": Image, "image_clue_0": image}


def clock(call: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


def figure(samples: list[float]) -> dict[str, float]:
    """n, median and quartiles, rounded for reading."""
    quartiles = statistics.quantiles(samples, n=4) if len(samples) > 1 else samples * 3
    rounded = [float(f"{value:.4g}") for value in (statistics.median(samples), quartiles[0], quartiles[2])]
    return {"n": len(samples), "median": rounded[0], "q1": rounded[1], "q3": rounded[2]}


def compare(
    name: str, unit: str, rounds: int, *, warm: bool = True, **candidates: Callable[[], float]
) -> dict[str, Any]:
    """Take one sample of every candidate in turn, ``rounds`` times, after one that does not count."""
    for call in candidates.values() if warm else ():
        call()
    samples: dict[str, list[float]] = {key: [] for key in candidates}
    for _ in range(rounds):
        for key, call in candidates.items():
            samples[key].append(call())
    row: dict[str, Any] = {"name": name, "unit": unit, **{key: figure(values) for key, values in samples.items()}}
    for other in ("original", "floor"):
        if other in samples:
            pairs = [a / b for a, b in zip(samples[other], samples["ours"], strict=True)]
            row[f"{other}_over_ours"] = float(f"{statistics.median(pairs):.4g}")
    return row


def speed_rows(sandbox: Sandbox, path: Path, rounds: int) -> list[dict[str, Any]]:
    floor = Floor()
    rows = []

    decoded = Image.open(path).convert("RGB")
    pixels = np.asarray(decoded)

    def reset_ours(image: Any) -> float:
        began = time.perf_counter()
        with sandbox.open(images=[image]) as episode:
            assert episode.run(SIZE).text == "(1920, 1440)\n"
            return (time.perf_counter() - began) * 1e3

    def reset_ours_from_file() -> float:
        sandbox.forget_pictures()
        return reset_ours(path)

    def reset_original(image: Callable[[], Image.Image]) -> float:
        began = time.perf_counter()
        episode = OriginalEpisode([image()])
        assert episode.run(SIZE)[0] == "(1920, 1440)\n"
        took = (time.perf_counter() - began) * 1e3
        episode.close()
        return took

    rows.append(
        compare(
            "reset to first print, 1x1920x1440, decoded image handed over",
            "ms",
            rounds,
            ours=lambda: reset_ours(pixels),
            original=lambda: reset_original(lambda: decoded),
        )
    )
    rows.append(
        compare(
            "reset to first print, 1x1920x1440, JPEG file not seen before",
            "ms",
            rounds,
            ours=reset_ours_from_file,
            original=lambda: reset_original(lambda: Image.open(path).convert("RGB")),
            floor=lambda: clock(lambda: floor.run(SIZE, floor.namespace(path))),
        )
    )
    rows.append(
        compare(
            "reset to first print, 1x1920x1440, JPEG file, further rollout of a group",
            "ms",
            rounds,
            ours=lambda: reset_ours(path),
            original=lambda: reset_original(lambda: Image.open(path).convert("RGB")),
        )
    )
    ours = sandbox.open(images=[path])
    original = OriginalEpisode([Image.open(path).convert("RGB")])
    namespace = floor.namespace(path)
    for name, code in (("print(1) step", PRINT), ("crop + imshow + show step", PLOT)):
        rows.append(
            compare(
                name,
                "ms",
                rounds,
                ours=lambda code=code: clock(lambda: ours.run(code)),
                original=lambda code=code: clock(lambda: original.run(code)),
                floor=lambda code=code: clock(lambda: floor.run(code, namespace)),
            )
        )
    ours.close()
    original.close()
    return rows


def mixed_rows(sandbox: Sandbox, paths: list[Path], rounds: int) -> list[dict[str, Any]]:
    """Whole episodes of five steps, one of them a plot."""

    def ours(number: int) -> None:
        with sandbox.open(images=[paths[number % len(paths)]]) as episode:
            for code in MIXED:
                assert episode.run(code).error is None

    def original(number: int) -> None:
        episode = OriginalEpisode([Image.open(paths[number % len(paths)]).convert("RGB")])
        for code in MIXED:
            assert episode.run(code)[2] is None
        episode.close()

    def rate(one: Callable[[int], None], concurrent: int, total: int) -> float:
        with ThreadPoolExecutor(concurrent) as pool:
            began = time.perf_counter()
            list(pool.map(one, range(total)))
            return total / (time.perf_counter() - began)

    rows = []
    for concurrent in (1, 8, 32, 128):
        sandbox.forget_pictures()
        row = compare(
            f"mixed episodes, {concurrent} at once",
            "episodes/s",
            rounds if concurrent < 32 else 2 if concurrent < 128 else 1,
            warm=False,
            ours=lambda c=concurrent: rate(ours, c, max(8, 2 * c)),
            original=lambda c=concurrent: rate(original, c, max(2, c)),
        )
        row["ours_over_original"] = float(f"{1 / row.pop('original_over_ours'):.4g}")
        rows.append(row)
    return rows


def pss_mib(pids: list[int]) -> float:
    """Proportional set size of processes together, MiB."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def descendants(root: int) -> list[int]:
    """Pids of a process and everything below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def worker_pids() -> list[int]:
    """Pids of all processes of this process's workers: its descendants, or what runs in its containers."""
    import docker
    import docker.errors

    from pyvision_env.sandbox.containers import LABEL

    roots = [os.getpid()]
    with contextlib.suppress(docker.errors.DockerException):
        containers = docker.from_env().containers.list(filters={"label": f"{LABEL}={os.getpid()}"})
        roots = [container.attrs["State"]["Pid"] for container in containers] or roots
    return sorted({pid for root in roots for pid in descendants(root)} - {os.getpid()})


def memory_row(sandbox: Sandbox, path: Path, episodes: int) -> dict[str, Any]:
    """PSS an episode after a plot: what its process adds to the workers that stand ready in any case."""
    with sandbox.open(images=[path]) as episode:
        episode.run(PLOT)
    time.sleep(1)
    idle = pss_mib(worker_pids())
    open_now = [sandbox.open(images=[path]) for _ in range(episodes)]
    for episode in open_now:
        assert episode.run(PLOT).error is None
    time.sleep(1)
    busy = pss_mib(worker_pids())
    for episode in open_now:
        episode.close()
    originals = [OriginalEpisode([Image.open(path).convert("RGB")]) for _ in range(episodes)]
    for original in originals:
        assert original.run(PLOT)[2] is None
    time.sleep(1)
    theirs = pss_mib([original.pid for original in originals])
    for original in originals:
        original.close()
    mine = (busy - idle) / episodes
    return {
        "name": f"memory an episode after a plot, {episodes} alive",
        "unit": "MiB PSS",
        "ours": {"n": episodes, "median": round(mine, 1)},
        "original": {"n": episodes, "median": round(theirs / episodes, 1)},
        "workers_idle_mib": round(idle, 1),
        "ours_over_original": float(f"{mine * episodes / theirs:.3g}"),
    }


def import_row(rounds: int) -> dict[str, Any]:
    """Import time beyond numpy and gymnasium."""

    def once(statement: str) -> float:
        code = f"import time, numpy, gymnasium; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
        return float(subprocess.check_output([sys.executable, "-c", code], text=True)) * 1e3

    return compare(
        "import pyvision_env beyond numpy and gymnasium", "ms", rounds, ours=lambda: once("import pyvision_env")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sandbox", default="docker")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, make_sandbox(options.sandbox) as sandbox:
        paths = []
        for seed in range(4):
            paths.append(Path(directory) / f"{seed}.jpg")
            photo_like(1920, 1440, seed).save(paths[-1], quality=92)
        sandbox.start()
        made: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "speed": lambda: speed_rows(sandbox, paths[0], options.rounds),
            "mixed": lambda: mixed_rows(sandbox, paths, max(3, options.rounds // 5)),
            "memory": lambda: [memory_row(sandbox, paths[0], 16)],
            "import": lambda: [import_row(max(5, options.rounds // 3))],
        }
        rows = [row for part in options.parts for row in made[part]()]
        report = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, kernel {platform.release()}",
            "python": platform.python_version(),
            "sandbox": sandbox.kind,
            "rung": sandbox.isolation.rung,
            "rows": rows,
        }
    if options.json:
        print(json.dumps(report, indent=1))
        return
    print(", ".join(f"{key}: {value}" for key, value in report.items() if key != "rows"))
    for row in rows:
        parts = [f"{key} {value['median']:g}" for key, value in row.items() if isinstance(value, dict)]
        ratios = [f"{key.replace('_', ' ')} {value:g}" for key, value in row.items() if isinstance(value, float)]
        print(f"{row['name']} [{row['unit']}]: {', '.join(parts)}; {', '.join(ratios)}")


if __name__ == "__main__":
    main()
