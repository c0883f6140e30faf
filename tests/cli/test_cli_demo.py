"""The demo: real questions, real code in a real sandbox, traces and a page; and the commands that take them up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pyvision_env.agents import ReferenceAgent
from pyvision_env.cli.app import app
from pyvision_env.trace import iter_traces, read_trace

PROGRAM = str(Path(sys.executable).with_name("pyvision-env"))


def invoke(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("demo")
    command = [PROGRAM, "demo", "--sandbox", "local", "--out", str(out), "--json"]
    return out, subprocess.run(command, capture_output=True, text=True, cwd=out)


def test_a_photo_a_clip_and_a_search_are_answered_as_expected(demo):
    _, done = demo
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert report["sandbox"]["kind"] == "local" and report["sandbox"]["guarantees"]["network"] is True
    assert [episode["data_source"] for episode in report["episodes"]] == [
        "demo_image",
        "demo_video",
        "synthetic_search",
    ]
    for episode in report["episodes"]:
        assert episode["correct"] and episode["as_expected"] and episode["failed_calls"] == 0
        assert episode["episode_return"] == pytest.approx(1 + 0.1 * episode["tool_calls"])
    assert "demo-video" in done.stderr, "progress goes to standard error"


def test_its_traces_and_page_hold_the_episodes(demo):
    out, done = demo
    page = Path(json.loads(done.stdout)["page"]).read_text(encoding="utf-8")
    traces = list(iter_traces(out))
    assert len(traces) == 3 and all(trace.complete for trace in traces)
    assert all(trace.header.task_id in page for trace in traces)
    # The one address that stands in a page is that of the demo's own policy, never a place to load from.
    assert 'src="http' not in page and 'href="http' not in page


def test_the_terminal_shows_code_results_rewards_and_the_isolation(tmp_path):
    result = invoke("demo", "--sandbox", "local", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    for shown in (
        "Sandbox: local, confinement",
        "keeps apart: network",
        "does not give:",
        "The astronaut wears a round mission patch",
        "C. violet-blue",
        "from scipy import ndimage",
        "finding: violet-blue",
        "TAXI: 4 letters",
        "reward 1.2 (accuracy 1, tool 0.2)",
        "3 of 3 answered as expected",
        f"file://{tmp_path}/index.html",
    ):
        assert shown in result.stdout, shown


def test_a_wrong_answer_exits_with_1(tmp_path, monkeypatch):
    monkeypatch.setattr(ReferenceAgent, "act", lambda self, context: r"<answer>\boxed{nothing}</answer>")
    result = invoke("demo", "--sandbox", "local", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert "0 of 3 answered as expected" in result.stdout and "expected C" in result.stdout


def test_view_writes_the_page_of_a_folder(demo, tmp_path):
    out, _ = demo
    result = invoke("view", str(out), "--out", str(tmp_path / "all.html"), "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert Path(report["page"]).stat().st_size == report["bytes"] > 10_000
    assert invoke("view", str(out)).stdout.strip() == (out / "index.html").as_uri()


def test_replay_of_a_folder_comes_out_as_recorded(demo):
    out, _ = demo
    result = invoke("replay", str(out), "--sandbox", "local", "--json")
    assert result.exit_code == 0, result.output
    reports = json.loads(result.stdout)
    assert len(reports) == 3 and all(report["matches"] and report["turns"] >= 3 for report in reports)


def test_replay_of_a_trace_that_says_otherwise_exits_with_1_and_a_table(demo):
    out, _ = demo
    source = next(trace.path for trace in iter_traces(out) if "search" in trace.header.task_id)
    changed = source.with_name("changed.jsonl")
    changed.write_text(source.read_text().replace("finding: ", "found: ", 1).replace('"reward":1.2', '"reward":1.3'))
    try:
        assert read_trace(changed).complete
        result = invoke("replay", str(changed), "--sandbox", "local")
    finally:
        changed.unlink()
    assert result.exit_code == 1
    assert "0 of 1 episode(s) came out as recorded" in result.stdout
    assert "reward" in result.stdout and "text" in result.stdout


def test_replay_of_nothing_is_a_users_error(tmp_path):
    result = invoke("replay", str(tmp_path / "none.jsonl"))
    assert result.exit_code == 2 and "none.jsonl" in result.stderr
