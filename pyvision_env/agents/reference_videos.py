"""What the reference agent writes for questions about clips: a coarse look first, then code on the frames it needs."""

from __future__ import annotations

from pyvision_env.agents.reference_images import NAME_COLOUR
from pyvision_env.agents.strategy import Strategy, code, frames, strategy

_LOOK = '{"video": 0, "num": 6}'

_CUTS = """
def small(first, last):
    # Every fourth pixel of every fourth row is enough to see a cut.
    parts = [video_clue_0.get_batch(range(i, min(i + 32, last))).asnumpy()[:, ::4, ::4]
             for i in range(first, last, 32)]
    return np.concatenate(parts).astype(int)

frames = small(0, len(video_clue_0))
change = abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
cuts = (np.flatnonzero(change > 40) + 1).tolist()
print("cuts before the frames", cuts)
"""

_COUNT_SHOTS = (
    _CUTS
    + """
plt.figure(figsize=(8, 3))
plt.plot(change)
plt.axhline(40, color="red")
plt.xlabel("frame")
plt.ylabel("change to the next frame")
plt.show()
print("finding:", len(cuts) + 1)
"""
)

_FIRST_CUT = (
    _CUTS
    + """
seconds = cuts[0] / video_clue_0.get_avg_fps()
print("last_before:", cuts[0] - 1)
print("first_after:", cuts[0])
print(f"finding: {seconds:.1f}")
"""
)

_CAR_APPEARS = (
    _CUTS
    + """
before, after = (video_clue_0[i].asnumpy() for i in (0, cuts[0] - 1))
height, width = before.shape[:2]
corner = (slice(0, height // 3), slice(3 * width // 4, width))
figure, axes = plt.subplots(1, 2, figsize=(10, 4))
for axis, frame in zip(axes, (before, after)):
    axis.imshow(frame[corner])
    axis.set_axis_off()
plt.show()
"""
)

_CAR_COLOUR = (
    NAME_COLOUR
    + """
from skimage import color

arrived = abs(after[corner].astype(int) - before[corner]).sum(axis=-1) > 120
hsv = color.rgb2hsv(after[corner])
coloured = arrived & (hsv[..., 1] > 0.4)
print("pixels that changed:", int(arrived.sum()), "of these coloured:", int(coloured.sum()))
car_hue = median_hue(hsv[..., 0][coloured] * 360)
print(f"median hue: {car_hue:.0f} degrees")
print("finding:", colour_name(car_hue) if coloured.sum() > arrived.sum() / 4 else "white")
"""
)

_FIND_SIGN = (
    _CUTS
    + """
from scipy import ndimage

best = None
for index in range(cuts[0], cuts[1]):
    frame = video_clue_0[index].asnumpy().astype(int)
    red = ndimage.binary_opening(frame[..., 0] - frame[..., 1:].max(axis=-1) > 20)
    letters = ndimage.binary_dilation(red, iterations=12)
    labels, count = ndimage.label(letters)
    if not count:
        continue
    sizes = np.bincount(labels[red], minlength=count + 1)
    rows, columns = ndimage.find_objects(labels)[sizes[1:].argmax()]
    wide = columns.stop - columns.start > 2 * (rows.stop - rows.start)
    whole = columns.start > 0 and columns.stop < frame.shape[1]
    if wide and whole and (best is None or sizes.max() > best[0]):
        best = (sizes.max(), index, rows, columns)
_, index, rows, columns = best
sign = video_clue_0[index].asnumpy()[rows, columns]
print("the sign stands out most in frame", index)
plt.imshow(sign)
plt.axis("off")
plt.show()
"""
)

_READ_SIGN = """
from PIL import Image, ImageDraw, ImageFont
from matplotlib import font_manager

def shapes(mask):
    # One picture of 32x32 for each letter; letters do not touch, so empty columns part them.
    parts, _ = ndimage.label(mask.any(axis=0))
    pictures = []
    for (columns,) in ndimage.find_objects(parts):
        rows = np.flatnonzero(mask[:, columns].any(axis=1))
        letter = Image.fromarray((mask[rows[0] : rows[-1] + 1, columns] * 255).astype(np.uint8))
        pictures.append(ndimage.gaussian_filter(np.pad(np.asarray(letter.resize((32, 32)), dtype=float), 6), 2))
    return pictures

font = ImageFont.truetype(font_manager.findfont("DejaVu Sans:bold"), 60)

def drawn(letter):
    canvas = Image.new("L", (100, 100))
    ImageDraw.Draw(canvas).text((10, 10), letter, fill=255, font=font)
    return shapes(np.asarray(canvas) > 128)[0]

part = sign.astype(int)
red = ndimage.binary_opening(part[..., 0] - part[..., 1:].max(axis=-1) > 20)
seen = shapes(red)
print("letters on the sign:", len(seen))
likeness = {}
for word in $options:
    pairs = list(zip(seen, map(drawn, word)))
    same = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]
    likeness[word] = np.mean(same) if len(word) == len(seen) else 0.0
    print(f"{word}: {len(word)} letters, likeness {likeness[word]:.2f}")
plt.imshow(red, cmap="gray")
plt.axis("off")
plt.show()
print("finding:", max(likeness, key=likeness.get))
"""

