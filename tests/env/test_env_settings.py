from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from samples import RED, image_task, plain

from pyvision_env.config import EnvConfig
from pyvision_env.env import PyVisionEnv
from pyvision_env.errors import ConfigError
from pyvision_env.media import encode_png
from pyvision_env.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("sandbox")


def test_keywords_reach_the_configuration() -> None:
    base = EnvConfig.model_validate({"limits": {"max_turns": 9, "max_images": 5}})
    env = PyVisionEnv(config=base, sandbox="local", max_turns=2, tool_weight=0.3, limits={"max_pixels": 10_000})
    assert (env.config.limits.max_turns, env.config.limits.max_images) == (2, 5)
    assert env.config.limits.max_pixels == 10_000
    assert env.config.reward.tool_weight == 0.3
    assert env.config.sandbox.kind == "local"


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"max_turn": 3}, "did you mean max_turns"),
        ({"task": []}, "did you mean tasks"),
        ({"memory_mb": 3}, "setting of the sandbox"),
        ({"zzz": 1}, "known ones"),
        ({"max_turns": 0}, "max_turns"),
        ({"sandbox": "dokcer"}, "sandbox.kind"),
        ({"config": 3}, "EnvConfig"),
        ({"limits": 3}, "Limits"),
        ({"on_infrastructure": "ignore"}, "'raise' or 'truncate'"),
        ({"render_mode": "human"}, "render_mode"),
        ({"kind": "audio"}, "kind"),
        ({"num_tasks": 3}, "generated"),
        ({"kind": "search", "num_tasks": 0}, "at least 1"),
        ({"media_root": "here"}, "media_root"),
        ({"max_pixels": 1_000}, "min_pixels .3136. must not exceed max_pixels .1000."),
        ({"code_timeout_s": float("inf")}, "code_timeout_s"),
        ({"code_timeout_s": 1e9}, "code_timeout_s"),
        ({"tool_weight": float("nan")}, "tool_weight"),
        ({"sandbox": {"cpus": -1}}, "cpus"),
    ],
)
def test_wrong_keywords_are_refused_with_a_hint(keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PyVisionEnv(**keywords)


def test_generated_tasks_follow_their_keywords() -> None:
    env = gym.make("PyVision/SyntheticSearch-v0", sandbox="local", num_tasks=2, task_seed=7, task_args={"size": 512})
    ids = {env.reset()[1]["task_id"] for _ in range(4)}
    assert len(ids) == 2
    assert "512x512" in env.unwrapped.first_observation.text  # type: ignore[attr-defined]
    env.close()
    with pytest.raises(ConfigError, match="colour"):
        PyVisionEnv(kind="search", task_args={"colour": 1}).reset()


def test_tasks_come_from_a_file(tmp_path: Path, sandbox: Sandbox) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.png").write_bytes(encode_png(plain(RED)))
    record = {"id": "r1", "question": "Which colour?", "answer": "red", "image_path": "a.png"}
    (tmp_path / "tasks.json").write_text(json.dumps([record]))
    env = PyVisionEnv(tmp_path / "tasks.json", sandbox=sandbox, media_root=tmp_path / "media")
    assert env.reset()[1]["task_id"] == "r1"
    env.close()


def test_environments_of_one_configuration_share_a_sandbox_whatever_their_turns(sandbox: Sandbox) -> None:
    envs = [PyVisionEnv((image_task(),), sandbox="local", max_turns=turns, max_images=turns) for turns in (2, 30)]
    for env in envs:
        env.reset()
    assert all(env.sandbox is sandbox for env in envs)
    for env in envs:
        env.close()
