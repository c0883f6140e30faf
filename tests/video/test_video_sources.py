"""Videos come from paths, bytes and descriptors; what is no video gets one clear line."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from barcode_clips import read_number, write_sound
from PIL import Image

from pyvision_env.sandbox.worker.video import DescriptorFile, VideoError, VideoReader

Clip = Callable[[str], Path]
_EVERY_KIND = ["plain.mp4", "vp9.webm", "plain.ts", "mpeg4_b_frames.avi", "fragmented.mp4", "cut.mp4"]


@contextmanager
def _descriptor(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", _EVERY_KIND)
def test_descriptor_and_bytes_give_the_frames_of_the_path(clip: Clip, name: str) -> None:
    path = clip(name)
    by_path = VideoReader(path)
    wanted = list(range(len(by_path)))[::-5]
    expected = by_path.frames(wanted)
    with _descriptor(path) as fd, path.open("rb") as file:
        for source in (DescriptorFile(fd), path.read_bytes(), io.BytesIO(path.read_bytes()), file, by_path):
            assert np.array_equal(VideoReader(source).frames(wanted), expected)


def test_two_readers_of_one_descriptor_do_not_disturb_each_other(clip: Clip) -> None:
    with _descriptor(clip("plain.mp4")) as fd:
        first, second = VideoReader(DescriptorFile(fd)), VideoReader(DescriptorFile(fd))
        for number in range(0, 45, 3):
            assert read_number(first[number]) == number
            assert read_number(second[89 - number]) == 89 - number
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0


def test_closing_a_reader_leaves_the_callers_descriptor_open(clip: Clip) -> None:
    with _descriptor(clip("plain.mp4")) as fd:
        reader = VideoReader(DescriptorFile(fd))
        assert read_number(reader[1]) == 1
        reader.close()
        os.fstat(fd)


def test_descriptor_file_reads_and_seeks_like_a_file(tmp_path: Path) -> None:
    path = tmp_path / "letters"
    path.write_bytes(b"abcdefgh")
    with _descriptor(path) as fd:
        file = DescriptorFile(fd)
        assert (file.read(3), file.tell()) == (b"abc", 3)
        assert (file.seek(-2, os.SEEK_CUR), file.read(2)) == (1, b"bc")
        assert (file.seek(-1, os.SEEK_END), file.read(), file.read(1)) == (7, b"h", b"")
        assert file.fresh().read() == b"abcdefgh"


def _fork(work: Callable[[], bool]) -> int:
    """A forked process that ends with 0 if ``work`` returns true there."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return child


