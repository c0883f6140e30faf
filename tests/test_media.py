import base64
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pyvision_env.errors import MediaError
from pyvision_env.media import (
    content_hash,
    data_url,
    encode_png,
    fit_pixels,
    load_image,
    resize_to_budget,
    visual_tokens,
)
from pyvision_env.types import ImageSource

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_every_kind_of_source_gives_the_same_pixels(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(PICTURE))
    data = path.read_bytes()
    image = Image.fromarray(PICTURE)
    for source in (path, str(path), data, image, PICTURE, ImageSource(path=path), ImageSource(data=data)):
        loaded = load_image(source)
        assert loaded.dtype == np.uint8
        assert np.array_equal(loaded, PICTURE)


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show the picture rotated by a quarter turn clockwise
    loaded = load_image(encoded(Image.fromarray(PICTURE), exif=exif))
    assert np.array_equal(loaded, np.rot90(PICTURE, -1))


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_pillow_mode_becomes_rgb(mode):
    image = Image.new(mode, (5, 4)) if mode in {"I;16", "I", "F"} else Image.new("RGB", (5, 4)).convert(mode)
    assert load_image(image).shape == (4, 5, 3)


def test_sixteen_bit_grey_keeps_its_range():
    deep = Image.fromarray(np.array([[0, 32_896, 65_535]], dtype=np.uint16))
    assert load_image(encoded(deep))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("as_array", [True, False])
def test_transparency_is_composited_on_white(as_array):
    pixels = np.array([[[255, 0, 0, 0], [255, 0, 0, 255], [0, 0, 0, 128]]], dtype=np.uint8)
    loaded = load_image(pixels if as_array else Image.fromarray(pixels))
    assert loaded[0, 0].tolist() == [255, 255, 255]
    assert loaded[0, 1].tolist() == [255, 0, 0]
    assert np.allclose(loaded[0, 2], 127, atol=1)


def test_a_transparent_palette_colour_becomes_white():
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    loaded = load_image(encoded(palette, transparency=0))
    assert loaded[0].tolist() == [[255, 255, 255], [40, 50, 60]]


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)])
def test_uint8_arrays_of_common_shapes_load(shape):
    assert load_image(np.zeros(shape, np.uint8)).shape == (4, 5, 3)


@pytest.mark.parametrize("array", [np.zeros((4, 5, 3)), np.zeros((4, 5, 2), np.uint8), np.zeros((0, 5, 3), np.uint8)])
def test_other_arrays_are_refused_with_their_type_and_shape(array):
    with pytest.raises(MediaError, match=rf"got {array.dtype} of shape {re.escape(str(array.shape))}"):
        load_image(array)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(MediaError, match=r"expected an image file at .*none\.png, found nothing"):
        load_image(tmp_path / "none.png")
    with pytest.raises(MediaError, match="found a folder"):
        load_image(tmp_path)


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(encoded(Image.fromarray(np.tile(PICTURE, (20, 20, 1))), "JPEG")[:2000])
    with pytest.raises(MediaError, match=r"expected a readable image .* in .*cut\.jpg, found damaged"):
        load_image(path)


def test_a_text_file_is_no_image():
    with pytest.raises(
        MediaError, match="in 5 bytes of encoded image, found damaged, truncated or other data"
    ) as caught:
        load_image(b"hello")
    # No address in memory: a message must be the same in every run.
    assert " at 0x" not in str(caught.value) and "no known image format" in str(caught.value)


def test_too_many_pixels_are_refused_before_decoding():
    data = encoded(Image.new("1", (3_000, 2_000)))
    with pytest.raises(MediaError, match=r"3000x2000 = 6,000,000 pixels, above the cap of 1,000,000"):
        load_image(data, max_source_pixels=1_000_000)


def test_a_decompression_bomb_is_refused():
    bomb = encoded(Image.new("1", (20_000, 20_000)))
    assert len(bomb) < 100_000
    with pytest.raises(MediaError, match="larger than the cap"):
        load_image(bomb)


