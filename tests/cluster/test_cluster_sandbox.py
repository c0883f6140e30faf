"""A sandbox over a real Ray cluster does what the one on this machine does, with its media handed over once."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import BLUE, RED, answer, clip, code, image_task, plain, png, video_task
from typer.testing import CliRunner

from cluster.nodes import Nodes, wait_until, zygotes
from pyvision_env import PyVisionEnv, PyVisionVectorEnv
from pyvision_env.cli.app import app
from pyvision_env.errors import MediaError, SandboxClosedError, SandboxLostError
from pyvision_env.media import encode_png
from pyvision_env.sandbox import Sandbox, SandboxLike
from pyvision_env.sandbox.cluster.member import Member
from pyvision_env.types import ToolResult

FOREVER = "while True: pass"
STEPS: tuple[Any, ...] = (
    "x = 3\nprint(image_clue_0.size, image_clue_1.size, len(video_clue_0))",
    "x + 1",
    ["y = x", "print(y)", "1 / 0", "print('never')"],
    "image_clue_0.crop((0, 0, 60, 40)).show()",
    "plt.imshow(image_clue_1)\nplt.show()",
    "np.random.rand(), display(image_clue_2)",
    "'\\ud800 lone'",
    FOREVER,
    {"times": [0.1, 1.0]},
    {"num": 3, "start": 0.5, "end": 1.5},
    {"indices": np.array([0, 19])},
    {"indices": [10**30]},
    {"video": 7, "num": 1},
    "import os; os._exit(3)",
    "print(image_clue_7.size, 'x' in globals())",
)


def run_all(sandbox: Any) -> list[ToolResult]:
    task = image_task(images=(png(RED), png(BLUE, 64, 48)))
    pictures = [sandbox.picture(image) for image in task.images]
    with sandbox.open(images=pictures, videos=[clip()]) as episode:
        assert [(info.num_frames, info.width) for info in episode.videos] == [(20, 96)]
        results = []
        for step in STEPS:
            if isinstance(step, dict):
                results.append(episode.frames(**step))
            else:
                results.append(episode.run(step, timeout=1 if step == FOREVER else 60, max_images=4))
        assert episode.image_count == 2 + sum(len(result.images) for result in results)
    return results


def test_every_step_gives_what_the_local_sandbox_gives(pair: SandboxLike, sandbox_of: Callable[[str], Sandbox]) -> None:
    here, there = run_all(sandbox_of("local")), run_all(pair)
    for step, ours, theirs in zip(STEPS, here, there, strict=True):
        for name in ("text", "error", "state_lost", "truncated"):
            assert getattr(theirs, name) == getattr(ours, name), step
        assert [image.tolist() for image in theirs.images] == [image.tolist() for image in ours.images], step
        assert all(image.dtype == np.uint8 and not image.flags.writeable for image in theirs.images)
    assert here[7].error is not None and "Timeout" in here[7].error
    assert here[13].state_lost and sum(len(result.images) for result in here) >= 6


def test_it_reports_what_every_node_keeps_apart(pair: SandboxLike, sandbox_of: Callable[[str], Sandbox]) -> None:
    report = pair.isolation
    assert report.kind == pair.kind == "ray"
    assert report.rung == "local: userns+landlock"
    assert report.guarantees["network"]
    # Whether memory is bounded is the machine's affair, and the nodes are on this one.
    assert report.guarantees["memory"] == sandbox_of("local").isolation.guarantees["memory"]
    assert all(node.name in note for node in pair.nodes for note in report.notes)
    assert {"numpy", "PIL"} <= set(report.libraries)


def test_a_group_of_rollouts_hands_its_media_over_once_to_each_node(pair: SandboxLike, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(encode_png(plain(RED, 97, 61)))
    (tmp_path / "clip.mp4").write_bytes(clip(frames=7).data or b"")
    before = {node.node_id: node.media_made for node in pair.nodes}
    processes = {node.pid: len(zygotes(node.pid)) for node in pair.nodes}
    opened: list[Any] = []

    def begin() -> None:
        picture = pair.picture(tmp_path / "red.png")
        opened.append(pair.open(images=[picture], videos=[tmp_path / "clip.mp4"]))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(node.episodes for node in pair.nodes) == [4, 4], "episodes spread over the nodes"
    for episode in opened:
        assert episode.run("print(image_clue_0.size, len(video_clue_0))").text == "(97, 61) 7\n"
        episode.close()
    assert {node.node_id: node.media_made - before[node.node_id] for node in pair.nodes} == dict.fromkeys(before, 2)
    # The decoder of the video may stay, for the next rollouts of its group.
    left = lambda node: len(zygotes(node.pid)) - processes[node.pid]  # noqa: E731
    assert wait_until(lambda: all(left(node) <= 1 for node in pair.nodes)), "no episode is left"
    assert pair.picture(tmp_path / "red.png") is pair.picture(str(tmp_path / "red.png"))
    pair.forget_pictures()
    with pair.open(images=[tmp_path / "red.png"]) as again:
        assert again.run("image_clue_0.size").text == "(97, 61)\n"


def test_a_users_errors_keep_their_type(pair: SandboxLike, tmp_path: Path) -> None:
    for media, said in (
        ({"images": [tmp_path / "missing.png"]}, "missing.png"),
        ({"images": [b"not an image"]}, "encoded image"),
        ({"videos": [tmp_path / "missing.mp4"]}, "missing.mp4"),
        ({"videos": [b"not a video"]}, "video_clue_0 cannot be used"),
        ({"videos": [42]}, "a video must be a path"),
    ):
        with pytest.raises(MediaError, match=said) as caught:
            pair.open(**media)
        assert type(caught.value) is MediaError
    assert all(node.episodes == 0 for node in pair.nodes)


def test_an_environment_earns_its_reward_and_tells_the_nodes_neither_question_nor_answer(
    pair: SandboxLike, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    send = Member.send

    def listen(self: Member, method: str, *arguments: Any) -> Any:
        plain_arguments = [str(argument) if "ObjectRef" in repr(argument) else argument for argument in arguments]
        sent.append(pickle.dumps((method, plain_arguments)))
        return send(self, method, *arguments)

    monkeypatch.setattr(Member, "send", listen)
    key = "heliotrope-zebra"
    task = image_task(options=("a cat", key), answer=key, metadata={"key": key})
    task = replace(task, question=f"Which {key} is it?")
    env = PyVisionEnv([task, video_task(answer=key, media_in_prompt=True)], sandbox=pair, shuffle=False)
    for _ in range(2):
        observation, _ = env.reset()
        assert observation["text"]
        observation, *_ = env.step(code("crop = image_clue_0.crop((0, 0, 50, 50))\nprint(crop.size)\ncrop.show()"))
        assert "(50, 50)" in observation["text"]
        assert len(observation["images"]) == 1
        _, reward, terminated, _, info = env.step(answer(key))
        assert terminated and info["correct"] and reward == pytest.approx(1.1)
    env.close()
    assert sum(b"open" in each for each in sent) >= 2
    assert any(b"crop" in each for each in sent), "code does cross"
    assert not any(key.encode() in each for each in sent)


def test_a_vector_environment_shares_it(pair: SandboxLike) -> None:
    envs = PyVisionVectorEnv(4, [image_task(str(number)) for number in range(4)], sandbox=pair)
    envs.reset(seed=0)
    assert sorted(node.episodes for node in pair.nodes) == [2, 2]
    observations, *_ = envs.step([code(f"print({number} + 1)") for number in range(4)])
    assert [str(number + 1) in observation["text"] for number, observation in enumerate(observations)] == [True] * 4
    envs.close()
    assert sum(node.episodes for node in pair.nodes) == 0


def test_the_command_line_runs_on_it(nodes: Nodes, tmp_path: Path) -> None:
    sandbox = json.dumps(nodes.config("pair"))
    tasks = ["--env", "PyVision/SyntheticSearch-v0", "--limit", "2", "--json", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, ["run", "--sandbox", "ray", "--set", f"sandbox={sandbox}", *tasks])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["counted"] == 2 and report["correct"] == 2


def test_a_forked_child_gets_an_error_and_its_parent_goes_on(pair: SandboxLike) -> None:
    with pair.open() as episode:
        pid = os.fork()
        if pid == 0:
            wrong = 0
            for use in (lambda: episode.run("1"), pair.open, pair.start):
                try:
                    use()
                    wrong += 1
                except SandboxClosedError as error:
                    wrong += "after the fork" not in str(error)
            episode.close()
            pair.close()
            os._exit(wrong)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert episode.run("1").text == "1\n"


def test_a_killed_worker_is_a_lost_episode_which_goes_on_afresh(pair: SandboxLike) -> None:
    with pair.open(images=[plain(RED)]) as episode:
        assert len(episode.run("image_clue_0.crop((0, 0, 64, 64)).show(); x = 1").images) == 1
        (node,) = [node for node in pair.nodes if node.episodes]
        for process in zygotes(node.pid):
            process.kill()
        with pytest.raises(SandboxLostError):
            episode.run("x")
        assert episode.run("image_clue_1.size, 'x' in globals()").text == "((64, 64), False)\n"
        assert episode.image_count == 2
    assert wait_until(lambda: sum(node.episodes for node in pair.nodes) == 0)


IMPORTS = """
import sys
import pyvision_env, pyvision_env.env, pyvision_env.sandbox, pyvision_env.cli.app
assert "ray" not in sys.modules
sys.modules["ray"] = None
try:
    pyvision_env.sandbox.make_sandbox("ray")
except pyvision_env.errors.SandboxUnavailableError as error:
    print(error)
"""


def test_ray_is_imported_only_when_asked_for_and_missing_it_names_the_extra() -> None:
    told = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True).stdout
    assert 'pip install "pyvision-rl[ray]"' in told
