"""``import decord`` inside the sandbox finds the reader, with the names models use."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from barcode_clips import read_number

import pyvision_env.sandbox.worker as worker
from pyvision_env.sandbox.worker.video import VideoError, VideoReader, install_decord

Clip = Callable[[str], Path]


@pytest.fixture
def decord() -> Iterator[Any]:
    modules: dict[str, ModuleType] = {}
    install_decord(modules)
    shim = modules["decord"]
    assert set(modules) >= {"decord.bridge", "decord.ndarray", "decord.video_reader", "decord.logging"}
    yield shim
    shim.bridge.reset_bridge()


def test_offers_the_names_of_decord(decord: Any) -> None:
    assert decord.VideoReader is decord.video_reader.VideoReader is VideoReader
    assert decord.DECORDError is VideoError
    assert decord.__version__ == "0.6.0"
    assert decord.nd is decord.ndarray
    decord.logging.set_level(decord.logging.QUIET)


def test_both_contexts_decode(decord: Any, clip: Clip) -> None:
    for context in (decord.cpu(0), decord.cpu(), decord.gpu(0)):
        assert read_number(decord.VideoReader(str(clip("plain.mp4")), ctx=context)[2]) == 2


def test_bridge_decides_the_kind_of_array(decord: Any, clip: Clip) -> None:
    reader = decord.VideoReader(str(clip("plain.mp4")))
    decord.bridge.set_bridge("numpy")
    assert type(reader[0]) is type(reader.get_batch([0])) is np.ndarray
    decord.bridge.set_bridge("native")
    assert reader[0].asnumpy().shape == (96, 160, 3)


def test_torch_bridge_gives_tensors_or_says_that_torch_is_missing(decord: Any, clip: Clip) -> None:
    reader = decord.VideoReader(str(clip("plain.mp4")))
    if importlib.util.find_spec("torch"):
        with decord.bridge.use_torch():
            assert type(reader[0]).__module__.startswith("torch")
    else:
        with pytest.raises(ImportError, match="torch, which is not installed"):
            decord.bridge.set_bridge("torch")
    assert reader.frames([4]).shape == (1, 96, 160, 3)
    assert read_number(reader[4].asnumpy()) == 4


@pytest.mark.parametrize(("name", "message"), [("tensorflow", "not supported here"), ("cupy", "unknown")])
def test_other_bridges_are_refused_by_name(decord: Any, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' is {message}: choose one of 'native'"):
        decord.bridge.set_bridge(name)


def test_readers_of_other_media_are_refused_by_name(decord: Any) -> None:
    with pytest.raises(AttributeError, match=r"decord\.AudioReader is not available here"):
        _ = decord.AudioReader
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = decord.Nonsense


_PROGRAM = """
import importlib, importlib.util, sys
sys.modules["pyvision_env"] = None
directory, clip = sys.argv[1:]
spec = importlib.util.spec_from_file_location("w", directory + "/__init__.py", submodule_search_locations=[directory])
sys.modules["w"] = importlib.util.module_from_spec(spec)
importlib.import_module("w.video").install_decord()
import decord.bridge
from decord import VideoReader, cpu
from decord.video_reader import VideoReader as Same
assert VideoReader is Same
reader = VideoReader(clip, ctx=cpu(0), num_threads=1)
print(len(reader), reader.get_batch([1, 2]).asnumpy().shape)
try:
    from decord import AVReader
except ImportError as error:
    print(error)
"""


def test_worker_runs_without_the_package_and_takes_the_place_of_decord(clip: Clip) -> None:
    directory = str(Path(worker.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-I", "-c", _PROGRAM, directory, str(clip("plain.mp4"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "90 (2, 96, 160, 3)"
    assert "AVReader" in done.stdout.splitlines()[1]