@given(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"]), st.data())
def test_damaged_bytes_either_load_or_raise_a_media_error(kind, data):
    whole = bytearray(encoded(Image.fromarray(PICTURE), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(whole)))
    try:
        loaded = load_image(bytes(whole[:cut]), max_source_pixels=1_000_000)
    except MediaError:
        return
    assert loaded.dtype == np.uint8 and loaded.shape[2] == 3


@given(st.integers(1, 9_000), st.integers(1, 9_000), st.integers(1, 10_000), st.integers(0, 3_000_000))
def test_fitted_sizes_stay_in_the_budget_and_keep_the_aspect(width, height, least, more):
    most = least + more
    w, h = fit_pixels(width, height, least, most)
    assert w >= 1 and h >= 1 and w * h <= most
    if least <= width * height <= most:
        assert (w, h) == (width, height)
    elif min(w, h) > 20:
        assert abs(np.log((w / h) / (width / height))) < 2 / min(w, h)
        assert w * h >= min(least, most * (1 - 3 / min(w, h)))


def test_a_long_strip_fits_the_budget():
    assert fit_pixels(1, 100_000, 1, 50) == (1, 50)
    assert fit_pixels(100_000, 1, 1, 50) == (50, 1)


@pytest.mark.parametrize("arguments", [(0, 5, 1, 10), (5, 5, 20, 10), (5, 5, 0, 10)])
def test_senseless_budgets_are_refused(arguments):
    with pytest.raises(MediaError, match="min_pixels <= max_pixels"):
        fit_pixels(*arguments)


def test_a_picture_inside_the_budget_comes_back_itself():
    assert resize_to_budget(PICTURE, 1, 600) is PICTURE


def test_a_picture_is_scaled_into_the_budget_by_averaging():
    checker = np.zeros((64, 96, 3), np.uint8)
    checker[::2, ::2] = checker[1::2, 1::2] = 255
    small = resize_to_budget(checker, 1, 24 * 16)
    assert small.shape == (16, 24, 3)
    assert np.abs(small[4:-4, 4:-4].astype(int) - 127).max() < 20
    assert resize_to_budget(PICTURE, 2_400, 9_999).shape == (40, 60, 3)


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [
        (224, 224, 64),
        (28, 28, 4),  # scaled up to 56x56
        (1_000, 28, 36),  # 36 columns of one row hold enough pixels
        (1_920, 1_080, 69 * 39),  # 68.57 and 38.57 units round up
        (42, 280, 20),  # a half unit rounds to the even neighbour: 1.5 -> 2
        (8_000, 8_000, 128 * 128),  # scaled down to 3584x3584
        (1, 10_000, 200),
    ],
)
def test_visual_tokens_follow_the_smart_resize(width, height, tokens):
    assert visual_tokens(width, height) == tokens


@given(st.integers(28, 5_000), st.integers(28, 5_000))
def test_visual_tokens_respect_the_budget(width, height):
    if max(width, height) / min(width, height) < 100:
        assert 4 <= visual_tokens(width, height, max_pixels=1_003_520) <= 1_280


def test_png_is_lossless_and_data_urls_carry_the_picture():
    assert np.array_equal(load_image(encode_png(PICTURE)), PICTURE)
    header, payload = data_url(PICTURE).split(",")
    assert header == "data:image/png;base64"
    assert np.array_equal(load_image(base64.b64decode(payload)), PICTURE)
    header, payload = data_url(PICTURE, "jpeg").split(",")
    assert header == "data:image/jpeg;base64"
    assert load_image(base64.b64decode(payload)).shape == PICTURE.shape


def test_content_hash_tells_pixels_and_shape_apart():
    assert content_hash(PICTURE) == content_hash(np.asfortranarray(PICTURE))
    assert content_hash(PICTURE) != content_hash(PICTURE.reshape(30, 20, 3))
    changed = PICTURE.copy()
    changed[0, 0, 0] ^= 1
    assert content_hash(PICTURE) != content_hash(changed)
    assert re.fullmatch("[0-9a-f]{64}", content_hash(PICTURE))
