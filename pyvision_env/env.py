"""PyVisionEnv: the reset/step state machine of one episode at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from pyvision_env import grading, protocol, reward
from pyvision_env.config import EnvConfig, Limits, SandboxConfig
from pyvision_env.conversation import build_messages
from pyvision_env.errors import ConfigError, InfrastructureError, UserError
from pyvision_env.opening import open_episode
from pyvision_env.options import resolve_config
from pyvision_env.progress import Progress
from pyvision_env.prompts import system_prompt
from pyvision_env.spaces import action_space, as_element, observation_space
from pyvision_env.task_stream import TaskSource, TaskStream
from pyvision_env.tools import run_tools
from pyvision_env.types import (
    Action,
    Answer,
    EndReason,
    FetchFrames,
    Invalid,
    Observation,
    RunCode,
    Task,
    ToolAction,
    ToolCalls,
    Turn,
)
from pyvision_env.wording import budget_notes, question_text, result_text

if TYPE_CHECKING:
    from pyvision_env.grading import Judge
    from pyvision_env.sandbox import EpisodeLike, SandboxLike, SharedSandbox

_ACTION_NAMES: dict[type[Action], str] = {
    RunCode: "code",
    FetchFrames: "frames",
    ToolCalls: "calls",
    Answer: "answer",
    Invalid: "invalid",
}
_KEYWORDS = (
    *("tasks", "kind", "num_tasks", "task_seed", "task_args", "media_root", "shuffle"),
    *("sandbox", "config", "judge", "on_infrastructure"),
)


@dataclass(slots=True)
class _Live:
    """The episode that is running; ``runtime`` is None once it could not be had or was closed."""

    task: Task
    progress: Progress
    first: Observation
    runtime: EpisodeLike | None = None
    turns: list[Turn] = field(default_factory=list)
    over: bool = False


class PyVisionEnv(gymnasium.Env[dict[str, Any], Any]):
    r"""A model answers a question about images or videos by writing Python, asking for frames, and then answering.

    **Observation** ``Dict(text, images, videos, turns_left)``: what this turn adds, never what was there before.
    Images are uint8 HxWx3 within the pixel budget and carry the names ``image_clue_k`` in the runtime, given and
    produced ones alike, in order of appearance.

    **Action** the model's raw text: ``<code>``, ``<frames>`` or ``<answer>`` (see ``pyvision_env.protocol``), or with
    ``action_mode="structured"`` a pair of the ``OneOf`` space. Malformed text is answered by an observation that says
    what was expected; it costs a turn like a tool call.

    **Turns** ``max_turns`` tool turns, then one more step for the answer: with ``turns_left == 0`` an action that is
    no answer is not run and truncates the episode.

    **Images and tokens** A turn adds at most what is left of ``max_images``; then tools give text only
    (``end_on_image_budget``: the next tool call truncates instead). Passing ``max_visual_tokens`` truncates.

    **Reward** per step, with ``info["reward_terms"]`` summing exactly to it. **terminated** answered; **truncated** a
    budget, or with ``end_on_error`` an error in the model's code; ``info["end_reason"]`` names which.

    **Infrastructure** A failure of the sandbox or the judge raises an ``InfrastructureError``. With
    ``on_infrastructure="truncate"`` the step is truncated instead, with reward 0 and ``end_reason ==
    "infrastructure"`` (after a failed ``reset``, the first step is); such episodes must be left out of training.

    Given to ``gymnasium.make`` as text, numbers and dicts, all arguments survive ``spec.to_json()``; other objects
    (paths, task objects, configuration models) are fine for everything else.

    Args:
        tasks: A task file, an iterable of tasks or a task set; None for the kind's own tasks.
        kind: ``image``, ``video``, ``search`` or ``synthetic-video``: which tasks stand in for ``tasks=None``.
        num_tasks: Number of generated tasks, where they are generated.
        task_seed: Seed of generated tasks.
        task_args: Further arguments of the generator of tasks, such as ``{"difficulty": "easy"}``.
        media_root: Folder from which relative media paths of a task file start; its own folder by default.
        shuffle: Draw the tasks in an order given by the seed (True) or in their own order (False).
        sandbox: A kind (``auto``, ``docker``, ``docker-strict``, ``local``, ...), settings of it, or a sandbox that is
            already there. That one keeps its own limits and is not closed; others are shared between environments of
            equal configuration and released by ``close``.
        config: All settings at once; keyword arguments win over it.
        judge: Given to ``pyvision_env.grading.grade`` for tasks that only a judge can decide.
        on_infrastructure: ``raise`` or ``truncate``.
        render_mode: ``ansi`` (the transcript), ``rgb_array`` (a picture of the latest turn) or None.
        **overrides: Fields of ``EnvConfig``, ``Limits`` and ``RewardConfig``, such as ``max_turns=30``.

    Raises:
        ConfigError: If a setting is unknown or wrong.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 1}  # type: ignore[misc]

    def __init__(
        self,
        tasks: str | Path | Iterable[Task] | TaskSource | None = None,
        *,
        kind: str = "image",
        num_tasks: int | None = None,
        task_seed: int | None = None,
        task_args: Mapping[str, Any] | None = None,
        media_root: str | Path | None = None,
        shuffle: bool = True,
        sandbox: str | SandboxConfig | Mapping[str, Any] | SandboxLike | None = None,
        config: EnvConfig | Mapping[str, Any] | None = None,
        judge: Judge | None = None,
        on_infrastructure: Literal["raise", "truncate"] = "raise",
        render_mode: str | None = None,
        **overrides: Any,
    ) -> None:
        if on_infrastructure not in ("raise", "truncate"):
            raise ConfigError(f"on_infrastructure must be 'raise' or 'truncate', but {on_infrastructure!r} came")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            modes = ", ".join(self.metadata["render_modes"])
            raise ConfigError(f"render_mode must be None or one of {modes}, but {render_mode!r} came")
        given = None if sandbox is None or isinstance(sandbox, str | SandboxConfig | Mapping) else sandbox
        self.config = resolve_config(config, None if given is not None else sandbox, overrides, _KEYWORDS)  # type: ignore[arg-type]
        source = (
            tasks
            if isinstance(tasks, TaskSource)
            else TaskSource(tasks, kind, num_tasks, task_seed, task_args, media_root)
        )
        self.render_mode = render_mode
        self.observation_space = observation_space(self.config.limits.max_turns)
        self.action_space = action_space(self.config.action_mode)
        self._source = source
        self._stream = TaskStream(source, shuffle)
        self._judge = judge
        self._on_infrastructure = on_infrastructure
        self._given_sandbox = given
        self._shared: SharedSandbox | None = None
        self._live: _Live | None = None

    # --- the episode so far -------------------------------------------------------------------------------------

    @property
    def task(self) -> Task:
        """The task of the current episode, its reference answer included."""
        return self._episode().task

    @property
    def first_observation(self) -> Observation:
        """The observation that ``reset`` gave."""
        return self._episode().first

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns of the current episode so far."""
        return tuple(self._episode().turns)

    @property
    def system_prompt(self) -> str:
        """What a model should be told before the current episode."""
        task = self._episode().task
        return system_prompt(self.config, has_images=bool(task.images), has_videos=bool(task.videos))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation so far, in the shape of OpenAI chat messages."""
        live = self._episode()
        return build_messages(live.first, live.turns, self.system_prompt)

    @property
    def sandbox(self) -> SandboxLike:
        """Where code runs; made, or shared with other environments of equal configuration, on first use."""
        if self._given_sandbox is not None:
            return self._given_sandbox
        if self._shared is None:
            from pyvision_env.sandbox import shared_sandbox

            # Budgets the environment itself keeps do not matter to a runtime: environments that differ in these only
            # (training and evaluation, say) share one sandbox.
            defaults = Limits()
            kept_here = {name: getattr(defaults, name) for name in ("max_turns", "max_images", "max_visual_tokens")}
            self._shared = shared_sandbox(self.config.sandbox, self.config.limits.model_copy(update=kept_here))
        return self._shared.sandbox

    # --- Gymnasium ----------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode with the next task.

        Args:
            seed: Restarts the order of the tasks; the same seed gives the same order.
            options: ``{"task": Task}``, ``{"task_id": str}`` or ``{"task_index": int}`` name a task instead.

        Raises:
            ConfigError: If an option is unknown.
            TaskError: If the tasks cannot be loaded or the named one does not exist.
            MediaError: If the task's media cannot be read.
            SandboxError: If no runtime can be had (unless ``on_infrastructure="truncate"``).
        """
        super().reset(seed=seed)
        self._end_runtime()
        self._live = None
        if seed is not None:
            self._stream.restart()
        task = self._stream.pick(options, self.np_random)
        try:
            runtime, progress, first = open_episode(task, self.config, self.sandbox)
            self._live = _Live(task, progress, first, runtime)
        except InfrastructureError as error:
            if self._on_infrastructure == "raise":
                raise
            progress = Progress(task.id, self.config.limits)
            self._note_failure(progress, error)
            self._live = _Live(task, progress, Observation(question_text(task, [], []), turns_left=progress.turns_left))
        return as_element(self._live.first), self._live.progress.info(reward.NO_TERMS)

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Take one turn.

        Raises:
            ResetNeeded: If no episode is running.
            UserError: If the action is not of the action space's type.
            InfrastructureError: If the sandbox or the judge failed (unless ``on_infrastructure="truncate"``).
        """
        live = self._live
        if live is None or live.over:
            raise ResetNeeded("The episode is over or was never begun; call reset() before step().")
        text, parsed = self._read(action)
        progress = live.progress
        progress.turns += 1
        progress.action, progress.tool_error, progress.state_lost = _ACTION_NAMES[type(parsed)], None, False
        terms: Mapping[str, float] = reward.NO_TERMS
        try:
            if progress.end_reason is EndReason.INFRASTRUCTURE:
                observation = Observation("The episode could not be started.", turns_left=progress.turns_left)
            elif isinstance(parsed, Answer):
                observation, terms = self._answer(live, parsed)
            else:
                observation, terms = self._work(live, parsed)
        except InfrastructureError as error:
            self._note_failure(progress, error)
            if self._on_infrastructure == "raise":
                live.over = True
                self._end_runtime()
                raise
            observation = Observation("The episode ended early.", turns_left=progress.turns_left)
        terminated = progress.end_reason is EndReason.ANSWERED
        truncated = progress.end_reason is not None and not terminated
        if terminated or truncated:
            live.over = True
            self._end_runtime()
        total = reward.total(terms)
        info = progress.info(terms)
        live.turns.append(
            Turn(text, parsed, observation, total, dict(terms), progress.info(terms), terminated, truncated)
        )
        return as_element(observation), total, terminated, truncated, info

    def render(self) -> str | NDArray[np.uint8] | None:
        """The transcript (``ansi``), a picture of the latest turn (``rgb_array``), or None without a render mode."""
        if self.render_mode is None:
            return None
        from pyvision_env import render

        live = self._episode()
        if self.render_mode == "ansi":
            return render.transcript(live.first, live.turns)
        return render.picture(live.first, live.turns)

    def close(self) -> None:
        """End the episode and let go of the sandbox; may be called again, and ``reset`` begins anew."""
        self._end_runtime()
        self._live = None
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.close()

    # --- one turn -----------------------------------------------------------------------------------------------

    def _read(self, action: Any) -> tuple[str, Action]:
        if self.config.action_mode == "text":
            if not isinstance(action, str):
                raise UserError(
                    f"Expected the model's raw text (str) as the action, but got {type(action).__name__}; "
                    'make the environment with action_mode="structured" for (index, value) pairs'
                )
            return action, protocol.parse(action)
        parsed = protocol.from_structured(action)
        try:
            return protocol.format_action(parsed), parsed
        except UserError:
            # The text grammar cannot carry it (malformed, or its own tags inside): keep the payload itself.
            return json.dumps(action[1], default=_plain), parsed

    def _answer(self, live: _Live, answer: Answer) -> tuple[Observation, Mapping[str, float]]:
        progress = live.progress
        grade = grading.grade(live.task, answer.text, judge=self._judge)
        progress.answer, progress.score, progress.correct = answer.text, grade.score, grade.correct
        progress.end_reason = EndReason.ANSWERED
        boxed = protocol.boxed(answer.raw) is not None
        terms = reward.final_terms(self.config.reward, grade, counted=progress.counted_calls, well_formed=boxed)
        return Observation("The answer was received.", turns_left=progress.turns_left), terms

    def _work(self, live: _Live, action: ToolAction | Invalid) -> tuple[Observation, Mapping[str, float]]:
        """A turn that is no answer: run it if a turn is left for it."""
        progress = live.progress
        if progress.turns_left == 0:
            progress.end_reason = EndReason.TURN_BUDGET
            return Observation("No tool turn was left, so this one was not run; the episode is over."), reward.NO_TERMS
        progress.used_turns += 1
        if isinstance(action, Invalid):
            notes = [action.reason, *budget_notes(progress.turns_left, progress.images_left)]
            return Observation("\n".join(notes), turns_left=progress.turns_left), reward.NO_TERMS
        if self.config.end_on_image_budget and progress.images_left == 0:
            progress.end_reason = EndReason.IMAGE_BUDGET
            text = "No image was left, so this turn was not run; the episode is over."
            return Observation(text, turns_left=progress.turns_left), reward.NO_TERMS
        return self._use_tools(live, action)

    def _use_tools(self, live: _Live, action: ToolAction) -> tuple[Observation, Mapping[str, float]]:
        progress, limits = live.progress, self.config.limits
        assert live.runtime is not None, "only an episode that could not be started has no runtime"
        results, labels = run_tools(live.runtime, action, progress, limits)
        failed = progress.tool_error is not None
        terms, progress.counted_calls = reward.step_terms(
            self.config.reward, called=True, ok=not failed, counted_before=progress.counted_calls
        )
        if failed and self.config.end_on_error:
            progress.end_reason = EndReason.CODE_ERROR
        elif progress.over_tokens():
            progress.end_reason = EndReason.TOKEN_BUDGET
        notes = [result_text(results, labels, limits.max_text_chars)]
        if progress.end_reason is None:
            notes += budget_notes(progress.turns_left, progress.images_left)
        images = tuple(image for result in results for image in result.images)
        return Observation("\n".join(notes), images, tuple(labels), turns_left=progress.turns_left), terms

    # --- what an episode holds ------------------------------------------------------------------------------------

    def _episode(self) -> _Live:
        if self._live is None:
            raise ResetNeeded("There is no episode yet; call reset() first.")
        return self._live

    def _end_runtime(self) -> None:
        if self._live is not None and self._live.runtime is not None:
            runtime, self._live.runtime = self._live.runtime, None
            runtime.close()

    @staticmethod
    def _note_failure(progress: Progress, error: InfrastructureError) -> None:
        progress.end_reason = EndReason.INFRASTRUCTURE
        progress.infrastructure_error = f"{type(error).__name__}: {error}"


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else repr(value)
