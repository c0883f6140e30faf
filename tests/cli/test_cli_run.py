"""``pyvision-env run`` with the local sandbox: tasks, agents, figures, interruption."""

from __future__ import annotations

import contextlib
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
from pyvision_env.errors import TraceError
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
    deadline = time.monotonic() + 200
    while sum(trace.complete for trace in _readable(out)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    report = json.loads(stdout)
    assert report["interrupted"] is True and 2 <= report["episodes"] < 500 and report["accuracy"] == 1.0
    assert report["episodes"] == sum(trace.complete for trace in iter_traces(out))
    assert json.loads((out / "summary.json").read_text())["episodes"] == report["episodes"]


def _readable(out: Path):
    """The traces, or none while a header is being written."""
    with contextlib.suppress(TraceError):
        return list(iter_traces(out))
    return []


BROKEN = {
    "syntax.py": "class Agent:\n    def act(self, context)\n",
    "missing.py": "import sys\nimport no_such_package\n",
    "divides.py": "x = 1\n\ny = 1 / 0\n",
    "exits.py": "import sys\nsys.exit(0)\n",
    "demanding.py": "class Agent:\n    name = 'a'\n    def __init__(self, model):\n        self.model = model\n",
    "unmade.py": "class Agent:\n    name = 'a'\n    def __init__(self):\n        raise KeyError('weights')\n",
    "fails.py": "class Agent:\n    name = 'a'\n    def act(self, context):\n        raise RuntimeError('no [idea]')\n",
    "silent.py": "class Agent:\n    name = 'a'\n    def act(self, context):\n        pass\n",
}


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("syntax.py", ["SyntaxError", "line 2"]),
        ("missing.py", ["no_such_package", "line 2"]),
        ("divides.py", ["ZeroDivisionError: division by zero", "line 3"]),
        ("exits.py", ["SystemExit", "line 2"]),
        ("demanding.py", ["without arguments", "missing 1 required positional argument: 'model'"]),
        ("unmade.py", ["KeyError: 'weights'", "line 4"]),
        ("fails.py", ["in its turn 1: RuntimeError: no [idea]", "line 4"]),
        ("silent.py", ["must return text (str), but NoneType came"]),
    ],
)
def test_a_fault_of_an_own_agent_is_told_with_its_name_and_line(file, says, tasks, tmp_path, monkeypatch):
    (tmp_path / file).write_text(BROKEN[file])
    monkeypatch.chdir(tmp_path)
    forms = [f"{tmp_path / file}:Agent", f"{file.removesuffix('.py')}:Agent"]
    # How it was found no longer matters once it acts.
    for agent in forms[: 1 if file in ("fails.py", "silent.py") else 2]:
        monkeypatch.delitem(sys.modules, file.removesuffix(".py"), raising=False)
        result = invoke("--tasks", tasks, "--limit", 1, "--agent", agent, "--out", tmp_path / "out", "--resume")
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.stderr
        for text in (agent, *says, *([file] if "line" in says[-1] else [])):
            assert text in result.stderr, text


def test_an_agent_that_fails_in_the_middle_does_not_lose_the_summary(tasks, tmp_path):
    (tmp_path / "tired.py").write_text(
        "class Tired:\n    name = 'tired'\n    episodes = 0\n    def act(self, context):\n"
        "        self.episodes += 1\n        if self.episodes == 3:\n            raise RuntimeError('tired')\n"
        "        return '<answer>B</answer>'\n"
    )
    options = ["--agent", f"{tmp_path / 'tired.py'}:Tired", "--concurrency", 1, "--out", tmp_path / "out"]
    result = invoke("--tasks", tasks, *options, "--json")
    assert result.exit_code == 2 and "RuntimeError: tired" in result.stderr
    for report in (json.loads(result.stdout), json.loads((tmp_path / "out" / "summary.json").read_text())):
        assert (report["episodes"], report["accuracy"], report["interrupted"]) == (2, 1.0, False)
        assert "RuntimeError: tired" in report["error"]