_FIRST_AND_LAST = """
from scipy import ndimage

first, last = video_clue_0[0].asnumpy(), video_clue_0[len(video_clue_0) - 1].asnumpy()
figure, axes = plt.subplots(1, 2, figsize=(12, 4))
for axis, frame in zip(axes, (first, last)):
    axis.imshow(frame)
    axis.set_axis_off()
plt.show()
"""

_RABBIT_HEIGHT = """
def fur(frame):
    # Grey patches: around the rabbit are saturated grass and the dark burrow.
    pixels = frame.astype(float)
    saturation = np.ptp(pixels, axis=-1) / pixels.max(axis=-1).clip(1)
    return ndimage.binary_opening((saturation < 0.25) & (pixels.mean(axis=-1) > 60), iterations=4)

changed = fur(last) & (abs(last.astype(int) - first).sum(axis=-1) > 90)
labels, _ = ndimage.label(ndimage.binary_opening(changed, iterations=4))
_, columns = ndimage.find_objects(labels)[np.bincount(labels.ravel())[1:].argmax()]
heights = []
for frame in (first, last):
    labels, _ = ndimage.label(fur(frame[:, columns]))
    rows, _ = ndimage.find_objects(labels)[np.bincount(labels.ravel())[1:].argmax()]
    heights.append(rows.stop - rows.start)
print("height in pixels, first and last frame:", *heights)
ratio = heights[1] / heights[0]
verdict = "larger" if ratio > 1.15 else "smaller" if ratio < 0.85 else "the same"
print("finding:", verdict)
"""

_BOTH_CLIPS = """
from scipy import ndimage

clips = (video_clue_0, video_clue_1)
middle = len(video_clue_0) // 2
for clip in clips:
    frame = Image.fromarray(clip[middle].asnumpy())
    frame.resize((frame.width * 4, frame.height * 4)).show()
"""

_FINE_DETAIL = """
detail = []
for clip in clips:
    green = clip.get_batch(range(0, len(clip), 10)).asnumpy()[..., 1].astype(float)
    # Only within frames: along time there is motion, not detail.
    detail.append(np.mean([abs(ndimage.laplace(frame)).mean() for frame in green]))
print("mean strength of fine detail:", *np.round(detail, 2))
print("finding:", "the second clip" if detail[1] < detail[0] else "the first clip")
"""

VIDEO_STRATEGIES: tuple[Strategy, ...] = (
    strategy(
        r"How many shots is the clip made of",
        frames("I look at a few frames first.", _LOOK),
        code("At a cut the picture changes as a whole: I measure the change from frame to frame.", _COUNT_SHOTS),
    ),
    strategy(
        r"How many seconds into the clip is the first cut",
        code("At a cut the picture changes as a whole: I measure the change from frame to frame.", _FIRST_CUT),
        frames("I check the two frames beside the cut.", '{"video": 0, "indices": [$last_before, $first_after]}'),
    ),
    strategy(
        r"In the first shot, .* a car comes into view at the top right\. What colour",
        code("I find where the first shot ends and compare its first and last frame at the top right.", _CAR_APPEARS),
        code("I measure the hue of what has come into view.", _CAR_COLOUR),
    ),
    strategy(
        r"In the second shot a car with a sign on its roof .* What does the sign say",
        frames("I look at a few frames first.", _LOOK),
        code("There is a sign with red letters. I search the second shot for it, frame by frame.", _FIND_SIGN),
        code("I compare its letters with each of the words.", _READ_SIGN),
    ),
    strategy(
        r"Compare the first frame of the clip with the last\..* height .* rabbit",
        code("I look at the two frames side by side.", _FIRST_AND_LAST),
        code("I measure the rabbit's height in both.", _RABBIT_HEIGHT),
    ),
    strategy(
        r"Which one has lost fine detail",
        code("I enlarge the same frame of both clips.", _BOTH_CLIPS),
        code("I measure the fine detail of both.", _FINE_DETAIL),
    ),
)
"""Strategies for the demo's clips."""
