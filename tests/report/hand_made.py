"""Traces made by hand: any question, any turn, any picture, without an environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pyvision_env.trace import EndRecord, ObservationRecord, TraceHeader, TraceStore, TurnRecord
from pyvision_env.types import RGBArray


@dataclass
class Step:
    """A turn to record."""

    action: Any
    text: str
    kind: str = "code"
    images: Sequence[RGBArray] = ()
    reward: float = 0.0
    terms: Mapping[str, float] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Episode:
    """An episode to record; without ``end`` it stays unfinished."""

    task_id: str = "task"
    question: str = "What is it?"
    answer: str = "A"
    steps: Sequence[Step] = ()
    given: Sequence[RGBArray] = ()
    end: str | None = "answered"
    correct: bool | None = None
    error: str | None = None
    header: Mapping[str, Any] = field(default_factory=dict)


def record(directory: Path, episode: Episode) -> Path:
    """Write an episode as ``RecordTrace`` would, and return its file."""
    store = TraceStore(directory)
    given = tuple(store.put_image(image) for image in episode.given)
    known = len(given)
    first = ObservationRecord(episode.question, given, tuple(f"image_clue_{i}" for i in range(known)), (), 4)
    writer = store.begin(
        TraceHeader(
            version=1,
            episode_id="",
            task_id=episode.task_id,
            question=episode.question,
            answer=episode.answer,
            images=given,
            **{
                "package_version": "0.1.0",
                "started_at": "2026-11-23T10:00:00.000+00:00",
                "observation": first,
                **episode.header,
            },
        )
    )
    tokens, total = 0, 0.0
    for index, step in enumerate(episode.steps):
        labels = tuple(f"image_clue_{known + i}" for i in range(len(step.images)))
        known += len(step.images)
        tokens += 391 * len(step.images)
        total += step.reward
        images = tuple(store.put_image(image) for image in step.images)
        writer.write(
            TurnRecord(
                index=index,
                action=step.action,
                kind=step.kind,
                observation=ObservationRecord(step.text, images, labels, (), 3 - index),
                reward=step.reward,
                terminated=False,
                truncated=False,
                reward_terms=dict(step.terms),
                info={"visual_tokens": tokens, "tool_calls": index, **step.info},
                timings={"agent_s": 1.84 + index, "env_s": 0.21},
            )
        )
    if episode.end is not None:
        answer = episode.steps[-1].info.get("answer") if episode.steps else None
        writer.write(EndRecord(episode.end, total, episode.correct, answer=answer, duration_s=8.5, error=episode.error))
    writer.close()
    return writer.path


def answer_step(answer: str, correct: bool, counted: int = 1) -> Step:
    """The last turn of an answered episode."""
    terms = {"accuracy": float(correct), "tool": 0.1 * counted if correct else 0.0, "format": 0.0}
    return Step(
        rf"<answer>\boxed{{{answer}}}</answer>",
        "The answer was received.",
        "answer",
        reward=sum(terms.values()),
        terms=terms,
        info={"answer": answer, "correct": correct, "score": float(correct)},
    )


def small_image(seed: int, height: int = 60, width: int = 90) -> RGBArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
