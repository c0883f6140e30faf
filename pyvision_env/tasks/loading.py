"""Task files and folders to task sets: JSON, JSONL, parquet and saved ``datasets``, with a report on bad records."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pyvision_env.errors import ConfigError, TaskError
from pyvision_env.tasks.media_fields import shorten
from pyvision_env.tasks.records import Problem, parse_record
from pyvision_env.tasks.task_set import TaskSet
from pyvision_env.types import Task

_logger = logging.getLogger(__name__)
_SHOWN_PROBLEMS = 3
_FORMS = "a .json, .jsonl or .parquet file, or a folder of parquet files or of a saved `datasets` data set"


class _Located(NamedTuple):
    """A record and where it stands."""

    file: str
    position: int
    item: object  # the record, a finished task, or the problem of reading the record at all
    stem: str  # names a record that has no id
    root: Path  # relative media paths start here


def load_tasks(
    source: TaskSet | Iterable[Task | Mapping[str, Any]] | str | Path,
    *,
    on_error: Literal["report", "raise"] = "report",
    media_root: str | Path | None = None,
    limit: int | None = None,
) -> TaskSet:
    """Load tasks from records, files or folders.

    Args:
        source: A task set (returned as it is), a list of tasks or of records, a ``.json``, ``.jsonl`` or ``.parquet``
            file, or a folder that holds parquet files or a data set saved by ``datasets``.
        on_error: ``report`` keeps the good records and lists the others in ``problems`` and in one logged warning;
            ``raise`` stops at the first bad one.
        media_root: Folder that relative media paths start from; the file's own folder by default, the working
            directory for records in memory.
        limit: Read only so many records.

    Raises:
        ConfigError: ``limit`` is no whole number of at least 1.
        TaskError: The source is missing or of another form, no record is good, or ``on_error="raise"`` met a bad one.
    """
    if on_error not in ("report", "raise"):
        raise TaskError(f"on_error must be 'report' or 'raise', got {on_error!r}")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise ConfigError(f"limit must be a whole number of at least 1, or None, but {limit!r} came")
    if isinstance(source, TaskSet):
        return source if limit is None else source[:limit]
    tasks: dict[str, Task] = {}
    problems: list[Problem] = []
    for located in islice(_locate(source), limit):
        task = _to_task(located, media_root)
        if isinstance(task, Task) and task.id in tasks:
            task = Problem(located.file, located.position, "id", "an id that no earlier record has", repr(task.id))
        if isinstance(task, Task):
            tasks[task.id] = task
        elif on_error == "raise":
            raise TaskError(str(task))
        else:
            problems.append(task)
    name = "the records" if not isinstance(source, (str, Path)) else str(source)
    _report(name, len(tasks), problems)
    return TaskSet(tasks.values(), problems=problems)


def _to_task(located: _Located, media_root: str | Path | None) -> Task | Problem:
    file, position, item, stem, root = located
    if isinstance(item, (Task, Problem)):
        return item
    start = Path(media_root).expanduser() if media_root is not None else root
    return parse_record(item, index=position, file=file, default_id=f"{stem}-{position}", root=start)


def _report(name: str, good: int, problems: list[Problem]) -> None:
    shown = "\n".join(f"  {problem}" for problem in problems[:_SHOWN_PROBLEMS])
    more = f"\n  and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
    if not good:
        reason = f"; the first problems:\n{shown}{more}" if problems else ": it is empty"
        raise TaskError(f"expected at least one good task record in {name}, found none{reason}")
    if problems:
        total = good + len(problems)
        _logger.warning("%d of %d records of %s were left out:\n%s%s", len(problems), total, name, shown, more)


def _locate(source: Iterable[Task | Mapping[str, Any]] | str | Path) -> Iterator[_Located]:
    if not isinstance(source, (str, Path)):
        if isinstance(source, Mapping) or not isinstance(source, Iterable):
            raise TaskError(f"expected tasks, a list of records, {_FORMS}, got {type(source).__name__}")
        return (_Located("records", index, item, "record", Path()) for index, item in enumerate(source))
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise TaskError(f"expected {_FORMS}, found nothing at {path}; check the path")
    suffix = path.suffix.lower()
    if suffix not in (".json", ".jsonl", ".parquet"):
        raise TaskError(f"expected {_FORMS}, found {path.name}")
    if suffix == ".parquet":
        return _read_parquet(path, path.stem)
    items = _read_json(path) if suffix == ".json" else _read_jsonl(path)
    return (_Located(str(path), index, item, path.stem, path.parent) for index, item in enumerate(items))


def _read_json(path: Path) -> list[object]:
    try:
        # Some editors begin a file with a byte order mark.
        records = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        hint = "; one record a line belongs in a .jsonl file" if error.msg.startswith("Extra data") else ""
        raise TaskError(
            f"expected a JSON list of records in {path}, found broken JSON at line {error.lineno}, column "
            f"{error.colno}: {error.msg}{hint}"
        ) from error
    except UnicodeDecodeError as error:
        raise TaskError(f"expected UTF-8 text in {path}, found other bytes: {error}") from error
    except (ValueError, RecursionError) as error:
        raise TaskError(f"expected a JSON list of records in {path}, found {_refused(error)}") from error
    except OSError as error:
        raise TaskError(f"expected a readable file at {path}: {error}") from error
    if not isinstance(records, list):
        raise TaskError(f"expected a JSON list of records in {path}, found {shorten(records)}")
    return records


def _read_jsonl(path: Path) -> Iterator[object]:
    index = 0
    try:
        lines = path.open("rb")
    except OSError as error:
        raise TaskError(f"expected a readable file at {path}: {error}") from error
    with lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                found = f"line {number}: {shorten(line.decode('utf-8', 'replace').strip(), 60)} ({_refused(error)})"
                yield Problem(str(path), index, "", "one JSON object a line", found)
            index += 1


def _refused(error: ValueError | RecursionError) -> str:
    """Why Python's reader refuses JSON: broken, not UTF-8, a number of thousands of digits, or nested too deeply."""
    return "JSON that is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _read_parquet(path: Path, stem: str) -> Iterator[_Located]:
    import pyarrow
    import pyarrow.parquet

    index = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=64):
                for record in batch.to_pylist():
                    yield _Located(str(path), index, record, stem, path.parent)
                    index += 1
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise TaskError(f"expected a parquet file in {path}, found damaged or other data: {error}") from error


