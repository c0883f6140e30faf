"""Flat keyword arguments, as given to ``gymnasium.make``, turned into one validated ``EnvConfig``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from pyvision_env.config import EnvConfig, Limits, RewardConfig, SandboxConfig
from pyvision_env.errors import ConfigError

_NESTED: dict[str, type[BaseModel]] = {"limits": Limits, "reward": RewardConfig, "sandbox": SandboxConfig}


def resolve_config(
    config: EnvConfig | Mapping[str, Any] | None,
    sandbox: str | SandboxConfig | Mapping[str, Any] | None,
    overrides: Mapping[str, Any],
    other_keywords: Iterable[str] = (),
) -> EnvConfig:
    """Merge a configuration with a sandbox choice and flat overrides; the later wins.

    Args:
        config: The base; None for the defaults.
        sandbox: A kind such as ``docker``, a whole ``SandboxConfig`` or some of its fields; None to keep the base's.
        overrides: Fields of ``EnvConfig``, ``Limits`` or ``RewardConfig`` by their bare names, such as ``max_turns``.
        other_keywords: Further names a misspelt keyword may have meant.

    Raises:
        ConfigError: If a keyword is unknown (with the nearest known ones) or a value is wrong.
    """
    if isinstance(config, EnvConfig):
        values = config.model_dump()
    elif config is None or isinstance(config, Mapping):
        values = {} if config is None else dict(config)
    else:
        raise ConfigError(f"config must be an EnvConfig, a dict or None, but {type(config).__name__} came: {config!r}")
    for name, model in _NESTED.items():
        values[name] = _as_dict(name, model, values.get(name, {}))
    if isinstance(sandbox, str):
        values["sandbox"]["kind"] = sandbox
    elif sandbox is not None:
        values["sandbox"].update(_as_dict("sandbox", SandboxConfig, sandbox))
    for name, value in overrides.items():
        if name in _NESTED:
            values[name].update(_as_dict(name, _NESTED[name], value))
        elif name in EnvConfig.model_fields:
            values[name] = value
        elif name in Limits.model_fields:
            values["limits"][name] = value
        elif name in RewardConfig.model_fields:
            values["reward"][name] = value
        else:
            raise _unknown_keyword(name, value, other_keywords)
    try:
        return EnvConfig.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}, but {item['input']!r} came" for item in error.errors()
        )
        raise ConfigError(f"The environment's configuration is wrong: {problems}") from error


def _as_dict(name: str, model: type[BaseModel], value: Any) -> dict[str, Any]:
    if isinstance(value, model):
        return value.model_dump()
    if isinstance(value, Mapping):
        return dict(value)
    raise ConfigError(f"{name} must be a {model.__name__} or a dict, but {type(value).__name__} came: {value!r}")


def _unknown_keyword(name: str, value: Any, other_keywords: Iterable[str]) -> ConfigError:
    if name in SandboxConfig.model_fields:
        return ConfigError(f"{name} is a setting of the sandbox: pass sandbox={{{name!r}: {value!r}}}")
    known = [*EnvConfig.model_fields, *Limits.model_fields, *RewardConfig.model_fields, *other_keywords]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known ones: {', '.join(sorted(set(known)))}"
    return ConfigError(f"The environment has no keyword argument {name!r}; {hint}")
