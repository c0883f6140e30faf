import pickle

import numpy as np
import pytest
from PIL import Image

from pyvision_env.errors import TaskError
from pyvision_env.media import load_image, resize_to_budget
from pyvision_env.tasks import SearchTasks, make_search_task, photos, synthetic_search
from pyvision_env.tasks.synthetic_search import FRAME_COLOURS, PATTERNS, THUMBNAIL_PIXELS


def find_box(picture, colour):
    """The tag's box by the colour of its frame: the pixels near it that stand in a dense row and column."""
    red, green, blue = (
        picture[..., channel] > 255 - 36 if value else picture[..., channel] < 36
        for channel, value in enumerate(FRAME_COLOURS[colour])
    )
    near = red & green & blue
    rows, columns = np.flatnonzero(near.sum(1) >= 8), np.flatnonzero(near.sum(0) >= 8)
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def read_pattern(picture, box):
    """Name the pattern inside a tag from how its brightness changes along four directions."""
    x0, y0, x1, y1 = box
    side = x1 - x0
    frame = max(1, round(side * 0.22))  # covers the frame of both kinds of tag
    grey = picture[y0 + frame : y1 - frame, x0 + frame : x1 - frame].astype(float).mean(-1)
    change = {
        "horizontal stripes": np.abs(np.diff(grey, axis=1)).mean(),
        "vertical stripes": np.abs(np.diff(grey, axis=0)).mean(),
        "diagonal stripes": np.abs(grey[1:, :-1] - grey[:-1, 1:]).mean(),
    }
    quietest = min(change, key=change.get)
    return quietest if change[quietest] < 0.4 * max(change.values()) else "checkerboard"


def solve(task, picture):
    colour = next(name for name in FRAME_COLOURS if f"a {name} frame" in task.question)
    return "ABCD"[task.options.index(read_pattern(picture, find_box(picture, colour)))]


def accuracy_in_thumbnail(tasks, pixels):
    """Accuracy of reading a thumbnail at the true place, which is more help than a model has."""
    correct = 0
    for task in tasks:
        full = load_image(task.images[0])
        small = resize_to_budget(full, 1, pixels)
        scale = small.shape[0] / full.shape[0]
        box = tuple(round(edge * scale) for edge in task.metadata["target_box"])
        correct += "ABCD"[task.options.index(read_pattern(small, box))] == task.answer
    return correct / len(tasks)


@pytest.fixture(scope="module")
def tasks():
    return [make_search_task(seed) for seed in range(40)]


def test_code_solves_every_task_at_full_resolution(tasks):
    for task in tasks:
        picture = load_image(task.images[0])
        colour = task.metadata["frame_colour"]
        assert find_box(picture, colour) == pytest.approx(task.metadata["target_box"], abs=1)
        assert solve(task, picture) == task.answer


@pytest.mark.parametrize("side", [256, 512])
def test_hard_tasks_are_unreadable_in_the_thumbnail_and_easy_ones_are_not(tasks, side):
    hard = [task for task in tasks if task.metadata["difficulty"] == "hard"]
    easy = [task for task in tasks if task.metadata["difficulty"] == "easy"]
    assert 0.25 <= len(easy) / len(tasks) <= 0.55
    assert accuracy_in_thumbnail(hard, side * side) <= 0.5
    assert accuracy_in_thumbnail(easy, side * side) >= 0.9


def test_hard_tags_of_all_patterns_look_alike_in_the_thumbnail(tasks):
    for task in tasks:
        if task.metadata["difficulty"] == "hard":
            x0, y0, x1, y1 = task.metadata["target_box"]
            full = load_image(task.images[0])
            inside = Image.fromarray(full).crop((x0 + 8, y0 + 8, x1 - 8, y1 - 8))
            quarter = np.asarray(inside.resize((6, 6), Image.Resampling.BOX)).astype(float).mean(-1)
            assert np.ptp(quarter) < 24  # of the 224 steps between bright and dark stripes
            assert full.shape[0] * full.shape[1] == 16 * THUMBNAIL_PIXELS


def test_no_photo_pixel_is_near_a_frame_colour():
    for package, name in photos.TILE_PHOTOS:
        tile = photos.photo_tile(package, name, 256).astype(int)
        for colour in FRAME_COLOURS.values():
            assert (np.abs(tile - colour).max(-1) > 40).all()


def test_a_task_names_its_target_and_all_options(tasks):
    for task in tasks:
        assert sorted(task.options) == sorted(PATTERNS)
        assert task.options["ABCD".index(task.answer)] == task.metadata["pattern"]
        assert task.metadata["frame_colour"] in task.question
        assert not any(pattern in task.question for pattern in PATTERNS)
        assert task.metadata["canvas_size"] == (2_048, 2_048)
        assert task.ability == f"visual_search_{task.metadata['difficulty']}"
    assert {task.answer for task in tasks} == set("ABCD")


def test_equal_seeds_give_equal_bytes_and_other_seeds_other_pictures():
    assert make_search_task(5, size=1_024) == make_search_task(5, size=1_024)
    assert make_search_task(5, size=1_024).images != make_search_task(6, size=1_024).images


@pytest.mark.parametrize("difficulty", ["easy", "hard"])
@pytest.mark.parametrize("size", [512, 1_024])
def test_difficulty_and_size_can_be_chosen(difficulty, size):
    for seed in range(4):
        task = make_search_task(seed, size=size, difficulty=difficulty)
        picture = load_image(task.images[0])
        assert picture.shape == (size, size, 3)
        assert task.metadata["difficulty"] == difficulty
        assert solve(task, picture) == task.answer


def test_a_set_makes_its_tasks_on_access(monkeypatch):
    made = []

    def make(*args, **options):
        made.append(args)
        return make_search_task(*args, **options)

    monkeypatch.setattr(synthetic_search, "make_search_task", make)
    tasks = SearchTasks(1_000_000, seed=3, size=512)
    assert len(tasks) == 1_000_000 and len(set(tasks.ids[:100])) == 100
    assert made == []
    tasks[7]
    assert len(made) == 1


def test_a_set_travels_to_other_processes():
    small = SearchTasks(3, seed=3, size=512)
    assert pickle.loads(pickle.dumps(small))[1] == small[1] == make_search_task(3 * 1_000_003 + 1, size=512)
    assert small.by_id(small.ids[2]) == small[2]
    assert not set(SearchTasks(50, seed=0).ids) & set(SearchTasks(50, seed=1).ids)


def test_wrong_arguments_and_missing_photos_are_refused(monkeypatch):
    with pytest.raises(TaskError, match="got seed=-1"):
        make_search_task(-1)
    with pytest.raises(TaskError, match=r"size a multiple of 64 from 512.*size=100"):
        make_search_task(0, size=100)
    with pytest.raises(TaskError, match="difficulty='odd'"):
        make_search_task(0, difficulty="odd")
    with pytest.raises(TaskError, match="expected n >= 1"):
        SearchTasks(0)
    monkeypatch.setattr(photos.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TaskError, match=r'no such package; run: pip install "pyvision-rl\[demo\]"'):
        make_search_task(0, size=576)
