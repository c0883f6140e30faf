"""Traces: what is written down, what survives a crash, and how damage is told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import BLUE, RED, answer, code, image_task, plain, png, video_task

from pyvision_env.env import PyVisionEnv
from pyvision_env.errors import JudgeUnavailableError, MediaError, TaskError, TraceError
from pyvision_env.media import content_hash, encode_png
from pyvision_env.sandbox import Sandbox, make_sandbox
from pyvision_env.trace import (
    EndRecord,
    ObservationRecord,
    RecordTrace,
    TraceHeader,
    TraceStore,
    TurnRecord,
    iter_traces,
    read_trace,
)
from pyvision_env.trace.format import decode_line, encode_line, jsonable
from pyvision_env.trace.store import slugify
from pyvision_env.types import Grade, ImageSource, VideoSource

SHOW = code("plt.imshow(image_clue_0)\nplt.show()\nprint('seen')")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with make_sandbox("local") as sandbox:
        yield sandbox


def header(task_id: str = "task", **fields: Any) -> TraceHeader:
    values = {"question": "?", "answer": "A", "observation": ObservationRecord("?"), **fields}
    return TraceHeader(1, "", "0.1.0", "2026-01-01T00:00:00+00:00", task_id, **values)


def turn(index: int, **fields: Any) -> TurnRecord:
    values = {"action": "a", "kind": "code", "observation": ObservationRecord("b"), "reward": 0.5, **fields}
    return TurnRecord(index=index, terminated=False, truncated=False, **values)


def write(directory: Path, turns: int = 3, task_id: str = "task") -> Path:
    writer = TraceStore(directory).begin(header(task_id))
    for index in range(turns):
        writer.write(turn(index))
    writer.write(EndRecord("answered", 0.5 * turns))
    return writer.path


# --- recording the real environment ---------------------------------------------------------------------------------


def test_an_episode_is_written_down_whole(tmp_path: Path, sandbox: Sandbox) -> None:
    task = image_task("v*/1", data_source="vstar", ability="attribute", metadata={"target_box": np.array([1, 2])})
    env = RecordTrace(PyVisionEnv([task], sandbox=sandbox), tmp_path, agent="scripted", metadata={"step": 600})
    first, _ = env.reset(seed=4)
    observation, reward, *_, info = env.step(SHOW)
    last, final, *_ = env.step(answer("B"))
    env.close()
    (trace,) = iter_traces(tmp_path)
    head = trace.header
    assert (head.task_id, head.question, head.answer, head.options) == ("v*/1", task.question, "B", task.options)
    assert (head.agent, head.seed, head.metadata) == ("scripted", 4, {"step": 600})
    assert (head.data_source, head.ability, head.task_metadata) == ("vstar", "attribute", {"target_box": [1, 2]})
    assert head.config["limits"]["max_turns"] == 4
    assert head.observation.text == first["text"]
    assert head.observation.labels == ("image_clue_0",)
    np.testing.assert_array_equal(trace.load_image(head.images[0].hash), plain(RED))
    looked, answered = trace.turns
    assert (looked.action, looked.kind, looked.observation.text) == (SHOW, "code", observation["text"])
    assert "seen" in looked.observation.text
    assert looked.observation.labels == ("image_clue_1",)
    np.testing.assert_array_equal(trace.load_image(looked.observation.images[0].hash), observation["images"][0])
    assert {**looked.info, "reward_terms": looked.reward_terms} == info
    assert set(looked.timings) == {"agent_s", "env_s"}
    assert (looked.reward, answered.reward) == (reward, final) == (0.0, 1.1)
    assert answered.observation.text == last["text"]
    assert trace.complete
    assert trace.end is not None
    assert (trace.end.end_reason, trace.end.episode_return) == ("answered", 1.1)
    assert (trace.end.correct, trace.end.answer) == (True, "B")
    assert trace.end.totals["tool_calls"] == 1
    assert not list(tmp_path.rglob(".*")), "temporary files must not be left behind"


def test_each_turn_is_on_disk_when_step_returns(tmp_path: Path, sandbox: Sandbox) -> None:
    env = RecordTrace(PyVisionEnv([image_task()], sandbox=sandbox), tmp_path)
    env.reset()
    assert env.trace_path is not None
    for done in range(3):
        trace = read_trace(env.trace_path)
        assert (len(trace.turns), trace.end, trace.damaged) == (done, None, None)
        env.step(code("print(1)"))
    env.close()
    assert not read_trace(env.trace_path).complete


def test_a_killed_process_loses_at_most_the_turn_in_flight(tmp_path: Path) -> None:
    program = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from samples import code, image_task
        from pyvision_env.env import PyVisionEnv
        from pyvision_env.trace import RecordTrace

        class Mortal(PyVisionEnv):
            def step(self, action):
                if "die" in action:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().step(action)

        env = RecordTrace(Mortal([image_task()], sandbox="local"), {str(tmp_path)!r})
        env.reset()
        env.step(code("print('first')"))
        env.step(code("print('second')"))
        env.step(code("print('die')"))
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    (trace,) = iter_traces(tmp_path)
    assert [turn.observation.text.split()[0] for turn in trace.turns] == ["first", "second"]
    assert (trace.complete, trace.damaged) == (False, None)


def test_a_reset_in_the_middle_leaves_an_unfinished_trace_and_begins_another(tmp_path: Path, sandbox: Sandbox) -> None:
    env = RecordTrace(PyVisionEnv([image_task()], sandbox=sandbox), tmp_path)
    env.reset()
    env.reset()
    env.step(answer("A"))
    with pytest.raises(ResetNeeded):
        env.step(answer("A"))
    env.close()
    env.close()
    assert [(trace.path.stem, trace.complete) for trace in iter_traces(tmp_path)] == [("one-0", False), ("one-1", True)]


def test_an_infrastructure_failure_ends_the_trace_and_still_raises(tmp_path: Path, sandbox: Sandbox) -> None:
    def judge(*_: Any) -> Grade:
        raise JudgeUnavailableError("the judge is down")

    env = RecordTrace(PyVisionEnv([replace(image_task(), grader="judge")], sandbox=sandbox, judge=judge), tmp_path)
    env.reset()
    with pytest.raises(JudgeUnavailableError):
        env.step(answer("perhaps"))
    env.close()
    (trace,) = iter_traces(tmp_path)
    assert trace.end is not None
    assert trace.end.end_reason == "infrastructure"
    assert trace.end.error == "JudgeUnavailableError: the judge is down"
    assert trace.end.action == answer("perhaps")
    assert trace.turns == ()


def test_a_task_that_cannot_be_graded_ends_the_trace_with_the_answer_and_the_reason(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    env = RecordTrace(PyVisionEnv([image_task(answer="E")], sandbox=sandbox), tmp_path)
    env.reset()
    env.step(code("print(1)"))
    with pytest.raises(TaskError):
        env.step(answer("B"))
    with pytest.raises(ResetNeeded):
        env.step(answer("B"))
    env.close()
    (trace,) = iter_traces(tmp_path)
    assert trace.complete and len(trace.turns) == 1
    assert trace.end is not None
    assert (trace.end.end_reason, trace.end.action, trace.end.correct) == ("task_error", answer("B"), None)
    assert "'E'" in str(trace.end.error)


def test_the_wrapper_is_part_of_the_spec(tmp_path: Path) -> None:
    kept = {"agent_settings": {"b": 2}, "metadata": {"a": 1}}
    env = RecordTrace(gym.make("pyvision_env:PyVision/ImageQA-v0"), tmp_path, agent="me", **kept)
    assert env.spec is not None
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert isinstance(again, RecordTrace)
    assert again.spec == env.spec
    assert not list(tmp_path.iterdir()), "nothing may be written before the first reset"


def test_structured_actions_and_videos_given_as_bytes_are_recorded(tmp_path: Path, sandbox: Sandbox) -> None:
    task = video_task()
    env = RecordTrace(PyVisionEnv([task], sandbox=sandbox, action_mode="structured"), tmp_path)
    env.reset()
    env.step((1, {"video": 0, "times": (np.array(0.5), np.array(1.0))}))
    env.close()
    (trace,) = iter_traces(tmp_path)
    assert trace.turns[0].action == [1, {"video": 0, "times": [0.5, 1.0]}]
    assert len(trace.turns[0].observation.images) == 2
    (video,) = trace.task().videos
    assert video.path is not None
    assert video.path.read_bytes() == task.videos[0].data


# --- the store ------------------------------------------------------------------------------------------------------


def test_equal_pictures_are_stored_once_and_a_changed_file_anew(tmp_path: Path) -> None:
    store, file = TraceStore(tmp_path / "traces"), tmp_path / "a.png"
    file.write_bytes(encode_png(plain(RED)))
    first = store.put_task_image(ImageSource(path=file))
    assert store.put_image(plain(RED)) == store.put_task_image(png(RED)) == first
    file.write_bytes(encode_png(plain(BLUE, 33, 44)))
    second = store.put_task_image(ImageSource(path=file))
    assert (second.hash, second.width, second.height) == (content_hash(plain(BLUE, 33, 44)), 33, 44)
    assert {path.stem for path in (tmp_path / "traces" / "images").iterdir()} == {first.hash, second.hash}


def test_missing_media_and_an_unwritable_folder_are_told(tmp_path: Path) -> None:
    store = TraceStore(tmp_path)
    with pytest.raises(MediaError, match=r"gone\.png"):
        store.put_task_image(ImageSource(path=tmp_path / "gone.png"))
    with pytest.raises(MediaError, match=r"gone\.mp4"):
        store.put_task_video(VideoSource(path=tmp_path / "gone.mp4"))
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match="cannot be written"):
        TraceStore(tmp_path / "file").begin(header())
    with pytest.raises(TraceError, match="cannot be written"):
        TraceStore(tmp_path / "file").put_image(plain(RED))


def begin_many(directory: Path, count: int, mark: int) -> None:
    for _ in range(count):
        TraceStore(directory).begin(header(metadata={"by": mark})).close()


def test_processes_that_share_a_folder_never_write_over_one_another(tmp_path: Path) -> None:
    context = get_context("spawn")
    workers = [context.Process(target=begin_many, args=(tmp_path, 20, mark)) for mark in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    traces = list(iter_traces(tmp_path))
    assert [trace.path.stem for trace in traces] == [f"task-{k}" for k in range(40)]
    assert sorted(trace.header.metadata["by"] for trace in traces) == [0] * 20 + [1] * 20


@given(st.text(st.characters(codec=None, categories=None)))
def test_any_task_id_gives_a_safe_file_name(task_id: str) -> None:
    slug = slugify(task_id)
    assert 1 <= len(slug) <= 60
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert not slug.startswith((".", "-"))


@pytest.mark.parametrize("task_id", ["../../etc/passwd", "a/b", "..", "", "\x00", "question " * 100, "图像", "C:\\x"])
def test_odd_task_ids_stay_in_their_folder_and_in_the_header(tmp_path: Path, task_id: str) -> None:
    path = write(tmp_path, task_id=task_id)
    assert path.parent == tmp_path / "episodes"
    assert read_trace(path).header.task_id == task_id
    assert read_trace(path).header.episode_id == path.stem


# --- reading --------------------------------------------------------------------------------------------------------

anything = st.text(st.characters(codec=None, categories=None))


@given(anything, anything, st.floats(allow_nan=False))
def test_any_text_and_number_survives(said: str, seen: str, reward: float) -> None:
    record = turn(0, action=said, observation=ObservationRecord(seen), reward=reward)
    line = encode_line(record)
    assert line.isascii()
    assert line.count(b"\n") == 1
    joined = [text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") for text in (said, seen)]
    assert decode_line(line) == replace(record, action=joined[0], observation=ObservationRecord(joined[1]))


@settings(max_examples=60)
@given(data=st.data())
def test_a_file_cut_anywhere_gives_the_turns_before_the_cut(tmp_path_factory: Any, data: st.DataObject) -> None:
    path = write(tmp_path_factory.mktemp("cut"))
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    lines = whole[:cut].count(b"\n")
    if lines == 0:
        with pytest.raises(TraceError, match="line 1"):
            read_trace(path)
        return
    trace = read_trace(path)
    assert [turn.index for turn in trace.turns] == list(range(min(lines - 1, 3)))
    assert trace.complete == (lines == 5)
    torn = not whole[:cut].endswith(b"\n")
    assert (trace.damaged is not None) == torn
    if torn:
        assert str(trace.damaged).startswith(f"line {lines + 1}: cut off")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{oops", "not a line of JSON"),
        (b"\xff\xfe", "not a line of JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1]", 'an object whose "type" is one of header, turn, end'),
        (b'{"type": ["turn"]}', 'an object whose "type" is one of'),
        (b'{"type": "turn", "index": "x"}', r"a wrong field in the turn line: .*\$\.index"),
        (encode_line(turn(2)).strip(), "expected turn 1, found turn 2"),
        (encode_line(header()).strip(), "a second header"),
    ],
)
def test_damage_is_told_with_line_and_reason_and_keeps_what_stands_before(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    path = write(tmp_path)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], line, *lines[3:]]) + b"\n")
    trace = read_trace(path)
    assert len(trace.turns) == 1
    assert not trace.complete
    assert trace.damaged is not None
    with pytest.raises(AssertionError, match=f"line 3: .*{reason}"):
        raise AssertionError(trace.damaged)


def test_lines_after_the_end_are_damage(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes() + encode_line(turn(3)))
    assert read_trace(path).damaged == "line 6: expected nothing after the end line"


def test_a_missing_file_another_version_and_a_wrong_header_raise(tmp_path: Path) -> None:
    path = write(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    future = {**json.loads(lines[0]), "version": 2}
    for content, reason in (
        (json.dumps(future).encode() + b"\n", "line 1: expected trace version 1, found 2"),
        (lines[1], "line 1: expected a header"),
        (b"", "line 1: expected a header, found 0 bytes"),
        (b'{"type": "header", "version": 1}\n', "line 1: a wrong field in the header"),
    ):
        path.write_bytes(content)
        with pytest.raises(TraceError, match=reason) as caught:
            read_trace(path)
        assert str(path) in str(caught.value)
    with pytest.raises(TraceError, match=r"nothing\.jsonl"):
        read_trace(tmp_path / "nothing.jsonl")
    with pytest.raises(TraceError, match="folder of traces"):
        list(iter_traces(tmp_path / "nowhere"))


def test_fields_of_later_writers_are_ignored(tmp_path: Path) -> None:
    path = write(tmp_path, turns=0)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**line, "mood": "good"}) + "\n" for line in lines))
    assert read_trace(path).complete


def test_traces_come_in_natural_order(tmp_path: Path) -> None:
    for task_id in [*["task"] * 11, "a", "10"]:
        write(tmp_path, 0, task_id)
    names = [trace.path.stem for trace in iter_traces(tmp_path)]
    assert names == ["10-0", "a-0", *(f"task-{k}" for k in range(11))]


def test_pictures_are_checked_against_their_name_and_names_against_escape(tmp_path: Path) -> None:
    store = TraceStore(tmp_path)
    reference = store.put_image(plain(RED))
    trace = read_trace(write(tmp_path))
    (tmp_path / "images" / f"{reference.hash}.png").write_bytes(encode_png(plain(BLUE)))
    with pytest.raises(TraceError, match="was changed"):
        trace.load_image(reference.hash)
    (tmp_path / "images" / f"{reference.hash}.png").write_bytes(b"")
    with pytest.raises(TraceError, match="cannot be loaded"):
        trace.load_image(reference.hash)
    for name in ("../episodes/task-0", "/etc/passwd", reference.hash.upper(), ""):
        with pytest.raises(TraceError, match="hexadecimal"):
            trace.load_image(name)


def test_values_that_json_lacks_are_reduced() -> None:
    given_values = {
        1: np.float64(0.5),
        "b": (np.int64(3), {True}),
        "c": Path("x") / "y",
        "d": np.arange(2),
        "e": object,
    }
    reduced = jsonable(given_values)
    assert reduced == {"1": 0.5, "b": [3, [True]], "c": str(Path("x") / "y"), "d": [0, 1], "e": "<class 'object'>"}
    assert type(reduced["1"]) is float
