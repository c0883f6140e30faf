"""Images are decoded once for all who look at them, however many ask at once, and within bounds."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pyvision_env
from pyvision_env.errors import MediaError
from pyvision_env.media import load_image, load_picture
from pyvision_env.sandbox import make_sandbox, pixels
from pyvision_env.sandbox.pixels import PictureCache, SharedPicture
from pyvision_env.types import ImageSource, Task

PICTURE = np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.fromarray(PICTURE).save(path, quality=90)
    return path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every decoding of a picture, each held up until it was certainly asked for more than once."""
    sources: list[object] = []
    lock = threading.Lock()

    def load(source: object) -> Image.Image:
        with lock:
            sources.append(source)
        gate.wait(0.3)
        return load_picture(source)

    gate = threading.Event()
    monkeypatch.setattr(pixels, "load_picture", load)
    return sources


def test_who_asks_while_a_picture_is_being_decoded_gets_that_one(photo: Path, decoded: list[object]) -> None:
    cache = PictureCache()
    with ThreadPoolExecutor(8) as threads:
        pictures = list(threads.map(lambda _: cache.get(photo), range(8)))
    assert len({id(picture) for picture in pictures}) == 1
    assert len(decoded) == 1
    assert cache.get(ImageSource(path=photo)) is pictures[0]
    assert np.array_equal(pictures[0].pixels, load_image(photo))


def test_a_picture_that_cannot_be_decoded_is_an_error_for_everybody_and_is_tried_again(
    tmp_path: Path, decoded: list[object]
) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"not a picture")
    cache = PictureCache()
    with ThreadPoolExecutor(4) as threads:
        for waiting in [threads.submit(cache.get, path) for _ in range(4)]:
            with pytest.raises(MediaError):
                waiting.result(30)
    Image.fromarray(PICTURE).save(path, "PNG")
    assert np.array_equal(cache.get(path).pixels, PICTURE)


def test_environments_and_threads_of_one_process_decode_a_tasks_image_once(photo: Path, decoded: list[object]) -> None:
    task = Task(id="t", question="?", answer="A", images=(ImageSource(path=photo),))
    environments = [
        pyvision_env.PyVisionEnv(tasks=[task], sandbox={"kind": "local", "containers": 1}) for _ in range(3)
    ]
    texts = []

    def rollout(env: pyvision_env.PyVisionEnv) -> None:
        env.reset(seed=0)
        observation, *_ = env.step("<code>```python\nprint(np.asarray(image_clue_0).sum())\n```</code>")
        texts.append(observation["text"])

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(rollout, environments))
    for env in environments:
        env.close()
    assert len(decoded) == 1
    assert len(set(texts)) == 1
    assert str(int(load_image(photo).sum())) in texts[0]


def test_the_cache_keeps_what_was_used_last_within_its_bounds(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(path)
    size = 64 * 64 * 4
    cache = PictureCache(max_bytes=3 * size, max_count=10)
    first = cache.get(paths[0])
    for path in paths[1:]:
        cache.get(path)
        assert cache.get(paths[0]) is first, "the one used again and again stays"
    assert cache._bytes == 3 * size
    assert len(cache._pictures) == 3
    few = PictureCache(max_count=2)
    for path in paths:
        few.get(path)
    assert len(few._pictures) == 2
    large = PictureCache(max_bytes=size - 1)
    assert large.get(paths[0]) is not large.get(paths[0]), "what exceeds the bound is not kept"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
def test_shared_pixels_equal_decoded_ones_in_every_mode(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(PICTURE[..., 0].astype(np.uint16) * 250) if mode == "I;16" else Image.fromarray(PICTURE)
    path = tmp_path / ("p.tif" if mode == "CMYK" else "p.png")
    (image if mode == "I;16" else image.convert(mode)).save(path)
    shared = SharedPicture(load_picture(path))
    assert np.array_equal(shared.pixels, load_image(path))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_is_shared_upright(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "p.png"
    Image.fromarray(PICTURE).save(path, exif=exif)
    shared = SharedPicture(load_picture(path))
    assert np.array_equal(shared.pixels, load_image(path))
    assert shared.pixels.shape == ((90, 70, 3) if orientation > 4 else (70, 90, 3))


def test_a_callers_pillow_image_is_left_as_it_is() -> None:
    exif = Image.Exif()
    image = Image.fromarray(PICTURE)
    exif[0x0112] = 6
    image.getexif().update(exif)
    with make_sandbox("local") as sandbox:
        assert sandbox.picture(image).pixels.shape == (90, 70, 3)
    assert image.size == (90, 70)
    assert np.array_equal(np.asarray(image), PICTURE)


def hidden_channel() -> bytes:
    data = BytesIO()
    Image.frombytes("RGBX", (40, 30), bytes([9, 8, 7, 0x53]) * 1200).save(data, "TIFF")
    return data.getvalue()


@pytest.mark.parametrize(
    "source",
    [
        lambda: Image.new("RGB", (400, 300), (1, 2, 3)).convert("RGB", (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)),
        lambda: Image.fromarray(PICTURE).resize((400, 300)),
        hidden_channel,
        lambda: PICTURE,
    ],
    ids=["matrix", "resized", "TIFF with a hidden channel", "array"],
)
def test_a_shared_picture_holds_its_pixels_and_nothing_else(source: Callable[[], Any]) -> None:
    """Pillow's fourth byte may be freed memory of this process."""
    image = load_picture(source())
    shared = SharedPicture(image)
    pixels = np.frombuffer(os.pread(shared.fd, shared.nbytes + 1, 0), np.uint8).reshape(image.height, image.width, 4)
    assert (pixels[..., 3] == 255).all()
    assert np.array_equal(pixels[..., :3], np.asarray(image))
