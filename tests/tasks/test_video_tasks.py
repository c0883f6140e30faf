import colorsys
import io
import pickle

import av
import numpy as np
import pytest
from scipy import ndimage

from pyvision_env.errors import TaskError
from pyvision_env.tasks import VideoTasks, make_video_task
from pyvision_env.tasks.synthetic_video import SCENE_HUES


def decode(task):
    reformatter = av.video.reformatter.VideoReformatter()  # kept: a converter per frame would take most of the time
    with av.open(io.BytesIO(task.videos[0].data)) as container:
        frames = container.decode(video=0)
        return np.stack([reformatter.reformat(frame, format="rgb24").to_ndarray() for frame in frames])


def scene_of(frame):
    red, green, blue = np.median(frame.reshape(-1, 3), axis=0) / 255
    hue = 360 * colorsys.rgb_to_hsv(red, green, blue)[0]
    return min(SCENE_HUES, key=lambda name: abs((hue - SCENE_HUES[name] + 180) % 360 - 180))


def count_dots(frame):
    """Dots on the card of a frame, or None without a card."""
    white = (frame > 190).all(-1)
    rows, columns = np.flatnonzero(white.sum(1) > 20), np.flatnonzero(white.sum(0) > 20)
    if not len(rows):
        return None
    card = frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean(-1)
    return ndimage.label(card < 110)[1]


def solve(task, frames, indices):
    """Look at some frames only, as a model would; None where they show no card of the named scene."""
    scene = next(name for name in SCENE_HUES if f"the {name} scene" in task.question)
    for index in indices:
        if scene_of(frames[index]) == scene and (dots := count_dots(frames[index])) is not None:
            return "ABCD"[task.options.index(str(dots))]
    return None


@pytest.fixture(scope="module")
def decoded():
    tasks = [make_video_task(seed) for seed in range(16)]
    return [(task, decode(task)) for task in tasks]


def test_clips_have_the_stated_format(decoded):
    for task, frames in decoded:
        assert frames.shape == (256, 192, 320, 3)
        with av.open(io.BytesIO(task.videos[0].data)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert stream.average_rate == task.metadata["fps"] == 16


def test_code_solves_every_task_from_all_frames(decoded):
    for task, frames in decoded:
        assert solve(task, frames, range(256)) == task.answer


def test_a_coarse_look_finds_the_scene_and_a_fine_one_the_card(decoded):
    for task, frames in decoded:
        scene = task.metadata["scene"]
        coarse = [index for index in range(0, 256, 16) if scene_of(frames[index]) == scene]
        assert coarse
        fine = range(max(0, coarse[0] - 16), min(256, coarse[-1] + 16), 3)
        assert solve(task, frames, fine) == task.answer


@pytest.mark.parametrize("spread", [np.linspace(0, 255, 8).round().astype(int), np.arange(16, 256, 32)])
def test_eight_even_frames_miss_the_hard_cards_and_show_the_easy_ones(decoded, spread):
    for task, frames in decoded:
        if task.metadata["difficulty"] == "hard":
            assert solve(task, frames, spread) is None
        else:
            assert solve(task, frames, spread) == task.answer


def test_the_card_shows_in_the_stated_frames_only(decoded):
    for task, frames in decoded:
        first, end = task.metadata["target_frames"]
        (scene,) = [span for span in task.metadata["scenes"] if span[0] == task.metadata["scene"]]
        assert scene[1] <= first < end <= scene[2]
        shown = [index for index in range(scene[1], scene[2]) if count_dots(frames[index]) is not None]
        assert shown == list(range(first, end))
        assert task.metadata["difficulty"] == "easy" or 6 <= end - first <= 10


def test_other_scenes_show_the_wrong_options(decoded):
    for task, frames in decoded:
        seen = {count_dots(frame) for frame in frames[::4]} - {None}
        assert {str(number) for number in seen} == set(task.options)


def test_answers_and_difficulties_vary(decoded):
    assert {task.answer for task, _ in decoded} == set("ABCD")
    assert {task.metadata["difficulty"] for task, _ in decoded} == {"easy", "hard"}
    assert make_video_task(0, difficulty="easy").metadata["difficulty"] == "easy"
    assert make_video_task(0, difficulty="hard").metadata["difficulty"] == "hard"


def test_equal_seeds_give_equal_bytes():
    assert make_video_task(3) == make_video_task(3)
    assert make_video_task(3).videos != make_video_task(4).videos


def test_a_set_makes_its_tasks_on_access_and_travels_to_other_processes():
    tasks = VideoTasks(1_000, seed=2)
    assert len(tasks) == 1_000
    assert pickle.loads(pickle.dumps(tasks))[1] == tasks[1] == make_video_task(2 * 1_000_003 + 1)


def test_wrong_arguments_are_refused():
    with pytest.raises(TaskError, match="got seed=-1"):
        make_video_task(-1)
    with pytest.raises(TaskError, match="difficulty='odd'"):
        make_video_task(0, difficulty="odd")
    with pytest.raises(TaskError, match="expected n >= 1"):
        VideoTasks(0)
