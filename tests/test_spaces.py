from __future__ import annotations

import copy
import json
import pickle
import unicodedata

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate
from hypothesis import given
from hypothesis import strategies as st

from pyvision_env.spaces import RGBImage, Unicode, action_space, as_element, observation_space
from pyvision_env.types import Observation, VideoInfo

ANY_TEXT = st.text(alphabet=st.characters(), max_size=50)  # lone surrogates included


@given(ANY_TEXT)
def test_unicode_contains_any_str(text: str) -> None:
    assert text in Unicode()


@pytest.mark.parametrize("value", [b"bytes", 3, None, np.str_("x"), ["x"]])
def test_unicode_contains_strings_only(value: object) -> None:
    assert Unicode().contains(value) == isinstance(value, str)


def test_unicode_length_bounds_hold_for_contains_and_sample() -> None:
    space = Unicode(min_length=3, max_length=5, seed=1)
    assert "ab" not in space
    assert "abc" in space
    assert "abcdef" not in space
    assert {len(space.sample()) for _ in range(100)} == {3, 4, 5}


def test_unicode_samples_mix_scripts() -> None:
    text = "".join(Unicode(seed=0).sample() for _ in range(50))
    names = {unicodedata.name(c, "").split(" ")[0] for c in text}
    assert {"LATIN", "GREEK", "CYRILLIC", "CJK", "HANGUL", "DEVANAGARI"} <= names


@pytest.mark.parametrize("space", [Unicode(), Unicode(2, 9), RGBImage(), RGBImage(100)])
def test_sampling_is_deterministic_and_within_the_space(space: spaces.Space) -> None:
    space.seed(7)
    first = [space.sample() for _ in range(20)]
    space.seed(7)
    again = [space.sample() for _ in range(20)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(space.contains(item) for item in first)


@pytest.mark.parametrize("space", [Unicode(), Unicode(2, 9), RGBImage(), RGBImage(100)])
def test_copies_are_equal_and_draw_the_same(space: spaces.Space) -> None:
    space.seed(3)
    for twin in (copy.deepcopy(space), pickle.loads(pickle.dumps(space))):
        assert twin == space
        assert repr(twin) == repr(space)
        assert np.array_equal(twin.sample(), copy.deepcopy(space).sample())


def test_spaces_of_different_bounds_differ() -> None:
    assert Unicode() != Unicode(max_length=5)
    assert Unicode() != RGBImage()
    assert RGBImage() != RGBImage(max_pixels=10)
    assert spaces.Dict(a=Unicode()) == spaces.Dict(a=Unicode())


@given(st.lists(ANY_TEXT, max_size=5))
def test_unicode_survives_json(texts: list[str]) -> None:
    space = Unicode()
    assert space.from_jsonable(json.loads(json.dumps(space.to_jsonable(texts)))) == texts


def test_images_survive_json() -> None:
    space = RGBImage(seed=0)
    images = [space.sample() for _ in range(3)]
    back = space.from_jsonable(json.loads(json.dumps(space.to_jsonable(images))))
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(images, back, strict=True))


@pytest.mark.parametrize(
    ("array", "inside"),
    [
        (np.zeros((1, 1, 3), np.uint8), True),
        (np.zeros((5, 900, 3), np.uint8), True),
        (np.zeros((0, 4, 3), np.uint8), False),
        (np.zeros((4, 4), np.uint8), False),
        (np.zeros((4, 4, 4), np.uint8), False),
        (np.zeros((4, 4, 3), np.float32), False),
        ([[[0, 0, 0]]], False),
    ],
)
def test_rgb_image_takes_uint8_rgb_of_any_size(array: object, inside: bool) -> None:
    assert RGBImage().contains(array) is inside


def test_rgb_image_bounds_pixels() -> None:
    assert np.zeros((10, 10, 3), np.uint8) in RGBImage(max_pixels=100)
    assert np.zeros((10, 11, 3), np.uint8) not in RGBImage(max_pixels=100)
    tiny = RGBImage(max_pixels=1, seed=0)
    assert tiny.sample().shape == (1, 1, 3)


def test_masks_are_taken_as_gymnasium_gives_them() -> None:
    space = Unicode(seed=0)
    assert len(space.sample(mask=(5, None))) == 5
    assert len(space.sample(probability=(6, None))) == 6
    assert space.sample(mask=(None, None)) in space
    images = spaces.Sequence(RGBImage(), seed=0)
    assert len(images.sample(mask=(2, None))) == 2
    with pytest.raises(ValueError, match="Only one of"):
        space.sample(mask=(5, None), probability=(5, None))
    with pytest.raises(ValueError, match="outside"):
        Unicode(max_length=3).sample(mask=(5, None))
    with pytest.raises(ValueError, match="neither mask"):
        RGBImage().sample(mask=np.ones(3, np.int8))


@pytest.mark.parametrize("make", [lambda: Unicode(-1), lambda: Unicode(5, 3), lambda: RGBImage(0)])
def test_wrong_bounds_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match="needs"):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("space", [observation_space(4), action_space("text"), action_space("structured")])
def test_the_environments_spaces_sample_batch_and_survive_json(space: spaces.Space) -> None:
    space.seed(11)
    samples = [space.sample() for _ in range(4)]
    assert all(space.contains(sample) for sample in samples)
    back = space.from_jsonable(json.loads(json.dumps(space.to_jsonable(samples))))
    assert all(space.contains(sample) for sample in back)
    batched = batch_space(space, 3)
    batch = batched.sample()
    assert batch in batched
    assert len(list(iterate(batched, batch))) == 3
    joined = concatenate(space, samples[:3], create_empty_array(space, 3))
    assert joined in batched


def test_an_observation_becomes_an_element() -> None:
    video = VideoInfo(width=640, height=360, num_frames=250, fps=25.0, duration_s=10.0)
    element = as_element(Observation("text", (np.zeros((4, 4, 3), np.uint8),), ("image_clue_0",), (video,), 3))
    assert element in observation_space(4)
    assert f"{element['videos'][0]['fps']:.1f}" == "25.0"
    assert as_element(Observation("text", turns_left=5)) not in observation_space(4)
