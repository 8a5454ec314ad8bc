"""The resize is held against Pillow's own, of which it computes a part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from embedder.decode.resize import INTERPOLATIONS, resize
from embedder.encoder import load_encoder
from tests.embedder.corpus import picture
from tests.parity import worst_cosine

MOST = {"nearest": 0, "box": 0, "bilinear": 1, "bicubic": 2, "lanczos": 2}


def noise(width: int, height: int) -> np.ndarray:
    """The hardest picture: every pixel is at an edge."""
    return np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pillows(pixels: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize(size, INTERPOLATIONS[interpolation])).astype(int)


sides = st.integers(1, 300)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(old=st.tuples(sides, sides), new=st.tuples(sides, sides), name=st.sampled_from(sorted(MOST)), data=st.data())
def test_any_part_is_pillows(old: tuple[int, int], new: tuple[int, int], name: str, data: st.DataObject) -> None:
    left, top = data.draw(st.integers(0, new[0] - 1)), data.draw(st.integers(0, new[1] - 1))
    right, bottom = data.draw(st.integers(left + 1, new[0])), data.draw(st.integers(top + 1, new[1]))
    pixels = noise(*old)
    found = resize(pixels, new, (left, top, right, bottom), name)
    assert (found.dtype, found.flags.writeable) == (np.uint8, True)
    expected = pillows(pixels, new, name)[top:bottom, left:right]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= MOST[name]


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (1600, 1200), (240, 900), (150, 100)])
def test_few_values_differ_at_all(size: tuple[int, int], name: str) -> None:
    pixels = np.asarray(picture(*size))
    new = (round(size[0] * 256 / min(size)), round(size[1] * 256 / min(size)))
    found = resize(pixels, new, (0, 0, *new), name)
    assert (found != pillows(pixels, new, name)).mean() < 0.01


def test_tall_pictures_are_resized_in_the_same_order() -> None:
    # in the other order, values that are clipped in between differ by tens
    for size, new in (
        ((100, 300), (50, 150)),
        ((100, 200), (50, 100)),
        ((100, 202), (50, 100)),
        ((60, 300), (90, 200)),
    ):
        assert (
            np.abs(resize(noise(*size), new, (0, 0, *new), "lanczos") - pillows(noise(*size), new, "lanczos")).max()
            <= 2
        )


def test_large_reductions() -> None:
    for size, new in (((4000, 3000), (9, 7)), ((3000, 16), (15, 8)), ((20, 4000), (19, 20))):
        for name in ("bilinear", "bicubic", "lanczos"):
            found = resize(noise(*size), new, (0, 0, *new), name)
            assert np.abs(found - pillows(noise(*size), new, name)).max() <= 2


def test_a_turned_picture_and_one_of_its_own_size() -> None:
    pixels = noise(40, 30)
    turned = np.rot90(pixels)
    np.testing.assert_array_equal(
        resize(turned, (20, 25), (1, 2, 20, 25), "bicubic"),
        resize(np.ascontiguousarray(turned), (20, 25), (1, 2, 20, 25), "bicubic"),
    )
    np.testing.assert_array_equal(resize(pixels, (40, 30), (3, 4, 30, 29), "lanczos"), pixels[4:29, 3:30])


def test_vectors_are_those_of_pillows_pixels(request: pytest.FixtureRequest) -> None:
    encoder = load_encoder("bundled:efficientnet_lite0", device="cpu")
    pictures = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    pictures += [image.crop((0, 0, 200, 420)) for image in pictures]
    ours = encoder.encode(pictures)
    request.getfixturevalue("pillows_resize")
    assert not np.array_equal(pillows := encoder.encode(pictures), ours)
    assert worst_cosine(ours, pillows) >= 0.9999
