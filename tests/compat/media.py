"""Pictures and a clip that the corpus looks at, made from numbers so that every right answer is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image, ImageDraw

RED, GREEN, YELLOW, GREY = (220, 40, 40), (40, 170, 70), (240, 200, 40), (200, 210, 220)
SEGMENTS = {"0": "abcdef", "1": "bc", "4": "bcfg", "7": "abc"}
EAN = "4006381333931"
CLIP_FPS, CLIP_FRAMES = 10, 60


def scene() -> Image.Image:
    """640x480: a red box, a green disc, a yellow box, five dark dots in a row, a small tag with fine stripes."""
    picture = Image.new("RGB", (640, 480), GREY)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((60, 50, 179, 149), fill=RED)
    draw.ellipse((250, 60, 350, 160), fill=GREEN)
    draw.rectangle((420, 70, 519, 129), fill=YELLOW)
    for x in range(60, 261, 50):
        draw.ellipse((x - 8, 412, x + 8, 428), fill=(30, 30, 30))
    draw.rectangle((560, 400, 607, 431), fill="white")
    for x in range(560, 608, 8):
        draw.rectangle((x, 400, x + 3, 431), fill="black")
    return picture


def coins() -> Image.Image:
    """300x300: seven bright discs on a dark, slightly noisy ground."""
    y, x = np.indices((300, 300))
    grey = np.full((300, 300), 60.0)
    for number, (cx, cy) in enumerate([(50, 50), (150, 45), (250, 60), (60, 160), (160, 150), (240, 190), (120, 250)]):
        grey[(x - cx) ** 2 + (y - cy) ** 2 <= (18 + 2 * number) ** 2] = 180
    grey += np.random.default_rng(5).normal(0, 3, grey.shape)
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")


def display() -> Image.Image:
    """320x140: the seven-segment number 4071."""
    picture = Image.new("RGB", (320, 140), (20, 20, 24))
    draw = ImageDraw.Draw(picture)
    for place, digit in enumerate("4071"):
        x = 20 + 75 * place
        boxes = {
            "a": (x + 10, 20, x + 39, 28), "b": (x + 41, 29, x + 49, 65), "c": (x + 41, 75, x + 49, 111),
            "d": (x + 10, 112, x + 39, 120), "e": (x, 75, x + 8, 111), "f": (x, 29, x + 8, 65),
            "g": (x + 10, 66, x + 39, 74),
        }  # fmt: skip
        for segment in SEGMENTS[digit]:
            draw.rectangle(boxes[segment], fill=(255, 60, 40))
    return picture


def barcode() -> Image.Image:
    """338x190: an EAN-13 code, two pixels a module, in a wide quiet zone."""
    left = [f"{code:07b}" for code in (13, 25, 19, 61, 35, 49, 47, 59, 55, 11)]
    parity = ["LLLLLL", "LLGLGG", "LLGGLG", "LLGGGL", "LGLLGG", "LGGLLG", "LGGGLL", "LGLGLG", "LGLGGL", "LGGLGL"]
    flip = str.maketrans("01", "10")
    right = [code.translate(flip) for code in left]
    mixed = [code[::-1] for code in right]
    first = zip(EAN[1:7], parity[int(EAN[0])], strict=True)
    bits = "101" + "".join((left if kind == "L" else mixed)[int(digit)] for digit, kind in first) + "01010"
    bits += "".join(right[int(digit)] for digit in EAN[7:]) + "101"
    row = np.array([0 if bit == "1" else 255 for bit in "0" * 37 + bits + "0" * 37], np.uint8).repeat(2)
    return Image.fromarray(np.pad(np.tile(row, (60, 1)), ((65, 65), (0, 0)), constant_values=255)).convert("RGB")


def qr() -> Image.Image:
    """A QR code that says TURN LEFT."""
    code = cv2.QRCodeEncoder.create().encode("TURN LEFT")
    return Image.fromarray(np.pad(code.repeat(8, 0).repeat(8, 1), 32, constant_values=255)).convert("RGB")


def before() -> Image.Image:
    """200x150 with six squares."""
    picture = Image.new("RGB", (200, 150), "white")
    draw = ImageDraw.Draw(picture)
    for x, y in [(20, 20), (90, 20), (160, 20), (20, 100), (90, 100), (160, 100)]:
        draw.rectangle((x, y, x + 19, y + 19), fill="navy")
    return picture


def after() -> Image.Image:
    """``before`` with one square gone, one in another colour and one new."""
    picture = before()
    draw = ImageDraw.Draw(picture)
    draw.rectangle((90, 20, 109, 39), fill="white")
    draw.rectangle((160, 100, 179, 119), fill="orange")
    draw.rectangle((60, 60, 69, 69), fill="navy")
    return picture


def dark() -> Image.Image:
    """240x180, nearly black: a square that is only a little lighter."""
    grey = np.full((180, 240), 10, np.uint8)
    grey[60:120, 150:210] = 26
    return Image.fromarray(grey).convert("RGB")


def chart() -> Image.Image:
    """300x220: bars of 40, 90, 65 and 120 pixels on a base line."""
    picture = Image.new("RGB", (300, 220), "white")
    draw = ImageDraw.Draw(picture)
    draw.line((20, 200, 280, 200), fill="black")
    for place, (height, colour) in enumerate(zip((40, 90, 65, 120), ("red", "green", "blue", "orange"), strict=True)):
        draw.rectangle((40 + 60 * place, 200 - height, 69 + 60 * place, 199), fill=colour)
    return picture


def tilted() -> Image.Image:
    """300x300: a dark bar of 160x40 pixels turned by 25 degrees against the clock."""
    bar = Image.new("RGB", (300, 300), "white")
    ImageDraw.Draw(bar).rectangle((70, 130, 229, 169), fill=(20, 20, 20))
    return bar.rotate(25, Image.Resampling.BICUBIC, fillcolor="white")


IMAGES: dict[str, Callable[[], Image.Image]] = {
    make.__name__: make for make in (scene, coins, display, barcode, qr, before, after, dark, chart, tilted)
}


def write_clip(path: Path) -> Path:
    """160x120, 60 frames, 10 a second: a white square moves right by two pixels a frame; red ground in frames 30-39."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=CLIP_FPS, options={"crf": "12", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(CLIP_FRAMES):
            pixels = np.zeros((120, 160, 3), np.uint8)
            pixels[:] = (160, 20, 20) if 30 <= number < 40 else (20, 20, 90)
            pixels[50:70, 2 * number : 2 * number + 20] = 250
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        out.mux(stream.encode(None))
    return path
