"""Traces turned into what the page's template shows: plain values without markup."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyvision_env.report.pictures import Picture, PictureBook
from pyvision_env.report.text import Span, spans
from pyvision_env.trace import ObservationRecord, Trace
from pyvision_env.trace.format import TASK_ERROR
from pyvision_env.types import EndReason
from pyvision_env.wording import LETTERS


@dataclass(frozen=True, slots=True)
class TurnView:
    """A turn on the page; ``number`` counts from 1."""

    number: int
    kind: str
    spans: tuple[Span, ...]
    observation: str
    failed: bool
    pictures: tuple[Picture, ...]
    reward: float
    terms: tuple[tuple[str, float], ...]
    new_tokens: int
    timings: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class EpisodeView:
    """An episode on the page; ``status`` is ``correct``, ``wrong``, ``failed`` or ``unfinished``.

    ``failed`` is not the agent's fault; ``failure`` then says whose: the infrastructure's or the task's.
    """

    name: str
    task_id: str
    status: str
    failure: str
    question: str
    options: tuple[tuple[str, str], ...]
    expected: str
    given: str | None
    score: float | None
    end_reason: str
    notes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    media: tuple[Picture, ...]
    videos: tuple[str, ...]
    first_text: str
    first_pictures: tuple[Picture, ...]
    turns: tuple[TurnView, ...]
    episode_return: float
    tool_calls: int
    visual_tokens: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The headline.

    Attributes:
        episodes: Number of them.
        figures: Name, value and note of each figure.
        ends: End reasons with their counts, the commonest first.
        shares: Each status that occurs, with its count.
        counts: Episodes behind each filter of the list.
    """

    episodes: int
    figures: tuple[tuple[str, str, str], ...]
    ends: tuple[tuple[str, int], ...]
    shares: tuple[tuple[str, int], ...]
    counts: dict[str, int]


def episode_view(trace: Trace, book: PictureBook) -> EpisodeView:
    """Show one trace."""
    header, end = trace.header, trace.end
    last = trace.turns[-1].info if trace.turns else header.info
    pictures = tuple(book.add(trace, image, f"image_clue_{i}") for i, image in enumerate(header.images))
    shown = {picture.label for picture in pictures}
    first = [p for p in _pictures(trace, header.observation, book) if p.label not in shown]
    notes = []
    if trace.damaged is not None:
        notes.append(f"The trace is damaged: {trace.damaged}. What stands before that line is shown.")
    if end is not None and end.error:
        what = "The task is wrong" if end.end_reason == TASK_ERROR else "Infrastructure failed"
        notes.append(f"{what}: {end.error}")
    if end is None and trace.damaged is None:
        notes.append("The episode was left before its end.")
    return EpisodeView(
        name=header.episode_id,
        task_id=header.task_id,
        status=status(trace),
        failure="task error" if end is not None and end.end_reason == TASK_ERROR else "infrastructure failure",
        question=header.question,
        options=_options(header.question, header.options),
        expected=header.answer,
        given=last.get("answer"),
        score=_score(last),
        end_reason=_words(end.end_reason if end is not None and end.end_reason else "unfinished"),
        notes=tuple(notes),
        facts=tuple(_facts(trace)),
        media=pictures,
        videos=tuple(_video(trace, i) for i in range(len(header.videos))),
        first_text=header.observation.text,
        first_pictures=tuple(first),
        turns=tuple(_turns(trace, book)),
        episode_return=sum(turn.reward for turn in trace.turns),
        tool_calls=_count(last, "tool_calls"),
        visual_tokens=_count(last, "visual_tokens"),
    )


