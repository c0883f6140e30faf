"""``figures="content"``: a figure that is one image is that image's own pixels, as the code set them to be seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import LogNorm, Normalize

from pyvision_env.config import Limits
from pyvision_env.sandbox import Episode, Sandbox, make_sandbox

PHOTO = np.random.default_rng(1).integers(0, 256, (90, 120, 3)).astype(np.uint8)
# What the code finds as `ramp`, `wave` and so on; the tests make the same arrays here.
RAMP = (np.arange(90 * 120).reshape(90, 120) % 200 + 20).astype(np.uint8)
WAVE = np.sin(np.arange(90 * 120).reshape(90, 120) / 50.0) * 3
ARRAYS = """
ramp = (np.arange(90 * 120).reshape(90, 120) % 200 + 20).astype(np.uint8)
wave = np.sin(np.arange(90 * 120).reshape(90, 120) / 50.0) * 3
"""
CANVAS = (480, 640, 3)
SHOW = "\nplt.show()"


def coloured(data: Any, cmap: str = "viridis", norm: Normalize | None = None) -> Any:
    rgba = mpl.colormaps[cmap]((norm or Normalize())(data), bytes=True)
    return rgba[..., :3]


def over(rgb: Any, alpha: Any, ground: tuple[float, float, float] = (255, 255, 255)) -> Any:
    share = np.asarray(alpha)[..., None]
    return rgb * share + np.array(ground) * (1 - share)


@pytest.fixture(scope="module")
def content() -> Iterator[Sandbox]:
    with make_sandbox("local", limits=Limits(figures="content", min_pixels=1), containers=1) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def faithful() -> Iterator[Sandbox]:
    with make_sandbox("local", limits=Limits(min_pixels=1), containers=1) as sandbox:
        yield sandbox


@pytest.fixture
def episode(content: Sandbox) -> Iterator[Episode]:
    with content.open(images=[PHOTO]) as opened:
        assert opened.run(ARRAYS).error is None
        yield opened


def shown(episode: Episode, code: str) -> Any:
    result = episode.run(code + SHOW)
    assert result.error is None, result.text
    assert len(result.images) == 1, result.text
    return result.images[0]


ONE_IMAGE = [
    "plt.imshow(image_clue_0)",
    "plt.imshow(np.array(image_clue_0))",
    "plt.imshow(np.array(image_clue_0) / 255)",
    "plt.imshow(image_clue_0.convert('RGBA'))",
    "plt.imshow(image_clue_0, interpolation='bicubic')",
    "plt.imshow(image_clue_0, cmap='gray', aspect='equal')",
    "plt.imshow(image_clue_0); plt.axis('off')",
    "plt.imshow(image_clue_0); plt.axis(False)",
    "plt.imshow(image_clue_0); plt.xticks([]); plt.yticks([])",
    "plt.figure(figsize=(12, 3), dpi=50); plt.imshow(image_clue_0); plt.tight_layout()",
    "fig, ax = plt.subplots(); ax.imshow(image_clue_0); ax.set_axis_off()",
    "fig, ax = plt.subplots(1, 1, figsize=(9, 9)); im = ax.imshow(image_clue_0); ax.set_xticks([]); ax.set_yticks([])",
    "fig = plt.figure(); ax = fig.add_axes([0, 0, 1, 1]); ax.imshow(image_clue_0)",
    "fig = plt.figure(); ax = fig.add_subplot(111); ax.axis('off'); ax.imshow(image_clue_0)",
    "plt.subplot(1, 1, 1); plt.imshow(image_clue_0); plt.gca().set_position([0, 0, 1, 1])",
    "plt.imshow(image_clue_0); plt.axis('off'); plt.tight_layout(pad=0)",
    "plt.imshow(image_clue_0); plt.title(''); plt.xlabel('')",
    "plt.imshow(image_clue_0); plt.grid(False); [s.set_visible(False) for s in plt.gca().spines.values()]",
    "plt.imshow(image_clue_0); plt.gca().xaxis.set_visible(False)",
    "plt.imshow(image_clue_0); plt.grid(True); plt.xlabel('x'); plt.axis('off')",
    "a = np.array(image_clue_0); plt.imshow(a); a[:] = 0",
    "plt.imshow(image_clue_0); plt.xlim(-200, 500); plt.ylim(300, -300)",
    "im = plt.imshow(ramp); im.set_data(np.array(image_clue_0))",
    "plt.imshow(image_clue_0); plt.imshow(ramp).remove()",
]


@pytest.mark.parametrize("code", ONE_IMAGE)
def test_a_figure_that_is_one_image_comes_back_as_its_pixels(episode: Episode, code: str) -> None:
    assert np.array_equal(shown(episode, code), PHOTO)


AS_SET: dict[str, Any] = {
    "plt.imshow(ramp)": coloured(RAMP),
    "plt.imshow(ramp, cmap='gray'); plt.axis('off')": coloured(RAMP, "gray"),
    "plt.imshow(ramp, cmap='gray', vmin=0, vmax=255)": coloured(RAMP, "gray", Normalize(0, 255)),
    "plt.imshow(ramp, cmap=plt.cm.hot)": coloured(RAMP, "hot"),
    "plt.imshow(Image.fromarray(ramp), cmap='gray')": coloured(RAMP, "gray"),
    "plt.imshow(ramp[..., None], cmap='gray')": coloured(RAMP, "gray"),
    "plt.imshow(ramp > 99, cmap='gray')": coloured(RAMP > 99, "gray"),
    "plt.imshow(ramp.astype(np.int64) * 1000)": coloured(RAMP),
    "plt.imshow(wave, cmap='coolwarm', vmin=-1.5, vmax=2.5)": coloured(WAVE, "coolwarm", Normalize(-1.5, 2.5)),
    "plt.imshow(wave); plt.clim(-1, 1)": coloured(WAVE, "viridis", Normalize(-1, 1)),
    "plt.imshow(wave); plt.gray()": coloured(WAVE, "gray"),
    "im = plt.imshow(wave); im.set_cmap('magma'); im.set_clim(0, 3)": coloured(WAVE, "magma", Normalize(0, 3)),
    "from matplotlib.colors import LogNorm\nplt.imshow(ramp, norm=LogNorm(20, 219))": coloured(
        RAMP, "viridis", LogNorm(20, 219)
    ),
    "plt.rcParams['image.cmap'] = 'bone'\nplt.imshow(wave)\nplt.rcdefaults()": coloured(WAVE, "bone"),
    "plt.imshow(image_clue_0, origin='lower')": PHOTO[::-1],
    "plt.rcParams['image.origin'] = 'lower'\nplt.imshow(image_clue_0)\nplt.rcdefaults()": PHOTO[::-1],
    "plt.imshow(ramp, 'gray', origin='lower')": coloured(RAMP, "gray")[::-1],
    "plt.imshow(image_clue_0); plt.gca().invert_yaxis()": PHOTO[::-1],
    "plt.imshow(image_clue_0); plt.gca().invert_xaxis()": PHOTO[:, ::-1],
    "plt.imshow(image_clue_0, origin='lower'); plt.gca().invert_yaxis()": PHOTO,
    "plt.imshow(image_clue_0); plt.xlim(19.5, 69.5); plt.ylim(59.5, 9.5)": PHOTO[10:60, 20:70],
    "plt.imshow(image_clue_0); plt.xlim(20, 70)": PHOTO[:, 20:71],
    "plt.imshow(image_clue_0); plt.axis([69.5, 19.5, 9.5, 59.5])": PHOTO[10:60, 20:70][::-1, ::-1],
    "plt.imshow(image_clue_0, extent=[0, 12, 0, 9])": PHOTO,
    "plt.imshow(image_clue_0, extent=[0, 12, 0, 9]); plt.xlim(3, 6)": PHOTO[:, 30:60],
    "plt.imshow(image_clue_0, extent=[0, 12, 0, 9]); plt.ylim(6, 9)": PHOTO[:30],
    "plt.imshow(image_clue_0, extent=[12, 0, 9, 0])": PHOTO,
    "plt.imshow(ramp, cmap='gray'); plt.xlim(-0.5, 9.5)": coloured(RAMP, "gray")[:, :10],
    "plt.imshow(wave); plt.ylim(9.5, -0.5)": coloured(WAVE)[:10],
    "plt.imshow(image_clue_0, aspect=2, interpolation='nearest')": PHOTO.repeat(2, axis=0),
    "plt.imshow(image_clue_0, extent=[0, 240, 0, 90], interpolation='none')": PHOTO.repeat(2, axis=1),
}


@pytest.mark.parametrize("code", AS_SET)
def test_colours_orientation_and_view_are_as_the_code_set_them(episode: Episode, code: str) -> None:
    assert np.array_equal(shown(episode, code), AS_SET[code])


def test_an_image_that_fills_its_axes_is_stretched_as_they_are(episode: Episode) -> None:
    image = shown(episode, "plt.figure(figsize=(8, 2))\nplt.axes([0, 0, 1, 1]).imshow(image_clue_0, aspect='auto')")
    assert image.shape == (90, 360, 3)


LET_THROUGH: dict[str, Any] = {
    "plt.imshow(np.ma.masked_where(ramp > 99, ramp))": np.where(
        (RAMP > 99)[..., None], 255, coloured(RAMP, norm=Normalize(20, 99))
    ),
    "plt.imshow(np.where(wave > 1, np.nan, wave))": np.where(
        (WAVE > 1)[..., None], 255, coloured(WAVE, norm=Normalize(WAVE.min(), WAVE[WAVE <= 1].max()))
    ),
    "plt.imshow(image_clue_0, alpha=0.5)": over(PHOTO, 0.5),
    "plt.imshow(ramp, cmap='gray', alpha=wave / 6 + 0.5)": over(coloured(RAMP, "gray"), WAVE / 6 + 0.5),
    "plt.imshow(np.dstack([image_clue_0, ramp]))": over(PHOTO, RAMP / 255),
    "ax = plt.gca(); ax.set_facecolor('red'); ax.imshow(image_clue_0, alpha=0.25)": over(PHOTO, 0.25, (255, 0, 0)),
    "plt.imshow(ramp, alpha=wave / 6 + 0.5, cmap='gray'); plt.xlim(-0.5, 9.5); plt.gca().invert_yaxis()": over(
        coloured(RAMP, "gray"), WAVE / 6 + 0.5
    )[::-1, :10],
    "plt.figure(facecolor='blue'); plt.imshow(image_clue_0, alpha=0.25); plt.axis('off')": over(
        PHOTO, 0.25, (0, 0, 255)
    ),
}


@pytest.mark.parametrize("code", LET_THROUGH)
def test_what_is_transparent_shows_the_ground_it_lies_on(episode: Episode, code: str) -> None:
    image = shown(episode, code)
    assert image.shape == LET_THROUGH[code].shape
    assert np.abs(image.astype(float) - LET_THROUGH[code]).max() <= 1.01


MORE_THAN_AN_IMAGE = [
    "plt.imshow(image_clue_0); plt.title('crop')",
    "plt.title('crop'); plt.imshow(image_clue_0); plt.axis('off')",
    "plt.imshow(image_clue_0); plt.title('left', loc='left')",
    "plt.suptitle('crop'); plt.imshow(image_clue_0)",
    "plt.imshow(image_clue_0); plt.xlabel('columns')",
    "plt.imshow(image_clue_0); plt.text(10, 10, 'here', color='r')",
    "plt.imshow(image_clue_0); plt.gcf().text(0.5, 0.01, 'below')",
    "plt.imshow(image_clue_0); plt.annotate('here', (5, 5), (50, 50), arrowprops={})",
    "plt.imshow(image_clue_0); plt.plot([0, 50], [0, 50], 'r')",
    "plt.imshow(image_clue_0); plt.axhline(20)",
    "plt.imshow(image_clue_0); plt.scatter([5], [5])",
    "plt.imshow(image_clue_0); plt.gca().add_patch(plt.Rectangle((5, 5), 20, 20, fill=False))",
    "plt.imshow(image_clue_0); plt.gcf().add_artist(plt.Line2D([0, 1], [0, 1]))",
    "plt.imshow(image_clue_0); plt.gcf().patches.append(plt.Rectangle((0, 0), 0.1, 0.1))",
    "plt.imshow(ramp); plt.colorbar()",
    "im = plt.imshow(ramp); plt.colorbar(im)",
    "fig, ax = plt.subplots(); fig.colorbar(ax.imshow(wave), ax=ax)",
    "plt.imshow(image_clue_0); plt.imshow(ramp, alpha=0.5)",
    "fig, axes = plt.subplots(1, 2); axes[0].imshow(image_clue_0); axes[1].imshow(ramp)",
    "plt.subplot(121); plt.imshow(image_clue_0)\nplt.subplot(122); plt.imshow(ramp, cmap='gray')",
    "plt.imshow(image_clue_0); plt.gca().inset_axes([0.5, 0.5, 0.4, 0.4]).imshow(ramp)",
    "plt.imshow(image_clue_0); plt.grid()",
    "plt.rcParams['axes.grid'] = True\nplt.imshow(image_clue_0)\nplt.rcdefaults()",
    "plt.imshow(image_clue_0); plt.xticks([10, 50], ['a', 'b'])",
    "im = plt.imshow(image_clue_0); im.set_clip_path(plt.Circle((60, 45), 30, transform=plt.gca().transData))",
    "plt.imshow(image_clue_0); [s.set(color='r', linewidth=5) for s in plt.gca().spines.values()]",
    "plt.imshow(image_clue_0); plt.xlim(1, 100); plt.xscale('log')",
    "import matplotlib.transforms as t\nax = plt.gca()\n"
    "ax.imshow(image_clue_0, transform=t.Affine2D().rotate_deg(20) + ax.transData)",
    "plt.imshow(image_clue_0).set_visible(False)",
    "plt.imshow(image_clue_0); plt.gca().set_visible(False)",
    "plt.imshow(image_clue_0); plt.xlim(500, 600)",
    "plt.imshow(image_clue_0); plt.tight_layout(); plt.title('after')",
    "plt.imshow(image_clue_0); plt.title('before'); plt.tight_layout()",
    "plt.plot([1, 3, 2])",
    "plt.gca()",
    "plt.figure()",
    "with plt.style.context('dark_background'):\n    plt.imshow(image_clue_0)\nplt.title('dark')",
    "ax = plt.axes(projection='polar')",
    "plt.pcolormesh(ramp)",
    "plt.matshow(ramp); plt.legend([plt.Line2D([], [])], ['a'])",
    "import pickle\nplt.imshow(ramp); plt.gca().axis('off')\npickle.dumps(plt.gcf()); plt.title('t')",
]


@pytest.mark.parametrize("code", MORE_THAN_AN_IMAGE)
def test_a_figure_that_is_more_is_drawn_as_ever(episode: Episode, faithful: Sandbox, code: str) -> None:
    picture = shown(episode, code)
    with faithful.open(images=[PHOTO]) as other:
        assert other.run(ARRAYS).error is None
        assert np.array_equal(picture, shown(other, code))


def test_what_code_asks_of_axes_and_images_is_answered_as_ever(episode: Episode, faithful: Sandbox) -> None:
    code = """
