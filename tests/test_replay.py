"""Replay in the real environment: the same comes out, and what does not is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import answer, clip, code, image_task, video_task

from pyvision_env.config import EnvConfig
from pyvision_env.env import PyVisionEnv
from pyvision_env.errors import TraceError
from pyvision_env.sandbox import Sandbox, make_sandbox
from pyvision_env.trace import EndRecord, RecordTrace, Trace, TraceStore, read_trace, replay
from pyvision_env.types import Task, VideoSource

PLOT = "Let me see.\n" + code("plt.plot([1, 3, 2])\nplt.show()\nimage_clue_0.crop((0, 0, 60, 40)).show()")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with make_sandbox("local") as sandbox:
        yield sandbox


def recorded(sandbox: Sandbox, directory: Path, task: Task, *actions: Any, **options: Any) -> Trace:
    env = RecordTrace(PyVisionEnv([task], sandbox=sandbox, **options), directory)
    env.reset(seed=0)
    for action in actions:
        env.step(action)
    env.close()
    assert env.trace_path is not None
    return read_trace(env.trace_path)


def test_an_image_episode_comes_out_the_same(sandbox: Sandbox, tmp_path: Path) -> None:
    actions = (PLOT, code("1 / 0"), "no action at all", code("print(image_clue_1.size)"), answer("B"))
    trace = recorded(sandbox, tmp_path, image_task(), *actions)
    assert trace.complete
    report = replay(trace, sandbox=sandbox)
    assert report.differences == ()
    assert report.matches
    assert (report.episode_id, report.turns) == ("one-0", 5)


def test_a_video_episode_given_by_path_comes_out_the_same_while_the_file_is_the_same(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(clip().data or b"")
    task = video_task(videos=(VideoSource(path=file),))
    frames = '<frames>{"video": 0, "times": [0.5, 1.5]}</frames>'
    trace = recorded(sandbox, tmp_path / "traces", task, frames, answer("3"), media_in_prompt=True)
    assert replay(trace, sandbox=sandbox).matches
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(TraceError, match="was changed: expected SHA-256"):
        replay(trace, sandbox=sandbox)
    file.unlink()
    with pytest.raises(TraceError, match="video 0 is missing"):
        replay(trace, sandbox=sandbox)


def test_structured_actions_and_the_recorded_configuration_are_used_again(sandbox: Sandbox, tmp_path: Path) -> None:
    actions = ((1, {"video": 0, "times": (np.array(0.5),)}), (0, "print(len(video_clue_0))"), (2, "200"))
    options = {"action_mode": "structured", "max_turns": 2, "reward": {"gate": "immediate", "tool_weight": 0.25}}
    trace = recorded(sandbox, tmp_path, video_task(), *actions, **options)
    assert [turn.reward for turn in trace.turns] == [0.25, 0.25, 1.0]
    assert replay(trace, sandbox=sandbox).matches


def test_an_unfinished_trace_is_replayed_as_far_as_it_goes(sandbox: Sandbox, tmp_path: Path) -> None:
    report = replay(recorded(sandbox, tmp_path, image_task(), PLOT), sandbox=sandbox)
    assert (report.turns, report.matches) == (1, True)


def test_text_that_changes_from_run_to_run_is_told_as_different(sandbox: Sandbox, tmp_path: Path) -> None:
    stamp = code("import time\nprint('before')\nprint(time.time_ns())")
    (difference,) = replay(recorded(sandbox, tmp_path, image_task(), stamp), sandbox=sandbox).differences
    assert (difference.turn, difference.field) == (0, "text")
    lines = difference.detail.splitlines()
    assert lines[:2] == ["--- recorded", "+++ now"]
    assert sum(line.startswith("-1") for line in lines) == sum(line.startswith("+1") for line in lines) == 1


def test_every_kind_of_difference_is_named(sandbox: Sandbox, tmp_path: Path) -> None:
    trace = recorded(sandbox, tmp_path, image_task(), PLOT, answer("B"))
    looked, answered = trace.turns
    figure = trace.load_image(looked.observation.images[0].hash).copy()
    figure[10, 10] ^= 3
    store = TraceStore(tmp_path)
    seen = replace(
        looked.observation,
        text="something else\n",
        images=(store.put_image(figure), store.put_image(figure[:50, :60]), store.put_image(figure)),
        turns_left=9,
    )
    info = {**answered.info, "answer": "A", "correct": False, "end_reason": "turn_budget"}
    false = replace(
        trace,
        header=replace(trace.header, observation=replace(trace.header.observation, images=())),
        turns=(
            replace(looked, observation=seen),
            replace(answered, reward=0.0, reward_terms={"accuracy": 0.0}, info=info),
            replace(answered, index=2),
        ),
    )
    found = replay(false, sandbox=sandbox).differences
    assert [(difference.turn, difference.field) for difference in found] == [
        (None, "images"),
        (0, "text"),
        (0, "images"),
        (0, "images"),
        (0, "images"),
        (0, "turns_left"),
        (1, "reward"),
        (1, "reward_terms"),
        (1, "end_reason"),
        (1, "answer"),
        (1, "correct"),
        (2, "length"),
    ]
    details = [difference.detail for difference in found]
    assert details[0] == "image 0: came (120x80 pixels), but was not recorded"
    assert "-something else" in details[1]
    assert details[2] == "image 0: pixels differ by at most 3 of 255, in 0.00% of the pixels"
    assert details[3] == "image 1: recorded 60x50 pixels, now 69x46"
    assert details[4] == "image 2: recorded, but did not come"
    assert details[6] == "recorded 0.0, now 1.1"
    assert details[-1] == "recorded 3 turns, but the episode was over after 2"


def test_an_episode_that_goes_on_where_the_recorded_one_ended_is_different(sandbox: Sandbox, tmp_path: Path) -> None:
    trace = recorded(sandbox, tmp_path, image_task(), code("print(1)"))
    cut = replace(trace, end=EndRecord("token_budget", 0.0))
    (difference,) = replay(cut, sandbox=sandbox).differences
    assert (difference.field, difference.detail) == (
        "length",
        "recorded the end (token_budget) here, but the episode goes on",
    )


def test_long_differences_are_cut_short(sandbox: Sandbox, tmp_path: Path) -> None:
    trace = recorded(sandbox, tmp_path, image_task(), code("print('x' * 1000)\nfor i in range(100): print(i)"))
    turn = replace(trace.turns[0], observation=replace(trace.turns[0].observation, text="y"))
    (difference,) = replay(replace(trace, turns=(turn,)), sandbox=sandbox).differences
    lines = difference.detail.splitlines()
    assert lines[-1].endswith(" more lines")
    assert len(lines) == 13
    assert max(map(len, lines)) == 200


def test_another_environment_can_be_made_of_the_task_and_the_configuration(sandbox: Sandbox, tmp_path: Path) -> None:
    trace = recorded(sandbox, tmp_path, image_task(), code("print(1)"), answer("B"), tool_weight=0.5)
    made: list[EnvConfig] = []

    def no_tool_reward(task: Task, config: EnvConfig) -> PyVisionEnv:
        made.append(config)
        return PyVisionEnv([task], sandbox=sandbox, config=config, tool_weight=0.0)

    fields = [difference.field for difference in replay(trace, make_env=no_tool_reward).differences]
    assert fields == ["reward", "reward_terms"]
    assert made[0].reward.tool_weight == 0.5


def test_lost_pictures_and_an_impossible_configuration_are_told(sandbox: Sandbox, tmp_path: Path) -> None:
    trace = recorded(sandbox, tmp_path, image_task(), answer("B"))
    odd = replace(trace, header=replace(trace.header, config={"limits": {"max_turns": -1}}))
    with pytest.raises(TraceError, match="configuration cannot be used"):
        replay(odd, sandbox=sandbox)
    for picture in (tmp_path / "images").iterdir():
        picture.unlink()
    with pytest.raises(TraceError, match="a picture cannot be loaded"):
        replay(trace, sandbox=sandbox)
