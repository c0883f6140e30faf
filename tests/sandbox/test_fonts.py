"""The list of fonts that local workers share: made once for each matplotlib, and who waits for it is told."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from pyvision_env.errors import SandboxStartError
from pyvision_env.sandbox import local


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """An empty cache, and what is run to fill it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run: list[list[str]] = []

    def list_fonts(command: list[str], env: dict[str, str], **options: Any) -> None:
        run.append(command)
        (Path(env["MPLCONFIGDIR"]) / "fontlist-v1.json").write_text("{}")

    monkeypatch.setattr(subprocess, "run", list_fonts)
    return run


def test_fonts_are_listed_once_for_each_matplotlib(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = local._font_cache()
    assert first.is_relative_to(tmp_path)
    assert local._font_cache() == first
    assert len(commands) == 1
    monkeypatch.setattr(local.metadata, "version", lambda name: "99.0")
    other = local._font_cache()
    assert other != first
    assert len(commands) == 2


def test_a_machine_that_does_not_list_its_fonts_in_time_is_told_what_to_run(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(command: list[str], timeout: float, **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(SandboxStartError, match=r"within 300 s; run once by hand: MPLCONFIGDIR="):
        local._font_cache()
    assert commands == []
