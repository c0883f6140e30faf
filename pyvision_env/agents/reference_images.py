"""What the reference agent writes for questions about photos: a thought and code, by the question's wording."""

from __future__ import annotations

from pyvision_env.agents.strategy import Strategy, code, strategy

_COINS_LOOK = """
corner = image_clue_0.crop((0, 0, image_clue_0.width // 2, image_clue_0.height // 2))
plt.imshow(corner.resize((corner.width * 4, corner.height * 4)))
plt.axis("off")
plt.show()
grey = np.asarray(image_clue_0.convert("L"), dtype=float)
print("brightness, 5th to 95th percentile:", *np.percentile(grey, [5, 25, 50, 75, 95]))
"""

_COINS_COUNT = """
from scipy import ndimage
from skimage import filters, segmentation

seeds = np.where(grey > 150, 2, np.where(grey < 30, 1, 0))
coins = segmentation.watershed(filters.sobel(grey), seeds) == 2
coins = ndimage.binary_opening(ndimage.binary_fill_holes(coins), iterations=2)
labels, _ = ndimage.label(coins)
boxes = ndimage.find_objects(labels)
large = [i for i in range(len(boxes)) if (labels[boxes[i]] == i + 1).sum() > 300]
figure, axes = plt.subplots(figsize=(8, 6))
axes.imshow(image_clue_0)
for number, i in enumerate(large, start=1):
    rows, columns = boxes[i]
    size = (columns.stop - columns.start, rows.stop - rows.start)
    axes.add_patch(plt.Rectangle((columns.start, rows.start), *size, fill=False, color="yellow"))
    axes.text(columns.start, rows.start - 2, str(number), color="yellow")
axes.set_axis_off()
plt.show()
print("finding:", len(large))
"""

_PAGE_RULES = """
from scipy import ndimage

grey = np.asarray(image_clue_0.convert("L"), dtype=float)
# A rule is a thin line that is darker than the rows above and below it over a long way.
darker = ndimage.median_filter(grey, size=(9, 1)) - grey > 2
parts = np.array_split(darker, 4, axis=1)
score = np.max([part.mean(axis=1) for part in parts], axis=0)
runs, count = ndimage.label(score > 0.7)
rules = [int(rows.mean()) for rows in (np.flatnonzero(runs == i + 1) for i in range(count)) if 25 < rows.mean()]
top, bottom = rules[0], rules[-1]
print("rows of rules:", rules)
strip = image_clue_0.crop((0, top, 200, bottom))
plt.imshow(strip.resize((strip.width * 4, strip.height * 4)))
plt.axis("off")
plt.show()
"""

_PAGE_LINES = """
ink = grey < ndimage.gaussian_filter(grey, 15) - 15
# The left end of the lines: further right the curved page makes neighbouring lines overlap in height.
profile = ndimage.gaussian_filter1d(ink[top + 3 : bottom - 8, 5:60].sum(axis=1).astype(float), 1.5)
_, lines = ndimage.label(profile > 12)
plt.plot(profile)
plt.axhline(12, color="red")
plt.xlabel("row below the first rule")
plt.ylabel("dark pixels")
plt.show()
print("finding:", lines)
"""

_CELL = """
from scipy import ndimage
from skimage import filters

grey = np.asarray(image_clue_0.convert("L"))
bright = grey > filters.threshold_otsu(grey)
labels, count = ndimage.label(bright)
sizes = np.bincount(labels.ravel())[1:]
rows, columns = ndimage.find_objects(labels)[sizes.argmax()]
margin = 20
box = (columns.start - margin, rows.start - margin, columns.stop + margin, rows.stop + margin)
plt.imshow(image_clue_0.crop(box).resize((600, 600)))
plt.axis("off")
plt.show()
print("largest bright patch: columns", columns.start, "to", columns.stop)
print("finding:", columns.stop - columns.start)
"""

# Names for hues in degrees; the reference colours of the words a question may offer.
NAME_COLOUR = """
def colour_name(hue):
    centres = {"red": 0, "orange": 28, "yellow": 58, "green": 120, "cyan": 180, "blue": 225, "violet-blue": 255,
               "violet": 280, "magenta": 310}
    return min(centres, key=lambda name: abs((hue - centres[name] + 180) % 360 - 180))


def median_hue(hues):
    # Hues lie on a circle: take the median around their mean direction.
    middle = np.angle(np.exp(1j * np.radians(hues)).mean(), deg=True)
    return (middle + np.median((hues - middle + 180) % 360 - 180)) % 360
"""

_PATCH_FIND = """
from scipy import ndimage
from skimage import color, measure

hsv = color.rgb2hsv(np.asarray(image_clue_0.convert("RGB")))
hue = hsv[..., 0] * 360
# The suit is the largest orange area; what is sewn onto it makes holes in that area.
suit = (abs(hue - 15) < 16) & (hsv[..., 1] > 0.55) & (hsv[..., 2] > 0.4)
suit = ndimage.binary_closing(suit, iterations=2)
labels, _ = ndimage.label(suit)
suit = labels == np.bincount(labels.ravel())[1:].argmax() + 1
holes = ndimage.binary_opening(ndimage.binary_fill_holes(suit) & ~suit, iterations=3)
regions = [r for r in measure.regionprops(measure.label(holes)) if r.area > 500]
round_ones = [r for r in regions if 4 * np.pi * r.area / r.perimeter**2 > 0.8]
patch = max(round_ones, key=lambda r: r.area)
top, left, bottom, right = patch.bbox
print("round patch at x", left, "to", right, "and y", top, "to", bottom)
plt.imshow(image_clue_0.crop((left - 10, top - 10, right + 10, bottom + 10)).resize((640, 640)))
plt.axis("off")
plt.show()
"""

