"""What a page is made of, read from traces of any origin; no browser is needed for that."""

from __future__ import annotations

from pathlib import Path

import pytest
from hand_made import Episode, answer_step, record

from pyvision_env.report import write_page
from pyvision_env.report.pictures import PictureBook
from pyvision_env.report.view import EpisodeView, episode_view, summary
from pyvision_env.trace import read_trace


def shown(path: Path) -> EpisodeView:
    return episode_view(read_trace(path), PictureBook(100))


@pytest.mark.parametrize(
    ("config", "sandbox"),
    [
        ({"sandbox": {"kind": "docker"}}, "docker"),
        ({"sandbox": "docker"}, "docker"),
        ({"sandbox": ["docker"]}, "['docker']"),
        ({"sandbox": None}, None),
        ({}, None),
    ],
)
def test_a_header_of_any_shape_of_configuration_is_shown(tmp_path: Path, config: object, sandbox: str | None) -> None:
    path = record(tmp_path, Episode(steps=[answer_step("A", True)], correct=True, header={"config": config}))
    assert dict(shown(path).facts).get("Sandbox") == sandbox
    write_page(tmp_path, tmp_path / "page.html")


def test_a_score_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    step = answer_step("A", True)
    step.info = {**step.info, "score": "very high"}
    record(tmp_path, Episode(steps=[step], correct=True))
    assert "very high" not in write_page(tmp_path, tmp_path / "page.html").read_text()


def test_an_episode_whose_task_was_wrong_is_not_graded_and_says_so(tmp_path: Path) -> None:
    failed = shown(record(tmp_path, Episode("a", end="task_error", error="the reference is no number")))
    lost = shown(record(tmp_path, Episode("b", end="infrastructure", error="the engine is gone")))
    assert (failed.status, failed.failure) == ("failed", "task error")
    assert (lost.status, lost.failure) == ("failed", "infrastructure failure")
    assert "The task is wrong: the reference is no number" in failed.notes
    assert "Infrastructure failed: the engine is gone" in lost.notes
    assert {name: note for name, _, note in summary([failed, lost]).figures}["Episodes"] == "0 graded"
    assert ">task error</span>" in write_page(tmp_path, tmp_path / "page.html").read_text()


def test_files_that_are_left_out_are_told(tmp_path: Path) -> None:
    record(tmp_path, Episode())
    (tmp_path / "episodes" / "torn.jsonl").write_text("{")
    told: list[str] = []
    page = write_page(tmp_path, tmp_path / "page.html", on_unreadable=told.append)
    (problem,) = told
    assert "torn.jsonl, line 1" in problem and "torn.jsonl" in page.read_text()
