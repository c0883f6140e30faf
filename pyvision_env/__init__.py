"""Gymnasium environments for models that write Python to look at images and videos."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from pyvision_env.config import EnvConfig, Limits, RewardConfig, SandboxConfig
    from pyvision_env.env import PyVisionEnv
    from pyvision_env.errors import InfrastructureError, PyVisionError, UserError
    from pyvision_env.tasks import load_tasks
    from pyvision_env.types import ImageSource, Task, VideoSource
    from pyvision_env.vector import PyVisionVectorEnv

__version__ = "0.1.0"

__all__ = [
    "EnvConfig",
    "ImageSource",
    "InfrastructureError",
    "Limits",
    "PyVisionEnv",
    "PyVisionError",
    "PyVisionVectorEnv",
    "RewardConfig",
    "SandboxConfig",
    "Task",
    "UserError",
    "VideoSource",
    "load_tasks",
]

# Imported on first use: the environment pulls in pydantic and Pillow, which a program that only wants the registered
# ids (a launcher, a command line) should not wait for.
_HOME = {
    "EnvConfig": "config",
    "Limits": "config",
    "RewardConfig": "config",
    "SandboxConfig": "config",
    "PyVisionEnv": "env",
    "InfrastructureError": "errors",
    "PyVisionError": "errors",
    "UserError": "errors",
    "load_tasks": "tasks",
    "ImageSource": "types",
    "Task": "types",
    "VideoSource": "types",
    "PyVisionVectorEnv": "vector",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_IDS: dict[str, dict[str, Any]] = {
    "PyVision/ImageQA-v0": {"kind": "image"},
    "PyVision/VideoQA-v0": {"kind": "video"},
    # Small enough that the tags of hard tasks cannot be read without zooming (tasks.synthetic_search.THUMBNAIL_PIXELS).
    "PyVision/SyntheticSearch-v0": {"kind": "search", "max_pixels": 512 * 512},
    "PyVision/SyntheticVideo-v0": {"kind": "synthetic-video"},
}


def _register() -> None:
    for env_id, settings in _IDS.items():
        # A second registration (a reload, a fork of an interpreter image) would make Gymnasium warn.
        if env_id not in gymnasium.registry:
            gymnasium.register(
                id=env_id,
                entry_point="pyvision_env.env:PyVisionEnv",
                vector_entry_point="pyvision_env.vector:PyVisionVectorEnv",
                kwargs=settings,
                # Its passive checker marks a reset as checked before it ran, and fails in the next step if it raised.
                disable_env_checker=True,
            )


_register()
