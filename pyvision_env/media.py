"""Pictures in and out: load any image as RGB, keep it within a pixel budget, encode it and count its visual tokens."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pyvision_env.errors import MediaError
from pyvision_env.types import ImageSource, RGBArray

MAX_SOURCE_PIXELS = 89_000_000
"""Pixels of an image that may be decoded: above an 8K photo (33 million), below Pillow's own warning threshold."""

Loadable = ImageSource | str | Path | bytes | Image.Image | NDArray[np.uint8]

# What Pillow's decoders are known to raise on files that are cut short or damaged.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    binascii.Error,
    Image.DecompressionBombError,
)


def load_image(source: Loadable, *, max_source_pixels: int = MAX_SOURCE_PIXELS) -> RGBArray:
    """Load an image as RGB.

    The EXIF rotation is applied, transparency is composited on white, and palette, grey, 16-bit and CMYK images are
    converted. The first frame of an animation is taken.

    Args:
        source: A task's image, a file, encoded bytes, a Pillow image or a uint8 array (HxW, HxWx1, HxWx3 or HxWx4).
        max_source_pixels: Larger images are refused before their pixels are decoded.

    Returns:
        uint8 array of shape (height, width, 3).

    Raises:
        MediaError: The file is missing, damaged or not an image, or it is larger than ``max_source_pixels``.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    try:
        return np.array(load_picture(source, max_source_pixels=max_source_pixels), dtype=np.uint8)
    except MemoryError as error:
        raise MediaError(_damaged("the image", error)) from error


def load_picture(source: Loadable, *, max_source_pixels: int = MAX_SOURCE_PIXELS) -> Image.Image:
    """As ``load_image``, but a Pillow image of mode RGB, which spares a copy; not to be changed.

    Raises:
        MediaError: As ``load_image`` does.
    """
    if isinstance(source, np.ndarray):
        return Image.fromarray(_from_array(source))
    if isinstance(source, Image.Image):
        return _to_rgb(source, "the Pillow image", max_source_pixels)
    if isinstance(source, ImageSource):
        source = source.path if source.path is not None else (source.data or b"")
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), f"{len(source)} bytes of encoded image", max_source_pixels)
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_file():
            found = "a folder" if path.is_dir() else "nothing"
            raise MediaError(f"expected an image file at {path}, found {found}; check the path or the media root")
        try:
            file = path.open("rb")
        except OSError as error:
            raise MediaError(_damaged(str(path), error)) from error
        # Closed here and not through the image, whose pixels would go with it.
        with file:
            return _decode(file, str(path), max_source_pixels)
    raise MediaError(f"expected an image source, path, bytes, Pillow image or uint8 array, got {type(source).__name__}")


def _decode(file: BinaryIO, name: str, cap: int) -> Image.Image:
    try:
        image = Image.open(file)
    except Image.DecompressionBombError as error:
        raise MediaError(f"{name} is larger than the cap of {cap:,} pixels: {error}; scale it down first") from error
    except _DECODE_ERRORS as error:
        raise MediaError(_damaged(name, error)) from error
    return _to_rgb(image, name, cap)


def _damaged(name: str, error: BaseException) -> str:
    # Pillow's own words name the object in memory, which tells nobody anything and differs from run to run.
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "it begins like no known image format" if unknown else f"{type(error).__name__}: {error}"
    return (
        f"expected a readable image (PNG, JPEG, WebP, ...) in {name}, found damaged, truncated or other data "
        f"({reason}); open it in a viewer, and fetch or export it again"
    )


def _to_rgb(image: Image.Image, name: str, cap: int) -> Image.Image:
    # Image.size comes from the header: the check precedes the decoding.
    if image.width * image.height > cap:
        raise MediaError(
            f"{name} has {image.width}x{image.height} = {image.width * image.height:,} pixels, above the cap of "
            f"{cap:,}; scale it down first or raise max_source_pixels"
        )
    try:
        image.load()
        # Pillow would copy an image that is upright already.
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return _flatten(ImageOps.exif_transpose(image) if turned else image)
    except _DECODE_ERRORS as error:
        raise MediaError(_damaged(name, error)) from error


def _flatten(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale grey values to 0..255: floats from 0..1, integers from 16 bits unless they already fit in 8."""
    values = np.nan_to_num(grey.astype(np.float64))
    top = values.max(initial=0.0)
    if grey.dtype.kind == "f":
        values = values * 255 if top <= 1 else values
    elif top > 255:
        values = values / 257
    scaled: NDArray[np.uint8] = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return scaled


