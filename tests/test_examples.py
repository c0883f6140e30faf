"""The examples run as their first lines say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


def test_standalone_answers_a_question_by_hand(tmp_path):
    done = run(str(EXAMPLES / "standalone.py"), "local", cwd=tmp_path)
    assert "answered, correct: True, return 1.2" in done.stdout


def test_an_own_agent_answers_the_questions_it_knows_a_trick_for(tmp_path):
    agent = f"{EXAMPLES / 'own_agent.py'}:ColourAgent"
    arguments = ["run", "--env", "PyVision/ImageQA-v0", "--agent", agent, "--sandbox", "local", "--json"]
    program = "from pyvision_env.cli import main; main()"
    report = json.loads(run("-c", program, *arguments, "--out", str(tmp_path), cwd=tmp_path).stdout)
    correct = {result["task_id"] for result in report["results"] if result["correct"]}
    assert report["failed_call_ratio"] == 0
    assert "demo-image-flower" in correct


def test_every_example_is_a_page():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 60, path
