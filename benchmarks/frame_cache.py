"""Rollouts of one group that fetch the same frames of a video: one shared decoder against readers of their own.

    python benchmarks/frame_cache.py [--sandbox docker] [--json] [--rounds 7]

Both sides run in the sandbox, in one run and in turn; only ``frame_cache_mb`` differs. Processor time is that of all
processes of the workers (decoder included) and of this process, from before the first ``open`` to after the last fetch.
What the same rollouts cost without a video, which is the same for both, is measured too and left out of the ``net``
ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from env_speed import figure, worker_pids

from pyvision_env.config import Limits
from pyvision_env.sandbox import Episode, Sandbox, make_sandbox

WIDTH, HEIGHT, FPS, MINUTES, GOP = 640, 360, 30, 10, 250
ROLLOUTS, FRAMES = 8, 16
CHECK = "import hashlib\nprint(hashlib.sha256(batch).hexdigest())"


def write_video(path: Path, minutes: float = MINUTES) -> Path:
    """A camera that pans over a large textured picture while noise and a box move: H.264, a keyframe every 250."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (60, 100, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    scene = (coarse.astype(np.int16) + rng.integers(-12, 12, coarse.shape, np.int16)).clip(0, 255).astype(np.uint8)
    with av.open(str(path), "w") as out:
        options = {"preset": "veryfast", "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0:bframes=3"}
        stream = out.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(int(minutes * 60 * FPS)):
            x, y = number * 3 % (scene.shape[1] - WIDTH), number % (scene.shape[0] - HEIGHT)
            pixels = scene[y : y + HEIGHT, x : x + WIDTH].copy()
            left = number * 7 % (WIDTH - 80)
            pixels[140:220, left : left + 80] = (number * 5 % 256, 255 - number % 256, 40)
            frame = av.VideoFrame.from_ndarray(pixels)
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def processor_s() -> dict[int, float]:
    """Processor seconds that the workers' processes have used, to the nanosecond (/proc/<pid>/stat counts ticks)."""
    used = {}
    for pid in worker_pids():
        with contextlib.suppress(OSError):
            tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
            used[pid] = sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
    return used


def group(sandbox: Sandbox, video: Path | None, wanted: Sequence[int]) -> dict[str, Any]:
    """One group: eight rollouts at once open the video and fetch the frames; all must get the same pixels."""
    fetch = "batch = b''" if video is None else f"batch = video_clue_0.get_batch({list(wanted)}).asnumpy()"
    before = processor_s()
    own, began = time.process_time(), time.perf_counter()
    with ExitStack() as stack, ThreadPoolExecutor(ROLLOUTS) as threads:

        def rollout(_: int) -> Episode:
            episode = sandbox.open(videos=[] if video is None else [video])
            result = episode.run(fetch)
            assert result.error is None, result.text
            return episode

        episodes = list(threads.map(rollout, range(ROLLOUTS)))
        wall = time.perf_counter() - began
        own = time.process_time() - own
        # All that worked for this group still live; what ended meanwhile belonged to the last one.
        used = own + sum(seconds - before.get(pid, 0.0) for pid, seconds in processor_s().items())
        for episode in episodes:
            stack.enter_context(episode)
        texts = {episode.run(CHECK).text for episode in episodes}
    assert len(texts) == 1, "rollouts got different frames"
    return {"cpu_s": used, "wall_s": wall, "pixels": texts.pop()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sandbox", default="docker")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    samples: dict[str, list[dict[str, Any]]] = {"shared": [], "own": [], "no video": []}
    limits = Limits(code_timeout_s=120)
    with tempfile.TemporaryDirectory() as directory:
        source = write_video(Path(directory) / "source.mp4", options.minutes)
        frames = int(options.minutes * 60 * FPS)
        with (
            make_sandbox(options.sandbox, limits=limits, containers=1) as shared,
            make_sandbox(options.sandbox, limits=limits, containers=1, frame_cache_mb=0) as own,
        ):
            shared.start()
            own.start()
            for number in range(options.rounds + 1):
                # A name of its own makes it a video not seen before: nothing is left over from the last round.
                video = Path(directory) / f"{number}.mp4"
                video.write_bytes(source.read_bytes())
                wanted = random.Random(number).sample(range(frames), FRAMES)
                for name, sandbox in (("shared", shared), ("own", own), ("no video", own)):
                    sample = group(sandbox, None if name == "no video" else video, wanted)
                    if number:  # the first one warms up
                        samples[name].append(sample)
                video.unlink()
        kind = shared.kind
    assert [s["pixels"] for s in samples["shared"]] == [s["pixels"] for s in samples["own"]]
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, kernel {platform.release()}",
        "python": platform.python_version(),
        "sandbox": kind,
        "video": f"{options.minutes:g} min, {WIDTH}x{HEIGHT}, H.264, GOP {GOP}, {frames} frames",
        "what": f"{ROLLOUTS} rollouts, the same {FRAMES} random frames",
    }
    for key in ("cpu_s", "wall_s"):
        series = {name: [sample[key] for sample in taken] for name, taken in samples.items()}
        triples = list(zip(series["own"], series["shared"], series["no video"], strict=True))
        report[key] = {name: figure(values) for name, values in series.items()}
        report[key]["own_over_shared"] = figure([own / shared for own, shared, _ in triples])
        if key == "cpu_s":
            report[key]["net own_over_shared"] = figure(
                [(own - bare) / (shared - bare) for own, shared, bare in triples]
            )
    if options.json:
        print(json.dumps(report, indent=1))
        return
    for key, value in report.items():
        print(f"{key}: {value}")


if __name__ == "__main__":
    main()
