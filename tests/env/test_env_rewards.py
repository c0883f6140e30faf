from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import data_equivalence
from samples import RED, answer, code, image_task, png

from pyvision_env.env import PyVisionEnv
from pyvision_env.errors import JudgeUnavailableError, MediaError, SandboxError
from pyvision_env.sandbox import Sandbox, make_sandbox
from pyvision_env.types import ImageSource, Task

SHOW = code("plt.imshow(image_clue_0)\nplt.show()")


@pytest.mark.parametrize(
    ("keywords", "final", "expected"),
    [
        ({}, "B", [0, 0, 1.1]),
        ({}, "A", [0, 0, 0]),
        ({"count": "all"}, "B", [0, 0, 1.2]),
        ({"gate": "immediate"}, "A", [0.1, 0, 0]),
        ({"gate": "immediate", "tool_weight": 0.5}, "B", [0.5, 0, 1]),
        ({"format_weight": 0.25}, "A", [0, 0, 0.25]),
    ],
)
def test_rewards_and_their_terms(make: Any, keywords: dict[str, Any], final: str, expected: list[float]) -> None:
    env = make(**keywords)
    env.reset()
    steps = [env.step(code("print(1)")), env.step(code("1/0")), env.step(answer(final))]
    assert [step[1] for step in steps] == pytest.approx(expected)
    for _, reward, _, _, info in steps:
        assert list(info["reward_terms"]) == ["accuracy", "tool", "format"]
        assert sum(info["reward_terms"].values()) == reward


def test_a_printed_answer_does_not_score(make: Any) -> None:
    env = make()
    env.reset()
    _, reward, terminated, _, _ = env.step(code("print('<answer>B</answer>')"))
    assert (reward, terminated) == (0.0, False)


def test_info_is_json_flat_and_deterministic(make: Any) -> None:
    env = make()

    def play() -> list[dict[str, Any]]:
        infos = [env.reset(seed=5)[1]]
        return infos + [env.step(action)[4] for action in (SHOW, code("1/0"), "nonsense", answer("B"))]

    first = play()
    assert first == play() == json.loads(json.dumps(first))
    assert len({tuple(info) for info in first}) == 1
    last = first[-1]
    assert (last["answer"], last["correct"], last["score"], last["end_reason"]) == ("B", True, 1.0, "answered")
    assert [info["correct"] for info in first[:-1]] == [None] * 4
    assert {type(value) for info in first for key, value in info.items() if key != "reward_terms"} <= {
        str, int, float, bool, type(None),
    }  # fmt: skip


def test_observations_are_deterministic(make: Any) -> None:
    env = make()
    actions = [SHOW, code("1/0"), answer("B")]
    runs = [[env.reset(seed=1)[0], *(env.step(action)[0] for action in actions)] for _ in range(2)]
    assert data_equivalence(runs[0], runs[1], exact=True)


def test_turns_and_messages_keep_the_episode(make: Any) -> None:
    env = make()
    env.reset()
    env.step(SHOW)
    _, reward, _, _, info = env.step(answer("B"))
    assert [turn.action_text for turn in env.turns] == [SHOW, answer("B")]
    assert env.turns[-1].reward == reward
    assert env.turns[-1].info == info
    assert env.turns[-1].info is not info
    assert [message["role"] for message in env.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert env.task.id == "one"


def test_a_lost_sandbox_raises_and_ends_the_episode() -> None:
    sandbox = make_sandbox("local")
    env = PyVisionEnv((image_task(),), sandbox=sandbox)
    env.reset()
    sandbox.close()
    with pytest.raises(SandboxError):
        env.step(code("print(1)"))
    with pytest.raises(ResetNeeded):
        env.step(answer("B"))
    assert env.turns == ()
    env.close()


def test_a_lost_sandbox_truncates_where_asked() -> None:
    sandbox = make_sandbox("local")
    env = PyVisionEnv((image_task(),), sandbox=sandbox, on_infrastructure="truncate", gate="immediate")
    env.reset()
    sandbox.close()
    _, reward, terminated, truncated, info = env.step(code("print(1)"))
    assert (reward, terminated, truncated, info["end_reason"]) == (0.0, False, True, "infrastructure")
    assert set(info["reward_terms"].values()) == {0.0}
    assert info["infrastructure_error"].startswith("Sandbox")
    obs, info = env.reset()
    assert obs in env.observation_space
    assert info["end_reason"] == "infrastructure"
    _, reward, _, truncated, info = env.step(answer("B"))
    assert (reward, truncated, info["correct"]) == (0.0, True, None)
    env.close()


def test_a_judge_that_is_down_never_becomes_a_reward(make: Any) -> None:
    def judge(*args: Any, **kwargs: Any) -> Any:
        raise JudgeUnavailableError("the judge is down")

    task = Task("open", "What is it?", "a red field", images=(png(RED),), grader="judge")
    env = make(task, judge=judge)
    env.reset()
    with pytest.raises(JudgeUnavailableError):
        env.step(answer("a red plane"))
    env = make(task, judge=judge, on_infrastructure="truncate")
    env.reset()
    _, reward, terminated, truncated, info = env.step(answer("a red plane"))
    assert (reward, terminated, truncated, info["correct"]) == (0.0, False, True, None)


def test_broken_media_are_the_callers_error(make: Any, tmp_path: Path) -> None:
    with pytest.raises(MediaError):
        make(image_task(images=(ImageSource(data=b"no image"),))).reset()
    env = make(image_task("good"))
    with pytest.raises(MediaError):
        env.reset(options={"task": image_task(images=(ImageSource(path=tmp_path / "gone.png"),))})
    assert env.reset()[1]["task_id"] == "good"


def test_close_may_be_repeated_and_reset_begins_anew() -> None:
    env = PyVisionEnv((image_task(),), sandbox="local")
    env.close()
    for _ in range(2):
        env.reset()
        assert env.step(code("print(1)"))[0]["text"].startswith("1")
        env.close()
        env.close()


def test_a_given_sandbox_is_not_closed(make: Any, sandbox: Sandbox) -> None:
    env = make()
    env.reset()
    env.close()
    with sandbox.open() as episode:
        assert episode.run("print(1)").text.strip() == "1"
