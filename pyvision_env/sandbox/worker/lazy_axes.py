"""Axes that are only built when something is asked of them, for figures that turn out to be one image.

Building matplotlib's axes takes several milliseconds, most of it for ticks that ``figures="content"`` never draws.
Sleeping axes remember the few calls that one picture needs (``imshow`` with plain arguments, ``axis("off")``, no
ticks). Any other use, by whatever name, wakes them: they become ordinary ``Axes`` on which the remembered calls were
made, and the image they gave out becomes the one those calls made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import image as mimage
from matplotlib import projections
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, SubplotSpec
from matplotlib.image import AxesImage
from PIL import Image

# Set by the figure on axes that it takes in; this must not wake them, and building them must not undo it.
_BY_FIGURE = frozenset({"_remove_method", "_projection_init", "stale_callback"})
_NEUTRAL: dict[str, Any] = {"filternorm": True, "filterrad": 4.0, "aspect": "equal"}
_USUAL: dict[str, Any] = {"axes.grid": False, "image.origin": "upper", "image.aspect": "equal"}
_CHOSEN = frozenset({"cmap", "vmin", "vmax", "interpolation"})


@dataclass
class _Sleep:
    """What is needed to build the axes as if they had been built at once."""

    figure: Any
    place: SubplotSpec | None
    options: dict[str, Any]
    settings: dict[str, Any]
    calls: list[Callable[[], object]] = field(default_factory=list)
    image: Any = None
    pixels: Callable[[], Any] | None = None


class SleepingAxes(Axes):
    """Stands in for ``Axes`` until woken; asked for anything but one subplot, it is ``Axes`` from the start."""

    def __new__(cls, figure: Any, *args: Any, **options: Any) -> Any:
        whole = args == (1, 1, 1) or (len(args) == 1 and isinstance(args[0], SubplotSpec))
        plain = whole and not figure.axes and all(value is None for value in options.values())
        settings: Any = mpl.rcParams
        usual = all(settings[key] == value for key, value in _USUAL.items())
        if not (plain and usual):
            return Axes(figure, *args, **options)
        return object.__new__(cls)

    def __init__(self, figure: Any, *args: Any, **options: Any) -> None:
        place = args[0] if len(args) == 1 else None
        object.__setattr__(self, "_sleep", _Sleep(figure, place, options, _settings()))

    def __getattribute__(self, name: str) -> Any:
        if name in ("__class__", "__array__", "__array_interface__", "__array_struct__"):
            return object.__getattribute__(self, name)
        if name in _REMEMBERED:
            return lambda *args, **options: _called(self, name, args, options)
        _wake(self)
        return getattr(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _BY_FIGURE:
            object.__getattribute__(self, "__dict__")[name] = value
            return
        _wake(self)
        setattr(self, name, value)


class _SleepingImage(AxesImage):
    def __init__(self, axes: Any) -> None:
        object.__setattr__(self, "_owner", axes)

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return object.__getattribute__(self, name)
        _wake(object.__getattribute__(self, "_owner"))
        return getattr(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _wake(object.__getattribute__(self, "_owner"))
        setattr(self, name, value)


def install(colour: Callable[[Any, Any], Any]) -> None:
    """Have figures make sleeping axes from now on.

    Args:
        colour: RGBA pixels of a two-dimensional array under a mappable's norm and colour map.
    """
    _colour[:] = [colour]
    projections.register_projection(SleepingAxes)
    figures: Any = Figure
    arrange = figures.tight_layout

    @functools.wraps(arrange)
    def tight_layout(figure: Any, **options: Any) -> None:
        axes = figure.axes
        if len(axes) == 1 and type(axes[0]) is SleepingAxes:
            # It moves the axes, which changes nothing about a picture of equal aspect.
            object.__getattribute__(axes[0], "_sleep").calls.append(lambda: arrange(figure, **options))
        else:
            arrange(figure, **options)

    figures.tight_layout = tight_layout


_colour: list[Callable[[Any, Any], Any]] = []


def image_of_sleeping(axes: Any) -> Any | None:
    """The picture (Pillow's RGB, HxWx3 or HxWx4 uint8) of sleeping axes that show one and nothing else, or None."""
    if type(axes) is not SleepingAxes:
        return None
    pixels = object.__getattribute__(axes, "_sleep").pixels
    return None if pixels is None else pixels()


def _settings() -> dict[str, Any]:
    # By the dict's own view: RcParams asks for each of its 300 settings by name, which takes as long as a new figure.
    settings: Any = mpl.rcParams
    return dict(dict.items(settings))


def _wake(axes: Any) -> None:
    if type(axes) is not SleepingAxes:
        return
    state = object.__getattribute__(axes, "__dict__")
    sleep = state.pop("_sleep")
    by_figure = dict(state)
    object.__setattr__(axes, "__class__", Axes)
    now = _settings()
    with mpl.rc_context({key: value for key, value in sleep.settings.items() if now[key] != value}):
        # Axes without a place look for one among the figure's axes, where these already are.
        place: Any = sleep.place or GridSpec(1, 1, figure=sleep.figure)[0]
        Axes.__init__(axes, sleep.figure, place, **sleep.options)
        vars(axes).update(by_figure)
        for call in sleep.calls:
            call()


def _show_as(image: Any, axes: Any, data: Any, options: dict[str, Any]) -> None:
    """Call ``imshow`` so that the image it makes is the one that was given out before."""

    def make(*made_with: Any, **settings: Any) -> Any:
        vars(mimage)["AxesImage"] = AxesImage
        object.__setattr__(image, "__class__", AxesImage)
        AxesImage.__init__(image, *made_with, **settings)
        return image

    vars(mimage)["AxesImage"] = make
    try:
        axes.imshow(data, **options)
    finally:
        vars(mimage)["AxesImage"] = AxesImage


def _remember(axes: Any, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    object.__getattribute__(axes, "_sleep").calls.append(lambda: getattr(axes, name)(*args, **options))


def _called(axes: Any, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    # Looking up the arguments of this very call may have woken the axes.
    asleep = type(axes) is SleepingAxes
    return (_REMEMBERED[name] if asleep else _call)(axes, name, args, options)


def _call(axes: Any, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    _wake(axes)
    return getattr(axes, name)(*args, **options)


def _axis(axes: Any, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    # Only the call that hides ticks and frame; what it returns, the limits, nobody uses.
    if args == ("off",) and not any(value is not None and key != "emit" for key, value in options.items()):
        return _remember(axes, name, args, options)
    return _call(axes, name, args, options)


def _ticks(axes: Any, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    none = args == ([],) and not options
    return (_remember if none else _call)(axes, name, args, options)


def _set_current_image(axes: Any, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    own = object.__getattribute__(axes, "_sleep").image
    same = own is not None and len(args) == 1 and args[0] is own
    return (_remember if same else _call)(axes, name, args, options)


def _imshow(axes: Any, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    sleep = object.__getattribute__(axes, "_sleep")
    chosen = {key: value for key, value in options.items() if value is not None and not _is_neutral(key, value)}
    data = _plain_pixels(args[0]) if len(args) == 1 else None
    if data is None or sleep.image is not None or not _is_plain(chosen):
        return _call(axes, name, args, options)
    if isinstance(data, Image.Image) or data.ndim == 3:
        sleep.pixels = lambda: data
    else:
        norm = mpl.colors.Normalize(chosen.get("vmin"), chosen.get("vmax"))
        mappable = mpl.cm.ScalarMappable(norm, chosen.get("cmap"))
        sleep.pixels = lambda: _colour[0](data, mappable)
    image = sleep.image = _SleepingImage(axes)
    sleep.calls.append(lambda: _show_as(image, axes, data, options))
    return image


def _is_neutral(key: str, value: Any) -> bool:
    return key in _NEUTRAL and isinstance(value, str | int | float) and value == _NEUTRAL[key]


def _is_plain(chosen: dict[str, Any]) -> bool:
    """Whether these arguments of ``imshow`` are known to be right and to need no axes."""
    if not chosen.keys() <= _CHOSEN:
        return False
    limits = [chosen[key] for key in ("vmin", "vmax") if key in chosen]
    return (
        all(isinstance(limit, int | float) for limit in limits)
        and chosen.get("interpolation", "auto") in ("auto", "antialiased", "none", *mimage.interpolations_names)
        and (chosen.get("cmap") is None or (isinstance(chosen["cmap"], str) and chosen["cmap"] in mpl.colormaps))
    )


def _plain_pixels(picture: Any) -> Any | None:
    """A copy of a picture that ``imshow`` takes as it is: RGB(A) of 8 bits, or two-dimensional and real; else None."""
    if isinstance(picture, Image.Image):
        if picture.mode not in ("RGB", "RGBA", "L") or not all(picture.size):
            return None
        # Pillow's own copy is the cheapest.
        return picture.copy() if picture.mode == "RGB" else np.asarray(picture)
    if not isinstance(picture, np.ndarray) or isinstance(picture, np.ma.MaskedArray) or not picture.size:
        return None
    colours = picture.ndim == 3 and picture.shape[2] in (3, 4) and picture.dtype == np.uint8
    scalars = picture.ndim == 2 and picture.dtype.kind in "uif" and picture.dtype != np.float16
    return np.array(picture, subok=False) if colours or scalars else None


_REMEMBERED: dict[str, Callable[[Any, str, tuple[Any, ...], dict[str, Any]], Any]] = {
    "imshow": _imshow,
    "axis": _axis,
    "set_axis_off": _remember,
    "set_xticks": _ticks,
    "set_yticks": _ticks,
    "_sci": _set_current_image,
}
