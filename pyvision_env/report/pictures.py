"""The pictures of a page: each stored once, whatever the number of episodes that show it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

from pyvision_env.errors import TraceError
from pyvision_env.trace import Trace
from pyvision_env.trace.format import ImageRef

_FEW_COLOURS = 1_024
"""A picture of at most so many colours (a plot, a diagram) is kept lossless; a photo becomes a JPEG."""
_JPEG_QUALITY = 88


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as one place of the page shows it.

    Attributes:
        key: Names the stored data, or "" where there is none.
        width: Pixels of the original.
        height: Pixels of the original.
        label: Its name in the runtime, or what it is.
        problem: Why it cannot be shown.
    """

    key: str
    width: int
    height: int
    label: str
    problem: str = ""


class PictureBook:
    """Collects the pictures of a page.

    Args:
        max_side: Longest side in pixels; larger pictures are scaled down.
    """

    def __init__(self, max_side: int) -> None:
        self._max_side = max_side
        self._keys: dict[str, str] = {}
        self.data: dict[str, str] = {}
        """``data:`` URLs by key."""

    def add(self, trace: Trace, reference: ImageRef, label: str) -> Picture:
        """Take in a picture of a trace; one that cannot be loaded is shown as missing."""
        if reference.hash not in self._keys:
            try:
                url = self._encode(Image.fromarray(trace.load_image(reference.hash)))
            except TraceError as error:
                return Picture("", reference.width, reference.height, label, str(error))
            self._keys[reference.hash] = f"picture-{len(self._keys)}"
            self.data[self._keys[reference.hash]] = url
        return Picture(self._keys[reference.hash], reference.width, reference.height, label)

    def _encode(self, image: Image.Image) -> str:
        image.thumbnail((self._max_side, self._max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
        buffer = io.BytesIO()
        plain = image.getcolors(_FEW_COLOURS) is not None
        if plain:
            image.save(buffer, "PNG", optimize=True)
        else:
            image.save(buffer, "JPEG", quality=_JPEG_QUALITY, progressive=True)
        kind = "png" if plain else "jpeg"
        return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
