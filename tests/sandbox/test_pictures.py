"""Pictures that code shows: every way of showing, native crops, the pixel budget, the image budget, their names."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvision_env import media
from pyvision_env.config import Limits
from pyvision_env.sandbox import Episode, Sandbox, make_sandbox
from pyvision_env.sandbox.worker.pictures import fit_pixels

RAMP = np.arange(300 * 400 * 3, dtype=np.uint32).reshape(300, 400, 3).astype(np.uint8)
CANVAS = (480, 640, 3)


@pytest.fixture
def episode(sandbox: Sandbox) -> Iterator[Episode]:
    with sandbox.open(images=[RAMP]) as opened:
        yield opened


@pytest.mark.parametrize(
    "code",
    [
        "plt.imshow(image_clue_0)\nplt.show()",
        "plt.imshow(image_clue_0); plt . show( )",
        "import matplotlib.pyplot as p\np.plot([1, 2])\np.show(block=True)",
        "from matplotlib import pyplot\npyplot.plot([1, 2]); pyplot.show()",
        "import matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()",
        "plt.switch_backend('agg'); plt.plot([1]); plt.show()",
        "fig, ax = plt.subplots(); ax.plot([1, 2]); fig.show()",
        "fig, ax = plt.subplots(); ax.plot([1, 2]); display(fig)",
        "fig, ax = plt.subplots(); n = ax.plot([1, 2])\nfig",
        "f = plt.show\nplt.plot([3]); f()",
        "from matplotlib.figure import Figure\nf = Figure(); f.subplots().plot([1])\nf",
    ],
)
def test_every_way_of_showing_a_figure_gives_its_canvas(episode: Episode, code: str) -> None:
    result = episode.run(code)
    assert result.error is None, result.text
    assert [image.shape for image in result.images] == [CANVAS]
    assert result.images[0].min() < 100, "the canvas must not be blank"


@pytest.mark.parametrize(
    "code",
    [
        "image_clue_0.show()",
        "image_clue_0",
        "display(image_clue_0)",
        "from PIL import ImageShow; ImageShow.show(image_clue_0)",
        "import cv2; cv2.imshow('w', np.array(image_clue_0)[..., ::-1])",
    ],
)
def test_every_way_of_showing_an_image_gives_its_own_pixels(episode: Episode, code: str) -> None:
    result = episode.run(code)
    assert result.error is None, result.text
    (image,) = result.images
    assert np.array_equal(image, RAMP)


def test_a_crop_is_shown_at_native_resolution(episode: Episode) -> None:
    (image,) = episode.run("image_clue_0.crop((100, 50, 200, 130)).show()").images
    assert np.array_equal(image, RAMP[50:130, 100:200])


def test_several_figures_are_shown_in_order_and_closed(episode: Episode) -> None:
    code = "for size in (2, 3):\n    plt.figure(figsize=(size, 2)); plt.plot([1])\nplt.show()\nprint(plt.get_fignums())"
    result = episode.run(code)
    assert [image.shape for image in result.images] == [(200, 200, 3), (200, 300, 3)]
    assert result.text == "[]\n"


def test_a_figure_that_was_not_shown_is_mentioned(episode: Episode) -> None:
    result = episode.run("plt.plot([1, 2])")
    assert result.images == ()
    assert result.text == "[1 figure(s) drawn but not shown: call plt.show() to see them]"


def test_produced_pictures_are_bound_in_order_of_appearance(episode: Episode) -> None:
    episode.run("image_clue_0.crop((0, 0, 60, 70)).show(); image_clue_0.crop((0, 0, 80, 90)).show()")
    episode.run("image_clue_0.crop((0, 0, 64, 99)).show()")
    assert episode.image_count == 4
    assert episode.run("print(image_clue_1.size, image_clue_2.size, image_clue_3.size)").text == (
        "(60, 70) (80, 90) (64, 99)\n"
    )


def test_names_go_on_after_a_lost_runtime(episode: Episode) -> None:
    episode.run("image_clue_0.crop((0, 0, 60, 70)).show()")
    assert episode.run("import os; os._exit(1)").state_lost
    episode.run("image_clue_1.crop((0, 0, 59, 59)).show()")
    assert episode.run("print(image_clue_1.size, image_clue_2.size)").text == "(60, 70) (59, 59)\n"
    assert np.array_equal(episode.run("image_clue_1").images[0], RAMP[:70, :60])


def test_deleting_or_replacing_a_bound_image_is_undone_by_a_fresh_runtime_only(episode: Episode) -> None:
    episode.run("del image_clue_0")
    assert episode.run("image_clue_0").error == "NameError: name 'image_clue_0' is not defined"
    episode.run("import os; os._exit(1)")
    assert np.array_equal(episode.run("image_clue_0").images[0], RAMP)


def test_pictures_beyond_the_turns_budget_are_counted_not_shown(episode: Episode) -> None:
    result = episode.run("for _ in range(5): image_clue_0.show()", max_images=2)
    assert len(result.images) == 2
    assert result.text == "[3 more image(s) were not shown: the image budget is used up]"
    assert result.truncated
    assert len(episode.run("for _ in range(20): image_clue_0.show()").images) == 8
    assert episode.run("image_clue_0.show()", max_images=0).images == ()


def test_pictures_shown_before_an_error_are_kept(episode: Episode) -> None:
    result = episode.run("image_clue_0.show()\n1 / 0")
    assert len(result.images) == 1
    assert result.error == "ZeroDivisionError: division by zero"
    assert episode.run("image_clue_1.size").text == "(400, 300)\n"


@pytest.fixture(scope="module")
def tight() -> Iterator[Sandbox]:
    limits = Limits(max_pixels=10_000, min_pixels=3_136)
    with make_sandbox("local", limits=limits, containers=1) as sandbox:
        yield sandbox


def test_the_pixel_budget_scales_what_is_shown_but_not_what_code_holds(tight: Sandbox) -> None:
    with tight.open(images=[RAMP]) as episode:
        (shown,) = episode.run("image_clue_0.show()").images
        assert 9_000 < shown.shape[0] * shown.shape[1] <= 10_000
        assert episode.run("image_clue_1.size").text == "(400, 300)\n"
        (small,) = episode.run("image_clue_0.crop((0, 0, 10, 20)).show()").images
        assert small.shape[0] * small.shape[1] >= 3_136
        assert small.shape[0] == pytest.approx(2 * small.shape[1], abs=2)
        assert episode.run("image_clue_2.size").text == "(10, 20)\n"


def test_arrays_of_all_usual_kinds_can_be_shown(episode: Episode) -> None:
    code = """
