"""Episodes and rollouts with real environments: what counts, what stays on disk, and how a rollout ends early."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from samples import BLUE, RED, answer, clip, code, image_task, png

from pyvision_env.agents import Context, ScriptedAgent
from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.env import PyVisionEnv
from pyvision_env.errors import (
    ConfigError,
    ModelUnavailableError,
    SandboxStartError,
    TaskError,
    TraceError,
    UserError,
)
from pyvision_env.rollout import EpisodeResult, result_of_trace, run_episode, run_episodes, summarize
from pyvision_env.sandbox import Sandbox, shared_sandbox
from pyvision_env.tasks import TaskSet
from pyvision_env.trace import RecordTrace, iter_traces, read_trace
from pyvision_env.types import ImageSource, Task, VideoSource

LOOK, RIGHT, WRONG = code("print(image_clue_0.size)"), answer("B"), answer("A")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    held = shared_sandbox(SandboxConfig(kind="local"), Limits())
    yield held.sandbox
    held.close()


@pytest.fixture
def make_env(sandbox: Sandbox) -> Iterator[Callable[[], PyVisionEnv]]:
    made: list[PyVisionEnv] = []

    def build() -> PyVisionEnv:
        made.append(PyVisionEnv([image_task()], sandbox=sandbox))
        return made[-1]

    yield build
    for env in made:
        env.close()


def solver() -> ScriptedAgent:
    return ScriptedAgent([LOOK, RIGHT], name="solver")


def tasks(count: int) -> TaskSet:
    return TaskSet([image_task(f"task-{i}") for i in range(count)])


class Fickle:
    """Fails on some tasks; ``error`` is raised as its first turn."""

    name = "fickle"

    def __init__(self, error: Exception, *questions: str) -> None:
        self._error, self._questions = error, questions

    def act(self, context: Context) -> str:
        if any(question in context.question for question in self._questions):
            raise self._error
        return RIGHT


def test_an_episode_gives_its_figures(make_env):
    result = run_episode(make_env(), ScriptedAgent([LOOK, code("1/0"), RIGHT]), seed=3)
    assert (result.task_id, result.seed, result.agent, result.end_reason) == ("one", 3, "scripted", "answered")
    assert (result.turns, result.tool_calls, result.failed_calls, result.num_images) == (3, 2, 1, 1)
    assert (result.correct, result.answer, result.score, result.counts) == (True, "B", 1.0, True)
    assert result.episode_return == pytest.approx(1.1)
    assert result.reward_terms == pytest.approx({"accuracy": 1.0, "tool": 0.1, "format": 0.0})
    assert result.visual_tokens > 0 and result.duration_s > 0 and result.trace is None


def test_the_agent_never_sees_the_reference_answer(sandbox):
    seen = []

    class Spy:
        name = "spy"

        def act(self, context: Context) -> str:
            seen.append(repr(context.messages) + context.question + repr(context))
            return RIGHT if context.turns else LOOK

    task = Task("t", "Which animal?", "the secret", images=image_task().images, grader="exact")
    env = PyVisionEnv([task], sandbox=sandbox)
    assert run_episode(env, Spy()).correct is False
    assert len(seen) == 2 and not any("secret" in text for text in seen)


def test_each_turn_can_be_watched(make_env):
    watched = []
    run_episode(make_env(), solver(), on_turn=lambda env: watched.append(len(env.turns)))
    assert watched == [0, 1, 2]


def test_results_come_in_the_order_of_tasks_and_samples(make_env):
    came = []
    results = run_episodes(make_env, solver, tasks(5), samples=2, seed=10, concurrency=3, on_result=came.append)
    assert [(result.task_id, result.seed) for result in results] == [
        (f"task-{i}", 10 + k) for i in range(5) for k in (0, 1)
    ]
    assert sorted(map(id, came)) == sorted(map(id, results))
    assert all(result.correct for result in results)


def test_episodes_run_at_once(make_env):
    together = threading.Barrier(3, timeout=30)

    class Waiting:
        name = "waiting"

        def act(self, context: Context) -> str:
            together.wait()
            return RIGHT

    assert len(run_episodes(make_env, Waiting, tasks(3), concurrency=3)) == 3


def test_a_finished_episode_is_on_disk_when_its_result_comes(make_env, tmp_path):
    def check(result: EpisodeResult) -> None:
        trace = read_trace(result.trace)
        assert trace.complete
        again = result_of_trace(trace)
        assert again.duration_s > 0
        same = ("task_id", "seed", "agent", "end_reason", "correct", "score", "answer", "turns", "tool_calls")
        same += ("failed_calls", "num_images", "visual_tokens", "reward_terms", "episode_return", "trace")
        assert {name: getattr(again, name) for name in same} == {name: getattr(result, name) for name in same}

    results = run_episodes(make_env, solver, tasks(3), trace_dir=tmp_path, on_result=check)
    assert len(results) == len(list(iter_traces(tmp_path))) == 3


def test_no_tasks_is_no_episodes(make_env):
    assert run_episodes(make_env, solver, []) == []


def test_infrastructure_failures_are_listed_apart_and_not_scored(make_env, tmp_path):
    chosen = TaskSet([image_task("good"), image_task("bad", options=("x", "unlucky"))])
    agent = Fickle(ModelUnavailableError("the server is gone"), "unlucky")
    summary = summarize(run_episodes(make_env, lambda: agent, chosen, trace_dir=tmp_path))
    assert (summary.episodes, summary.counted, summary.accuracy) == (2, 1, 1.0)
    (failure,) = summary.failures
    assert failure["task_id"] == "bad" and "the server is gone" in failure["error"]
    ends = {trace.header.task_id: trace.end.end_reason for trace in iter_traces(tmp_path)}
    assert ends == {"good": "answered", "bad": "infrastructure"}


@pytest.mark.parametrize("handling", ["raise", "truncate"])
def test_a_sandbox_failure_does_not_count_however_the_environment_tells_it(handling, sandbox, monkeypatch):
    def broken(*_args, **_keywords):
        raise SandboxStartError("no container today")

    env = PyVisionEnv([image_task()], sandbox=sandbox, on_infrastructure=handling)
    monkeypatch.setattr(sandbox, "open", broken)
    result = run_episode(env, solver(), options={"task": image_task("lost")})
    assert (result.task_id, result.end_reason, result.correct, result.counts) == ("lost", "infrastructure", None, False)
    assert "no container today" in result.error


def test_a_task_with_a_missing_image_spoils_only_its_own_episode(make_env):
    missing = image_task("missing", images=(ImageSource(path=Path("/nowhere/photo.png")),))
    results = run_episodes(make_env, solver, TaskSet([missing, image_task("there")]), concurrency=1)
    assert [(result.task_id, result.end_reason) for result in results] == [
        ("missing", "task_error"),
        ("there", "answered"),
    ]
    assert "/nowhere/photo.png" in results[0].error
    assert not results[0].counts and summarize(results).accuracy == 1.0


def test_a_task_id_that_does_not_exist_is_the_callers_mistake(make_env):
    with pytest.raises(TaskError, match="no task has the id"):
        run_episode(make_env(), solver(), options={"task_id": "nobody"})


def test_a_wrong_setting_stops_the_whole_rollout(make_env):
    agent = Fickle(ConfigError("wrong key"), "animal")
    with pytest.raises(ConfigError, match="wrong key"):
        run_episodes(make_env, lambda: agent, tasks(20), concurrency=2)


def test_a_structured_environment_is_refused(sandbox):
    env = PyVisionEnv([image_task()], sandbox=sandbox, action_mode="structured")
    with pytest.raises(ConfigError, match="action_mode must be 'text'"):
        run_episode(env, solver())


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"concurrency": 0}, {"resume": True}])
def test_wrong_arguments_are_refused(make_env, wrong):
    with pytest.raises(ConfigError):
        run_episodes(make_env, solver, tasks(1), **wrong)


class Counting(ScriptedAgent):
    def __init__(self, name: str = "solver") -> None:
        super().__init__([LOOK, RIGHT], name)
        self.episodes = 0

    def act(self, context: Context) -> str:
        self.episodes += not context.turns
        return super().act(context)


def test_resume_runs_only_what_is_missing(make_env, tmp_path):
    first = run_episodes(make_env, solver, tasks(3), trace_dir=tmp_path)
    agent = Counting()
    resumed = run_episodes(make_env, lambda: agent, tasks(5), samples=2, trace_dir=tmp_path, resume=True)
    assert agent.episodes == 7
    assert [result.trace for result in resumed if result.seed == 0][:3] == [result.trace for result in first]
    assert len(resumed) == len(list(iter_traces(tmp_path))) == 10


def test_resume_leaves_out_other_agents_settings_failures_and_torn_traces(make_env, sandbox, tmp_path):
    run_episodes(make_env, solver, tasks(1), trace_dir=tmp_path)
    run_episodes(lambda: PyVisionEnv(tasks(1), sandbox=sandbox, max_turns=7), solver, tasks(1), trace_dir=tmp_path)
    fickle = Fickle(ModelUnavailableError("gone"), "animal")
    run_episodes(make_env, lambda: fickle, tasks(1), trace_dir=tmp_path)
    (tmp_path / "episodes" / "torn.jsonl").write_bytes(b'{"type":"hea')
    for name, expected in (("solver", 0), ("fickle", 1), ("another", 1)):
        agent = Counting(name)
        run_episodes(make_env, lambda agent=agent: agent, tasks(1), trace_dir=tmp_path, resume=True)
        assert agent.episodes == expected, name


def asked_again(make_env, directory: Path, task: Task, agent: Counting | None = None) -> bool:
    """Whether a run that is resumed runs this task anew."""
    agent = agent or Counting()
    results = run_episodes(make_env, lambda: agent, [task], trace_dir=directory, resume=True)
    assert len(results) == 1 and results[0].counts
    return agent.episodes == 1


def test_resume_runs_a_task_anew_whose_options_media_or_grading_changed(make_env, tmp_path):
    task = image_task()
    run_episodes(make_env, solver, [task], trace_dir=tmp_path)
    assert not asked_again(make_env, tmp_path, task)
    for change in (
        {"options": ("a dog", "a cat")},
        {"images": (png(BLUE),)},
        {"images": (*task.images, png(BLUE))},
        {"videos": (clip(),)},
        {"grader": "exact"},
        {"media_in_prompt": False},
        {"question": "Which animal is that?"},
    ):
        assert asked_again(make_env, tmp_path, replace(task, **change)), change
        assert not asked_again(make_env, tmp_path, replace(task, **change)), change
    numeric = replace(image_task(answer="2", options=()), grader="numeric", grader_args={"tolerance": 0.5})
    assert asked_again(make_env, tmp_path, numeric)
    assert asked_again(make_env, tmp_path, replace(numeric, grader_args={"tolerance": 5}))


def test_resume_swapped_options_do_not_keep_the_old_grade(make_env, tmp_path):
    task = image_task(options=("a cat", "a dog"))

    def dog() -> ScriptedAgent:
        return ScriptedAgent([answer("a dog")], name="dog")

    (first,) = run_episodes(make_env, dog, [task], trace_dir=tmp_path)
    swapped = replace(task, options=("a dog", "a cat"))
    (second,) = run_episodes(make_env, dog, [swapped], trace_dir=tmp_path, resume=True)
    assert (first.correct, second.correct) == (True, False)


def test_resume_does_not_mind_media_that_moved_or_labels_that_were_mended(make_env, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").write_bytes(clip().data or b"")
        (tmp_path / f"{name}.png").write_bytes(png(RED).data or b"")
    before, after = (
        image_task(
            images=(ImageSource(path=tmp_path / f"{name}.png"),),
            videos=(VideoSource(path=tmp_path / f"{name}.mp4"),),
            data_source=name,
        )
        for name in ("a", "b")
    )
    run_episodes(make_env, solver, [before], trace_dir=tmp_path / "out")
    (again,) = run_episodes(make_env, lambda: Counting(), [after], trace_dir=tmp_path / "out", resume=True)
    assert again.data_source == "b" and len(list(iter_traces(tmp_path / "out"))) == 1


def test_resume_runs_anew_what_an_agent_of_other_settings_finished(make_env, tmp_path):
    class Warm(Counting):
        def __init__(self, temperature: float) -> None:
            super().__init__()
            self.settings = {"temperature": temperature, "stop": ("</code>",)}

    run_episodes(make_env, lambda: Warm(0.0), tasks(1), trace_dir=tmp_path)
    (trace,) = iter_traces(tmp_path)
    assert trace.header.agent_settings == {"temperature": 0.0, "stop": ["</code>"]}
    (task,) = tasks(1)
    assert not asked_again(make_env, tmp_path, task, Warm(0.0))
    assert asked_again(make_env, tmp_path, task, Warm(1.5))
    assert asked_again(make_env, tmp_path, task, Counting())


def test_an_ungradable_task_is_a_task_error_in_result_and_trace_and_is_run_again(make_env, tmp_path):
    wrong = image_task(answer="E")
    for expected in (1, 2):
        (result,) = run_episodes(make_env, solver, [wrong], trace_dir=tmp_path, resume=True)
        assert (result.end_reason, result.counts, result.correct) == ("task_error", False, None)
        assert "'E'" in result.error
        traces = list(iter_traces(tmp_path))
        assert len(traces) == expected and all(trace.end.end_reason == "task_error" for trace in traces)


def test_ctrl_c_keeps_what_is_finished_and_ends_the_workers(make_env, tmp_path):
    before = threading.active_count()
    came = []

    def interrupt(result: EpisodeResult) -> None:
        came.append(result)
        if len(came) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_episodes(make_env, solver, tasks(200), concurrency=2, trace_dir=tmp_path, on_result=interrupt)
    assert all(read_trace(result.trace).complete for result in came)
    assert len(list(iter_traces(tmp_path))) < 20
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rollout-")]


def test_ctrl_c_hands_on_what_has_ended_but_was_not_told_yet(make_env, tmp_path):
    told = []

    def interrupt(result):
        told.append(result.task_id)
        if len(told) == 1:
            deadline = time.monotonic() + 120
            while len(finished(tmp_path)) < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_episodes(make_env, solver, tasks(2), concurrency=2, trace_dir=tmp_path, on_result=interrupt)
    assert sorted(told) == finished(tmp_path) == ["task-0", "task-1"]


def finished(folder: Path) -> list[str]:
    """Tasks whose traces are complete."""
    with contextlib.suppress(TraceError):  # a header is being written
        return sorted(trace.header.task_id for trace in iter_traces(folder) if trace.complete)
    return []


def test_an_unfinished_trace_has_no_result(make_env, tmp_path):
    env = RecordTrace(make_env(), tmp_path)
    env.reset()
    env.close()
    with pytest.raises(TraceError, match="unfinished"):
        result_of_trace(read_trace(env.trace_path))


def test_a_script_that_is_too_short_is_a_user_error(make_env):
    with pytest.raises(UserError, match="end the script"):
        run_episode(make_env(), ScriptedAgent([LOOK]))


def result(**fields) -> EpisodeResult:
    return EpisodeResult(**{"task_id": "t", "seed": 0, "agent": "a", "end_reason": "answered", **fields})


def test_the_summary_adds_up():
    summary = summarize(
        [
            result(
                correct=True, score=1.0, episode_return=1.2, turns=3, tool_calls=2, visual_tokens=100, duration_s=1.0
            ),
            result(correct=False, score=0.5, turns=1, tool_calls=2, failed_calls=1, visual_tokens=300, duration_s=3.0),
            result(end_reason="turn_budget", turns=5, tool_calls=4, failed_calls=1),
            result(end_reason="infrastructure", tool_calls=9, error="gone", visual_tokens=9_999),
            result(end_reason="task_error", error="no image"),
        ]
    )
    assert (summary.episodes, summary.counted, summary.correct) == (5, 3, 1)
    assert summary.accuracy == pytest.approx(1 / 3)
    assert summary.mean_score == pytest.approx(0.5)
    assert summary.mean_return == pytest.approx(0.4)
    assert summary.mean_turns == pytest.approx(3)
    assert summary.mean_tool_calls == pytest.approx(8 / 3)
    assert summary.failed_call_ratio == pytest.approx(2 / 8)
    assert summary.mean_visual_tokens == pytest.approx(400 / 3)
    assert summary.mean_duration_s == pytest.approx(4 / 3)
    assert summary.end_reasons == {"answered": 2, "turn_budget": 1, "infrastructure": 1, "task_error": 1}
    assert [failure["error"] for failure in summary.failures] == ["gone", "no image"]


def test_a_summary_of_nothing_has_no_figures():
    summary = summarize([result(end_reason="infrastructure", error="gone")])
    assert (summary.counted, summary.accuracy, summary.mean_return, summary.failed_call_ratio) == (0, None, None, None)
