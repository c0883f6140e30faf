"""The OpenAI-compatible agent over real HTTP: what it asks, what it tries again, and what it gives up on."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from samples import GREEN, RED, code, image_task, png
from stub_server import Reply, Stub, serve
from typer.testing import CliRunner

from pyvision_env.agents import Context, OpenAIAgent
from pyvision_env.cli.app import app
from pyvision_env.env import PyVisionEnv
from pyvision_env.errors import ConfigError, InfrastructureError, ModelUnavailableError
from pyvision_env.rollout import run_episode, summarize
from pyvision_env.sandbox import Sandbox
from pyvision_env.trace import RecordTrace, read_trace
from pyvision_env.types import Observation

ANSWER = Reply(r"<answer>\boxed{B}</answer>")
CONTEXT = Context.of("system", Observation("question", turns_left=1), seed=5)


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serve() as running:
        yield running
    assert running.problems == []


@pytest.fixture
def make(stub: Stub) -> Iterator[Any]:
    made: list[OpenAIAgent] = []

    def build(**options: Any) -> OpenAIAgent:
        defaults = {"base_url": stub.url, "first_wait_s": 0.01, "max_wait_s": 0.05, "timeout_s": 60.0}
        made.append(OpenAIAgent("stub-model", **{**defaults, **options}))
        return made[-1]

    yield build
    for agent in made:
        agent.close()


def script(stub: Stub, *replies: Reply) -> None:
    stub.script = deque(replies)


def test_an_episode_runs_over_http_with_its_pictures(stub, make, sandbox: Sandbox):
    look = code("image_clue_1.crop((0, 0, 64, 64)).show()")
    script(stub, Reply(look), ANSWER)
    task = image_task(images=(png(RED, 120, 80), png(GREEN, 90, 60)))
    env = PyVisionEnv([task], sandbox=sandbox)
    result = run_episode(env, make(temperature=0.5, max_tokens=100, stop=["</code>"], extra={"top_k": 3}))
    assert (result.correct, result.tool_calls, result.agent) == (True, 1, "stub-model")
    assert stub.pictures == [[(120, 80), (90, 60)], [(120, 80), (90, 60), (64, 64)]]
    first, second = stub.requests
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert second["messages"][:2] == first["messages"]
    assert second["messages"][2] == {"role": "assistant", "content": look}
    wanted = {"model": "stub-model", "temperature": 0.5, "max_tokens": 100, "stop": ["</code>"], "top_k": 3}
    assert {name: first[name] for name in wanted} == wanted
    # Nothing of the reference answer or of grading goes out.
    assert set(first) == {*wanted, "messages"}


def test_left_out_options_are_not_sent_and_the_seed_is_the_episodes_own(stub, make):
    make().act(CONTEXT)
    make(seed=100).act(CONTEXT)
    assert set(stub.requests[0]) == {"model", "messages"}
    assert stub.requests[1]["seed"] == 105


@pytest.mark.parametrize(
    "fault",
    [Reply(status=429), Reply(status=500), Reply(status=503), Reply(content=None), Reply(drop=True)],
    ids=["429", "500", "503", "no choices", "dropped"],
)
def test_passing_faults_are_tried_again(stub, make, fault):
    script(stub, fault, fault, ANSWER)
    assert make().act(CONTEXT) == ANSWER.content
    assert len(stub.requests) == 3


def test_a_slow_reply_is_given_up_and_asked_for_again(stub, make):
    script(stub, Reply("late", delay_s=6.0), ANSWER)
    assert make(timeout_s=2).act(CONTEXT) == ANSWER.content


@pytest.mark.parametrize(
    "fault",
    [Reply(status=500), Reply(content=None), Reply(drop=True), Reply(raw=b"<html>not here</html>"), Reply(raw=b"[1]")],
    ids=["500", "no choices", "dropped", "html", "another shape"],
)
def test_attempts_are_bounded_and_end_in_a_typed_error(stub, make, fault):
    script(stub, fault)
    began = time.monotonic()
    with pytest.raises(ModelUnavailableError, match="stub-model"):
        make(attempts=3).act(CONTEXT)
    assert len(stub.requests) == 3
    assert time.monotonic() - began < 30


def test_a_server_that_is_not_there_is_an_infrastructure_error(make):
    with pytest.raises(ModelUnavailableError, match="2 attempt"):
        make(base_url="http://127.0.0.1:9/v1", attempts=2).act(CONTEXT)


def test_a_refused_conversation_is_not_asked_again(stub, make):
    script(stub, Reply(status=400))
    with pytest.raises(ModelUnavailableError, match="scripted 400"):
        make().act(CONTEXT)
    assert len(stub.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_is_the_users_to_mend(stub, make, status):
    script(stub, Reply(status=status))
    with pytest.raises(ConfigError, match="Check the model, base_url and the key"):
        make().act(CONTEXT)
    assert len(stub.requests) == 1


def test_an_empty_message_is_the_models_own_turn(stub, make):
    script(stub, Reply(""))
    assert make().act(CONTEXT) == ""
    assert len(stub.requests) == 1


def test_a_failing_server_is_never_scored_and_stands_in_the_trace(stub, make, sandbox: Sandbox, tmp_path):
    script(stub, Reply(code("print(1)")), Reply(status=500))
    env = RecordTrace(PyVisionEnv([image_task()], sandbox=sandbox), tmp_path, agent="stub")
    result = run_episode(env, make(attempts=2))
    env.close()
    assert (result.end_reason, result.correct, result.counts) == ("infrastructure", None, False)
    assert summarize([result]).accuracy is None
    trace = read_trace(result.trace)
    assert len(trace.turns) == 1
    assert trace.end.end_reason == "infrastructure"
    assert "ModelUnavailableError" in trace.end.error


def test_the_key_goes_to_the_server_and_is_needed_only_without_one(stub, make, monkeypatch):
    make(api_key="secret").act(CONTEXT)
    assert stub.headers[0]["authorization"] == "Bearer secret"
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        OpenAIAgent("m")


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"timeout_s": 0}, {"first_wait_s": -1}])
def test_numbers_out_of_range_are_refused(make, wrong):
    with pytest.raises(ConfigError, match="attempts must be at least 1"):
        make(**wrong)


def test_its_failure_is_an_infrastructure_error():
    assert issubclass(ModelUnavailableError, InfrastructureError)


@pytest.mark.parametrize("address", ["foo", "127.0.0.1:8000/v1", "http://", "ftp://host/v1", "http://host:none/v1"])
def test_a_base_url_that_is_no_address_is_refused_at_once(address):
    with pytest.raises(ConfigError, match="must be an address such as http://") as caught:
        OpenAIAgent("m", address)
    assert repr(address) in str(caught.value)


def test_its_settings_hold_what_turns_depend_on_and_no_secret():
    options = {"temperature": 0.5, "max_tokens": 9, "seed": 3, "stop": ["</code>"], "extra": {"top_k": 3}}
    agent = OpenAIAgent("m", "http://me:secret@127.0.0.1:9/v1?key=secret", "secret", **options)
    assert agent.settings == {"base_url": "http://127.0.0.1:9/v1", **options}
    agent.close()


def test_a_resumed_run_asks_again_at_another_temperature(stub, tmp_path):
    (tmp_path / "tasks.json").write_text(json.dumps([{"id": "q", "question": "Yes?", "answer": "B"}]))
    command = ["run", "--sandbox", "local", "--tasks", str(tmp_path / "tasks.json"), "--out", str(tmp_path / "out")]
    command += ["--agent", "openai", "--model", "m", "--base-url", stub.url, "--resume"]
    for temperature, requests in (("0", 1), ("0", 1), ("1.5", 2)):
        result = CliRunner().invoke(app, [*command, "--temperature", temperature])
        assert result.exit_code == 0, result.output
        assert len(stub.requests) == requests


def test_an_unusable_base_url_on_the_command_line_exits_with_2():
    options = ["--agent", "openai", "--model", "m", "--base-url", "foo", "--env", "PyVision/ImageQA-v0"]
    result = CliRunner().invoke(app, ["run", *options])
    assert result.exit_code == 2 and "'foo'" in result.stderr
