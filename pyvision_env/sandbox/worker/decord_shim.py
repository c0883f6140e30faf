"""What the module ``decord`` offers around its reader: arrays, bridges, contexts, and the module itself.

The published models call decord, but it gives wrong frames on stream-copied and MPEG-TS files; ``video`` holds the
reader that takes its place.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, MutableMapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

DECORD_VERSION = "0.6.0"
"""The version of decord whose interface is offered."""

BRIDGES = ("native", "numpy", "torch")

_ELSEWHERE = frozenset({"mxnet", "tensorflow", "tvm"})
_NOT_OFFERED = frozenset({"VideoLoader", "AudioReader", "AVReader"})


class NDArray(np.ndarray[Any, np.dtype[Any]]):
    """A frame (``HxWx3``) or batch (``NxHxWx3``) of uint8 RGB: a numpy array that also answers to decord's names."""

    def asnumpy(self) -> npt.NDArray[Any]:
        """The same pixels as a plain numpy array."""
        return self.view(np.ndarray)

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """Results of numpy functions: ``frame.mean()`` is a plain number."""
        return array[()] if return_scalar else array.view(NDArray)


class Context(NamedTuple):
    """Where decord is told to decode; whatever is named, it happens on the processor."""

    device_type: int
    device_id: int


def cpu(dev_id: int = 0) -> Context:
    """Decode on the processor."""
    return Context(1, dev_id)


def gpu(dev_id: int = 0) -> Context:
    """Accepted for the sake of existing code; decoding happens on the processor all the same."""
    return Context(2, dev_id)


class Bridge:
    """Which kind of array readers give out; one setting for the process, as code run by a model has one thread."""

    def __init__(self) -> None:
        self._name = "native"

    def set_bridge(self, name: str) -> None:
        """Give out ``native`` (``asnumpy()``), ``numpy`` or ``torch`` arrays from now on.

        Raises:
            ValueError: The bridge is unknown.
            ImportError: torch is asked for and not installed.
        """
        if name not in BRIDGES:
            known = "is not supported here" if name in _ELSEWHERE else "is unknown"
            raise ValueError(f"decord bridge {name!r} {known}: choose one of {', '.join(map(repr, BRIDGES))}")
        if name == "torch":
            _torch()
        self._name = name

    def reset_bridge(self) -> None:
        """Go back to ``native``."""
        self._name = "native"

    @contextlib.contextmanager
    def use(self, name: str) -> Iterator[None]:
        """Set the bridge for a ``with`` block."""
        before = self._name
        self.set_bridge(name)
        try:
            yield
        finally:
            self._name = before

    def out(self, pixels: npt.NDArray[np.uint8]) -> Any:
        """``pixels`` as the kind of array that was asked for."""
        if self._name == "torch":
            return _torch().from_numpy(pixels)
        return pixels if self._name == "numpy" else pixels.view(NDArray)


bridge = Bridge()


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise ImportError("decord's torch bridge needs torch, which is not installed: use asnumpy() instead") from None


def _to_array(values: Any, ctx: Context | None = None) -> NDArray:
    return np.array(values).view(NDArray)


def _set_log_level(level: int) -> None:
    """Accepted and ignored: the reader logs nothing."""


def _missing(name: str) -> Any:
    if name in _NOT_OFFERED:
        raise AttributeError(f"decord.{name} is not available here: read frames with decord.VideoReader")
    raise AttributeError(f"module 'decord' has no attribute {name!r}")


def _module(name: str, members: dict[str, Any]) -> ModuleType:
    module = ModuleType(name, "decord's interface over the sandbox's own video reader.")
    vars(module).update(members)
    return module


def install(modules: MutableMapping[str, ModuleType], reader: type, error: type[Exception]) -> None:
    """Put a module ``decord`` and its submodules into ``modules``, built around the class ``reader``.

    Args:
        modules: Usually ``sys.modules``.
        reader: Becomes ``decord.VideoReader``.
        error: Becomes ``decord.DECORDError``.
    """
    contexts: dict[str, Any] = {"cpu": cpu, "gpu": gpu}
    children: dict[str, dict[str, Any]] = {
        "bridge": {
            "set_bridge": bridge.set_bridge,
            "reset_bridge": bridge.reset_bridge,
            "bridge_out": bridge.out,
            "use_torch": lambda: bridge.use("torch"),
        },
        "ndarray": {**contexts, "NDArray": NDArray, "DECORDContext": Context, "array": _to_array},
        "video_reader": {**contexts, "VideoReader": reader},
        "logging": {"set_level": _set_log_level, "QUIET": -8, "ERROR": 16, "WARNING": 24, "INFO": 32, "DEBUG": 48},
    }
    package = _module(
        "decord",
        {
            **contexts,
            "VideoReader": reader,
            "DECORDError": error,
            "DECORDLimitReachedError": error,
            "__version__": DECORD_VERSION,
            "__path__": [],
            "__getattr__": _missing,
        },
    )
    modules["decord"] = package
    for name, members in children.items():
        child = _module(f"decord.{name}", members)
        setattr(package, name, child)
        modules[child.__name__] = child
    vars(package)["nd"] = vars(package)["ndarray"]
