"""A figure that is exactly one image, as that image's own pixels: what ``figures="content"`` gives instead of a canvas.

Applied is what the code set to be seen: norm and colour map, alpha over the background, origin and inverted axes,
limits (a pixel in sight in part is in), extent and aspect where they stretch the picture. Left out is what only
surrounds the picture: margins, frame, and ticks that matplotlib chose. Anything the code put there itself (title,
labels, ticks, grid, lines, patches, text, colour bar, insets, a coloured frame, a clip path, other axes) makes the
figure more than an image, and the canvas is drawn.
"""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import cbook
from matplotlib.axis import Axis
from matplotlib.colors import to_rgba
from matplotlib.image import AxesImage
from matplotlib.spines import Spine
from PIL import Image

from . import lazy_axes

_MAX_STRETCHED_PIXELS = 8_000_000
_SAME_SCALE = 0.01
_TOUCH = 1e-6


def content_of(figure: Any) -> Any | None:
    """The pixels of a figure that is exactly one image (an array or a Pillow image); None where it is anything else."""
    if len(figure.axes) != 1 or len(figure.get_children()) != 2:
        return None
    axes = figure.axes[0]
    waiting = lazy_axes.image_of_sleeping(axes)
    if isinstance(waiting, Image.Image):
        return waiting
    if waiting is not None and _is_opaque(waiting):
        return waiting[..., :3]
    image = _only_image(axes)
    view = None if image is None else _view(image, axes)
    if image is None or view is None:
        return None
    rows, columns, ratio = view
    data, alpha = image.get_array(), image.get_alpha()
    if data.ndim == 2:
        # The norm is set by the whole image, not by the part of it that is in sight.
        image.norm.autoscale_None(data)
    pixels = coloured(data[rows, columns], image)
    if alpha is not None:
        share = np.broadcast_to(np.asarray(alpha, dtype=np.float32), data.shape[:2])[rows, columns]
        pixels = np.dstack([pixels[..., :3], _opacity(pixels) * share])
    background = axes.get_facecolor() if axes.axison and axes.patch.get_visible() else figure.get_facecolor()
    return _stretched(_over(pixels, background), ratio, image.get_interpolation())


def coloured(data: Any, mappable: Any) -> Any:
    """Image data as RGB or RGBA, uint8, with the norm and the colour map of ``mappable``."""
    if data.dtype != np.uint8 or np.ma.is_masked(data):
        return mappable.to_rgba(data, bytes=True)
    data = np.ascontiguousarray(data)
    if data.ndim == 3:
        return data
    mappable.norm.autoscale_None(data)
    # The same arithmetic for each of the 256 values instead of for each pixel.
    table = mappable.to_rgba(np.arange(256, dtype=np.uint8)[None], bytes=True)[0]
    if table[..., 3].min() < 255:
        return table[data]
    picture = Image.fromarray(data)
    picture.putpalette(table[:, :3].tobytes())
    return np.asarray(picture.convert("RGB"))


def _only_image(axes: Any) -> Any | None:
    """The image of axes that show nothing else."""
    if axes.name != "rectilinear" or not axes.get_visible() or {axes.get_xscale(), axes.get_yscale()} != {"linear"}:
        return None
    others = [child for child in axes.get_children() if not _is_surrounding(child, axes)]
    if len(others) != 1 or type(others[0]) is not AxesImage:
        return None
    image = others[0]
    plain = (
        image.get_visible()
        and image.get_transform() == axes.transData
        and image.get_clip_path() is None
        and image.get_agg_filter() is None
        and image.get_array() is not None
    )
    return image if plain else None


def _is_surrounding(child: Any, axes: Any) -> bool:
    """Whether a child of the axes shows nothing that the code put there."""
    if child is axes.patch:
        return True
    if isinstance(child, Axis):
        return not axes.axison or not child.get_visible() or not _is_marked(child)
    if isinstance(child, Spine):
        return not axes.axison or not child.get_visible() or _is_default_frame(child)
    is_title = child in (axes.title, axes._left_title, axes._right_title)
    return is_title and not child.get_text().strip()


