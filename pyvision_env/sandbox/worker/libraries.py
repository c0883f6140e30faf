"""The libraries offered to the code, imported once for all episodes."""

from __future__ import annotations

import importlib
import sys

_LIBRARIES = {
    "numpy": (),
    "PIL": ("PIL.ImageDraw", "PIL.ImageFont", "PIL.ImageFilter", "PIL.ImageOps", "PIL.ImageEnhance", "PIL.ImageChops"),
    "matplotlib": ("matplotlib.patches", "matplotlib.gridspec", "mpl_toolkits.axes_grid1"),
    "scipy": ("scipy.ndimage", "scipy.signal", "scipy.stats", "scipy.spatial", "scipy.optimize"),
    "skimage": (
        "skimage.color", "skimage.exposure", "skimage.feature", "skimage.filters", "skimage.measure",
        "skimage.morphology", "skimage.segmentation", "skimage.transform", "skimage.io", "skimage.draw",
    ),
    "sklearn": ("sklearn.cluster",),
    "cv2": (),
    "av": (),
}  # fmt: skip


def import_libraries() -> dict[str, str]:
    """Import what is there and say which versions; a library that is missing is simply not offered."""
    versions = {}
    # Where pandas is installed some of them load it, and that loads this, whose allocator keeps a thread of its own: a
    # process with threads forks at twice the cost.
    hidden = "pyarrow" not in sys.modules
    if hidden:
        sys.modules["pyarrow"] = None  # type: ignore[assignment]
    for name, submodules in _LIBRARIES.items():
        try:
            module = importlib.import_module(name)
            for submodule in submodules:
                importlib.import_module(submodule)
        except ImportError:
            continue
        versions[name] = str(getattr(module, "__version__", "?"))
    if hidden:
        sys.modules.pop("pyarrow", None)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)
    from PIL import Image

    Image.init()
    return versions
