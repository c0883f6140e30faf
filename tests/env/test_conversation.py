from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from samples import BLUE, GREEN, RED, answer, code, plain

from pyvision_env.config import EnvConfig
from pyvision_env.conversation import all_images, build_messages, image_placeholder
from pyvision_env.prompts import system_prompt
from pyvision_env.protocol import TOOLS, parse, parse_tool_calls
from pyvision_env.types import FetchFrames, Observation, RunCode, ToolCalls, Turn

FIRST = Observation("Which colour?", (plain(RED),), ("image_clue_0",), turns_left=4)


def turn(text: str, observation: str = "done", images: int = 0, terminated: bool = False) -> Turn:
    pictures = tuple(plain((GREEN, BLUE)[i % 2]) for i in range(images))
    labels = tuple(f"image_clue_{i + 1}" for i in range(images))
    return Turn(text, parse(text), Observation(observation, pictures, labels), 0.0, {}, {}, terminated=terminated)


TURNS = [turn(f"Let me look. {code('show()')}", images=2), turn("hm"), turn(answer("B"), terminated=True)]


def test_messages_alternate_and_keep_the_models_text_unchanged() -> None:
    messages = build_messages(FIRST, TURNS, "be brief")
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    assert [m["content"] for m in messages if m["role"] == "assistant"] == [t.action_text for t in TURNS]
    assert messages[0]["content"] == [{"type": "text", "text": "be brief"}]
    assert build_messages(FIRST, [])[0]["role"] == "user"


def test_each_image_follows_its_name() -> None:
    content = build_messages(FIRST, TURNS)[2]["content"]
    assert [part["type"] for part in content] == ["text", "text", "image_url", "text", "image_url"]
    assert [part["text"] for part in content if part["type"] == "text"] == ["done", "<image_clue_1>", "<image_clue_2>"]
    url = content[4]["image_url"]["url"]
    decoded = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
    assert np.array_equal(np.asarray(decoded), plain(BLUE))


def test_messages_are_json_and_earlier_ones_never_change() -> None:
    whole = json.loads(json.dumps(build_messages(FIRST, TURNS, "s")))
    for n in range(len(TURNS)):
        part = build_messages(FIRST, TURNS[:n], "s")
        assert whole[: len(part)] == part


def test_placeholders_and_pictures_have_the_same_order() -> None:
    messages = build_messages(FIRST, TURNS, image_part=image_placeholder)
    images = all_images(FIRST, TURNS)
    parts = [part for m in messages if isinstance(m["content"], list) for part in m["content"]]
    assert parts.count({"type": "image"}) == len(images) == 3
    assert [tuple(image[0, 0]) for image in images] == [RED, GREEN, BLUE]


def test_a_final_observation_is_left_out_of_both() -> None:
    last = turn(code("show()"), images=2, terminated=True)
    assert build_messages(FIRST, [last])[-1]["role"] == "assistant"
    assert len(all_images(FIRST, [last])) == 1


def test_native_tool_calls_are_answered_each_and_read_back_as_the_same_action() -> None:
    calls = ToolCalls((RunCode(("a = 1", "print(a)")), FetchFrames(num=2, start=1.0)))
    native = Turn("", calls, Observation("text", (plain(RED),), ("image_clue_1",)), 0.0, {}, {})
    messages = build_messages(FIRST, [native, turn("no action"), *TURNS[2:]], native_tools=True)
    assert [m["role"] for m in messages] == [
        *("user", "assistant", "tool", "tool", "tool", "user", "assistant", "user", "assistant")
    ]
    assert parse_tool_calls(messages[1]["tool_calls"]) == calls
    assert [m["tool_call_id"] for m in messages[2:5]] == [c["id"] for c in messages[1]["tool_calls"]]
    assert messages[4]["content"] == "text"
    assert messages[5]["content"][1]["type"] == "image_url"
    assert messages[6] == {"role": "assistant", "content": "no action"}
    assert messages[8]["tool_calls"][0]["function"]["name"] == "answer"
    names = {tool["function"]["name"] for tool in TOOLS}
    assert {c["function"]["name"] for m in messages for c in m.get("tool_calls", [])} <= names


@pytest.mark.parametrize(("images", "videos"), [(True, False), (False, True), (True, True)])
def test_the_system_prompt_names_what_the_task_has(images: bool, videos: bool) -> None:
    prompt = system_prompt(EnvConfig.model_validate({"limits": {"max_turns": 1, "code_timeout_s": 7}}), images, videos)
    assert ("video_clue_0" in prompt) is videos
    assert ("<frames>" in prompt) is videos
    assert "image_clue_0" in prompt
    assert "1 tool turn before" in prompt
    assert "32 images" in prompt
    assert "7 seconds" in prompt
    assert "{media}" not in prompt


def test_every_example_in_the_system_prompt_is_in_the_grammar() -> None:
    prompt = system_prompt(EnvConfig(), True, True)
    blocks = [line for line in prompt.split("\n") if line.startswith(("<frames>", "<answer>"))]
    assert {type(parse(block)).__name__ for block in blocks} == {"FetchFrames", "Answer"}
    start = prompt.index("<code>")
    assert isinstance(parse(prompt[start : prompt.index("</code>") + 7]), RunCode)


def test_the_native_prompt_has_no_tags() -> None:
    prompt = system_prompt(EnvConfig(), True, True, native_tools=True)
    assert "<" not in prompt
    assert "fetch_frames" in prompt
