from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from samples import BLUE, GREEN, RED, answer, code, image_task, png, video_task

from pyvision_env.errors import UserError

SHOW = code("plt.imshow(image_clue_0)\nplt.show()")


def test_an_error_is_an_observation_with_its_traceback(make: Any) -> None:
    env = make()
    env.reset()
    obs, reward, terminated, truncated, info = env.step(code("1/0"))
    assert "Traceback" in obs["text"]
    assert "ZeroDivisionError" in obs["text"]
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info["tool_error"].startswith("ZeroDivisionError")
    assert (info["tool_calls"], info["failed_calls"], info["counted_calls"]) == (1, 1, 0)


def test_variables_persist_between_turns_and_not_between_episodes(make: Any) -> None:
    env = make()
    env.reset()
    env.step(code("x = 41"))
    assert env.step(code("print(x + 1)"))[0]["text"].startswith("42")
    env.reset()
    assert "NameError" in env.step(code("print(x)"))[4]["tool_error"]


def test_several_blocks_and_kinds_run_in_one_turn(make: Any) -> None:
    env = make(video_task())
    env.reset()
    obs, _, _, _, info = env.step(code("a = 1") + code("print(a)") + '<frames>{"num": 2}</frames>' + code("print(2)"))
    assert info["action"] == "calls"
    assert (info["tool_calls"], info["counted_calls"], info["turns"]) == (3, 1, 1)
    assert obs["text"].index("1") < obs["text"].index("2")
    assert len(obs["images"]) == 2
    info = env.step(code("1/0") + '<frames>{"num": 2}</frames>')[4]
    assert (info["tool_calls"], info["failed_calls"], info["counted_calls"]) == (4, 1, 1)


def test_malformed_text_costs_a_turn_and_goes_on(make: Any) -> None:
    env = make()
    env.reset()
    obs, reward, terminated, truncated, info = env.step("I think it is a dog.")
    assert "<answer>" in obs["text"]
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert (info["action"], info["turns"], info["tool_calls"]) == ("invalid", 1, 0)
    assert obs["turns_left"] == 3


def test_after_the_last_tool_turn_an_answer_is_still_taken(make: Any) -> None:
    env = make(max_turns=2)
    env.reset()
    env.step(code("print(1)"))
    obs = env.step("nonsense")[0]
    assert obs["turns_left"] == 0
    assert "must be the final answer" in obs["text"]
    _, reward, terminated, truncated, info = env.step(answer("B"))
    assert (terminated, truncated, info["end_reason"]) == (True, False, "answered")
    assert reward == pytest.approx(1.1)


@pytest.mark.parametrize("last", [code("print('run')"), "nonsense"])
def test_without_an_answer_the_turn_budget_truncates(make: Any, last: str) -> None:
    env = make(max_turns=1)
    env.reset()
    env.step(code("print(1)"))
    obs, reward, terminated, truncated, info = env.step(last)
    assert (reward, terminated, truncated, info["end_reason"]) == (0.0, False, True, "turn_budget")
    assert info["tool_calls"] == 1
    assert "run" not in obs["text"].split()
    with pytest.raises(ResetNeeded):
        env.step(answer("B"))


def test_the_image_budget_leaves_text(make: Any) -> None:
    env = make(max_images=3, max_turns=5)
    env.reset()
    obs, _, _, _, info = env.step(code("for _ in range(5): display(image_clue_0)"))
    assert len(obs["images"]) == 2
    assert info["num_images"] == 3
    assert "image budget is used up" in obs["text"]
    obs, _, _, truncated, info = env.step(code("display(image_clue_0)\nprint('still here')"))
    assert (len(obs["images"]), truncated) == (0, False)
    assert "still here" in obs["text"]


def test_the_image_budget_truncates_where_asked(make: Any) -> None:
    env = make(max_images=1, end_on_image_budget=True)
    env.reset()
    _, _, _, truncated, info = env.step(code("print(1)"))
    assert (truncated, info["end_reason"], info["tool_calls"]) == (True, "image_budget", 0)


def test_given_images_beyond_the_budget_are_held(make: Any) -> None:
    env = make(image_task(images=(png(RED), png(GREEN), png(BLUE))), max_images=2)
    obs, info = env.reset()
    assert len(obs["images"]) == info["num_images"] == 2
    assert "image_clue_2: 120x80 pixels, not shown" in obs["text"]


def test_the_token_budget_truncates(make: Any) -> None:
    env = make(max_visual_tokens=100)
    _, info = env.reset()
    assert info["visual_tokens"] <= 100
    _, _, _, truncated, info = env.step(SHOW)
    assert (truncated, info["end_reason"]) == (True, "token_budget")
    assert info["visual_tokens"] > 100


def test_end_on_error_truncates_at_the_first_error(make: Any) -> None:
    env = make(end_on_error=True)
    env.reset()
    obs, reward, terminated, truncated, info = env.step(code("1/0"))
    assert (reward, terminated, truncated, info["end_reason"]) == (0.0, False, True, "code_error")
    assert "ZeroDivisionError" in obs["text"]


def test_a_timeout_is_an_observation_and_the_episode_goes_on(make: Any) -> None:
    env = make(code_timeout_s=1.0)
    env.reset()
    assert "time" in env.step(code("x = 5\nwhile True: pass"))[4]["tool_error"].lower()
    assert env.step(code("print(x)"))[0]["text"].startswith("5")


def test_a_killed_runtime_is_reported_and_replaced(make: Any) -> None:
    env = make()
    env.reset()
    obs, _, _, truncated, info = env.step(code("import os\nos._exit(3)"))
    assert info["state_lost"] is True
    assert truncated is False
    obs, _, _, _, info = env.step(code("print(image_clue_0.size)"))
    assert "(120, 80)" in obs["text"]
    assert info["state_lost"] is False


def test_actions_of_the_wrong_type_are_the_callers_error(make: Any) -> None:
    env = make()
    env.reset()
    with pytest.raises(UserError, match="structured"):
        env.step((0, "print(1)"))
    env = make(action_mode="structured")
    env.reset()
    with pytest.raises(UserError, match="structured action"):
        env.step("print(1)")


def test_structured_actions_do_the_same_as_text(make: Any) -> None:
    env = make(video_task(answer="200", grader="exact"), action_mode="structured")
    env.reset()
    assert env.step((0, "print(6 * 7)"))[0]["text"].startswith("42")
    obs = env.step((1, {"video": 0, "times": (np.asarray(0.5),)}))[0]
    assert len(obs["images"]) == 1
    assert env.step((0, "   "))[4]["action"] == "invalid"
    _, reward, terminated, _, _ = env.step((np.int64(2), "200"))
    assert terminated
    assert reward == pytest.approx(1.2)
    assert env.turns[0].action_text == code("print(6 * 7)")