def _ended_well(child: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


@pytest.mark.parametrize("name", _EVERY_KIND)
def test_reader_goes_on_in_parent_and_child_after_a_fork(clip: Clip, name: str) -> None:
    path = clip(name)
    with _descriptor(path) as fd:
        readers = [VideoReader(path), VideoReader(DescriptorFile(fd))]
        expected = readers[0].frames([20, 7, 40])
        for reader in readers:
            reader[12]

        def reads_in_any_order() -> bool:
            right = all(np.array_equal(reader.frames([20, 7, 40]), expected) for reader in readers)
            for reader in readers:
                reader.close()
            readers.clear()
            return right

        assert _ended_well(_fork(reads_in_any_order))
        for reader in readers:
            assert np.array_equal(reader.frames([20, 7, 40]), expected)


def test_child_reads_through_a_file_of_its_own(clip: Clip, tmp_path: Path) -> None:
    path = Path(shutil.copy(clip("plain.mp4"), tmp_path)).resolve()
    reader = VideoReader(path)
    reader[12]

    def times_open() -> int:
        return [entry.resolve() for entry in Path("/proc/self/fd").iterdir()].count(path)

    def opens_it_again() -> bool:
        inherited = times_open()
        right = read_number(reader[40]) == 40
        return right and inherited == 1 and times_open() == 2

    assert _ended_well(_fork(opens_it_again))
    assert times_open() == 1
    reader.close()
    assert times_open() == 0


def test_parent_and_child_can_read_at_the_same_time(filmed: Clip) -> None:
    reader = VideoReader(filmed("bikes.mp4"))
    wanted = list(range(0, 250, 12))[::-1]
    expected = [frame.copy() for frame in reader.frames(wanted)]

    def reads_one_by_one() -> bool:
        return all(np.array_equal(reader.frames([n])[0], right) for n, right in zip(wanted, expected, strict=True))

    child = _fork(reads_one_by_one)
    right_here = reads_one_by_one()
    assert _ended_well(child)
    assert right_here


def test_child_that_reads_and_ends_in_the_ordinary_way_does_not_hang(clip: Clip) -> None:
    program = (
        "import os, sys\n"
        "from pyvision_env.sandbox.worker.video import VideoReader\n"
        "reader = VideoReader(sys.argv[1])\n"
        "reader[5]\n"
        "child = os.fork()\n"
        "reader[50]\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else 0)\n"
    )
    command = [sys.executable, "-c", program, str(clip("plain.mp4"))]
    assert subprocess.run(command, timeout=30, check=False).returncode == 0


def _junk(folder: Path, name: str) -> Path:
    path = folder / name
    if name == "sound.mp4":
        return write_sound(path)
    if name == "picture.png":
        Image.new("RGB", (64, 64)).save(path)
        return path
    contents = {
        "empty.mp4": b"",
        "random.mp4": np.random.default_rng(0).bytes(20_000),
        "text.mp4": b"These are only words.\n" * 400,
        "playlist.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nplain.ts\n#EXT-X-ENDLIST\n",
        "list.mp4": b"ffconcat version 1.0\nfile plain.mp4\n",
    }
    path.write_bytes(contents[name])
    return path


@pytest.mark.parametrize(
    "name", ["empty.mp4", "random.mp4", "text.mp4", "playlist.mp4", "list.mp4", "picture.png", "sound.mp4"]
)
def test_what_is_no_video_gets_one_clear_line(tmp_path: Path, name: str) -> None:
    path = _junk(tmp_path, name)
    with pytest.raises(VideoError, match="has no video in it" if name == "sound.mp4" else "cannot be opened") as error:
        VideoReader(path)
    assert str(error.value).startswith(name)
    assert "\n" not in str(error.value)
    with _descriptor(path) as fd, pytest.raises(VideoError, match="clue"):
        VideoReader(DescriptorFile(fd, "clue"))


def test_missing_file_and_wrong_kind_of_source_are_named(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"none\.mp4 cannot be opened as a video: No such file"):
        VideoReader(tmp_path / "none.mp4")
    with pytest.raises(VideoError, match="not int"):
        VideoReader(7)


def test_file_whose_pictures_are_all_damaged_is_refused(clip: Clip, tmp_path: Path) -> None:
    data = bytearray(clip("faststart.mp4").read_bytes())
    begin = data.index(b"mdat") + 4
    data[begin:] = bytes(len(data) - begin)
    path = tmp_path / "blank.mp4"
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"no frame that can be decoded|cannot be read"):
        VideoReader(path)


def test_title_in_an_old_encoding_does_not_matter(clip: Clip, tmp_path: Path) -> None:
    data = clip("plain.flv").read_bytes()
    assert b"Lavf" in data
    path = tmp_path / "titled.flv"
    path.write_bytes(data.replace(b"Lavf", b"L\xe4vf"))
    assert len(VideoReader(path)) == 90


def test_damage_in_the_middle_spoils_only_what_it_hits(clip: Clip, tmp_path: Path) -> None:
    data = bytearray(clip("faststart.mp4").read_bytes())
    begin = data.index(b"mdat") + 4
    middle = begin + (len(data) - begin) // 2
    data[middle : middle + 300] = bytes(300)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    reader = VideoReader(path)
    assert len(reader) == 90
    assert [read_number(reader[number]) for number in (0, 25, 62, 89)] == [0, 25, 62, 89]
    lost = []
    for number in range(90):
        try:
            reader[number]
        except VideoError as error:
            assert str(error) == f"frame {number} cannot be decoded: damaged.mp4 is damaged there"
            lost.append(number)
    assert lost
    assert all(30 <= number < 60 for number in lost)
