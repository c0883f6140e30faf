"""The reader behaves as decord's does where decord is right, and bounds what one call may cost."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import decord
import numpy as np
import pytest
from barcode_clips import VFR_GAPS_MS, read_number
from PIL import Image

from pyvision_env.sandbox.worker.video import FrameIndexError, VideoError, VideoReader

Clip = Callable[[str], Path]


@pytest.fixture
def reader(clip: Clip) -> VideoReader:
    return VideoReader(clip("plain.mp4"))


@pytest.mark.parametrize("name", ["plain.mp4", "turned_90.mp4", "bikes.mp4"])
def test_agrees_with_decord_on_plain_files(clip: Clip, filmed: Clip, name: str) -> None:
    path = filmed(name) if name == "bikes.mp4" else clip(name)
    theirs, ours = decord.VideoReader(str(path)), VideoReader(str(path), ctx=None, num_threads=2)
    assert len(ours) == len(theirs)
    assert ours.get_avg_fps() == pytest.approx(theirs.get_avg_fps())
    assert ours.get_key_indices() == theirs.get_key_indices()
    wanted = [3, 0, 17, 3, -1]
    assert np.array_equal(ours.get_batch(wanted).asnumpy(), theirs.get_batch(wanted).asnumpy())
    assert np.array_equal(ours[-2].asnumpy(), theirs[-2].asnumpy())
    assert np.array_equal(ours[4:9:2].asnumpy(), theirs[4:9:2].asnumpy())
    assert ours.get_frame_timestamp([0, 7, -1]) == pytest.approx(theirs.get_frame_timestamp([0, 7, -1]), abs=1e-5)
    assert ours.get_frame_timestamp(7).shape == theirs.get_frame_timestamp(7).shape


def test_resizes_as_decord_does(clip: Clip) -> None:
    path = str(clip("plain.mp4"))
    theirs, ours = decord.VideoReader(path, width=80, height=60), VideoReader(path, width=80, height=60)
    assert ours[5].shape == (60, 80, 3)
    assert np.abs(ours[5].asnumpy().astype(int) - theirs[5].asnumpy()).mean() < 1
    assert (ours.info()["width"], ours.info()["height"]) == (80, 60)


def test_resizing_a_turned_video_sets_the_upright_size(clip: Clip) -> None:
    assert VideoReader(clip("turned_90.mp4"), width=48, height=80)[0].shape == (80, 48, 3)


def test_moves_through_the_video_as_decord_does(clip: Clip) -> None:
    path = str(clip("plain.mp4"))
    seen = []
    for reader in (decord.VideoReader(path), VideoReader(path)):
        numbers = []
        reader.seek_accurate(41)
        numbers += [reader.next(), reader.next()]
        reader.skip_frames(2)
        numbers += [reader.next(), reader[5], reader.next(), reader[89]]
        seen.append([read_number(frame.asnumpy()) for frame in numbers])
        with pytest.raises(StopIteration):
            reader.next()
    assert seen[0] == seen[1] == [41, 42, 45, 5, 6, 89]


def test_seek_goes_to_the_keyframe_before(reader: VideoReader) -> None:
    reader.seek(44)
    assert read_number(reader.next()) == 30


def test_frames_work_as_arrays_and_as_pictures(reader: VideoReader) -> None:
    frame = reader[8]
    assert (frame.shape, frame.dtype) == ((96, 160, 3), np.uint8)
    assert type(frame.asnumpy()) is np.ndarray
    assert type(np.asarray(frame)) is np.ndarray
    assert read_number(Image.fromarray(frame.asnumpy())) == read_number(Image.fromarray(frame)) == 8
    assert frame[10:20, 5:9].asnumpy().shape == (10, 4, 3)
    assert isinstance(frame.mean(), float)


def test_frames_given_out_are_the_callers_own(reader: VideoReader) -> None:
    reader[8].asnumpy()[:] = 0
    assert read_number(reader[8]) == 8


def test_lists_tuples_arrays_and_slices_are_batches(reader: VideoReader) -> None:
    for index in ([1, 2], (1, 2), np.array([1, 2]), slice(1, 3)):
        assert [read_number(frame) for frame in reader[index]] == [1, 2]
    assert reader.get_batch([]).shape == (0, 96, 160, 3)
    assert reader.get_batch(np.linspace(0, 89, 4).astype(int)).shape == (4, 96, 160, 3)


@pytest.mark.parametrize("index", [90, -91, 10**30])
def test_index_outside_is_both_index_error_and_video_error(reader: VideoReader, index: int) -> None:
    with pytest.raises(
        FrameIndexError, match=r"out of range: valid indices are 0 to 89 \(90 frames, 3.00 s\)"
    ) as error:
        reader[index]
    assert isinstance(error.value, IndexError)
    assert isinstance(error.value, VideoError)
    with pytest.raises(IndexError):
        reader.get_batch([0, index])


@pytest.mark.parametrize("index", [2.5, "3", None, True, [[1, 2]]])
def test_index_that_is_no_number_is_refused(reader: VideoReader, index: object) -> None:
    with pytest.raises(VideoError, match="must be a whole number"):
        reader.get_batch([index])


def test_info_describes_the_video(reader: VideoReader) -> None:
    assert reader.info() == {"width": 160, "height": 96, "num_frames": 90, "fps": 30.0, "duration_s": 3.0}
    assert repr(reader) == "<VideoReader plain.mp4: 90 frames, 160x96, 30.00 fps, 3.00 s>"


def test_times_follow_a_varying_frame_rate(clip: Clip) -> None:
    reader = VideoReader(clip("variable_rate.mp4"))
    starts = np.concatenate([[0], np.cumsum(VFR_GAPS_MS)])[:90] / 1000
    assert reader.get_frame_timestamp(slice(None))[:, 0] == pytest.approx(starts, abs=1e-3)
    for number in (0, 1, 40, 89):
        middle = reader.get_frame_timestamp(number).mean()
        assert reader.time_to_index(middle) == number
    assert reader.resolve(times=[starts[7] + 0.002]) == [7]


@pytest.mark.parametrize("name", ["plain.mp4", "plain.mkv", "plain.ts", "plain.flv", "mpeg4.avi", "raw.h264"])
def test_number_over_fps_finds_that_frame_on_every_clock(clip: Clip, name: str) -> None:
    reader = VideoReader(clip(name))
    assert [reader.time_to_index(number / 30) for number in range(90)] == list(range(90))
    assert reader.info()["duration_s"] == pytest.approx(3.0, abs=0.002)


def test_batch_above_the_limit_is_refused_before_decoding(clip: Clip) -> None:
    reader = VideoReader(clip("plain.mp4"), max_batch_bytes=10 * 160 * 96 * 3)
    assert len(reader.get_batch(range(10))) == 10
    with pytest.raises(VideoError, match=r"11 frames of 160x96 pixels need .* read at most 10 at once"):
        reader[:11]
    with pytest.raises(VideoError, match="ask for fewer pixels"):
        VideoReader(clip("plain.mp4"), width=40_000, height=40_000)


def test_ascending_single_reads_do_not_decode_twice(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyvision_env.sandbox.worker.video_index import Opened

    reader = VideoReader(clip("two_keyless_seconds.mp4"))
    decoded = []
    original = Opened.decode

    def count(self: Opened, packet: object) -> object:
        decoded.append(packet)
        return original(self, packet)  # type: ignore[arg-type]

    monkeypatch.setattr(Opened, "decode", count)
    for number in range(0, 60, 3):
        reader[number]
        reader[number]
    assert len(decoded) <= 61


def test_read_goes_on_after_a_time_out_in_the_middle_of_decoding(filmed: Clip) -> None:
    class TimeOutError(Exception):
        pass

    def strike(signum: int, frame: object) -> None:
        raise TimeOutError

    reader = VideoReader(filmed("bikes.mp4"))
    expected = reader.frames([240, 120])
    before = signal.signal(signal.SIGALRM, strike)
    struck = 0
    try:
        for step in range(1, 9):
            try:
                signal.setitimer(signal.ITIMER_REAL, step * 0.004)
                reader.get_batch(range(0, 250, 2))
            except TimeOutError:
                struck += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            assert np.array_equal(reader.frames([240, 120]), expected)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert struck


def test_closed_reader_opens_again_when_read(reader: VideoReader) -> None:
    assert read_number(reader[3]) == 3
    reader.close()
    reader.close()
    assert read_number(reader[4]) == 4
