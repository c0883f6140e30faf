"""The matplotlib backend of an episode: showing a figure hands its picture to the episode's gallery.

Pillow's ``Image.show`` and OpenCV's ``imshow`` end here too. The backend is Agg with another figure manager, so
``plt.show()`` works under any spelling, alias or canvas.
"""

from __future__ import annotations

import sys
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib._pylab_helpers import Gcf
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image, ImageShow

from . import content, lazy_axes
from .pictures import Gallery, check_size

_current: list[Gallery] = []


def use_gallery(gallery: Gallery) -> None:
    """Hand pictures to ``gallery`` from now on."""
    _current[:] = [gallery]


def show_picture(value: Any) -> None:
    """Show a Pillow image or an array."""
    if _current:
        _current[0].add(value)


def show_figure(figure: Any) -> None:
    """Show a figure as its canvas draws it, and close it."""
    manager = figure.canvas.manager
    if _current and _current[0].has_room():
        pixels = content.content_of(figure) if _mode[0] == "content" else None
        _current[0].add(draw(figure) if pixels is None else pixels)
    if manager is not None:
        Gcf.destroy(manager)


def draw(figure: Any) -> Image.Image:
    """The figure's picture, pixel for pixel what ``savefig`` writes as PNG.

    Raises:
        PictureTooLargeError: The canvas is larger than what is drawn at all.
    """
    if not isinstance(figure.canvas, FigureCanvas):
        FigureCanvas(figure)
    figure.canvas.draw()
    rgba = np.asarray(figure.canvas.buffer_rgba())
    if rgba[..., 3].min() == 255:
        return Image.fromarray(np.ascontiguousarray(rgba[..., :3]))
    return Image.fromarray(rgba)


class FigureManager(FigureManagerBase):
    """Showing captures."""

    def show(self) -> None:
        show_figure(self.canvas.figure)

    @classmethod
    def pyplot_show(cls, *, block: bool | None = None) -> None:
        del block
        for manager in list(Gcf.get_all_fig_managers()):
            show_figure(manager.canvas.figure)


class FigureCanvas(FigureCanvasAgg):
    """Agg that refuses canvases beyond the limit before their buffer is made."""

    manager_class = FigureManager

    def get_renderer(self) -> Any:
        width, height = self.figure.get_size_inches() * self.figure.dpi
        check_size(width, height, "a figure")
        return super().get_renderer()  # type: ignore[no-untyped-call]


_mode = ["faithful"]


def set_mode(mode: str) -> None:
    """``faithful`` draws every figure; ``content`` gives a figure that is one image as that image's own pixels."""
    _mode[0] = mode
    if mode == "content":
        lazy_axes.install(content.scalar_pixels)


class _Viewer(ImageShow.Viewer):
    def show(self, image: Image.Image, **options: Any) -> int:
        del options
        show_picture(image)
        return 1


def install() -> None:
    """Make this the only way to show anything, and keep code that asks for another backend from losing it."""
    name = "module://" + __name__
    mpl.use(name, force=True)
    from matplotlib import pyplot as plt

    plt.switch_backend(name)
    plt.ioff()

    def keep(*args: Any, **kwargs: Any) -> None:
        del args, kwargs

    mpl.use = keep
    plt.switch_backend = keep
    ImageShow._viewers[:] = [_Viewer()]
    cv2: Any = sys.modules.get("cv2")
    if cv2 is not None:
        cv2.imshow = lambda window, picture: show_bgr(picture)
        cv2.waitKey = cv2.waitKeyEx = cv2.pollKey = lambda delay=0: -1
        for name in ("namedWindow", "destroyWindow", "destroyAllWindows", "resizeWindow", "moveWindow"):
            setattr(cv2, name, keep)


def show_bgr(picture: Any) -> None:
    """Show an array whose channels are in OpenCV's order."""
    array = np.asarray(picture)
    if array.ndim == 3 and array.shape[2] >= 3:
        array = array[..., [2, 1, 0, *range(3, array.shape[2])]]
    show_picture(array)


def open_figures() -> int:
    """How many figures were made but not shown or closed."""
    return len(Gcf.figs)


def warm() -> None:
    """Draw once, so that fonts, glyphs and styles are in memory before the first fork."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots()
    axes.imshow(np.zeros((4, 4, 3)))
    axes.set_title("ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz 0123456789 .,:;-+()[]%")
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    axes.plot([0, 1], [0, 1], label="a")
    axes.legend()
    draw(figure)
    plt.close("all")
