"""Pictures that an episode gives back: converted to RGB, bounded in number and size, scaled to the pixel budget."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

MAX_NATIVE_PIXELS = 40_000_000


class PictureTooLargeError(ValueError):
    """A picture beyond what is drawn or kept at all."""

    __module__ = "builtins"


def fit_pixels(width: int, height: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The size of a picture within the pixel budget: the rule of ``pyvision_env.media.fit_pixels``, to the pixel."""
    pixels = width * height
    if min_pixels <= pixels <= max_pixels:
        return width, height
    if pixels < min_pixels:
        scale = math.sqrt(min_pixels / pixels)
        larger = math.ceil(width * scale), math.ceil(height * scale)
        if larger[0] * larger[1] <= max_pixels:
            return larger
    else:
        scale = math.sqrt(max_pixels / pixels)
    # A strip thinner than a pixel after scaling keeps one pixel, so its long side must give way.
    new_width = min(max(1, math.floor(width * scale)), max_pixels)
    return new_width, min(max(1, math.floor(height * scale)), max_pixels // new_width)


def check_size(width: float, height: float, what: str) -> None:
    """Refuse a picture before anything of its size is allocated."""
    if width * height > MAX_NATIVE_PIXELS:
        raise PictureTooLargeError(
            f"{what} of {int(width)}x{int(height)} pixels is larger than the limit of {MAX_NATIVE_PIXELS:,} pixels"
        )


def as_rgb(picture: Any) -> Image.Image:
    """A Pillow image or an array (HxW, HxWx3, HxWx4; uint8, bool, or float in [0, 1]) as an RGB image."""
    if isinstance(picture, Image.Image):
        value = picture
    else:
        array = np.asarray(picture)
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
            raise ValueError(f"an array of shape {array.shape} is not a picture: expected HxW, HxWx3 or HxWx4")
        check_size(array.shape[1], array.shape[0], "a picture")
        if array.dtype == bool or np.issubdtype(array.dtype, np.floating):
            array = np.clip(np.nan_to_num(array.astype(np.float32)), 0, 1) * 255
        if array.dtype != np.uint8:
            array = np.clip(array, 0, 255).astype(np.uint8)
        value = Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2:] == (1,) else array))
    check_size(value.width, value.height, "a picture")
    if value.mode in ("RGBA", "LA", "PA") or "transparency" in value.info:
        rgba = value.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return value if value.mode == "RGB" else value.convert("RGB")


@dataclass
class Gallery:
    """The pictures of one request, in the order in which they were shown.

    Attributes:
        min_pixels: Smaller pictures are enlarged for the model.
        max_pixels: Larger pictures are reduced for the model; the runtime keeps the native one.
        room: How many pictures may still be shown.
        dropped: How many were not taken for want of room.
    """

    min_pixels: int
    max_pixels: int
    room: int
    native: list[Image.Image] = field(default_factory=list)
    shown: list[Image.Image] = field(default_factory=list)
    dropped: int = 0

    def has_room(self) -> bool:
        """Whether another picture would be taken; counts a refusal."""
        if len(self.native) < self.room:
            return True
        self.dropped += 1
        return False

    def add(self, value: Any) -> None:
        """Take a picture, or count it as dropped when there is no room."""
        if not self.has_room():
            return
        image = as_rgb(value)
        if image is value:
            image = image.copy()
        if image.width < 1 or image.height < 1:
            raise ValueError(f"a picture of {image.width}x{image.height} pixels has nothing to show")
        size = fit_pixels(image.width, image.height, self.min_pixels, self.max_pixels)
        self.native.append(image)
        self.shown.append(image if size == image.size else image.resize(size, Image.Resampling.LANCZOS))
