"""A user's own agent, named on the command line as ``module:Class`` or ``path/to/file.py:Class``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pyvision_env.errors import ConfigError, PyVisionError, UserError

if TYPE_CHECKING:
    from pyvision_env.agents import Agent, Context

_EXPECTED = "expected reference, openai, module:Class or path/to/file.py:Class"


def load_agent_class(name: str) -> Callable[[], Agent]:
    """Find what makes the agent: a class, or any callable without arguments.

    Whatever the user's code raises, now or later, comes as a ``UserError`` that names the agent and the line.

    Raises:
        ConfigError: The module or the class cannot be found, or the module fails while it is loaded.
    """
    where, colon, attribute = name.rpartition(":")
    if not colon or not where or not attribute:
        raise ConfigError(f"--agent {name!r}: {_EXPECTED}")
    module = _load_file(name, Path(where)) if where.endswith(".py") else _load_module(name, where)
    make = getattr(module, attribute, None)
    if not callable(make):
        found = "nothing of that name" if make is None else f"a {type(make).__name__}, which cannot be called"
        raise ConfigError(f"--agent {name!r}: {where} holds {found}")
    return lambda: _OwnAgent(name, make)


class _OwnAgent:
    """The user's agent; what goes wrong in its code is told as the user's to mend.

    Raises:
        ConfigError: It cannot be made without arguments, or what is made is no agent.
    """

    def __init__(self, given_name: str, make: Callable[[], Any]) -> None:
        try:
            agent = make()
        except PyVisionError:
            raise
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"--agent {given_name!r} could not be made (it is called without arguments): {_what(error)}"
            ) from error
        if not callable(getattr(agent, "act", None)) or not isinstance(getattr(agent, "name", None), str):
            raise ConfigError(
                f"--agent {given_name!r}: an agent has a name and a method act(context) that returns text; "
                f"{type(agent).__name__} lacks one of them"
            )
        self.name: str = agent.name
        self.settings = getattr(agent, "settings", None)
        self._given_name, self._agent = given_name, agent

    def act(self, context: Context) -> str:
        """The user's agent's turn.

        Raises:
            UserError: Its code failed, or gave no text.
        """
        try:
            text = self._agent.act(context)
        except PyVisionError:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(
                f"--agent {self._given_name!r} failed in its turn {len(context.turns) + 1}: {_what(error)}"
            ) from error
        if not isinstance(text, str):
            raise UserError(
                f"--agent {self._given_name!r}: act(context) must return text (str), but {type(text).__name__} came"
            )
        return text


def _load_module(name: str, module: str) -> ModuleType:
    # As with `python -m`, modules of the current folder are found; a console script does not look there by itself.
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise ConfigError(
                f"--agent {name!r}: the module {module!r} cannot be imported: {error}; {_EXPECTED}"
            ) from error
        raise _unloadable(name, error) from error
    except (Exception, SystemExit) as error:
        raise _unloadable(name, error) from error


def _load_file(name: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"--agent {name!r}: there is no file {path}; {_EXPECTED}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look a class's module up by its name.
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        if sys.modules.get(path.stem) is module:
            del sys.modules[path.stem]
        raise _unloadable(name, error) from error
    return module


def _unloadable(name: str, error: BaseException) -> ConfigError:
    return ConfigError(f"--agent {name!r} cannot be loaded: {_what(error)}")


def _what(error: BaseException) -> str:
    """What was raised and at which line of the user's code; ``--debug`` shows the whole traceback."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({error.filename}, line {error.lineno})"
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_theirs(frame.filename)]
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else text


def _is_theirs(filename: str) -> bool:
    """Neither this file, nor the machinery of imports, nor an installed package."""
    return filename != __file__ and not filename.startswith("<frozen") and "site-packages" not in Path(filename).parts
