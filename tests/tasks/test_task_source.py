"""Where an environment's tasks come from: settings that make no sense are told at once."""

from __future__ import annotations

import pytest

from pyvision_env.errors import ConfigError
from pyvision_env.task_stream import TaskSource


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"num_tasks": "5"}, "num_tasks must be a whole number of at least 1, but '5' came"),
        ({"num_tasks": 0}, "but 0 came"),
        ({"num_tasks": True}, "but True came"),
        ({"task_seed": 1.5}, "task_seed must be a whole number of at least 0, but 1.5 came"),
        ({"task_seed": -1}, "but -1 came"),
        ({"task_args": ["a"]}, r"task_args must be a dict of keyword arguments, but \['a'\] came"),
    ],
)
def test_settings_of_another_type_are_told_with_what_came(settings, says):
    with pytest.raises(ConfigError, match=says):
        TaskSource(kind="search", **settings)


def test_numbers_in_range_are_taken():
    assert len(TaskSource(kind="search", num_tasks=3, task_seed=0, task_args={"difficulty": "easy"}).load()) == 3