def _from_array(array: NDArray[np.uint8]) -> RGBArray:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        raise MediaError(
            f"expected a uint8 array of shape (height, width), (height, width, 3) or (height, width, 4), got "
            f"{array.dtype} of shape {array.shape}; convert it with (255 * x).astype('uint8') if it holds 0..1"
        )
    if channels == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if channels == 4:
        alpha = array[..., 3:].astype(np.uint16)
        blended = (array[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
        return blended.astype(np.uint8)
    return np.ascontiguousarray(array)


def fit_pixels(width: int, height: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Scale a size into a pixel budget, keeping the aspect ratio up to rounding.

    Returns:
        ``(width, height)`` with at most ``max_pixels`` pixels, and at least ``min_pixels`` wherever whole numbers allow
        both. A size inside the budget is returned as it is. Very long strips are cut to what the budget can hold.

    Raises:
        MediaError: A side is below 1 or ``min_pixels > max_pixels``.
    """
    if width < 1 or height < 1 or not 1 <= min_pixels <= max_pixels:
        raise MediaError(
            f"expected sides of at least 1 and 1 <= min_pixels <= max_pixels, got {width}x{height}, "
            f"min_pixels={min_pixels}, max_pixels={max_pixels}"
        )
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
    small_w = min(max(1, math.floor(width * scale)), max_pixels)
    small_h = min(max(1, math.floor(height * scale)), max_pixels // small_w)
    return small_w, small_h


def resize_to_budget(array: RGBArray, min_pixels: int, max_pixels: int) -> RGBArray:
    """Resize a picture to ``fit_pixels`` with a Lanczos filter; a picture inside the budget comes back itself."""
    height, width = array.shape[:2]
    size = fit_pixels(width, height, min_pixels, max_pixels)
    if size == (width, height):
        return array
    # reducing_gap shrinks by whole factors first: several times faster on 8K photos, without visible loss.
    return np.array(Image.fromarray(array).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0), dtype=np.uint8)


def visual_tokens(
    width: int,
    height: int,
    patch: int = 14,
    merge: int = 2,
    *,
    min_pixels: int = 3_136,
    max_pixels: int = 12_845_056,
) -> int:
    """Count the tokens a Qwen2.5-VL-like model spends on an image.

    Each side is rounded to a multiple of ``patch * merge``; if the area then leaves ``min_pixels..max_pixels``, both
    sides are scaled by the same factor and rounded inwards. A token covers ``patch * merge`` pixels squared. Source:
    the image processor of Qwen2.5-VL (its "smart resize" and its published preprocessor defaults); Qwen3-VL is
    ``patch=16``.
    """
    unit = patch * merge
    rows, columns = round(height / unit), round(width / unit)
    cell = unit * unit
    # Below, sides are counted in units, so that the token count is simply their product.
    if rows * columns * cell > max_pixels:
        scale = math.sqrt(max_pixels / (height * width))
        rows = max(1, math.floor(height * scale / unit))
        columns = max(1, math.floor(width * scale / unit))
    elif rows * columns * cell < min_pixels:
        scale = math.sqrt(min_pixels / (height * width))
        rows, columns = math.ceil(height * scale / unit), math.ceil(width * scale / unit)
    return rows * columns


def encode_png(array: RGBArray) -> bytes:
    """Encode a picture as PNG, losslessly and at the fastest compression."""
    return _encode(array, "png")


def data_url(array: RGBArray, format: Literal["png", "jpeg"] = "png") -> str:  # noqa: A002 - the field's word
    """Encode a picture as a ``data:`` URL, as OpenAI-compatible servers take it."""
    return f"data:image/{format};base64,{base64.b64encode(_encode(array, format)).decode('ascii')}"


def _encode(array: RGBArray, kind: Literal["png", "jpeg"]) -> bytes:
    buffer = io.BytesIO()
    if kind == "png":
        Image.fromarray(array).save(buffer, "PNG", compress_level=1)
    else:
        Image.fromarray(array).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def content_hash(array: RGBArray) -> str:
    """Return the SHA-256 (hex) of a picture's shape and raw pixels: equal pictures, equal names."""
    digest = hashlib.sha256(repr(array.shape).encode("ascii"))
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
