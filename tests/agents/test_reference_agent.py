"""The reference agent answers every demo and synthetic task by code that runs, and by nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import pytest

from pyvision_env.agents import Context, ReferenceAgent, reference, reference_images, reference_videos
from pyvision_env.agents.reference import STRATEGIES
from pyvision_env.env import PyVisionEnv
from pyvision_env.rollout import run_episode
from pyvision_env.sandbox import Sandbox
from pyvision_env.tasks import SearchTasks, VideoTasks, demo_image_tasks, demo_video_tasks
from pyvision_env.types import Observation, Task


def ids(tasks: Iterable[Task]) -> list[object]:
    return [pytest.param(task, id=task.id) for task in tasks]


def play(task: Task, sandbox: Sandbox):
    env = PyVisionEnv([task], sandbox=sandbox, code_timeout_s=120)
    result = run_episode(env, ReferenceAgent(), options={"task": task})
    return result, env.turns


def assert_solved(task: Task, sandbox: Sandbox) -> None:
    result, turns = play(task, sandbox)
    assert result.failed_calls == 0, [turn.observation.text for turn in turns]
    assert result.correct, (result.answer, task.answer, [turn.observation.text for turn in turns])
    assert result.tool_calls >= 1
    assert result.num_images > len(task.images), "it looked at something"
    assert result.episode_return == pytest.approx(1 + 0.1 * result.tool_calls)


@pytest.mark.parametrize("task", ids(demo_image_tasks()))
def test_photo_questions_are_answered_by_code(task, sandbox):
    assert_solved(task, sandbox)


@pytest.mark.parametrize("task", ids(demo_video_tasks()))
def test_clip_questions_are_answered_by_code(task, sandbox):
    assert_solved(task, sandbox)


@pytest.mark.parametrize("seed", [1, 2])
def test_small_tags_are_found_and_read(seed, sandbox):
    for task in SearchTasks(2, seed=seed, size=1024):
        assert_solved(task, sandbox)


@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_the_card_of_the_named_scene_is_found_and_counted(difficulty, sandbox):
    for task in VideoTasks(2, seed=3, difficulty=difficulty):
        assert_solved(task, sandbox)


def test_the_answer_follows_what_is_in_the_picture_not_the_question(sandbox):
    """The same words about two other pictures: the answers differ as the pictures do."""
    first, *others = SearchTasks(30, seed=7, size=1024, difficulty="hard")
    other = next(
        task
        for task in others
        if task.metadata["frame_colour"] == first.metadata["frame_colour"]
        and task.metadata["pattern"] != first.metadata["pattern"]
    )
    swapped = Task(id="swapped", question=first.question, answer="A", images=other.images, options=first.options)
    answers = [play(task, sandbox)[0].answer for task in (first, swapped)]
    assert [first.options["ABCD".index(answer)] for answer in answers] == [
        first.metadata["pattern"],
        other.metadata["pattern"],
    ]


def test_no_demo_answer_stands_in_the_agents_own_text():
    """Options' letters and numbers of the demo's answers are found, not known."""
    sources = "".join(map(inspect.getsource, (reference, reference_images, reference_videos)))
    assert "demo-" not in sources
    assert not any(word in sources for word in ("TAXI", "POLICE", '"24"', '"1.2"'))


def test_every_demo_question_has_exactly_one_strategy():
    for task in (*demo_image_tasks(), *demo_video_tasks(), *SearchTasks(1), *VideoTasks(1)):
        assert sum(plan.question.search(task.question) is not None for plan in STRATEGIES) == 1, task.id


def test_an_unknown_question_is_answered_unknown_without_code():
    context = Context.of("", Observation("What is the meaning of life?", turns_left=4))
    assert ReferenceAgent().act(context).endswith(r"<answer>\boxed{unknown}</answer>")


def test_without_turns_left_it_answers_at_once():
    context = Context.of("", Observation("How many coins are in the photo?", turns_left=0))
    assert r"\boxed{unknown}" in ReferenceAgent().act(context)
