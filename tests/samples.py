"""Small tasks with real encoded media, for the tests of the environment."""

from __future__ import annotations

import io

import av
import numpy as np

from pyvision_env.media import encode_png
from pyvision_env.types import ImageSource, RGBArray, Task, VideoSource

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plain(color: tuple[int, int, int], width: int = 120, height: int = 80) -> RGBArray:
    return np.full((height, width, 3), color, dtype=np.uint8)


def png(color: tuple[int, int, int], width: int = 120, height: int = 80) -> ImageSource:
    return ImageSource(data=encode_png(plain(color, width, height)))


def clip(frames: int = 20, fps: int = 10, width: int = 96, height: int = 64) -> VideoSource:
    """A clip whose frames brighten evenly."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            pixels = np.full((height, width, 3), 10 * i, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return VideoSource(data=buffer.getvalue())


def image_task(task_id: str = "one", answer: str = "B", **fields: object) -> Task:
    fields = {"images": (png(RED),), "options": ("a cat", "a dog"), **fields}
    return Task(id=task_id, question="Which animal is it?", answer=answer, grader="choice", **fields)  # type: ignore[arg-type]


def video_task(task_id: str = "clip", **fields: object) -> Task:
    fields = {"answer": "200", "videos": (clip(),), **fields}
    return Task(id=task_id, question="How bright is the end?", **fields)  # type: ignore[arg-type]


def code(source: str) -> str:
    return f"<code>```python\n{source}\n```</code>"


def answer(text: str) -> str:
    return rf"<answer>\boxed{{{text}}}</answer>"