_PATCH_COLOUR = (
    NAME_COLOUR
    + """
inside = (measure.label(holes) == patch.label) & (hsv[..., 1] > 0.3)
background = median_hue(hue[inside])
print(f"median hue of the coloured pixels: {background:.0f} degrees")
print("finding:", colour_name(background))
"""
)

_FLOWER = (
    NAME_COLOUR
    + """
from scipy import ndimage
from skimage import color

hsv = color.rgb2hsv(np.asarray(image_clue_0.convert("RGB")))
hue = hsv[..., 0] * 360
# Leaves and shade are green, bluish or dark: what is left is the flower.
petals = (hsv[..., 2] > 0.5) & (hsv[..., 1] > 0.25) & ((hue < 70) | (hue > 200))
labels, _ = ndimage.label(ndimage.binary_opening(petals, iterations=2))
largest = np.bincount(labels.ravel())[1:].argmax()
rows, columns = ndimage.find_objects(labels)[largest]
plt.imshow(image_clue_0.crop((columns.start, rows.start, columns.stop, rows.stop)))
plt.axis("off")
plt.show()
petal_hue = median_hue(hue[labels == largest + 1])
print(f"median hue of the petals: {petal_hue:.0f} degrees")
print("finding:", colour_name(petal_hue))
"""
)

_RETINA = """
from scipy import ndimage

retina = np.asarray(image_clue_0.convert("RGB"), dtype=float)
green = ndimage.gaussian_filter(retina[..., 1], 25)
inside = ndimage.binary_erosion(retina[..., 0] > 30, iterations=120)
disc = np.unravel_index(green.argmax(), green.shape)
fovea = np.unravel_index(np.where(inside, green, np.inf).argmin(), green.shape)
for name, (y, x) in (("optic disc", disc), ("fovea", fovea)):
    print(name, "at x", int(x), "y", int(y))
    image_clue_0.crop((x - 120, y - 120, x + 120, y + 120)).show()
down, right = disc[0] - fovea[0], disc[1] - fovea[1]
sideways = "to the left" if right < 0 else "to the right"
print("finding:", sideways if abs(right) > abs(down) else "straight above" if down < 0 else "straight below")
"""

_STEREO = """
def green(image):
    channel = np.asarray(image.convert("RGB"), dtype=float)[..., 1]
    return channel - channel.mean()

first, second = green(image_clue_0), green(image_clue_1)
# Phase correlation: the peak says how far the second photo has to move to lie on the first.
spectrum = np.fft.fft2(first) * np.conj(np.fft.fft2(second))
peak = np.fft.ifft2(spectrum / abs(spectrum)).real
row, column = np.unravel_index(peak.argmax(), peak.shape)
shift = int(column) - peak.shape[1] if column > peak.shape[1] // 2 else int(column)
print("the second photo lies on the first when it moves by", shift, "pixels to the right")
"""

_STEREO_SIDE = """
figure, axes = plt.subplots(1, 2, figsize=(10, 4))
for axis, image in zip(axes, (image_clue_0, image_clue_1)):
    axis.imshow(image)
    axis.set_axis_off()
plt.show()
# Seen from further right, near things appear further left.
print("finding:", "the first photo" if shift < 0 else "the second photo")
"""

IMAGE_STRATEGIES: tuple[Strategy, ...] = (
    strategy(
        r"How many coins",
        code("I enlarge a corner first to see how the coins stand out from the ground.", _COINS_LOOK),
        code("They are brighter than the ground: I segment them, leave out specks and number them.", _COINS_COUNT),
    ),
    strategy(
        r"How many lines of text .* between the two horizontal rules",
        code("I look for the two rules and enlarge what lies between them.", _PAGE_RULES),
        code("Now I count the lines by the ink in each row.", _PAGE_LINES),
    ),
    strategy(
        r"how many pixels wide is the bright round cell",
        code("I separate the bright pixels and measure the largest patch.", _CELL),
    ),
    strategy(
        r"round mission patch",
        code("I look for a round thing that is sewn onto the orange suit, and enlarge it.", _PATCH_FIND),
        code("That is the patch. I measure the hue of its background.", _PATCH_COLOUR),
    ),
    strategy(
        r"What colour are the petals",
        code("I separate the flower from leaves and shade and measure its hue.", _FLOWER),
    ),
    strategy(
        r"Where is the optic disc, as seen from the fovea",
        code("The disc is the brightest spot of the blurred green channel, the fovea the darkest.", _RETINA),
    ),
    strategy(
        r"Which photo comes from the camera that stood further to the right",
        code("I measure how the two photos are shifted against each other.", _STEREO),
        code("I check it by eye, too.", _STEREO_SIDE),
    ),
)
"""Strategies for the demo's photos."""