import copy
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
fig, ax = plt.subplots()
im = ax.imshow(ramp, cmap='gray')
print(isinstance(ax, Axes), isinstance(im, AxesImage), fig.axes == [ax], plt.gca() is ax)
print(im.get_array().shape, im.get_cmap().name, im.axes is ax, ax.images[0] is im, im.get_clim())
print(ax.get_xlim(), ax.get_title() == '', ax.get_subplotspec().get_geometry(), type(ax) is Axes)
other = plt.figure(); image = plt.imshow(wave)
print(plt.gci() is image, image.get_extent(), copy.copy(image).get_array().mean().round(3))
third, ax = plt.subplots(); ax.imshow(ramp); ax.clear(); ax.plot([1, 2]); ax.remove(); print(third.axes)
third.clf(); third.gca().imshow(wave); fig.savefig('a.png'); third.savefig('b.png'); print(Image.open('b.png').size)
for bad in ({'cmap': 'no such map'}, {'interpolation': 'none such'}, {'vmin': 'a'}):
    try:
        plt.figure(); plt.imshow(wave, **bad); plt.gcf().canvas.draw(); print('drawn')
    except Exception as error:
        print(type(error).__name__)
plt.close('all')
"""
    with faithful.open(images=[PHOTO]) as other:
        assert other.run(ARRAYS).error is None
        expected = other.run(code)
    assert expected.error is None, expected.text
    assert episode.run(code).text == expected.text


@pytest.mark.parametrize(
    "code",
    [
        "plt.imshow(image_clue_0)",
        "plt.figure(figsize=(8, 8)); plt.imshow(ramp, cmap='gray'); plt.axis('off'); plt.tight_layout()",
        "fig, ax = plt.subplots(); ax.imshow(np.array(image_clue_0)); ax.set_xticks([]); ax.set_yticks([])",
    ],
)
def test_the_plots_that_models_write_most_never_build_axes(episode: Episode, code: str) -> None:
    built = """
import matplotlib.axis
made, build = [], matplotlib.axis.Axis.__init__
matplotlib.axis.Axis.__init__ = lambda self, *args, **options: (made.append(1), build(self, *args, **options))[1]
"""
    assert episode.run(built).error is None
    assert shown(episode, code).shape == (90, 120, 3)
    assert episode.run("print(len(made))").text == "0\n"
    assert shown(episode, f"{code}; plt.title('now')").shape[0] >= CANVAS[0]
    assert episode.run("print(len(made))").text == "2\n"


def test_the_pixel_budget_holds_for_content(faithful: Sandbox) -> None:
    del faithful
    limits = Limits(figures="content", min_pixels=3_136, max_pixels=10_000)
    with make_sandbox("local", limits=limits, containers=1) as sandbox, sandbox.open(images=[PHOTO]) as episode:
        large = shown(episode, "plt.imshow(image_clue_0)")
        assert 9_000 < large.shape[0] * large.shape[1] <= 10_000
        small = shown(episode, "plt.imshow(image_clue_0.crop((0, 0, 10, 20)))")
        assert small.shape[0] * small.shape[1] >= 3_136
        assert episode.run("print(image_clue_1.size, image_clue_2.size)").text == "(120, 90) (10, 20)\n"
