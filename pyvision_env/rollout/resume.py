"""What an earlier run left finished in its folder, for a run that goes on from there."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyvision_env.errors import MediaError, TraceError
from pyvision_env.rollout.result import EpisodeResult, result_of_trace
from pyvision_env.trace import RecordTrace, TraceHeader, read_trace
from pyvision_env.trace.read import find_traces
from pyvision_env.types import Task

# Everything the outcome depends on, beside task id and seed, by which episodes are found.
_COMPARED = (
    *("question", "answer", "options", "images", "grader", "grader_args", "media_in_prompt"),
    *("agent", "agent_settings"),
)


class FinishedEpisodes:
    """Episodes of a folder that came to their end and count; read on first use, taken from any thread.

    Args:
        directory: The folder of traces; may be missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._found: dict[tuple[str, int | None], list[tuple[TraceHeader, EpisodeResult]]] | None = None
        self._lock = threading.Lock()

    def take(self, recorder: RecordTrace, task: Task, seed: int) -> EpisodeResult | None:
        """The result of the very episode that ``recorder`` would now record, if it was run earlier; each comes once."""
        with self._lock:
            if self._found is None:
                self._found = _read(self._directory)
            episodes = self._found.get((task.id, seed), [])
            if not episodes:
                return None
        try:
            # Outside the lock: it reads the task's media, by whose content they are compared.
            now = recorder.describe(task)
        except MediaError:
            return None  # the episode itself will say so
        with self._lock:
            for episode in episodes:
                header, result = episode
                if _same(header, now):
                    episodes.remove(episode)
                    # Labels for the statistics may have been mended since; no turn depends on them.
                    return replace(result, data_source=task.data_source, ability=task.ability)
        return None


def _same(header: TraceHeader, now: Mapping[str, Any]) -> bool:
    return (
        all(getattr(header, name) == now[name] for name in _COMPARED)
        # A video may have moved.
        and [video.sha256 for video in header.videos] == [video.sha256 for video in now["videos"]]
        and _settings(header.config) == _settings(now["config"])
    )


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration an outcome depends on: where the code ran does not matter."""
    return {name: value for name, value in config.items() if name != "sandbox"}


def _read(directory: Path) -> dict[tuple[str, int | None], list[tuple[TraceHeader, EpisodeResult]]]:
    found: dict[tuple[str, int | None], list[tuple[TraceHeader, EpisodeResult]]] = {}
    for path in find_traces(directory) if directory.is_dir() else []:
        try:
            trace = read_trace(path)
        except TraceError:
            continue  # torn at its very start: it holds no episode
        if not trace.complete:
            continue
        result = result_of_trace(trace)
        if result.counts:
            found.setdefault((trace.header.task_id, trace.header.seed), []).append((trace.header, result))
    return found
