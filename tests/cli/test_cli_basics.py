"""The application as a whole: help, version, exit codes, errors as one paragraph."""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import pyvision_env
from pyvision_env.cli import console
from pyvision_env.cli.app import app
from pyvision_env.errors import TraceError

COMMANDS = ("demo", "doctor", "sandbox", "run", "view", "replay")
PROGRAM = str(Path(sys.executable).with_name("pyvision-env"))


def invoke(*arguments: str):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def test_help_names_every_command_and_the_exit_codes():
    result = invoke("--help")
    assert result.exit_code == 0
    assert all(f" {command} " in result.stdout for command in COMMANDS)
    meanings = ("0 all well", "1 the result is not as wanted", "2 wrong usage", "3 the infrastructure", "4 internal")
    for meaning in meanings:
        assert meaning in result.stdout


@pytest.mark.parametrize("command", [*COMMANDS, "sandbox build", "sandbox check"])
def test_every_command_has_help(command):
    result = invoke(*command.split(), "--help")
    assert result.exit_code == 0 and "Usage" in result.stdout


def test_version():
    assert invoke("--version").stdout == f"pyvision-env {pyvision_env.__version__}\n"


@pytest.mark.parametrize(
    "wrong",
    [
        ["dmeo"],
        ["run", "--limit", "0"],
        ["run", "--env", "PyVision/ImageQA-v0", "--sandbox", "local", "--seed", "-5"],
        ["view"],
        ["--no-such-flag"],
    ],
)
def test_wrong_usage_exits_with_2(wrong):
    assert invoke(*wrong).exit_code == 2


def test_a_users_error_is_one_paragraph_on_stderr_and_exits_with_2(tmp_path):
    result = invoke("view", str(tmp_path / "nothing"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


def test_debug_lets_the_error_through(tmp_path):
    result = invoke("--debug", "view", str(tmp_path / "nothing"))
    assert isinstance(result.exception, TraceError)


def test_what_nobody_raised_on_purpose_is_an_internal_error_and_exits_with_4(tmp_path, monkeypatch):
    def broken(*_arguments, **_options):
        raise ZeroDivisionError("division by [zero]")

    monkeypatch.setattr("pyvision_env.trace.read.find_traces", broken)
    result = invoke("view", str(tmp_path))
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr.startswith("Internal error: ZeroDivisionError: division by [zero]. ")
    assert "--debug" in result.stderr and "Traceback" not in result.stderr
    assert isinstance(invoke("--debug", "view", str(tmp_path)).exception, ZeroDivisionError)


def test_output_that_no_encoding_holds_is_escaped_not_lost():
    value = {"answer": "half \ud83d é", "path": Path("x")}
    assert json.loads(console.to_json(value)) == {"answer": "half \ud83d é", "path": "x"}
    assert console.to_json({"answer": "é"}) == '{\n  "answer": "é"\n}\n'
    assert "\\u00e9" in console.to_json({"answer": "é"}, "ascii")
    program = "from pyvision_env.cli import console; console.out().print('half \\ud83d'); console.print_json('\\ud83d')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b'half \\ud83d\n"\\ud83d"\n'


@pytest.mark.parametrize(
    "command",
    [
        ["demo", "--sandbox", "docker"],
        ["run", "--env", "PyVision/ImageQA-v0", "--sandbox", "docker", "--limit", "1"],
        ["sandbox", "check"],
        ["sandbox", "build"],
        ["doctor", "--sandbox", "docker"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_missing_engine_exits_with_3(command, tmp_path):
    environment = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/no-engine.sock"}
    out = ["--out", str(tmp_path / "out")] if command[0] in ("demo", "run") else []
    done = subprocess.run([PROGRAM, *command, *out], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "engine" in done.stderr + done.stdout


def test_an_unknown_sandbox_is_a_users_error():
    result = invoke("demo", "--sandbox", "dokcer")
    assert result.exit_code == 2
    assert "dokcer" in result.stderr and "docker-strict" in result.stderr


def test_help_starts_fast_and_loads_nothing_heavy():
    heavy = ["PIL", "av", "docker", "jinja2", "matplotlib", "openai", "pyarrow", "pydantic", "scipy"]
    code = f"import sys, pyvision_env.cli.app\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([PROGRAM, "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time, because other programs of this machine decide the wall time.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


@pytest.mark.docker
def test_sandbox_check_and_build_tell_about_the_image(sandbox_image):
    checked = invoke("sandbox", "check", "--json")
    assert checked.exit_code == 0, checked.stderr
    assert json.loads(checked.stdout)["worker"] == sandbox_image.worker
    assert "holds this package's worker" in invoke("sandbox", "check").stdout
    built = invoke("sandbox", "build", "--json")
    assert built.exit_code == 0, built.stderr
    assert json.loads(built.stdout)["worker"] == sandbox_image.worker
    assert "building pyvision-sandbox" in built.stderr


@pytest.mark.docker
def test_sandbox_check_of_a_missing_image_names_the_command_that_builds_it(docker_client):
    result = invoke("sandbox", "check", "--name", "no-such-image")
    assert result.exit_code == 3
    assert "pyvision-env sandbox build" in result.stderr


def test_a_command_leaves_the_loggers_of_its_process_as_they_were() -> None:
    logger = logging.getLogger("pyvision_env.test_of_quiet")
    logger.setLevel(logging.INFO)
    with console.quiet(logger.name):
        assert not logger.isEnabledFor(logging.WARNING)
        assert logger.isEnabledFor(logging.ERROR)
    assert logger.level == logging.INFO
    logger.setLevel(logging.DEBUG)
    with console.quiet(logger.name):
        assert logger.isEnabledFor(logging.WARNING), "--debug asked for them"
