from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode
from samples import answer, code, image_task

from pyvision_env.errors import ConfigError, MediaError, UserError
from pyvision_env.sandbox import Sandbox, make_sandbox
from pyvision_env.types import ImageSource, Task
from pyvision_env.vector import PyVisionVectorEnv

pytestmark = pytest.mark.usefixtures("sandbox")
PRINT = code("print(image_clue_0.size)")


@pytest.fixture
def envs(sandbox: Sandbox) -> Iterator[PyVisionVectorEnv]:
    envs = PyVisionVectorEnv(3, [image_task(str(i)) for i in range(5)], sandbox=sandbox, render_mode="ansi")
    yield envs
    envs.close()


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync", None])
def test_make_vec_works_without_warnings(mode: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = gym.make_vec(
            "PyVision/SyntheticSearch-v0", num_envs=3, vectorization_mode=mode, sandbox="local", num_tasks=2
        )
        assert envs.spec is not None
        obs, infos = envs.reset(seed=0)
        assert obs in envs.observation_space
        assert len(infos["task_id"]) == 3
        obs, rewards, terminated, truncated, infos = envs.step((PRINT, "nonsense", answer("A")))
        assert rewards.shape == terminated.shape == truncated.shape == (3,)
        assert terminated.tolist() == [False, False, True]
        assert infos["action"].tolist() == ["code", "invalid", "answer"]
        envs.close()


def test_observations_are_a_tuple_of_dicts_in_the_space(envs: PyVisionVectorEnv) -> None:
    obs, infos = envs.reset(seed=0)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert isinstance(obs, tuple)
    assert obs in envs.observation_space
    assert all(item in envs.single_observation_space for item in obs)
    assert envs.action_space.sample() in envs.action_space
    assert infos["_turns"].tolist() == [True] * 3
    assert set(infos["reward_terms"]) == {"accuracy", "_accuracy", "tool", "_tool", "format", "_format"}


def test_infos_keep_none_apart_from_false(envs: PyVisionVectorEnv) -> None:
    envs.reset(seed=0)
    infos = envs.step((answer("A"), answer("B"), PRINT))[4]
    assert infos["correct"].tolist() == [False, True, None]
    assert infos["_correct"].tolist() == [True, True, True]
    assert infos["end_reason"].tolist() == ["answered", "answered", None]


def test_equal_seeds_give_equal_tasks(envs: PyVisionVectorEnv) -> None:
    names = [envs.reset(seed=4)[1]["task_id"].tolist() for _ in range(2)]
    assert names[0] == names[1]
    assert envs.reset(seed=[7, 7, 7])[1]["task_id"].tolist() == [envs.reset(seed=[7, 7, 7])[1]["task_id"][0]] * 3


def test_one_task_for_all_makes_a_group(envs: PyVisionVectorEnv) -> None:
    assert envs.reset(options={"task_id": "3"})[1]["task_id"].tolist() == ["3"] * 3


def test_only_masked_sub_environments_are_reset(envs: PyVisionVectorEnv) -> None:
    before, _ = envs.reset(seed=0)
    terminated = envs.step((answer("B"), PRINT, answer("A")))[2]
    with pytest.raises(ResetNeeded):
        envs.step((PRINT, None, None))
    obs, infos = envs.reset(options={"reset_mask": terminated})
    assert infos["_task_id"].tolist() == [True, False, True]
    assert "(120, 80)" in obs[1]["text"]
    assert obs[0]["text"].startswith(before[0]["text"].split("\n")[0])
    _, rewards, terminated, _, infos = envs.step((answer("B"), answer("B"), PRINT))
    assert rewards.tolist() == pytest.approx([1.0, 1.1, 0.0])
    assert infos["turns"].tolist() == [1, 2, 1]


def test_a_sub_environment_without_action_is_left_alone(envs: PyVisionVectorEnv) -> None:
    obs, _ = envs.reset(seed=0)
    after, rewards, terminated, _, infos = envs.step((None, answer("B"), None))
    assert after[0] is obs[0]
    assert after[2] is obs[2]
    assert rewards.tolist() == [0.0, 1.0, 0.0]
    assert terminated.tolist() == [False, True, False]
    assert infos["_turns"].tolist() == [False, True, False]
    assert envs.envs[0].turns == ()
    _, rewards, terminated, _, _ = envs.step((None, None, None))
    assert (rewards.tolist(), terminated.tolist()) == ([0.0] * 3, [False, True, False])


def test_fast_episodes_do_not_wait_for_slow_ones(envs: PyVisionVectorEnv) -> None:
    envs.reset(seed=0)
    envs.send(0, code("import time; time.sleep(6)"))
    for _ in range(2):
        envs.send(1, PRINT)
        assert [result.env_index for result in envs.recv()] == [1]
    results = envs.step_some([2], [answer("B")])
    assert [(result.env_index, result.terminated) for result in results] == [(2, True)]
    # The slow one is still at it.
    assert not envs._pending[0].done()
    with pytest.raises(ConfigError, match="under way"):
        envs.step((PRINT, None, None))
    assert envs.recv(timeout=0.01) == []
    assert [result.env_index for result in envs.recv()] == [0]
    with pytest.raises(ConfigError, match="send"):
        envs.recv()


def test_steps_run_side_by_side(envs: PyVisionVectorEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    envs.reset(seed=0)
    together = threading.Barrier(3)

    def meeting(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def meet(action: Any) -> Any:
            together.wait(120)
            return step(action)

        return meet

    for env in envs.envs:
        monkeypatch.setattr(env, "step", meeting(env.step))
    envs.step([PRINT] * 3)
    assert not together.broken


def test_an_error_is_raised_after_the_others_have_finished(envs: PyVisionVectorEnv) -> None:
    envs.reset(seed=0)
    with pytest.raises(UserError):
        envs.step((3, PRINT, answer("B")))
    assert [len(env.turns) for env in envs.envs] == [0, 1, 1]
    assert list(envs.failures) == [0]
    assert envs.failures[0].__notes__ == ["raised in sub-environment 0"]
    obs, _, terminated, _, _ = envs.step((None, None, None))
    assert "(120, 80)" in obs[1]["text"]
    assert terminated.tolist() == [False, False, True]
    kept = envs.recv()
    assert [(result.env_index, result.reward) for result in kept] == [(1, 0.0), (2, 1.0)]
    assert [result.info["correct"] for result in kept] == [None, True]
    with pytest.raises(ConfigError, match="send"):
        envs.recv()
    envs.step((PRINT, None, None))
    assert envs.failures == {}


def test_a_failed_reset_keeps_what_the_others_gave(sandbox: Sandbox) -> None:
    tasks = [image_task("good"), Task("bad", "What?", "A", images=(ImageSource(data=b"no picture"),))]
    envs = PyVisionVectorEnv(2, tasks, sandbox=sandbox, shuffle=False)
    envs.envs[1].reset()
    with pytest.raises(MediaError):
        envs.reset()
    assert list(envs.failures) == [1]
    assert [(result.env_index, result.info["task_id"]) for result in envs.recv()] == [(0, "good")]
    envs.close()


def test_recv_raises_the_error_and_keeps_the_other_results(envs: PyVisionVectorEnv) -> None:
    envs.reset(seed=0)
    envs.send(0, 3)
    envs.send(1, PRINT)
    with pytest.raises(UserError):
        while True:
            assert [result.env_index for result in envs.recv()] == [1]
            envs.send(1, PRINT)
    assert [result.env_index for result in envs.recv()] == [1]


def test_a_lost_sandbox_truncates_where_asked() -> None:
    sandbox = make_sandbox("local")
    envs = PyVisionVectorEnv(2, [image_task()], sandbox=sandbox, on_infrastructure="truncate")
    envs.reset(seed=0)
    sandbox.close()
    _, rewards, _, truncated, infos = envs.step((PRINT, PRINT))
    assert (rewards.tolist(), truncated.tolist()) == ([0.0, 0.0], [True, True])
    assert infos["end_reason"].tolist() == ["infrastructure"] * 2
    envs.close()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda envs: envs.step((PRINT,)), "3 actions"),
        (lambda envs: envs.step_some([0, 0], [PRINT, PRINT]), "distinct"),
        (lambda envs: envs.step_some([0, 1], [PRINT]), "one action"),
        (lambda envs: envs.send(3, PRINT), "no sub-environment 3"),
        (lambda envs: envs.send(-1, PRINT), "no sub-environment -1"),
        (lambda envs: envs.reset(seed=[1]), "one seed"),
        (lambda envs: envs.reset(options={"reset_mask": np.zeros(3, bool)}), "at least one True"),
        (lambda envs: envs.reset(options={"reset_mask": [True, False, True]}), "bool array"),
        (lambda envs: envs.reset(options={"tsak": 1}), "tsak"),
        (lambda envs: PyVisionVectorEnv(0), "num_envs"),
        (lambda envs: PyVisionVectorEnv(2, max_turn=3), "max_turns"),
    ],
)
def test_wrong_calls_are_refused(envs: PyVisionVectorEnv, call: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call(envs)


def test_each_sub_environment_renders(envs: PyVisionVectorEnv) -> None:
    envs.reset(seed=0)
    frames = envs.render()
    assert frames is not None
    assert len(frames) == 3
    assert all("Which animal" in frame for frame in frames)


def test_close_joins_the_threads_and_may_be_repeated(sandbox: Sandbox) -> None:
    envs = PyVisionVectorEnv(2, [image_task()], sandbox=sandbox)
    before = threading.active_count()
    envs.reset(seed=0)
    envs.send(0, PRINT)
    assert threading.active_count() > before
    envs.close()
    envs.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pyvision-env")]
    with pytest.raises(ClosedEnvironmentError):
        envs.reset()