def _is_marked(axis: Any) -> bool:
    placed = not axis.isDefault_majloc and len(axis.get_majorticklocs()) > 0
    return placed or bool(axis.get_label_text().strip()) or bool(axis.get_tick_params().get("gridOn"))


def _is_default_frame(spine: Any) -> bool:
    colour = to_rgba(mpl.rcParams["axes.edgecolor"])
    width = mpl.rcParams["axes.linewidth"]
    return bool(to_rgba(spine.get_edgecolor()) == colour and spine.get_linewidth() == width)


def _is_opaque(pixels: Any) -> bool:
    return pixels.shape[2] == 3 or bool(pixels[..., 3].min() == 255)


def _opacity(pixels: Any) -> Any:
    return pixels[..., 3] if pixels.shape[2] == 4 else np.full(pixels.shape[:2], 255, dtype=np.uint8)


def _over(pixels: Any, background: Any) -> Any:
    """RGBA pixels over a background colour, which itself lies on white."""
    if _is_opaque(pixels):
        return pixels[..., :3]
    red, green, blue, opaque = to_rgba(background)
    under = 255 * (np.array([red, green, blue], dtype=np.float32) * opaque + (1 - opaque))
    share = pixels[..., 3:].astype(np.float32) / 255
    return np.rint(pixels[..., :3] * share + under * (1 - share)).astype(np.uint8)


def _view(image: Any, axes: Any) -> tuple[slice, slice, float] | None:
    """Which rows and columns the axes show, in the order in which they are seen, and how high a pixel of width 1 is.

    None if nothing of the image is in sight, or if showing it as stretched would take too many pixels.
    """
    axes.apply_aspect()
    left, right, bottom, top = image.get_extent()
    if image.origin == "lower":
        bottom, top = top, bottom
    height, width = image.get_array().shape[:2]
    across = _in_sight(left, right, width, *axes.get_xlim())
    down = _in_sight(top, bottom, height, *axes.get_ylim()[::-1])
    if across is None or down is None:
        return None
    (rows, row_share), (columns, column_share) = down, across
    ratio = (row_share * axes.bbox.height) / (column_share * axes.bbox.width)
    seen = len(range(*rows.indices(height))) * len(range(*columns.indices(width)))
    return None if seen * max(ratio, 1 / ratio) > max(_MAX_STRETCHED_PIXELS, seen * 1.1) else (rows, columns, ratio)


def _stretched(pixels: Any, ratio: float, interpolation: str) -> Any:
    """The longer side of a pixel in pixels of its shorter one, so that nothing is lost."""
    if abs(ratio - 1) < _SAME_SCALE:
        return pixels
    height, width = pixels.shape[:2]
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    how = Image.Resampling.NEAREST if interpolation in ("nearest", "none") else Image.Resampling.BICUBIC
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(size, how)


def _in_sight(first: float, last: float, count: int, near: float, far: float) -> tuple[slice, float] | None:
    """Which of ``count`` pixels between the data coordinates ``first`` and ``last`` lie between ``near`` and ``far``.

    Returns:
        The pixels in the order in which they are seen, and the share of the view that one of them takes.
    """
    if first == last or near == far:
        return None
    pixel = (last - first) / count
    start, stop = sorted(((near - first) / pixel, (far - first) / pixel))
    begin, end = max(0, math.floor(start + _TOUCH)), min(count, math.ceil(stop - _TOUCH))
    if begin >= end:
        return None
    share = abs(pixel / (far - near))
    if (far - near) / pixel > 0:
        return slice(begin, end), share
    return slice(end - 1, begin - 1 if begin else None, -1), share


def scalar_pixels(data: Any, mappable: Any) -> Any:
    """What ``imshow`` makes of a two-dimensional array before anything is drawn."""
    return coloured(cbook.safe_masked_invalid(data, copy=True), mappable)
