"""Every way of asking for a frame gives the frame that decoding the whole file in order shows at that number."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from barcode_clips import RECIPES, decode_in_order, read_number

from pyvision_env.sandbox.worker import video_decode
from pyvision_env.sandbox.worker.video import VideoReader

Clip = Callable[[str], Path]

# What a file shows where that is not simply cards 0 to 89; frames lost to a cut are no frames of the file.
_SHOWN = {
    "one_frame.mp4": range(1),
    "two_keyless_seconds.mp4": range(60),
    "pictures.gif": range(30),
    "cut.mp4": range(45, 90),
    "cut_open_gop.mp4": range(45, 90),
    "trimmed_end.mp4": range(45),
    "cut.ts": range(30, 90),
    "cut_open_gop.ts": range(30, 90),
    "cut_mid_gop.ts": range(60, 90),
}
_UPRIGHT = [name for name in RECIPES if not name.startswith(("turned", "truncated"))]


def _assert_same(got: object, expected: np.ndarray, number: int) -> None:
    assert np.array_equal(np.asarray(got), expected), f"frame {number} differs from decoding in order"


@pytest.mark.parametrize("name", RECIPES)
def test_frames_equal_sequential_decoding(clip: Clip, name: str) -> None:
    path = clip(name)
    truth = decode_in_order(path)
    count = len(truth)
    dice = random.Random(name)
    assert len(VideoReader(path)) == count

    shuffled = VideoReader(path)
    for number in dice.sample(range(count), count):
        _assert_same(shuffled[number], truth[number], number)
    for stride in (1, 4):
        ascending = VideoReader(path)
        for number in range(0, count, stride):
            _assert_same(ascending[number], truth[number], number)
    batches = VideoReader(path)
    for size in (2, 5, 16):
        for _ in range(6):
            wanted = [dice.randrange(count) for _ in range(size)]
            for number, frame in zip(wanted, batches.get_batch(wanted).asnumpy(), strict=True):
                _assert_same(frame, truth[number], number)


@pytest.mark.parametrize("name", _UPRIGHT)
def test_frames_show_the_numbers_they_were_given(clip: Clip, name: str) -> None:
    reader = VideoReader(clip(name))
    assert [read_number(frame) for frame in reader] == list(_SHOWN.get(name, range(90)))


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("truncated")])
def test_truncated_file_gives_what_is_decodable(clip: Clip, name: str) -> None:
    numbers = [read_number(frame) for frame in VideoReader(clip(name))]
    # In Matroska the last, cut cluster may lack one frame just before its end.
    assert 30 <= len(numbers) < 90
    assert numbers[:-1] == list(range(len(numbers) - 1))


@pytest.mark.parametrize(("name", "turns"), [("turned_90.mp4", 1), ("turned_180.mp4", 2), ("turned_270.mp4", 3)])
def test_rotation_metadata_is_applied(clip: Clip, name: str, turns: int) -> None:
    reader = VideoReader(clip(name))
    height, width = np.rot90(np.empty((96, 160)), turns).shape
    assert (reader.info()["width"], reader.info()["height"]) == (width, height)
    assert reader[3].shape == (height, width, 3)
    assert read_number(np.rot90(reader[3].asnumpy(), -turns)) == 3


@pytest.mark.parametrize("name", ["bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4"])
def test_filmed_clips_equal_sequential_decoding(filmed: Clip, name: str) -> None:
    path = filmed(name)
    truth = decode_in_order(path)
    reader = VideoReader(path)
    assert len(reader) == len(truth)
    wanted = random.Random(name).sample(range(len(truth)), 20)
    for number, frame in zip(wanted, reader.get_batch(wanted), strict=True):
        _assert_same(frame, truth[number], number)


@pytest.mark.parametrize("name", [name for name in _UPRIGHT if name not in ("raw.h264", "mpeg2.mpg")])
def test_seeking_lands_where_the_index_says(clip: Clip, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    original = video_decode._Run.__init__

    def record(self: video_decode._Run, opened: object, index: object, key: object, skips: bool) -> None:
        begun.append(key)
        original(self, opened, index, key, skips)  # type: ignore[arg-type]

    monkeypatch.setattr(video_decode._Run, "__init__", record)
    reader = VideoReader(clip(name))
    numbers = list(range(len(reader)))[::-7]
    for number in numbers:
        reader[number]
    assert len(begun) == len(numbers), "a frame needed more than one attempt"
