import io
import json
import logging
import subprocess
import sys

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from pyvision_env.errors import ConfigError, TaskError
from pyvision_env.media import load_image
from pyvision_env.tasks import TaskSet, demo_image_tasks, load_tasks
from pyvision_env.types import Task


def png(colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(buffer, "PNG")
    return buffer.getvalue()


GOOD = [
    {"id": "a", "question": "One?", "answer": "1", "image_path": "a.png"},
    {"question": "Two?", "answer": 2},
    {"id": 7, "question": "Three?", "answer": "3", "images": ["a.png", "a.png"]},
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    return tmp_path


def write(folder, kind, records):
    path = folder / f"tasks.{kind}"
    if kind == "json":
        path.write_text(json.dumps(records))
    elif kind == "jsonl":
        path.write_text("\n\n".join(map(json.dumps, records)) + "\n")
    else:
        columns = {key: [record.get(key) for record in records] for record in records for key in record}
        columns["id"] = [None if value is None else str(value) for value in columns["id"]]
        columns["answer"] = list(map(str, columns["answer"]))
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet"])
def test_files_load_with_ids_and_media_relative_to_the_file(folder, kind):
    tasks = load_tasks(write(folder, kind, GOOD))
    assert tasks.ids == ("a", "tasks-1", "7")
    assert tasks.problems == ()
    assert [task.answer for task in tasks] == ["1", "2", "3"]
    assert [len(task.images) for task in tasks] == [1, 0, 2]
    assert load_image(tasks[0].images[0]).shape == (6, 8, 3)
    assert tasks[0].metadata == {}


def test_a_media_root_replaces_the_folder_of_the_file(folder):
    (folder / "records").mkdir()
    path = write(folder / "records", "json", GOOD)
    assert len(load_tasks(path).problems) == 2
    assert len(load_tasks(path, media_root=folder).problems) == 0


def test_records_and_tasks_in_memory_load(folder):
    tasks = load_tasks([Task("t", "q", "a"), *GOOD], media_root=folder)
    assert tasks.ids == ("t", "a", "record-2", "7")
    assert load_tasks(tasks) is tasks
    assert load_tasks(tasks, limit=2).ids == ("t", "a")
    assert load_tasks(GOOD, media_root=folder, limit=1).ids == ("a",)


def test_bad_records_are_reported_and_the_good_ones_load(folder, caplog):
    records = [GOOD[0], {"question": "?"}, "text", GOOD[0], {"question": "?", "answer": "1", "image": "b.png"}, GOOD[1]]
    path = write(folder, "json", records)
    with caplog.at_level(logging.WARNING):
        tasks = load_tasks(path)
    assert tasks.ids == ("a", "tasks-5")
    assert [(problem.index, problem.field) for problem in tasks.problems] == [
        (1, "answer"),
        (2, ""),
        (3, "id"),
        (4, "image"),
    ]
    assert {problem.file for problem in tasks.problems} == {str(path)}
    (record,) = caplog.records
    assert "4 of 6 records" in record.getMessage()
    assert "record 1, field 'answer': expected text or a number, found nothing" in record.getMessage()
    assert "and 1 more" in record.getMessage()


def test_raise_stops_at_the_first_bad_record(folder):
    path = write(folder, "json", [GOOD[0], {"question": "?"}])
    with pytest.raises(TaskError, match=r"tasks\.json, record 1, field 'answer': expected text or a number"):
        load_tasks(path, on_error="raise")
    with pytest.raises(TaskError, match="on_error must be 'report' or 'raise', got 'ignore'"):
        load_tasks(path, on_error="ignore")


def test_no_good_record_is_an_error_that_lists_the_first_problems(folder):
    path = write(folder, "json", [{"question": "?"}] * 5)
    with pytest.raises(TaskError, match=r"(?s)at least one good task record .*record 0.*record 2.*and 2 more"):
        load_tasks(path)
    with pytest.raises(TaskError, match="found none: it is empty"):
        load_tasks([])


def test_a_broken_line_is_a_problem_of_its_own(folder):
    path = folder / "tasks.jsonl"
    path.write_bytes(json.dumps(GOOD[1]).encode() + b'\n{"question": \n\xff\xfe\n' + json.dumps(GOOD[1]).encode())
    tasks = load_tasks(path)
    assert tasks.ids == ("tasks-0", "tasks-3")
    assert [problem.index for problem in tasks.problems] == [1, 2]
    assert "one JSON object a line, found line 2" in str(tasks.problems[0])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"question": ]', "broken JSON at line 1, column 15"),
        ("a.json", '{"a": 1}\n{"a": 2}', r"one record a line belongs in a \.jsonl file"),
        ("a.json", '{"a": 1}', "expected a JSON list of records"),
        ("a.parquet", "PAR", "expected a parquet file in .*damaged"),
        ("a.csv", "a,b", r"expected a \.json, .*found a\.csv"),
    ],
)
def test_unreadable_files_say_what_is_wrong(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(TaskError, match=message):
        load_tasks(tmp_path / name)


def test_a_missing_file_an_empty_folder_and_other_objects_are_refused(tmp_path):
    with pytest.raises(TaskError, match="found nothing at"):
        load_tasks(tmp_path / "none.json")
    with pytest.raises(TaskError, match="neither parquet files nor a saved data set"):
        load_tasks(tmp_path)
    with pytest.raises(TaskError, match="got dict"):
        load_tasks({"question": "?"})


def test_a_folder_of_parquet_shards_loads_with_distinct_ids(folder):
    for split in ("train", "test"):
        (folder / split).mkdir()
        table = pyarrow.table({"question": ["q", "r"], "answer": ["1", "2"], "image": [{"bytes": png()}] * 2})
        pyarrow.parquet.write_table(table, folder / split / "0000.parquet")
    tasks = load_tasks(folder)
    assert tasks.ids == ("test-0000-0", "test-0000-1", "train-0000-0", "train-0000-1")
    assert load_image(tasks[3].images[0])[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("splits", [False, True])
def test_a_saved_datasets_folder_loads_with_images_as_bytes(tmp_path, splits):
    records = {
        "question": ["q", "r"],
        "answer": ["1", "2"],
        "image": [Image.new("RGB", (8, 6), "red")] * 2,
        "images": [[Image.new("RGB", (4, 4), "blue")] * 2, []],
    }
    features = datasets.Features(
        question=datasets.Value("string"),
        answer=datasets.Value("string"),
        image=datasets.Image(),
        images=datasets.Sequence(datasets.Image()),
    )
    data = datasets.Dataset.from_dict(records, features=features)
    saved = datasets.DatasetDict(train=data, test=data) if splits else data
    saved.save_to_disk(str(tmp_path / "saved"))
    tasks = load_tasks(tmp_path / "saved")
    assert len(tasks) == (4 if splits else 2) and not tasks.problems
    assert [load_image(source).shape for source in tasks[0].images] == [(6, 8, 3), (4, 4, 3), (4, 4, 3)]
    assert tasks[0].id == ("train-0" if splits else "saved-0")


def test_loading_json_does_not_import_heavy_packages(folder):
    path = write(folder, "json", GOOD)
    code = (
        "import sys; from pyvision_env.tasks import load_tasks; "
        f"assert len(load_tasks({str(path)!r})) == 3; "
        "heavy = {'av', 'pyarrow', 'datasets', 'torch', 'skimage', 'scipy'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_task_set_passes_through(folder):
    assert isinstance(load_tasks(demo_image_tasks()), TaskSet)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("line", "says"), [(DEEP, "nested too deeply"), ('{"answer": ' + "9" * 5_000 + "}", "5000 digits")]
)
def test_a_line_that_python_refuses_to_read_costs_only_itself(folder, line, says):
    path = folder / "tasks.jsonl"
    path.write_text(f"{line}\n{json.dumps(GOOD[1])}\n")
    tasks = load_tasks(path)
    assert tasks.ids == ("tasks-1",)
    (problem,) = tasks.problems
    assert problem.index == 0 and says in problem.found


@pytest.mark.parametrize(("content", "says"), [(DEEP, "nested too deeply"), ("[" + "9" * 5_000 + "]", "5000 digits")])
def test_a_file_that_python_refuses_to_read_is_a_task_error(tmp_path, content, says):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(TaskError, match=rf"JSON list of records in .*a\.json.*{says}"):
        load_tasks(tmp_path / "a.json")


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_a_byte_order_mark_does_no_harm(folder, kind):
    path = write(folder, kind, GOOD)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(load_tasks(path)) == 3


def save(path, count=1_000):
    records = {"question": [f"What about {i}?" for i in range(count)], "answer": ["1"] * count}
    datasets.Dataset.from_dict(records).save_to_disk(str(path))
    return path


def test_a_saved_data_set_with_a_torn_file_or_no_state_is_a_task_error(tmp_path):
    torn = save(tmp_path / "torn")
    (file,) = torn.glob("*.arrow")
    file.write_bytes(file.read_bytes()[:-4_000])
    empty = save(tmp_path / "empty")
    (empty / "state.json").write_text("{}")
    broken = save(tmp_path / "broken")
    (broken / "state.json").write_text("{")
    for path in (torn, empty, broken):
        with pytest.raises(TaskError, match=f"a data set saved by `datasets` in {path}, found a damaged"):
            load_tasks(path)


def test_the_gap_in_a_column_of_numbers_is_no_reference(folder):
    path = folder / "tasks.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"question": ["q", "r"], "answer": [2.5, float("nan")]}), path)
    tasks = load_tasks(path)
    assert [task.answer for task in tasks] == ["2.5"]
    assert [(problem.index, problem.field, problem.found) for problem in tasks.problems] == [(1, "answer", "nan")]


@pytest.mark.parametrize("limit", [-1, 0, "3", 1.5, True])
def test_a_limit_that_is_no_count_is_refused(limit):
    for source in (GOOD, TaskSet([Task("t", "q", "a")])):
        with pytest.raises(ConfigError, match="limit must be a whole number of at least 1"):
            load_tasks(source, limit=limit)
