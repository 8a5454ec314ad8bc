from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from embedder.errors import Undecodable
from embedder.transform import ImageTransform
from tests.embedder.corpus import picture

HALF = (0.5, 0.5, 0.5)
NAMES = {
    "bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR, "nearest": InterpolationMode.NEAREST,
    "lanczos": InterpolationMode.LANCZOS, "box": InterpolationMode.BOX,
}  # fmt: skip
# as test_decode_resize holds against Pillow
MOST = {"nearest": 0, "box": 0, "bilinear": 1, "bicubic": 2, "lanczos": 2}


def declared(
    height: int, width: int, short_side: int, *, interpolation: str = "bicubic", fit: str = "crop"
) -> ImageTransform:
    return ImageTransform(height, width, short_side, HALF, HALF, interpolation, fit, (10, 130, 120))


def torchvision(image: Image.Image, height: int, width: int, short_side: int, interpolation: str) -> np.ndarray:
    steps = [transforms.Resize(short_side, NAMES[interpolation]), transforms.CenterCrop((height, width))]
    return np.asarray(transforms.Compose(steps)(image))


SIZES = [(640, 480), (480, 640), (500, 375), (333, 500), (224, 224), (225, 224), (31, 17), (1, 1), (7, 900), (1000, 5)]
SHAPES = [(224, 224, 256), (224, 224, 224), (223, 223, 235), (64, 48, 64), (48, 65, 70)]


@pytest.mark.parametrize("interpolation", sorted(NAMES))
def test_resize_and_crop_are_torchvisions(interpolation: str) -> None:
    for (width, height), shape in itertools.product(SIZES, SHAPES):
        image = picture(width, height)
        found = declared(*shape, interpolation=interpolation).pixels(image)
        assert found.shape == (*shape[:2], 3)
        assert found.dtype == np.uint8
        off = np.abs(found - torchvision(image, *shape, interpolation).astype(int))
        assert off.max() <= MOST[interpolation], f"{image.size} {shape}"
        assert (off > 0).mean() < (0.05 if MOST[interpolation] else 1e-9), f"{image.size} {shape}"


def test_a_crop_larger_than_the_picture_is_padded_like_torchvisions() -> None:
    for (width, height), crop in itertools.product([(30, 40), (41, 30), (33, 33)], [(50, 60), (33, 90), (91, 20)]):
        image = picture(width, height)
        found = declared(*crop, 30).pixels(image)
        off = np.abs(found - torchvision(image, *crop, 30, "bicubic").astype(int))
        assert off.max() <= MOST["bicubic"], f"{image.size} {crop}"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(width=st.integers(1, 400), height=st.integers(1, 400), crop=st.integers(1, 90), more=st.integers(-20, 40))
def test_any_size_is_torchvisions(width: int, height: int, crop: int, more: int) -> None:
    image = picture(width, height)
    short_side = max(1, crop + more)
    if max(width, height) <= 200 * min(width, height):
        found = declared(crop, crop, short_side).pixels(image)
        off = np.abs(found - torchvision(image, crop, crop, short_side, "bicubic").astype(int))
        assert off.max() <= MOST["bicubic"]


def resized(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """Both sides resized on their own, each a matrix product with the triangle weights of its outputs, in floats."""
    return np.einsum("hi,wj,ijc->hwc", weights(array.shape[0], height), weights(array.shape[1], width), array)


def weights(old: int, new: int) -> np.ndarray:
    scale = max(old / new, 1.0)
    centres = (np.arange(new)[:, None] + 0.5) * old / new
    triangle = np.maximum(0, 1 - np.abs(np.arange(old)[None] + 0.5 - centres) / scale)
    return triangle / triangle.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [(60, 41), (41, 60), (33, 33), (7, 90), (90, 1)])
def test_squash_and_pad_against_their_definition(size: tuple[int, int]) -> None:
    image = picture(*size)
    array = np.asarray(image).astype(np.float64)
    found = declared(24, 37, 24, interpolation="bilinear", fit="squash").pixels(image)
    assert np.abs(found - resized(array, 24, 37)).max() <= 1.01
    side = max(size)
    square = np.full((side, side, 3), (10, 130, 120), dtype=np.float64)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = array
    found = declared(24, 37, 24, interpolation="bilinear", fit="pad").pixels(image)
    assert np.abs(found - resized(square, 24, 37)).max() <= 1.01


def test_shapes_that_carry_nothing_are_refused() -> None:
    for size in ((1, 201), (201, 1), (2, 401)):
        with pytest.raises(Undecodable, match="200 to 1") as caught:
            declared(8, 8, 8).pixels(Image.new("RGB", size))
        assert (caught.value.stage, caught.value.reason) == ("decode", "bad_aspect")
    assert declared(8, 8, 8).pixels(Image.new("RGB", (1, 200))).shape == (8, 8, 3)
    with pytest.raises(Undecodable, match="square around") as caught:
        declared(8, 8, 8, fit="pad").pixels(Image.new("RGB", (100, 15_000)))
    assert caught.value.reason == "bad_aspect"


def test_a_transform_survives_the_way_to_a_worker() -> None:
    before = declared(24, 37, 24, interpolation="box", fit="pad")
    assert ImageTransform.from_json(json.loads(json.dumps(before.as_json()))) == before
