from __future__ import annotations

import json
from typing import Any

import pytest

from pyvision_env.errors import UserError
from pyvision_env.protocol import TOOLS, parse_tool_calls
from pyvision_env.types import Answer, FetchFrames, Invalid, RunCode, ToolCalls


def call(name: str, arguments: Any) -> dict[str, Any]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": text}}


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("python", {"code": "print(1)"}, RunCode(("print(1)",))),
        ("python", {"code": "```python\nprint(1)\n```"}, RunCode(("print(1)",))),
        ("python", {"code": "  print('```')"}, RunCode(("  print('```')",))),
        ("python", {"code": "```"}, RunCode(("```",))),
        ("fetch_frames", {"video": 1, "times": [1, 2.5]}, FetchFrames(video=1, times=(1.0, 2.5))),
        ("fetch_frames", {"indices": [4], "times": None, "num": None}, FetchFrames(indices=(4,))),
        ("fetch_frames", {"num": 4, "start": 1}, FetchFrames(start=1.0, num=4)),
        ("answer", {"text": "B"}, Answer("B", "B")),
        ("answer", {"text": "\\boxed{B}"}, Answer("B", "\\boxed{B}")),
    ],
)
def test_one_call_is_read(name: str, arguments: dict[str, Any], expected: object) -> None:
    assert parse_tool_calls([call(name, arguments)]) == expected


def test_decoded_arguments_are_accepted() -> None:
    decoded = {"function": {"name": "python", "arguments": {"code": "x"}}}
    assert parse_tool_calls([decoded]) == RunCode(("x",))


def test_several_calls_combine_as_blocks_of_text_do() -> None:
    calls = [call("python", {"code": "a"}), call("python", {"code": "b"}), call("fetch_frames", {"num": 2})]
    assert parse_tool_calls(calls) == ToolCalls((RunCode(("a", "b")), FetchFrames(num=2)))
    assert parse_tool_calls([*calls, call("answer", {"text": "B"})]) == Answer("B", "B")
    assert isinstance(parse_tool_calls(calls, max_blocks=2), Invalid)


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("browse", {"url": "x"}, "'browse'"),
        ("python", "print(1)", "cannot be read"),
        ("python", "[" * 100_000, "cannot be read"),
        ("python", {"source": "x"}, "'source'"),
        ("python", {"code": 3}, "3"),
        ("python", {"code": "x", "timeout": 3}, "timeout"),
        ("python", {"code": " "}, "empty"),
        ("python", {"code": "```bash\nls\n```"}, "bash"),
        ("answer", {"text": ""}, "empty"),
        ("answer", "null", "None"),
        ("fetch_frames", {}, "none of them"),
        ("fetch_frames", "", "nothing came"),
        ("fetch_frames", {"times": [1], "num": 2}, "times and num"),
    ],
)
def test_the_models_mistakes_become_reasons(name: str, arguments: Any, named: str) -> None:
    action = parse_tool_calls([call(name, arguments)])
    assert isinstance(action, Invalid)
    assert named in action.reason


def test_no_call_names_the_tools() -> None:
    action = parse_tool_calls([])
    assert isinstance(action, Invalid)
    assert "python, fetch_frames, answer" in action.reason


@pytest.mark.parametrize("item", [None, "python", {}, {"function": {"arguments": "{}"}}, {"function": "python"}])
def test_items_of_another_shape_are_the_callers_mistake(item: Any) -> None:
    with pytest.raises(UserError, match="Expected a tool call"):
        parse_tool_calls([item])


def test_definitions_are_json_and_name_what_the_reader_takes() -> None:
    tools = json.loads(json.dumps(TOOLS))
    assert [tool["function"]["name"] for tool in tools] == ["python", "fetch_frames", "answer"]
    parameters = {tool["function"]["name"]: set(tool["function"]["parameters"]["properties"]) for tool in tools}
    assert parameters["fetch_frames"] == {"video", "times", "indices", "start", "end", "num"}
    assert parameters["python"] == {"code"}
    assert parameters["answer"] == {"text"}
