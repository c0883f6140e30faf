"""What the reference agent writes for the synthetic tasks: zoom in on a tag, search a clip for a card."""

from __future__ import annotations

from pyvision_env.agents.strategy import Strategy, code, frames, strategy

_FIND_TAG = """
from scipy import ndimage

colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "cyan": (0, 255, 255),
           "magenta": (255, 0, 255), "yellow": (255, 255, 0)}
canvas = np.asarray(image_clue_0.convert("RGB")).astype(int)
near = (abs(canvas - np.array(colours["$colour"])).max(axis=-1) < 60)
labels, count = ndimage.label(near)
frame = np.bincount(labels.ravel())[1:].argmax() + 1
rows, columns = ndimage.find_objects(labels)[frame - 1]
print("the tag: columns", columns.start, "to", columns.stop, "and rows", rows.start, "to", rows.stop)
tag = image_clue_0.crop((columns.start, rows.start, columns.stop, rows.stop))
tag.resize((480, 480), 0).show()
"""

_NAME_PATTERN = """
inside = ndimage.binary_fill_holes(labels[rows, columns] == frame) & (labels[rows, columns] != frame)
filled = ndimage.find_objects(ndimage.binary_erosion(inside, iterations=2).astype(int))[0]
grey = np.asarray(tag.convert("L"), dtype=float)[filled]
bright = grey > grey.mean()
change = {
    "horizontal stripes": (bright[:, 1:] != bright[:, :-1]).mean(),
    "vertical stripes": (bright[1:] != bright[:-1]).mean(),
    "diagonal stripes": min((bright[1:, 1:] != bright[:-1, :-1]).mean(), (bright[1:, :-1] != bright[:-1, 1:]).mean()),
}
for name, share in change.items():
    print(f"{name}: brightness changes along them at {share:.0%} of the pixels")
calm = min(change, key=change.get)
striped = change[calm] < max(change.values()) / 4
print("finding:", calm if striped else "checkerboard")
"""

_FIND_SCENE = """
from skimage import color

def main_hue(frame):
    hsv = color.rgb2hsv(frame[::4, ::4])
    coloured = hsv[hsv[..., 1] > 0.4]
    turn = np.angle(np.exp(2j * np.pi * coloured[:, 0]).mean()) / (2 * np.pi)
    return turn * 360 % 360

wanted = {"red": 0, "yellow": 60, "green": 120, "cyan": 180, "blue": 240, "magenta": 300}["$scene"]
every = list(range(0, len(video_clue_0), 8))
hues = [main_hue(frame) for frame in video_clue_0.get_batch(every).asnumpy()]
hits = [i for i, hue in zip(every, hues) if abs((hue - wanted + 180) % 360 - 180) < 30]
first, last = max(0, hits[0] - 8), min(len(video_clue_0) - 1, hits[-1] + 8)
print("the $scene scene lies within frames", first, "to", last)
"""

_FIND_CARD = """
from scipy import ndimage

best = None
for index in range(first, last + 1):
    frame = video_clue_0[index].asnumpy()
    if abs((main_hue(frame) - wanted + 180) % 360 - 180) >= 30:
        continue
    white = ndimage.binary_opening(frame.min(axis=-1) > 200, iterations=2)
    if white.sum() > 500 and (best is None or white.sum() > best[0]):
        best = (white.sum(), index, white)
_, index, white = best
rows, columns = ndimage.find_objects(white.astype(int))[0]
card = video_clue_0[index].asnumpy()[rows, columns]
Image.fromarray(card).resize((480, 480)).show()
blobs, count = ndimage.label(card.max(axis=-1) < 100)
dots = int((np.bincount(blobs.ravel())[1:] > 40).sum())
print("the card is on screen in frame", index)
print("finding:", dots)
"""

SYNTHETIC_STRATEGIES: tuple[Strategy, ...] = (
    strategy(
        r"exactly one tag has a (?P<colour>\w+) frame\. Which pattern fills that tag",
        code("The tag is small in this large picture: I find it by the colour of its frame and enlarge it.", _FIND_TAG),
        code("I measure along which direction the brightness stays the same.", _NAME_PATTERN),
    ),
    strategy(
        r"At some point in the (?P<scene>\w+) scene a white card .* How many dots",
        frames("I look at a few frames to see what the scenes look like.", '{"video": 0, "num": 8}'),
        code("Half a second apart is enough to find the scene by its colour.", _FIND_SCENE),
        code("Now I search that scene frame by frame for the card and count its dots.", _FIND_CARD),
    ),
)
"""Strategies for the synthetic tasks."""
