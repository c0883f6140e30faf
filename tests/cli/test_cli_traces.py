"""``view`` and ``replay`` where traces are missing or damaged: everything is told, and never with exit code 0."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pyvision_env.cli.app import app

AGENT = """
class Looker:
    name = "looker"
    def act(self, context):
        return "<answer>B</answer>" if context.turns else "<code>print('seen')</code>"
"""


def invoke(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the traces of three episodes: q0, q1 and q2."""
    home = tmp_path_factory.mktemp("recorded")
    records = [{"id": f"q{i}", "question": "Which?", "options": ["cat", "dog"], "answer": "B"} for i in range(3)]
    (home / "tasks.json").write_text(json.dumps(records))
    (home / "looker.py").write_text(AGENT)
    command = ["run", "--tasks", home / "tasks.json", "--agent", f"{home / 'looker.py'}:Looker", "--sandbox", "local"]
    result = invoke(*command, "--out", home / "out")
    assert result.exit_code == 0, result.output
    return home / "out"


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "traces"))


def replay(source: Path, *options: str):
    return invoke("replay", source, "--sandbox", "local", *options)


@pytest.mark.parametrize("command", ["view", "replay"])
def test_a_folder_without_traces_is_a_users_error(command, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    result = invoke(command, tmp_path / "empty")
    assert (result.exit_code, result.stdout) == (2, "") and "found none" in result.stderr
    assert not (tmp_path / "empty" / "index.html").exists()
    result = invoke(command, folder / "episodes")
    assert result.exit_code == 2 and f"did you mean {folder}?" in result.stderr.replace("\n", "")


def test_a_corrupt_line_and_a_line_after_the_end_are_told_and_exit_with_1(folder):
    middle, after = (folder / "episodes" / f"q{i}-0.jsonl" for i in (0, 1))
    lines = middle.read_bytes().splitlines()
    middle.write_bytes(b"\n".join([*lines[:2], b"{oops", *lines[3:]]) + b"\n")
    after.write_bytes(after.read_bytes() + lines[-1] + b"\n")
    result = replay(middle)
    assert result.exit_code == 1, result.output
    assert "0 of 1 episode(s) came out as recorded" in result.stdout
    assert "q0-0.jsonl, line 3: not a line of JSON" in result.stdout
    result = replay(folder, "--json")
    reports = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [report["matches"] for report in reports] == [False, False, True]
    damage = [str(report["damaged"]) for report in reports]
    assert damage[0].startswith("line 3: not a line of JSON")
    assert damage[1:] == ["line 5: expected nothing after the end line", "None"]


def test_traces_that_cannot_be_replayed_do_not_keep_the_others_from_it(folder):
    unreadable, impossible = (folder / "episodes" / f"q{i}-0.jsonl" for i in (0, 1))
    unreadable.write_text("{\n")
    impossible.write_text(impossible.read_text().replace('"max_turns":4', '"max_turns":-4'))
    result = replay(folder)
    assert result.exit_code == 2, result.output
    assert "1 of 3 episode(s) came out as recorded (2 turns)" in result.stdout
    assert "q0-0.jsonl, line 1" in result.stdout and "configuration cannot be used" in result.stdout


def test_a_sandbox_that_cannot_start_still_reports_what_came_before(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    (folder / "episodes" / "q0-0.jsonl").write_text("{\n")
    result = invoke("replay", folder, "--sandbox", "docker", "--json")
    assert result.exit_code == 3
    (report,) = json.loads(result.stdout)
    assert (report["episode_id"], report["matches"], report["turns"]) == ("q0-0", False, 0)
    assert "line 1" in report["error"] and "Stopped after 1 of 3" in result.stderr


def test_an_unknown_sandbox_ends_the_replay_at_once(folder):
    result = invoke("replay", folder, "--sandbox", "dokcer")
    assert result.exit_code == 2 and "docker-strict" in result.stderr


def test_view_names_the_traces_it_leaves_out_and_exits_with_1(folder):
    (folder / "episodes" / "q0-0.jsonl").write_text("{\n")
    result = invoke("view", folder, "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 1 and "Left out" in result.stderr and "q0-0.jsonl, line 1" in result.stderr
    assert report["episodes"] == 2 and len(report["unreadable"]) == 1
    assert "q0-0.jsonl" in Path(report["page"]).read_text(encoding="utf-8")


def test_view_of_nothing_but_unreadable_traces_is_an_error(folder):
    for path in (folder / "episodes").iterdir():
        path.write_text("{\n")
    result = invoke("view", folder)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "None of the 3 trace(s)" in result.stderr and "q0-0.jsonl, line 1" in result.stderr