def test_lone_surrogates_of_tasks_answers_and_agents_survive_into_json_and_summary(tmp_path):
    # As escapes of JSON in the task file, and of Python in the agent's source.
    (tmp_path / "tasks.json").write_text('[{"id": "q\\ud83d", "question": "Which?", "answer": "b\\ud83d"}]')
    (tmp_path / "half.py").write_text(
        "class Half:\n    name = 'h\\ud83d'\n    def act(self, context):\n        return '<answer>b\\ud83d</answer>'\n"
    )
    options = ["--tasks", tmp_path / "tasks.json", "--agent", f"{tmp_path / 'half.py'}:Half"]
    result = invoke(*options, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    (episode,) = json.loads(result.stdout)["results"]
    assert (episode["task_id"], episode["agent"], episode["answer"]) == ("q\ud83d", "h\ud83d", "b\ud83d")
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["accuracy"] == 1.0


def test_a_failed_task_with_a_lone_surrogate_is_printed(tmp_path):
    (tmp_path / "no.png").write_text("no image")
    record = {"id": "q\ud83d", "question": "Which?", "answer": "b", "images": ["no.png"]}
    (tmp_path / "tasks.json").write_text(json.dumps([record]))
    result = invoke("--tasks", tmp_path / "tasks.json", "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert "not counted q\\ud83d" in result.stdout
    (failure,) = json.loads((tmp_path / "out" / "summary.json").read_text())["failures"]
    assert (failure["task_id"], failure["end_reason"]) == ("q\ud83d", "task_error")


def test_a_wrong_task_exits_with_2_and_beside_a_failed_server_with_3(tasks, agents, tmp_path):
    records = json.loads(tasks.read_text())
    (tmp_path / "no.png").write_text("no image")
    records[0]["images"] = ["no.png"]
    tasks.write_text(json.dumps(records))
    options = ["--tasks", tasks, "--limit", 2]
    assert invoke(*options, "--agent", f"{agents}:Dog", "--out", tmp_path / "a").exit_code == 2
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["counted"] == 1
    assert invoke(*options, "--agent", f"{agents}:Gone", "--out", tmp_path / "b").exit_code == 3


def test_tasks_for_a_judge_are_refused_before_anything_starts(tasks, agents, tmp_path):
    records = json.loads(tasks.read_text())
    records[7]["grader"] = "judge"
    tasks.write_text(json.dumps(records))
    result = invoke("--tasks", tasks, "--agent", f"{agents}:Dog", "--out", tmp_path / "out")
    assert result.exit_code == 2 and "1 of 10 task(s)" in result.stderr and "'q7'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_a_run_is_not_mixed_with_another(tasks, agents, tmp_path):
    options = ["--tasks", tasks, "--agent", f"{agents}:Dog", "--limit", 1, "--out", tmp_path / "out"]
    assert invoke(*options).exit_code == 0
    again = invoke(*options)
    assert again.exit_code == 2
    assert "holds 1 episode(s) of an earlier run" in again.stderr and "--resume" in again.stderr
    assert len(list(iter_traces(tmp_path / "out"))) == 1
    assert invoke(*options, "--resume").exit_code == 0


@pytest.mark.parametrize("command", ["run", "demo"])
def test_an_output_that_is_a_file_is_told_in_one_paragraph(command, tmp_path):
    (tmp_path / "file").write_text("mine")
    options = ["--env", "PyVision/ImageQA-v0", "--limit", "1"] if command == "run" else []
    result = CliRunner().invoke(app, [command, *LOCAL, *options, "--out", str(tmp_path / "file")])
    assert result.exit_code == 2 and str(tmp_path / "file") in result.stderr.replace("\n", "")
    assert (tmp_path / "file").read_text() == "mine"


def test_resume_does_not_take_the_grade_of_other_options(tasks, tmp_path):
    (tmp_path / "dog.py").write_text(
        "class Dog:\n    name = 'd'\n    def act(self, context):\n        return '<answer>a dog</answer>'\n"
    )
    options = ["--tasks", tasks, "--limit", 1, "--agent", f"{tmp_path / 'dog.py'}:Dog", "--out", tmp_path / "out"]
    options.append("--json")
    assert json.loads(invoke(*options).stdout)["accuracy"] == 1.0
    tasks.write_text(tasks.read_text().replace('["a cat", "a dog"]', '["a dog", "a cat"]'))
    assert json.loads(invoke(*options, "--resume").stdout)["accuracy"] == 0.0