import cv2
for a in (np.zeros((60, 60)), np.ones((60, 60), bool), np.full((60, 60, 3), 0.5), np.full((60, 60, 4), 9, np.uint8),
          np.full((60, 60), 300, np.int64), np.full((60, 60, 1), 7, np.uint8)):
    cv2.imshow('', a)
"""
    result = episode.run(code)
    assert result.error is None, result.text
    assert [int(image.max()) for image in result.images] == [0, 255, 127, 246, 255, 7]


def test_something_that_is_no_picture_is_the_codes_error(episode: Episode) -> None:
    result = episode.run("import cv2; cv2.imshow('', np.zeros((2, 3, 4, 5)))")
    assert result.error == "ValueError: an array of shape (2, 3, 4, 5) is not a picture: expected HxW, HxWx3 or HxWx4"


def test_what_the_caller_gets_cannot_be_changed(episode: Episode) -> None:
    (image,) = episode.run("image_clue_0.show()").images
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0] = 0


@given(
    st.integers(1, 100_000),
    st.integers(1, 100_000),
    st.integers(1, 5_000),
    st.integers(5_000, 3_000_000),
)
def test_a_fitted_size_never_exceeds_the_budget(width: int, height: int, least: int, most: int) -> None:
    new_width, new_height = fit_pixels(width, height, least, most)
    assert 1 <= new_width * new_height <= most
    if least <= width * height <= most:
        assert (new_width, new_height) == (width, height)


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 10_000), st.integers(10_000, 5_000_000))
def test_the_worker_and_the_host_fit_a_picture_into_the_same_size(
    width: int, height: int, least: int, most: int
) -> None:
    assert fit_pixels(width, height, least, most) == media.fit_pixels(width, height, least, most)
