"""A user's own agent, named on the command line as ``module:Class`` or ``path/to/file.py:Class``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pyvision_env.errors import ConfigError

if TYPE_CHECKING:
    from pyvision_env.agents import Agent

_EXPECTED = "expected reference, openai, module:Class or path/to/file.py:Class"


def load_agent_class(name: str) -> Callable[[], Agent]:
    """Find what makes the agent: a class, or any callable without arguments.

    Raises:
        ConfigError: The module or the class cannot be found, or what it makes is no agent.
    """
    where, colon, attribute = name.rpartition(":")
    if not colon or not where or not attribute:
        raise ConfigError(f"--agent {name!r}: {_EXPECTED}")
    module = _load_file(Path(where)) if where.endswith(".py") else _load_module(where)
    make = getattr(module, attribute, None)
    if not callable(make):
        found = "nothing of that name" if make is None else f"a {type(make).__name__}, which cannot be called"
        raise ConfigError(f"--agent {name!r}: {where} holds {found}")

    def checked() -> Agent:
        agent: Any = make()
        if not callable(getattr(agent, "act", None)) or not isinstance(getattr(agent, "name", None), str):
            raise ConfigError(
                f"--agent {name!r}: an agent has a name and a method act(context) that returns text; "
                f"{type(agent).__name__} lacks one of them"
            )
        return agent  # type: ignore[no-any-return]

    return checked


def _load_module(name: str) -> ModuleType:
    # As with `python -m`, modules of the current folder are found; a console script does not look there by itself.
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"--agent: the module {name!r} cannot be imported: {error}; {_EXPECTED}") from error


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"--agent: there is no file {path}; {_EXPECTED}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look a class's module up by its name.
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module
