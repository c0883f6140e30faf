"""Emptying a directory that somebody hostile has filled."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from pyvision_env.sandbox.worker.cleaning import empty_directory


@pytest.fixture
def slot(tmp_path: Path) -> Path:
    made = tmp_path / "slot"
    made.mkdir()
    return made


def test_files_folders_and_hidden_ones_are_removed_but_not_the_directory(slot: Path) -> None:
    (slot / "a" / "b" / "c").mkdir(parents=True)
    (slot / "a" / "b" / "f").write_text("x")
    (slot / ".hidden").write_text("x")
    empty_directory(slot)
    assert list(slot.iterdir()) == []


def test_links_are_removed_and_never_followed(slot: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    (tmp_path / "precious").write_text("kept")
    (slot / "d").mkdir()
    for link in (slot / "l", slot / "d" / "l"):
        link.symlink_to(outside)
    (slot / "f").symlink_to(tmp_path / "precious")
    (slot / "up").symlink_to("..")
    (slot / "loop").symlink_to("loop")
    (slot / "d" / "dangling").symlink_to("/no/such/path")
    empty_directory(slot)
    assert list(slot.iterdir()) == []
    assert (tmp_path / "precious").read_text() == "kept"
    assert outside.stat().st_mode & 0o777 == 0o500


def test_a_tree_deeper_than_any_path_is_removed(slot: Path) -> None:
    here = os.open(slot, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=here)
        inner = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    empty_directory(slot)
    assert list(slot.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user to be")
def test_closed_folders_are_removed_by_their_ordinary_owner() -> None:
    slot = Path(tempfile.mkdtemp(dir="/var/tmp"))
    os.chown(slot, 65534, 65534)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            for name in ("a", "b"):
                (slot / name / "inner" / "most").mkdir(parents=True)
                (slot / name / "inner" / "file").write_text("x")
                for path in (slot / name / "inner" / "most", slot / name / "inner", slot / name):
                    path.chmod(0)
            empty_directory(slot)
            code = len(list(slot.iterdir()))
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    slot.rmdir()


def test_names_of_every_kind_are_removed(slot: Path) -> None:
    for name in (b"\xff\xfe", b"a\nb", b"-rf", b"n" * 255, b" ", b".moved-1"):
        (slot / os.fsdecode(name) / os.fsdecode(name)).mkdir(parents=True)
    empty_directory(slot)
    assert list(slot.iterdir()) == []


def test_odd_files_are_removed_without_being_opened(slot: Path) -> None:
    os.mkfifo(slot / "fifo")
    (slot / "d").mkdir()
    os.mkfifo(slot / "d" / "fifo")
    empty_directory(slot)
    assert list(slot.iterdir()) == []
