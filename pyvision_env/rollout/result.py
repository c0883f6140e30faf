"""What came of episodes: one result each, and their summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyvision_env.errors import TraceError
from pyvision_env.trace.format import TASK_ERROR
from pyvision_env.types import EndReason

if TYPE_CHECKING:
    from pyvision_env.trace import Trace


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """What came of one episode.

    Attributes:
        task_id: Of the task.
        seed: What ``reset`` was given.
        agent: Who acted.
        end_reason: Why it ended: an ``EndReason`` or ``task_error``.
        correct: Whether the answer counts as correct; None where nothing was graded.
        score: Its grade in [0, 1].
        answer: The final answer as graded.
        episode_return: Sum of the rewards.
        reward_terms: Sum of each reward term.
        turns: Actions taken, the answer included.
        tool_calls: Tool calls run.
        failed_calls: Those that gave an error.
        num_images: Images in the context.
        visual_tokens: Visual tokens of those images.
        duration_s: Wall seconds.
        error: What failed, where the episode does not count.
        trace: Its trace file, where one was written.
        data_source: The task's data set.
        ability: The ability the task tests.
    """

    task_id: str
    seed: int | None
    agent: str
    end_reason: str
    correct: bool | None = None
    score: float | None = None
    answer: str | None = None
    episode_return: float = 0.0
    reward_terms: dict[str, float] = field(default_factory=dict)
    turns: int = 0
    tool_calls: int = 0
    failed_calls: int = 0
    num_images: int = 0
    visual_tokens: int = 0
    duration_s: float = 0.0
    error: str | None = None
    trace: Path | None = None
    data_source: str | None = None
    ability: str | None = None

    @property
    def counts(self) -> bool:
        """Whether the episode says something about the agent: neither infrastructure nor its task failed."""
        return self.end_reason not in (EndReason.INFRASTRUCTURE, TASK_ERROR)

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON types."""
        return {**asdict(self), "trace": None if self.trace is None else str(self.trace)}


def result_of_trace(trace: Trace) -> EpisodeResult:
    """The result of a recorded episode that came to its end.

    Raises:
        TraceError: It did not.
    """
    header, end = trace.header, trace.end
    if end is None:
        raise TraceError(f"{trace.path}: expected an episode that came to its end, found an unfinished one")
    counts = {name: end.totals.get(name, 0) for name in ("turns", "tool_calls", "failed_calls", "num_images")}
    return EpisodeResult(
        task_id=header.task_id,
        seed=header.seed,
        agent=header.agent or "?",
        end_reason=end.end_reason or "?",
        correct=end.correct,
        score=end.score,
        answer=end.answer,
        episode_return=end.episode_return,
        reward_terms=sum_terms(turn.reward_terms for turn in trace.turns),
        **counts,
        visual_tokens=end.totals.get("visual_tokens", 0),
        duration_s=end.duration_s,
        error=end.error,
        trace=trace.path,
        data_source=header.data_source,
        ability=header.ability,
    )


def sum_terms(steps: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Sum each reward term over the steps of an episode."""
    total: dict[str, float] = {}
    for terms in steps:
        for name, value in terms.items():
            total[name] = total.get(name, 0.0) + value
    return total


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures over the episodes that count; the others are listed apart.

    Means are None where no episode counts, the ratio where no tool was called.

    Attributes:
        episodes: All episodes.
        counted: Episodes that count.
        correct: Of these, answered correctly.
        accuracy: Their share; an episode without an answer is not correct.
        mean_score: Mean grade, 0 without an answer.
        mean_return: Mean sum of rewards.
        mean_turns: Mean number of turns.
        mean_tool_calls: Mean number of tool calls.
        failed_call_ratio: Share of the tool calls that gave an error.
        mean_visual_tokens: Mean visual tokens.
        mean_duration_s: Mean wall seconds.
        end_reasons: How many episodes ended for which reason, the most frequent first.
        failures: Episodes that do not count: task, seed, end reason and error.
    """

    episodes: int
    counted: int
    correct: int
    accuracy: float | None
    mean_score: float | None
    mean_return: float | None
    mean_turns: float | None
    mean_tool_calls: float | None
    failed_call_ratio: float | None
    mean_visual_tokens: float | None
    mean_duration_s: float | None
    end_reasons: dict[str, int]
    failures: tuple[dict[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON types."""
        return asdict(self)


def summarize(results: Sequence[EpisodeResult]) -> Summary:
    """Sum up results."""
    counted = [result for result in results if result.counts]
    correct = sum(result.correct is True for result in counted)
    calls = sum(result.tool_calls for result in counted)
    return Summary(
        episodes=len(results),
        counted=len(counted),
        correct=correct,
        accuracy=_mean([float(result.correct is True) for result in counted]),
        mean_score=_mean([result.score or 0.0 for result in counted]),
        mean_return=_mean([result.episode_return for result in counted]),
        mean_turns=_mean([result.turns for result in counted]),
        mean_tool_calls=_mean([result.tool_calls for result in counted]),
        failed_call_ratio=sum(result.failed_calls for result in counted) / calls if calls else None,
        mean_visual_tokens=_mean([result.visual_tokens for result in counted]),
        mean_duration_s=_mean([result.duration_s for result in counted]),
        end_reasons=dict(Counter(result.end_reason for result in results).most_common()),
        failures=tuple(
            {"task_id": r.task_id, "seed": r.seed, "end_reason": r.end_reason, "error": r.error}
            for r in results
            if not r.counts
        ),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
