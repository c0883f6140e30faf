import base64
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pyvision_env.media import load_image
from pyvision_env.tasks import Problem
from pyvision_env.tasks.records import parse_record
from pyvision_env.types import ImageSource, Task


def png(colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(png())
    (tmp_path / "b.jpg").write_bytes(png("blue"))
    (tmp_path / "clip.mp4").write_bytes(b"a file is all that is checked")
    return tmp_path


def parse(record, root=Path()):
    return parse_record(record, index=3, file="tasks.json", default_id="tasks-3", root=root)


RAW = {"id": "x", "question": "How many?", "answer": "2"}
PROCESSED = {
    "prompt": [{"role": "system", "content": "Write code."}, {"role": "user", "content": "<image>\nHow many? <image>"}],
    "data_source": "vstar",
    "ability": "search",
    "env_name": "pyvision_gym_wo_image_hint",
    "reward_model": {"ground_truth": "B", "style": "model"},
    "extra_info": {"answer": "other", "index": 7, "split": "train"},
    "mm_hint": {"hint_path": "photos/a.png", "hint_type": "image"},
}


def test_a_raw_record_becomes_a_task(root):
    record = RAW | {"ability": "count", "data_source": "vstar", "image_path": "photos/a.png", "difficulty": 4}
    assert parse(record, root) == Task(
        id="x",
        question="How many?",
        answer="2",
        images=(ImageSource(path=root / "photos/a.png"),),
        ability="count",
        data_source="vstar",
        metadata={"difficulty": 4},
    )


def test_a_processed_record_becomes_a_task(root):
    assert parse(PROCESSED, root) == Task(
        id="tasks-3",
        question="How many?",
        answer="B",
        images=(ImageSource(path=root / "photos/a.png"),),
        data_source="vstar",
        ability="search",
        media_in_prompt=False,
        metadata={"env_name": "pyvision_gym_wo_image_hint", "index": 7, "split": "train"},
    )


@pytest.mark.parametrize(
    ("env_name", "shown"),
    [
        ("pyvision_gym_w_image_hint", True),
        ("pyvision_gym_wo_image_hint", False),
        ("pyvision_gym_wo_video_hint", False),
        ("something_else", None),
        (None, None),
    ],
)
def test_the_environment_name_says_whether_media_are_shown(root, env_name, shown):
    assert parse(PROCESSED | {"env_name": env_name}, root).media_in_prompt is shown


def test_the_plain_question_and_answer_of_extra_info_are_used(root):
    record = PROCESSED | {
        "extra_info": {"question": "Plain?", "answer": "5", "id": 12},
        "reward_model": None,
        "mm_hint": {"hint_path": ["clip.mp4"], "hint_type": "video"},
    }
    task = parse(record, root)
    assert (task.id, task.question, task.answer) == ("12", "Plain?", "5")
    assert task.videos[0].path == root / "clip.mp4" and task.images == ()


@pytest.mark.parametrize(
    "prompt",
    [
        "<image><image>How many?",
        "<|vision_start|><|image_pad|><|vision_end|>How many?",
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many?"}]}],
        [{"role": "user", "content": "<image_0> <video>\n How many?\n<image>"}],
    ],
)
def test_media_placeholders_around_the_question_are_dropped(root, prompt):
    assert parse(PROCESSED | {"prompt": prompt}, root).question == "How many?"


def test_media_placeholders_inside_a_sentence_stay():
    assert parse(RAW | {"question": "<image>Is <image> older?"}).question == "Is <image> older?"


@pytest.mark.parametrize(
    "value",
    [
        "photos/a.png",
        "./photos/../photos/a.png",
        ["photos/a.png"],
        png(),
        base64.b64encode(png()).decode(),
        "data:image/png;base64," + base64.b64encode(png()).decode(),
        {"bytes": png(), "path": "gone.png"},
        {"bytes": None, "path": "photos/a.png"},
        [{"image": "photos/a.png"}],
        Image.new("RGB", (8, 6), "red"),
        Image.new("CMYK", (8, 6), (0, 255, 255, 0)),
    ],
)
@pytest.mark.parametrize("field", ["image", "images", "image_path"])
def test_images_load_from_every_form(root, field, value):
    (source,) = parse(RAW | {field: value}, root).images
    assert load_image(source).shape == (6, 8, 3)
    assert load_image(source)[0, 0].tolist() == pytest.approx([255, 0, 0], abs=3)


def test_file_addresses_and_absolute_paths_ignore_the_root(root):
    task = parse(RAW | {"images": [(root / "b.jpg").as_uri(), str(root / "b.jpg")]})
    assert [source.path for source in task.images] == [root / "b.jpg"] * 2


def test_several_media_keep_their_order_and_suffixes_tell_videos(root):
    task = parse(RAW | {"image_path": ["b.jpg", "photos/a.png", "clip.mp4"], "video": b"bytes of a video"}, root)
    assert [source.path.name for source in task.images] == ["b.jpg", "a.png"]
    assert task.videos[0].path == root / "clip.mp4"
    assert task.videos[1].data == b"bytes of a video"


def test_empty_media_columns_count_as_absent():
    task = parse(RAW | {"image_path": None, "images": [], "video_path": ""})
    assert task.images == () and task.videos == ()


def test_options_come_from_their_list_or_from_the_wording():
    assert parse(RAW | {"answer": "B", "options": ["A. cat", "B. dog"]}).options == ("cat", "dog")
    assert parse(RAW | {"answer": "2.5", "choices": [1, 2.5]}).options == ("1", "2.5")
    task = parse(RAW | {"answer": "B", "question": "Which?\nA. cat\nB. dog"})
    assert task.options == ("cat", "dog")
    assert task.question == "Which?\nA. cat\nB. dog"


def test_grader_and_its_arguments_are_honoured():
    task = parse(RAW | {"answer": 2.5, "grader": "numeric", "grader_args": {"tolerance": 0.1}})
    assert (task.answer, task.grader, task.grader_args) == ("2.5", "numeric", {"tolerance": 0.1})


@pytest.mark.parametrize(
    ("change", "field", "expected", "found"),
    [
        ({"question": None}, "question", "text", "nothing"),
        ({"question": " <image> "}, "question", "text", "' <image> '"),
        ({"answer": None}, "answer", "text or a number", "nothing"),
        ({"answer": ["a"]}, "answer", "text or a number", "['a']"),
        ({"id": 1.5}, "id", "text or a whole number", "1.5"),
        ({"image_path": "none.png"}, "image_path", "an existing image file", "no file at"),
        ({"images": ["b.jpg", 5]}, "images[1]", "a path, bytes or base64 of an image", "5"),
        ({"image": b"no image"}, "image", "the encoded bytes of an image", "8 bytes that are no image"),
        ({"image": {"url": "https://a.b/c.png"}}, "image.url", "a local path", "the web address"),
        ({"image": {"id": 3}}, "image", "a dict with 'bytes' or 'path'", "['id']"),
        ({"image": "data:image/png;base64,$$$"}, "image", "base64", "'$$$'"),
        ({"image": "x" * 5_000 + ".png"}, "image", "an existing image file", "no file at"),
        ({"video_path": "none.mp4"}, "video_path", "an existing video file", "no file at"),
        ({"options": "A"}, "options", "a list of texts", "'A'"),
        ({"grader": "magic"}, "grader", "one of auto, ", "'magic'"),
        ({"grader_args": 3}, "grader_args", "an object", "3"),
        ({"media_in_prompt": "yes"}, "media_in_prompt", "true, false or null", "'yes'"),
        ({"ability": 3}, "ability", "text or null", "3"),
    ],
)
def test_a_bad_raw_field_is_reported(root, change, field, expected, found):
    problem = parse(RAW | change, root)
    assert isinstance(problem, Problem)
    assert (problem.file, problem.index, problem.field) == ("tasks.json", 3, field)
    assert expected in problem.expected and found in problem.found
    assert "\n" not in str(problem)
    assert str(problem).startswith(f"tasks.json, record 3, field {field!r}: expected {expected}")


@pytest.mark.parametrize(
    ("change", "field", "found"),
    [
        ({"options": ["cat", "dog"], "answer": "C"}, "answer", "'C'"),
        ({"grader": "numeric", "answer": "abc"}, "answer", "'abc'"),
        ({"grader": "numeric", "answer": "1", "grader_args": {"tol": 1}}, "grader_args", "'tol'"),
        ({"grader": "numeric", "answer": "1", "grader_args": {"tolerance": "wide"}}, "grader_args", "'wide'"),
        ({"options": [str(i) for i in range(27)], "answer": "3"}, "answer", "27"),
        ({"answer": float("nan")}, "answer", "nan"),
        ({"answer": float("-inf")}, "answer", "-inf"),
        ({"answer": 10**5_000}, "answer", "too large to show"),
        ({"id": 10**5_000}, "id", "too large to show"),
        ({"question": [10**5_000]}, "question", "too large to show"),
        ({"options": [1, float("nan")]}, "options", "nan"),
    ],
)
def test_a_record_that_no_answer_could_be_graded_by_is_reported_when_it_is_read(change, field, found):
    problem = parse(RAW | change)
    assert isinstance(problem, Problem)
    assert problem.field == field and found in problem.found
    assert "\n" not in str(problem) and "Task 'x'" not in str(problem)


def test_a_processed_record_names_the_field_its_reference_came_from(root):
    odd = PROCESSED | {"options": ["cat", "dog"], "reward_model": {"ground_truth": "E"}}
    assert parse(odd, root).field == "reward_model.ground_truth"
    assert parse(odd | {"reward_model": None, "extra_info": {"answer": "E"}}, root).field == "extra_info.answer"
    assert parse(odd | {"reward_model": {"ground_truth": float("nan")}}, root).field == "reward_model.ground_truth"


def test_a_record_for_a_judge_loads_whatever_its_reference():
    assert parse(RAW | {"grader": "judge", "answer": "It depends."}).grader == "judge"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"prompt": 5}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [{"role": "user", "content": 5}]}, "prompt"),
        ({"prompt": "<image>"}, "prompt"),
        ({"reward_model": "B"}, "reward_model"),
        ({"reward_model": {}, "extra_info": {}}, "extra_info.answer"),
        ({"mm_hint": {"hint_path": "photos/a.png", "hint_type": "sound"}}, "mm_hint.hint_type"),
        ({"mm_hint": {"hint_path": "none.png", "hint_type": "image"}}, "mm_hint.hint_path"),
        ({"mm_hint": {"hint_path": [], "hint_type": "image"}}, "mm_hint.hint_path"),
    ],
)
def test_a_bad_processed_field_is_reported(root, change, field):
    problem = parse(PROCESSED | change, root)
    assert isinstance(problem, Problem) and problem.field == field


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.binary(max_size=30)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
fields = st.sampled_from([*RAW, *PROCESSED, "image", "images", "video_path", "options", "grader", "metadata"])


@given(st.dictionaries(fields, values, max_size=8) | values)
def test_any_record_gives_a_task_or_a_one_line_problem(record):
    parsed = parse(record)
    assert isinstance(parsed, Task) or "\n" not in str(parsed)
