"""What ``figures="content"`` saves in time and visual tokens and gains in legibility, against faithful figures.

    python benchmarks/figures.py [--sandbox docker] [--json] [--rounds 25] [--tasks 24]

Speed: the same plot step in two episodes that differ in ``figures`` only, taken in turn. Legibility: hard tasks of
PyVision/SyntheticSearch-v0; an agent finds the tag by its colour, shows windows of several sizes around it with
``plt.imshow``, and reads each picture that comes back with a matched filter that knows the tag's place and scale.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from env_speed import PLOT, clock, figure, photo_like

import pyvision_env  # noqa: F401 - registers PyVision/*
from pyvision_env.config import Limits
from pyvision_env.grading import grade
from pyvision_env.media import visual_tokens
from pyvision_env.sandbox import Episode, make_sandbox
from pyvision_env.tasks.synthetic_search import FRAME_COLOURS, PATTERNS, make_search_task
from pyvision_env.types import Task

MODES = ("faithful", "content")
CROP = "crop = image_clue_0.crop((200, 150, 840, 630))\n"
STEPS = {
    "crop + imshow + show": PLOT,
    "the same with axis('off') and tight_layout()": CROP
    + "plt.imshow(crop)\nplt.axis('off')\nplt.tight_layout()\nplt.show()",
    "subplots(figsize=(10, 8)) + ax.imshow": CROP
    + "fig, ax = plt.subplots(figsize=(10, 8))\nax.imshow(crop)\nplt.show()",
    "grey crop + imshow(cmap='gray')": CROP + "plt.imshow(crop.convert('L'), cmap='gray')\nplt.show()",
    "xlim and ylim on the whole photo": "plt.imshow(image_clue_0)\nplt.xlim(200, 840)\nplt.ylim(630, 150)\nplt.show()",
    "crop + imshow + title (drawn in both)": CROP + "plt.imshow(crop)\nplt.title('crop')\nplt.show()",
}
SHOW = f"{CROP}crop.show()"
WINDOWS = (40, 128, 256, 480, 720, 960, 1440, 2048)
FIND = """
from scipy import ndimage
canvas = np.asarray(image_clue_0).astype(np.int16)
near = np.abs(canvas - np.array({colour}, dtype=np.int16)).max(axis=-1) < 60
labels, count = ndimage.label(near)
rows, columns = ndimage.find_objects(labels)[np.bincount(labels.ravel())[1:].argmax()]
print("tag:", columns, rows)
"""
SHOW_WINDOW = """
side = {side}
x = min(max((columns.start + columns.stop - side) // 2, 0), image_clue_0.width - side)
y = min(max((rows.start + rows.stop - side) // 2, 0), image_clue_0.height - side)
print(x, y)
plt.imshow(image_clue_0.crop((x, y, x + side, y + side)))
plt.axis('off')
plt.show()
"""
ANSWERED_FROM = 480
FRAME, STRIPE, CELLS = 8, 2, 12


def speed_rows(sandbox_kind: str, photo: Path, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds of each step in both modes, and of showing the crop without matplotlib: wall and processor time."""
    many = {"max_images": 1_000_000}
    rows = []
    with (
        make_sandbox(sandbox_kind, limits=Limits(**many)) as faithful,
        make_sandbox(sandbox_kind, limits=Limits(figures="content", **many)) as content,
    ):
        for name, code in STEPS.items():
            wall: dict[str, list[float]] = {"faithful": [], "content": [], "image_show": []}
            processor: dict[str, list[float]] = {key: [] for key in wall}
            with faithful.open(images=[photo]) as one, content.open(images=[photo]) as other:
                steps = {"faithful": (one, code), "content": (other, code), "image_show": (other, SHOW)}
                for number in range(-2, rounds):
                    for key, (episode, text) in steps.items():
                        used = processor_ms(episode)
                        took = clock(lambda episode=episode, text=text: run(episode, text))
                        used = processor_ms(episode) - used
                        if number >= 0:
                            wall[key].append(took)
                            processor[key].append(used)
            rows.append(
                {
                    "name": name,
                    "unit": "ms",
                    **{key: figure(each) for key, each in wall.items()},
                    **{f"{key}_processor": figure(each) for key, each in processor.items()},
                    "faithful_over_content": figure(ratios(wall)),
                    "faithful_over_content_processor": figure(ratios(processor)),
                }
            )
    return rows


def ratios(samples: dict[str, list[float]]) -> list[float]:
    """Of each round's pair."""
    return [one / other for one, other in zip(samples["faithful"], samples["content"], strict=True)]


def processor_ms(episode: Episode) -> float:
    """Processor time of the episode's process so far; asking takes some of it, too, which stays in the difference."""
    return float(episode.run("import time; print(time.process_time() * 1e3)").text)


def run(episode: Episode, code: str) -> None:
    """One step; names are freed again so that pictures of many rounds do not fill the episode's memory."""
    result = episode.run(code)
    assert result.error is None, result.text
    assert len(result.images) == 1


def picture_box(mode: str, side: int, shape: tuple[int, ...]) -> tuple[float, float, float]:
    """Where a square crop lies in the picture that came back: left, top and its scale (picture pixels a crop pixel)."""
    height, width = shape[:2]
    if mode == "content":
        return 0.0, 0.0, width / side
    from matplotlib.figure import Figure

    canvas = Figure()
    axes = canvas.subplots()
    axes.imshow(np.zeros((side, side)))
    axes.apply_aspect()
    budget = width / (canvas.get_figwidth() * canvas.dpi)
    box = axes.bbox
    return box.x0 * budget, height - box.y1 * budget, box.width * budget / side


def read_pattern(grey: Any, left: float, top: float, scale: float) -> str:
    """The pattern whose rendering at this scale matches best the pixels of the tag that begins at ``left``, ``top``."""
    size = STRIPE * CELLS
    span = [range(int(np.ceil(start)), int(np.floor(start + size * scale))) for start in (left, top)]
    columns, rows = ([max(0, i) for i in each] for each in span)
    seen = grey[np.ix_([r for r in rows if r < grey.shape[0]], [c for c in columns if c < grey.shape[1]])]
    if min(seen.shape, default=0) < 2:
        return PATTERNS[0]
    over_x = footprints(columns[0], seen.shape[1], left, scale, size)
    over_y = footprints(rows[0], seen.shape[0], top, scale, size)
    y, x = np.indices((size, size))
    best = (-2.0, PATTERNS[0])
    for shift_y in range(2 * STRIPE):
        for shift_x in range(2 * STRIPE):
            v, u = (y + shift_y) // STRIPE, (x + shift_x) // STRIPE
            diagonal = (x + y + shift_x + shift_y) // STRIPE
            for pattern, bright in zip(PATTERNS, (v % 2, u % 2, diagonal % 2, (u + v) % 2), strict=True):
                best = max(best, (correlation(over_y @ bright @ over_x.T, seen), pattern))
    return best[1]


def footprints(first: int, count: int, start: float, scale: float, size: int) -> Any:
    """Which share of each picture pixel each of ``size`` tag pixels covers."""
    edges = (first + np.arange(count + 1) - start) / scale
    overlap = np.minimum(edges[1:, None], np.arange(1, size + 1)) - np.maximum(edges[:-1, None], np.arange(size))
    return np.clip(overlap, 0, None) * scale


def correlation(one: Any, other: Any) -> float:
    """Normalised correlation of two equal-sized pictures."""
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / norm if norm > 1e-9 else 0.0


def legibility_rows(sandbox_kind: str, tasks: list[Task]) -> list[dict[str, Any]]:
    """Share of hard tasks that can be answered from the picture of a window around the tag, by window and mode."""
    looked = {mode: look(sandbox_kind, tasks, mode) for mode in MODES}
    rows = []
    for side in WINDOWS:
        row: dict[str, Any] = {"window": side, "n": len(tasks)}
        for mode in MODES:
            seen = [each[side] for each in looked[mode]]
            row[mode] = {
                "read": round(statistics.mean(read for read, _, _ in seen), 3),
                "scale": float(f"{statistics.median(scale for _, scale, _ in seen):.3g}"),
                "tokens": int(statistics.median(tokens for _, _, tokens in seen)),
            }
        rows.append(row)
    return rows


def look(sandbox_kind: str, tasks: list[Task], mode: str) -> list[dict[int, tuple[bool, float, int]]]:
    """For each task and window: whether the picture gives the right answer, its scale, its visual tokens."""
    env = gym.make(
        "PyVision/SyntheticSearch-v0", tasks=tasks, sandbox=sandbox_kind, figures=mode, max_turns=len(WINDOWS) + 1
    )
    found = []
    for task in tasks:
        env.reset(seed=0, options={"task": task})
        step(env, FIND.format(colour=FRAME_COLOURS[task.metadata["frame_colour"]]))
        seen = {}
        for side in WINDOWS:
            observation = step(env, SHOW_WINDOW.format(side=side))
            (picture,) = observation["images"]
            x, y = map(int, observation["text"].split()[:2])
            left, top, scale = picture_box(mode, side, picture.shape)
            tag_x, tag_y = (value + FRAME for value in task.metadata["target_box"][:2])
            grey = picture.mean(axis=-1)
            pattern = read_pattern(grey, left + (tag_x - x) * scale, top + (tag_y - y) * scale, scale)
            answer = rf"\boxed{{{'ABCD'[task.options.index(pattern)]}}}"
            seen[side] = grade(task, answer).correct, scale, visual_tokens(picture.shape[1], picture.shape[0])
            if side == ANSWERED_FROM:
                given = answer
        *_, info = env.step(f"<answer>{given}</answer>")
        assert info["correct"] == seen[ANSWERED_FROM][0]
        found.append(seen)
    env.close()
    return found


def step(env: Any, code: str) -> dict[str, Any]:
    """One turn of code; what the model is shown."""
    observation, _, _, truncated, info = env.step(f"<code>\n```python\n{code}\n```\n</code>")
    assert not truncated and not info["failed_calls"], observation["text"]
    return dict(observation)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sandbox", default="docker")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--tasks", type=int, default=24)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        photo = Path(directory) / "photo.jpg"
        photo_like(1920, 1440, 0).save(photo, quality=92)
        tasks = [make_search_task(seed, difficulty="hard") for seed in range(options.tasks)]
        report = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, kernel {platform.release()}",
            "sandbox": options.sandbox,
            "steps": speed_rows(options.sandbox, photo, options.rounds),
            "legibility": legibility_rows(options.sandbox, tasks) if tasks else [],
        }
    if options.json:
        print(json.dumps(report, indent=1))
        return
    for row in report["steps"]:
        parts = [f"{key} {value['median']:g}" for key, value in row.items() if isinstance(value, dict)]
        print(f"{row['name']} [{row['unit']}]: {', '.join(parts)}")
    for row in report["legibility"]:
        print(f"window {row['window']}, n {row['n']}: " + "; ".join(f"{mode} {row[mode]}" for mode in MODES))


if __name__ == "__main__":
    main()
