"""The fast way must give Pillow's pixels, and refuse what Pillow refuses, whatever a JPEG looks like."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from embedder.decode import jpeg
from embedder.decode.image import decode
from embedder.errors import Undecodable
from embedder.pool import DecodePool
from embedder.records import Decoded, Item
from embedder.transform import ImageTransform
from tests.embedder.corpus import encoded, picture

WHITE = (255, 255, 255)
SIZES = [(1, 1), (7, 90), (33, 20), (64, 48), (129, 257)]


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=("JPEG",))


def pillows(data: bytes) -> np.ndarray | None:
    """The pixels that Pillow makes of it, None where it refuses."""
    try:
        return np.asarray(ImageOps.exif_transpose(opened(data)).convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        return None


def fast(data: bytes) -> np.ndarray | None:
    """The pixels of the fast way, None where it leaves the file to Pillow."""
    try:
        return jpeg.pixels(data, opened(data))
    except (OSError, SyntaxError, ValueError):
        return None


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_pillows_for_every_way_to_write_a_jpeg(mode: str, progressive: bool) -> None:
    for size, quality, subsampling in itertools.product(SIZES, (5, 75, 90, 100), ("4:4:4", "4:2:2", "4:2:0")):
        data = encoded(
            picture(*size).convert(mode), "JPEG", quality=quality, subsampling=subsampling, progressive=progressive
        )
        found = fast(data)
        assert found is not None, "plain JPEG is not left to Pillow"
        np.testing.assert_array_equal(found, pillows(data))


@pytest.mark.parametrize(
    "options", [{"keep_rgb": True}, {"restart_marker_blocks": 2}, {"optimize": True}, {"dpi": (9, 9)}]
)
def test_pixels_are_pillows_for_rarer_jpeg(options: dict[str, object]) -> None:
    data = encoded(picture(61, 47), "JPEG", **options)
    np.testing.assert_array_equal(decode(data, WHITE), pillows(data))


@pytest.mark.parametrize("orientation", [0, *range(1, 10)])
def test_orientation_is_pillows(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for mode in ("RGB", "L"):
        data = encoded(picture(33, 20).convert(mode), "JPEG", exif=exif)
        assert fast(data) is not None
        np.testing.assert_array_equal(decode(data, WHITE), pillows(data))


def test_four_channels_are_left_to_pillow() -> None:
    assert fast(encoded(picture(33, 20).convert("CMYK"), "JPEG")) is None
    assert fast(encoded(picture(33, 20), "JPEG")) is not None


def test_of_several_pictures_the_first_counts() -> None:
    first, second = picture(33, 20), picture(33, 20, seed=8)
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    assert opened(data).format == "MPO"
    assert fast(data) is not None
    np.testing.assert_array_equal(decode(data, WHITE), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_no_cut_file_passes(mode: str, progressive: bool) -> None:
    data = encoded(
        picture(48, 40).convert(mode), "JPEG", progressive=progressive, restart_marker_blocks=0 if progressive else 4
    )
    refused = 0
    for end in range(len(data)):
        theirs = pillows(data[:end])
        if theirs is None:
            refused += 1
            with pytest.raises(Undecodable):
                decode(data[:end], WHITE)
        else:
            np.testing.assert_array_equal(decode(data[:end], WHITE), theirs)
    assert refused > 0.95 * len(data)


def test_damage_gives_pillows_pixels_or_pillows_refusal() -> None:
    rng = np.random.default_rng(0)
    ways: list[str] = []
    for number in range(600):
        options = {"progressive": bool(number % 2), "quality": (30, 75, 95)[number % 3]}
        data = bytearray(encoded(picture(48 + number % 17, 40), "JPEG", subsampling=number // 3 % 3, **options))
        for _ in range(1 + number % 3):
            data[rng.integers(2, len(data))] ^= 1 << int(rng.integers(8))
        theirs, ours = pillows(bytes(data)), fast(bytes(data))
        ways.append("refused" if theirs is None else "left to Pillow" if ours is None else "fast")
        if ours is not None:
            np.testing.assert_array_equal(jpeg.turned(ours, 1), theirs)
    assert min(ways.count(way) for way in ("refused", "left to Pillow", "fast")) > 20


def test_a_header_that_lies_about_the_size_is_left_to_pillow() -> None:
    small, large = encoded(picture(32, 32), "JPEG"), opened(encoded(picture(32, 40), "JPEG"))
    assert jpeg.pixels(small, large) is None


def test_a_worker_does_not_fetch_its_memory_anew_for_each_picture(tmp_path: Path) -> None:
    path = tmp_path / "one.jpg"
    path.write_bytes(encoded(picture(500, 375), "JPEG"))
    transform = ImageTransform(224, 224, 256, (0.5,) * 3, (0.5,) * 3, "bicubic", "crop")
    items = [Item(str(i), "image", "", path=str(path)) for i in range(30)]
    with DecodePool(1) as pool:
        (worker,) = pool._live
        faults = []
        for _ in range(2):
            assert all(isinstance(found, Decoded) for found in pool.map(items, transform))
            faults.append(int(Path(f"/proc/{worker.pid}/stat").read_text().rsplit(")", 1)[1].split()[7]))
    # without it there are over 100, each as long as decoding a few hundred pixels
    assert faults[1] - faults[0] < 10 * len(items)
