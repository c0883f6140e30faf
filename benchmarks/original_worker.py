"""A comparator that works as the published system does, written for the benchmark only; it isolates nothing.

One multiprocessing child per episode, plain ``exec``, and every image PNG+base64-encoded and queued on every call.
"""

from __future__ import annotations

import base64
import contextlib
import io
import multiprocessing
from typing import Any

from PIL import Image


def _encode(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _decode(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def _work(requests: Any, replies: Any) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import numpy as np
    from matplotlib import pyplot as plt

    namespace: dict[str, Any] = {"np": np, "plt": plt, "Image": Image}
    pictures: list[str] = []

    def show() -> None:
        buffer = io.BytesIO()
        plt.savefig(buffer, format="png")
        plt.close()
        pictures.append(base64.b64encode(buffer.getvalue()).decode())

    namespace["_show"] = show
    while True:
        request = requests.get()
        if request is None:
            return
        code, images = request
        pictures.clear()
        for number, text in enumerate(images):
            namespace[f"image_clue_{number}"] = _decode(text)
        output = io.StringIO()
        error = None
        with contextlib.redirect_stdout(output):
            try:
                exec(code.replace("plt.show()", "_show()"), namespace)
            except Exception as raised:  # noqa: BLE001 - as the comparator does
                error = str(raised)
        replies.put((output.getvalue(), list(pictures), error))


class OriginalEpisode:
    """An episode of the comparator."""

    def __init__(self, images: list[Image.Image]) -> None:
        context = multiprocessing.get_context("fork")
        self._images = images
        self._requests = context.Queue()
        self._replies = context.Queue()
        self._process = context.Process(target=_work, args=(self._requests, self._replies), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def run(self, code: str) -> tuple[str, list[Image.Image], str | None]:
        self._requests.put((code, [_encode(image) for image in self._images]))
        text, pictures, error = self._replies.get(timeout=60)
        return text, [_decode(picture).convert("RGB") for picture in pictures], error

    def close(self) -> None:
        self._requests.put(None)
        self._process.join(10)
        self._requests.close()
        self._replies.close()
