"""``pyvision-env run`` with the local sandbox: tasks, agents, figures, interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from samples import RED, plain
from typer.testing import CliRunner

from pyvision_env.cli.app import app
from pyvision_env.media import encode_png
from pyvision_env.trace import iter_traces

PROGRAM = str(Path(sys.executable).with_name("pyvision-env"))
LOCAL = ["--sandbox", "local"]


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["run", *LOCAL, *map(str, arguments)])


@pytest.fixture
def tasks(tmp_path) -> Path:
    """Ten questions about one image; the answer is B."""
    (tmp_path / "red.png").write_bytes(encode_png(plain(RED)))
    records = [
        {
            "id": f"q{i}",
            "question": "Which animal?",
            "options": ["a cat", "a dog"],
            "answer": "B",
            "images": ["red.png"],
        }
        for i in range(10)
    ]
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps(records))
    return path


@pytest.fixture
def agents(tmp_path) -> Path:
    path = tmp_path / "my_agents.py"
    path.write_text(
        """
import time
from pyvision_env.errors import ModelUnavailableError

class Dog:
    name = "dog"
    def act(self, context):
        if not context.turns:
            return "<code>print(image_clue_0.size)</code>"
        return "<answer>B</answer>" if "(120, 80)" in context.observation.text else "<answer>A</answer>"

class Slow(Dog):
    name = "slow"
    def act(self, context):
        time.sleep(0.2)
        return super().act(context)

class Gone(Dog):
    name = "gone"
    def act(self, context):
        raise ModelUnavailableError("the server is gone")

class NoAgent:
    pass

constant = 3
"""
    )
    return path


def test_an_own_agent_of_a_file_answers_a_task_file(tasks, agents, tmp_path):
    out = tmp_path / "out"
    result = invoke("--tasks", tasks, "--agent", f"{agents}:Dog", "--limit", 3, "--samples", 2, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["episodes"], report["accuracy"], report["mean_tool_calls"]) == (6, 1.0, 1.0)
    assert [(r["task_id"], r["seed"]) for r in report["results"]] == [(f"q{i}", k) for i in range(3) for k in (0, 1)]
    assert json.loads((out / "summary.json").read_text())["accuracy"] == 1.0
    assert len(list(iter_traces(out))) == 6
    assert "6 of 6 episodes, 6 of 6 correct" in result.stderr


def test_a_module_of_the_current_folder_is_found(tasks, agents, monkeypatch, tmp_path):
    monkeypatch.chdir(agents.parent)
    result = invoke("--tasks", tasks, "--agent", "my_agents:Dog", "--limit", 1, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "100.0% (1 of 1)" in result.stdout and "mean tool calls" in result.stdout


def test_the_reference_agent_answers_a_registered_environment(tmp_path):
    out = tmp_path / "out"
    result = invoke("--env", "PyVision/SyntheticVideo-v0", "--limit", 2, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["accuracy"] == 1.0


def test_resume_takes_up_what_is_there(tasks, agents, tmp_path):
    options = ["--tasks", tasks, "--agent", f"{agents}:Dog", "--out", tmp_path / "out", "--json", "--limit"]
    first = json.loads(invoke(*options, 2).stdout)
    second = json.loads(invoke(*options, 4, "--resume").stdout)
    assert [r["trace"] for r in second["results"][:2]] == [r["trace"] for r in first["results"]]
    assert second["episodes"] == 4 == len(list(iter_traces(tmp_path / "out")))


def test_infrastructure_failures_exit_with_3_and_are_named(tasks, agents, tmp_path):
    result = invoke("--tasks", tasks, "--agent", f"{agents}:Gone", "--limit", 1, "--out", tmp_path / "out")
    assert result.exit_code == 3
    assert "the server is gone" in result.stdout and "0 counted" in result.stdout


def test_settings_reach_the_environment(tasks, agents, tmp_path):
    options = ["--max-turns", 7, "--set", "max_images=9", "--set", "gate=immediate", "--limit", 1]
    assert invoke("--tasks", tasks, "--agent", f"{agents}:Dog", *options, "--out", tmp_path / "out").exit_code == 0
    (trace,) = iter_traces(tmp_path / "out")
    assert (trace.header.config["limits"]["max_turns"], trace.header.config["limits"]["max_images"]) == (7, 9)
    assert trace.header.config["reward"]["gate"] == "immediate"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "exactly one of --env and --tasks, but neither"),
        (["--env", "PyVision/ImageQA-v0", "--tasks", "x.json"], "but both came"),
        (["--env", "PyVision/Nothing-v0"], "known ones: PyVision/ImageQA-v0"),
        (["--tasks", "nowhere.json"], "nowhere.json"),
        (["--env", "PyVision/ImageQA-v0", "--agent", "openai"], "needs --model"),
        (["--env", "PyVision/ImageQA-v0", "--model", "m"], "belong to --agent openai"),
        (["--env", "PyVision/ImageQA-v0", "--agent", "mine"], "module:Class"),
        (["--env", "PyVision/ImageQA-v0", "--agent", "no_such_module:Agent"], "cannot be imported"),
        (["--env", "PyVision/ImageQA-v0", "--agent", "nothing.py:Agent"], "no file nothing.py"),
        (["--env", "PyVision/ImageQA-v0", "--agent", "json:nothing"], "nothing of that name"),
        (["--env", "PyVision/ImageQA-v0", "--agent", "AGENTS:constant"], "cannot be called"),
        (["--env", "PyVision/ImageQA-v0", "--agent", "AGENTS:NoAgent"], "a method act(context)"),
        (["--env", "PyVision/ImageQA-v0", "--set", "max_turns"], "--set expects NAME=VALUE"),
        (["--env", "PyVision/ImageQA-v0", "--set", "max_turn=3"], "did you mean max_turns"),
        (["--env", "PyVision/ImageQA-v0", "--set", "max_turns=none"], "max_turns"),
    ],
)
def test_what_is_wrong_is_said_in_one_paragraph(options, says, agents, tmp_path):
    options = [option.replace("AGENTS", str(agents)) for option in options]
    result = invoke(*options, "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert says in result.stderr and "Traceback" not in result.stderr


def test_ctrl_c_leaves_the_finished_episodes_and_a_summary(tasks, agents, tmp_path):
    out = tmp_path / "out"
    command = [PROGRAM, "run", *LOCAL, "--tasks", str(tasks), "--agent", f"{agents}:Slow", "--samples", "50"]
    command += ["--concurrency", "2", "--out", str(out), "--json"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        # A test run in the background inherits an ignored interrupt, and a terminal's Ctrl-C is what is tested.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while sum(trace.complete for trace in _readable(out)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    report = json.loads(stdout)
    assert report["interrupted"] is True and 2 <= report["episodes"] < 500 and report["accuracy"] == 1.0
    assert json.loads((out / "summary.json").read_text())["episodes"] == report["episodes"]


def _readable(out: Path):
    return list(iter_traces(out)) if (out / "episodes").is_dir() and not _torn(out) else []


def _torn(out: Path) -> bool:
    """Whether a header is being written just now."""
    return any(not path.read_bytes().endswith(b"\n") for path in (out / "episodes").glob("*.jsonl"))
