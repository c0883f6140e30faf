"""Names that newer libraries have dropped and that models, trained on years of code, still write.

Each stands for what the library puts in its place. Nothing that a library has today is changed.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_NUMPY: dict[str, Any] = {
    "int": int, "float": float, "object": object, "str": str, "float_": np.float64, "complex_": np.complex128,
    "unicode_": np.str_, "NaN": np.nan, "NAN": np.nan, "Inf": np.inf, "infty": np.inf, "product": np.prod,
    "cumproduct": np.cumprod, "alltrue": np.all, "sometrue": np.any, "trapz": np.trapezoid, "row_stack": np.vstack,
    "in1d": lambda ar1, ar2, **options: np.isin(np.ravel(ar1), ar2, **options),
    "asscalar": lambda array: np.asarray(array).item(),
}  # fmt: skip
_PILLOW = {
    "ANTIALIAS": Image.Resampling.LANCZOS,
    "CUBIC": Image.Resampling.BICUBIC,
    "LINEAR": Image.Resampling.BILINEAR,
}


def install() -> None:
    """Add the names, and a font where code names one that is not installed."""
    for name, value in _NUMPY.items():
        _add(np, name, value)
    for name, value in _PILLOW.items():
        _add(Image, name, value)
    _add(ImageDraw.ImageDraw, "textsize", _text_size)
    for font in (ImageFont.ImageFont, ImageFont.FreeTypeFont):
        _add(font, "getsize", _font_size)
    _add_fonts()
    _add_plotting()
    features = sys.modules.get("skimage.feature")
    if features is not None:
        _add(features, "greycomatrix", features.graycomatrix)
        _add(features, "greycoprops", features.graycoprops)


def _add(holder: ModuleType | type, name: str, value: Any) -> None:
    # Not hasattr: numpy answers some of these with an error that says what to write instead.
    if name not in vars(holder):
        setattr(holder, name, value)


def _rename(holder: Any, name: str, **renamed: str) -> None:
    """Let a function take an argument by its old name, too."""
    function = getattr(holder, name)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        return function(*args, **{renamed.get(key, key): value for key, value in options.items()})

    setattr(holder, name, call)


def _text_size(draw: ImageDraw.ImageDraw, text: str, font: Any = None, *args: Any, **options: Any) -> tuple[int, int]:
    left, top, right, bottom = draw.textbbox((0, 0), text, font, None, *args, **options)
    del left, top
    return round(right), round(bottom)


def _font_size(font: Any, text: str, *args: Any, **options: Any) -> tuple[int, int]:
    left, top, right, bottom = font.getbbox(text, *args, **options)
    del left, top
    return round(right), round(bottom)


def _add_fonts() -> None:
    """Let a font that is named but not there be DejaVu of the same weight, as on a machine with fonts installed."""
    find = ImageFont.truetype
    folder = Path(mpl.get_data_path(), "fonts", "ttf")

    def truetype(font: Any = None, size: float = 10, *args: Any, **options: Any) -> ImageFont.FreeTypeFont:
        try:
            return find(font, size, *args, **options)
        except OSError:
            if not isinstance(font, str | os.PathLike):
                raise
        name = Path(font).name.lower()
        kind = "Mono" if any(part in name for part in ("mono", "cour", "consola")) else ""
        bold = "-Bold" if "bold" in name or name.removesuffix(".ttf").endswith("bd") else ""
        return find(str(folder / f"DejaVuSans{kind}{bold}.ttf"), size, *args, **options)

    ImageFont.truetype = truetype


def _add_plotting() -> None:
    from matplotlib import cm, style
    from matplotlib import pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import FigureManagerBase
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    def get_cmap(name: Any = None, lut: int | None = None) -> Any:
        return plt.get_cmap(name, lut)

    def tostring_rgb(canvas: Any) -> bytes:
        if not hasattr(canvas, "renderer"):
            canvas.draw()
        return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]).tobytes()

    _add(cm, "get_cmap", get_cmap)
    _add(FigureCanvasAgg, "tostring_rgb", tostring_rgb)
    _add(FigureCanvasAgg, "set_window_title", FigureManagerBase.set_window_title)
    for holder in (Axes, plt):
        _rename(holder, "boxplot", labels="tick_labels")
    for name in [name for name in style.library if name.startswith("seaborn-v0_8")]:
        style.library.setdefault(name.replace("-v0_8", ""), style.library[name])
