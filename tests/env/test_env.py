from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from samples import answer, code, image_task

import pyvision_env
from pyvision_env.env import PyVisionEnv
from pyvision_env.errors import ConfigError, MediaError, TaskError
from pyvision_env.sandbox import Sandbox
from pyvision_env.types import ImageSource, Task

IDS = ["PyVision/ImageQA-v0", "PyVision/VideoQA-v0", "PyVision/SyntheticSearch-v0", "PyVision/SyntheticVideo-v0"]
SHOW = code("plt.imshow(image_clue_0)\nplt.show()")
pytestmark = pytest.mark.usefixtures("sandbox")


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("action_mode", ["text", "structured"])
def test_check_env_finds_nothing_to_warn_about(env_id: str, action_mode: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few = {"num_tasks": 2} if "Synthetic" in env_id else {}
        env = gym.make(f"pyvision_env:{env_id}", sandbox="local", action_mode=action_mode, **few)
        check_env(env.unwrapped)
        env.close()


def test_the_ids_need_no_argument() -> None:
    for env_id in IDS:
        env = gym.make(env_id)
        assert isinstance(env.unwrapped, PyVisionEnv)
        env.close()


def test_a_spec_survives_json_and_makes_the_same_environment(tmp_path: Path) -> None:
    keywords = {
        "sandbox": {"kind": "local", "memory_mb": 512},
        "max_turns": 7,
        "config": {"reward": {"gate": "immediate"}},
    }
    env = gym.make("PyVision/ImageQA-v0", tasks=str(tmp_path / "tasks.json"), **keywords)
    assert env.spec is not None
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert again.unwrapped.config == env.unwrapped.config  # type: ignore[attr-defined]
    assert again.observation_space == env.observation_space


def test_nothing_is_loaded_or_started_before_reset() -> None:
    env = PyVisionEnv("/no/such/file.json", sandbox="docker", render_mode="ansi")
    with pytest.raises(ResetNeeded):
        env.step("text")
    with pytest.raises(ResetNeeded):
        env.render()
    with pytest.raises(TaskError, match="/no/such/file"):
        env.reset()
    env.close()
    env.close()


def test_importing_the_package_stays_light() -> None:
    heavy = ["torch", "docker", "matplotlib", "av", "pyarrow", "openai", "scipy", "math_verify", "jinja2", "ray"]
    program = f"import sys, pyvision_env; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_making_an_environment_stays_light() -> None:
    heavy = ["torch", "docker", "matplotlib", "av", "pyarrow", "openai", "scipy", "math_verify", "jinja2", "ray"]
    program = (
        "import sys, gymnasium, pyvision_env; gymnasium.make('PyVision/ImageQA-v0')\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_public_names_are_there() -> None:
    assert all(getattr(pyvision_env, name) is not None for name in pyvision_env.__all__)
    assert set(pyvision_env.__all__) <= set(dir(pyvision_env))
    with pytest.raises(AttributeError, match="no_such_name"):
        pyvision_env.no_such_name  # noqa: B018


def test_the_same_seed_gives_the_same_order_and_every_task_once_a_pass(make: Any) -> None:
    env = make(*(image_task(str(i)) for i in range(4)))

    def draw(seed: int) -> list[str]:
        names = [env.reset(seed=seed)[1]["task_id"]]
        return names + [env.reset()[1]["task_id"] for _ in range(7)]

    first = draw(3)
    assert draw(3) == first
    assert sorted(first[:4]) == sorted(first[4:]) == list("0123")
    assert len({env.reset(seed=seed)[1]["task_id"] for seed in range(8)}) > 1


def test_without_shuffling_tasks_come_in_their_own_order(make: Any) -> None:
    env = make(*(image_task(str(i)) for i in range(3)), shuffle=False)
    assert [env.reset()[1]["task_id"] for _ in range(4)] == ["0", "1", "2", "0"]
    assert env.reset(seed=1)[1]["task_id"] == "0"


def test_options_name_a_task_without_disturbing_the_order(make: Any) -> None:
    env = make(*(image_task(str(i)) for i in range(3)), shuffle=False)
    assert env.reset()[1]["task_id"] == "0"
    assert env.reset(options={"task_id": "2"})[1]["task_id"] == "2"
    assert env.reset(options={"task_index": 1})[1]["task_id"] == "1"
    assert env.reset(options={"task": image_task("mine")})[1]["task_id"] == "mine"
    assert env.reset()[1]["task_id"] == "1"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"taks_id": "0"}, ConfigError, "taks_id"),
        ({"task_id": "0", "task_index": 0}, ConfigError, "several"),
        ({"task": "0"}, ConfigError, "must be a Task"),
        ({"task_id": "nine"}, TaskError, "nine"),
        ({"task_id": 0}, TaskError, "must be a str"),
        ({"task_index": 1}, TaskError, "from 0 to 0"),
        ({"task_index": True}, TaskError, "must be an int"),
    ],
)
def test_wrong_options_are_refused(make: Any, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make(image_task("0")).reset(options=options)


def test_an_env_whose_first_reset_failed_can_be_reset_again(sandbox: Sandbox) -> None:
    broken = Task("broken", "What?", "B", images=(ImageSource(data=b"no picture"),))
    env = gym.make("PyVision/ImageQA-v0", tasks=[broken, image_task()], shuffle=False, sandbox=sandbox)
    with pytest.raises(MediaError):
        env.reset()
    env.reset()
    assert env.step(answer("B"))[1] == 1.0
    env.close()


def test_ansi_rendering_is_the_transcript(make: Any) -> None:
    env = make(render_mode="ansi")
    env.reset()
    env.step(SHOW)
    env.step(answer("B"))
    text = env.render()
    for part in ("Which animal", "plt.imshow", "<image_clue_0 120x80>", "<image_clue_1", "[end: answered]"):
        assert part in text


def test_pictures_have_one_size_and_follow_the_episode(make: Any) -> None:
    env = make(render_mode="rgb_array")
    env.reset()
    pictures = [env.render()]
    for action in (SHOW, code("print('\\ud800 中文 \\x07' * 2000)"), answer("B")):
        env.step(action)
        pictures.append(env.render())
    assert {(picture.shape, str(picture.dtype)) for picture in pictures} == {((720, 960, 3), "uint8")}
    assert len({picture.tobytes() for picture in pictures}) == 4


def test_no_render_mode_renders_nothing(make: Any) -> None:
    env = make()
    env.reset()
    assert env.render() is None