def _read_folder(path: Path) -> Iterator[_Located]:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _read_saved(path)
    files = sorted(path.rglob("*.parquet"))
    if not files:
        raise TaskError(f"expected {_FORMS}, found neither parquet files nor a saved data set in the folder {path}")
    # Shards of different splits often share a file name, so the id of a nameless record tells the subfolder too.
    return chain.from_iterable(
        _read_parquet(file, "-".join(file.relative_to(path).with_suffix("").parts)) for file in files
    )


def _read_saved(path: Path) -> Iterator[_Located]:
    """Read what ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote; all splits, in order."""
    try:
        import datasets
    except ImportError as error:
        raise TaskError(
            f"{path} is a saved `datasets` data set, but `datasets` is not installed; "
            'run: pip install "pyvision-rl[datasets]"'
        ) from error
    try:
        loaded = datasets.load_from_disk(str(path))
        splits = loaded if isinstance(loaded, datasets.DatasetDict) else {path.name: loaded}
        for name, split in splits.items():
            for index, record in enumerate(_undecoded(datasets, split)):
                yield _Located(f"{path} ({name})", index, record, name, path)
    except Exception as error:  # on damaged files `datasets` raises whatever its parts raise
        reason = f"{type(error).__name__}: {shorten(str(error), 300)}"
        raise TaskError(
            f"expected a data set saved by `datasets` in {path}, found a damaged or incomplete one ({reason}); "
            "save it again with save_to_disk"
        ) from error


def _undecoded(datasets: Any, split: Any) -> Any:
    """Let image and video columns give their encoded bytes: a task needs no pixels, and decoding them is slow."""
    for name, feature in split.features.items():
        nested = isinstance(feature, list)
        inner = feature[0] if nested else getattr(feature, "feature", feature)
        if type(inner).__name__ not in ("Image", "Video"):
            continue
        plain = getattr(datasets, type(inner).__name__)(decode=False)
        wrapped = [plain] if nested else plain if inner is feature else type(feature)(plain)
        split = split.cast_column(name, wrapped)
    return split