def _options(question: str, options: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The choices by letter, unless the question's wording holds them already."""
    if all(option in question for option in options):
        return ()
    return tuple((LETTERS[i] if i < len(LETTERS) else str(i + 1), option) for i, option in enumerate(options))


def status(trace: Trace) -> str:
    """``correct``, ``wrong`` (also: no answer within the budget), ``failed`` (not its fault) or ``unfinished``."""
    if trace.end is None:
        return "unfinished"
    if trace.end.end_reason in (EndReason.INFRASTRUCTURE, TASK_ERROR):
        return "failed"
    return "correct" if trace.end.correct else "wrong"


def _turns(trace: Trace, book: PictureBook) -> list[TurnView]:
    views = []
    before = _count(trace.header.info, "visual_tokens")
    for turn in trace.turns:
        tokens = _count(turn.info, "visual_tokens")
        views.append(
            TurnView(
                number=turn.index + 1,
                kind=turn.kind or "turn",
                spans=spans(turn.action),
                observation=turn.observation.text,
                failed=bool(turn.info.get("tool_error")) or turn.kind == "invalid",
                pictures=tuple(_pictures(trace, turn.observation, book)),
                reward=turn.reward,
                terms=tuple((name, value) for name, value in turn.reward_terms.items() if value),
                new_tokens=tokens - before,
                timings=tuple((name.removesuffix("_s"), value) for name, value in turn.timings.items()),
            )
        )
        before = tokens
    return views


def _pictures(trace: Trace, observation: ObservationRecord, book: PictureBook) -> list[Picture]:
    labels = [*observation.labels, *(f"image {i}" for i in range(len(observation.labels), len(observation.images)))]
    return [book.add(trace, image, label) for image, label in zip(observation.images, labels, strict=False)]


def _video(trace: Trace, index: int) -> str:
    """One line about a video: its name, what is known of it, and its file."""
    video = trace.header.videos[index]
    known = trace.header.observation.videos[index] if index < len(trace.header.observation.videos) else {}
    parts = [f"video_clue_{index}"]
    if "width" in known and "height" in known:
        parts.append(f"{_number(known['width'])}×{_number(known['height'])}")
    parts += [f"{_number(known[name])} {unit}" for name, unit in _VIDEO_UNITS if name in known]
    return " · ".join([*parts, video.path or "kept in the trace"])


_VIDEO_UNITS = (("duration_s", "s"), ("fps", "frames/s"), ("num_frames", "frames"))


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else str(value)


def _facts(trace: Trace) -> list[tuple[str, str]]:
    header, end = trace.header, trace.end
    facts = [
        ("Task", header.task_id),
        ("Agent", header.agent),
        ("Data source", header.data_source),
        ("Ability", header.ability),
        ("Seed", header.seed),
        ("Started", header.started_at),
        ("Duration", f"{end.duration_s:.2f} s" if end is not None else None),
        ("Sandbox", _sandbox_kind(header.config)),
        ("Version", header.package_version),
    ]
    return [(name, str(value)) for name, value in facts if value is not None]


def _sandbox_kind(config: Mapping[str, Any]) -> Any:
    """Where code ran, as far as the header says so; a trace may come from anywhere."""
    sandbox = config.get("sandbox")
    return sandbox.get("kind") if isinstance(sandbox, Mapping) else sandbox


def _score(info: Mapping[str, Any]) -> float | None:
    value = info.get("score")
    return value if isinstance(value, int | float) else None


def _count(info: dict[str, Any], name: str) -> int:
    value = info.get(name)
    return value if isinstance(value, int) else 0


def _words(reason: str) -> str:
    return reason.replace("_", " ")


def summary(episodes: Sequence[EpisodeView]) -> Summary:
    """Figures over all episodes. Accuracy leaves out unfinished and failed episodes."""
    graded = [episode for episode in episodes if episode.status in ("correct", "wrong")]
    correct = sum(episode.status == "correct" for episode in graded)
    calls = sum(episode.tool_calls for episode in episodes)
    tokens = sum(episode.visual_tokens for episode in episodes)
    figures = (
        ("Episodes", f"{len(episodes):,}", f"{len(graded):,} graded"),
        ("Accuracy", f"{correct / len(graded):.1%}" if graded else "–", f"{correct:,} of {len(graded):,} correct"),
        ("Mean return", _mean([e.episode_return for e in graded], ".3f"), "graded episodes"),
        ("Tool calls", f"{calls:,}", f"{_mean([e.tool_calls for e in episodes], '.1f')} an episode"),
        ("Visual tokens", f"{tokens:,}", f"{_mean([e.visual_tokens for e in episodes], ',.0f')} an episode"),
    )
    ends = Counter(episode.end_reason for episode in episodes).most_common()
    found = Counter(episode.status for episode in episodes)
    shares = tuple((name, found[name]) for name in ("correct", "wrong", "unfinished", "failed") if found[name])
    counts = {
        "all": len(episodes),
        "correct": found["correct"],
        "wrong": found["wrong"],
        "unfinished": found["unfinished"] + found["failed"],
    }
    return Summary(len(episodes), figures, tuple(ends), shares, counts)


def _mean(values: Sequence[float], form: str) -> str:
    return format(sum(values) / len(values), form) if values else "–"
