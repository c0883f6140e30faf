"""What one episode has used up and achieved so far, and the info dictionary made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyvision_env.config import Limits
from pyvision_env.media import visual_tokens
from pyvision_env.types import EndReason, RGBArray


@dataclass(slots=True)
class Progress:
    """The running counts of an episode.

    Attributes:
        task_id: The episode's task.
        limits: Its budgets.
        turns: Actions taken, the answer included.
        used_turns: Actions that cost a tool turn: tool calls and malformed ones.
        tool_calls: Tool calls run.
        failed_calls: Those that gave an error.
        counted_calls: Calls that count for the tool reward.
        num_images: Images in the context, given and produced.
        visual_tokens: Visual tokens of those images.
        action: Kind of the last action.
        tool_error: Error of the last action's tool call.
        state_lost: The last action lost the runtime's variables.
        answer: The final answer as graded.
        score: Its grade in [0, 1].
        correct: Whether it counts as correct.
        end_reason: Why the episode ended.
        infrastructure_error: What failed, where ``on_infrastructure="truncate"`` turned an exception into an end.
    """

    task_id: str
    limits: Limits
    turns: int = 0
    used_turns: int = 0
    tool_calls: int = 0
    failed_calls: int = 0
    counted_calls: int = 0
    num_images: int = 0
    visual_tokens: int = 0
    action: str | None = None
    tool_error: str | None = None
    state_lost: bool = False
    answer: str | None = None
    score: float | None = None
    correct: bool | None = None
    end_reason: EndReason | None = None
    infrastructure_error: str | None = None

    @property
    def turns_left(self) -> int:
        """Tool turns that are left."""
        return max(0, self.limits.max_turns - self.used_turns)

    @property
    def images_left(self) -> int:
        """Images that may still enter the context."""
        return max(0, self.limits.max_images - self.num_images)

    def room_for(self, width: int, height: int) -> int:
        """How many more images of this size keep to the image and token budgets."""
        if self.limits.max_visual_tokens is None:
            return self.images_left
        tokens_left = max(0, self.limits.max_visual_tokens - self.visual_tokens)
        return min(self.images_left, tokens_left // visual_tokens(width, height))

    def fits(self, width: int, height: int) -> bool:
        """Whether one more image of this size keeps to the image and token budgets."""
        return self.room_for(width, height) > 0

    def over_tokens(self) -> bool:
        """Whether the context holds more visual tokens than allowed."""
        bound = self.limits.max_visual_tokens
        return bound is not None and self.visual_tokens > bound

    def add_images(self, images: Iterable[RGBArray]) -> None:
        """Count images that entered the context."""
        for image in images:
            self.num_images += 1
            self.visual_tokens += visual_tokens(image.shape[1], image.shape[0])

    def info(self, terms: Mapping[str, float]) -> dict[str, Any]:
        """The step's info: flat, deterministic and JSON-able; new objects at every call."""
        return {
            "task_id": self.task_id,
            "end_reason": None if self.end_reason is None else self.end_reason.value,
            "turns": self.turns,
            "tool_calls": self.tool_calls,
            "failed_calls": self.failed_calls,
            "counted_calls": self.counted_calls,
            "num_images": self.num_images,
            "visual_tokens": self.visual_tokens,
            "action": self.action,
            "tool_error": self.tool_error,
            "state_lost": self.state_lost,
            "answer": self.answer,
            "score": self.score,
            "correct": self.correct,
            "reward_terms": dict(terms),
            "infrastructure_error": self.infrastructure_error,
        }
