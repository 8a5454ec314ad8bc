from __future__ import annotations

import io
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from embedder.decode.image import decode, to_rgb
from embedder.errors import Undecodable, UsageError
from embedder.transform import ImageTransform
from tests.embedder import corpus
from tests.embedder.corpus import Case, chunk, encoded, grey_png, picture, tiff

WHITE = (255, 255, 255)
TEAL = (10, 130, 120)
TRANSFORM = ImageTransform(224, 224, 256, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", "crop")


def pixels(data: bytes, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    found = decode(data, background)
    assert (found.ndim, found.shape[2], found.dtype) == (3, 3, np.uint8)
    return found


def outcome(case: Case) -> str:
    """`ok`, or the reason; the shape must be right and the answer must cost less than 5 s of CPU."""
    started = time.process_time()
    try:
        found = decode(case.data, WHITE)
        TRANSFORM.pixels(found)
        assert found.shape == (*case.size[::-1], 3), case.name
        return corpus.GOOD
    except Undecodable as error:
        return error.reason
    finally:
        assert time.process_time() - started < 5, case.name


def test_the_torture_corpus() -> None:
    found = {case.name: outcome(case) for case in corpus.cases()}
    assert len(found) == len(corpus.cases()) > 110
    wrong = [(case.name, found[case.name]) for case in corpus.cases() if found[case.name] not in case.outcome]
    assert wrong == []


def test_only_the_first_frame_of_an_animation_counts() -> None:
    for case in corpus.animations():
        found = pixels(case.data).astype(int)
        # lossy formats and a palette move colours a little; the other frames are pure red
        assert np.abs(found - np.asarray(picture())).mean() < 20, case.name
        assert np.abs(found - np.array([255, 0, 0])).mean() > 50, case.name


def test_refusals_say_what_it_looks_like_and_what_helps() -> None:
    found = {}
    for case in corpus.not_pictures():
        with pytest.raises(Undecodable) as caught:
            decode(case.data, WHITE)
        found[case.name] = str(caught.value)
    assert "HEIC" in found["heic"]
    assert "pillow-heif" in found["heif mif1"]
    assert "pillow-jxl-plugin" in found["jxl bare"]
    assert "download it again" in found["html"]
    assert "git lfs pull" in found["git lfs"]
    assert "SVG" in found["svg"]


def test_postscript_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ghost = tmp_path / "gs"
    ghost.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nsleep 60\n")
    ghost.chmod(ghost.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(Undecodable, match="PostScript"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", WHITE)
    assert not (tmp_path / "started").exists()


def test_cut_files_are_refused_also_when_another_library_let_them_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UsageError, match="cut files"):
        decode(encoded(picture(), "PNG"), WHITE)


def test_importing_the_decoder_changes_nothing_of_the_users_pillow() -> None:
    code = (
        "from PIL import Image, ImageFile; before = Image.MAX_IMAGE_PIXELS\n"
        "import embedder.encoder, embedder.pool, embedder.decode.worker\n"
        "assert Image.MAX_IMAGE_PIXELS == before and not ImageFile.LOAD_TRUNCATED_IMAGES; print('same')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "same\n"


@pytest.mark.filterwarnings("default")
def test_no_warning_of_pillow_leaks_out() -> None:
    broken = corpus.with_exif(encoded(picture(), "JPEG"), b"MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\xff\xff\xff\xff\0\x06")
    with pytest.warns(UserWarning, match="EXIF"):
        Image.open(io.BytesIO(broken)).getexif()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert decode(broken, WHITE).shape == (480, 640, 3)
    assert not seen


def test_16_bit_grey_is_divided_by_257() -> None:
    values = np.array([[0, 128, 129, 257 * 77, 30_000, 65_535 - 128, 65_535 - 129, 65_535]], dtype=np.uint16)
    right = np.rint(values.astype(np.float64) / 257).astype(np.uint8)
    assert right.tolist() == [[0, 0, 1, 77, 117, 255, 254, 255]]
    for data in (grey_png(values), tiff(values, bits=16), tiff(values, bits=16, order=">")):
        found = pixels(data)
        for channel in range(3):
            np.testing.assert_array_equal(found[..., channel], right)
    np.testing.assert_array_equal(pixels(tiff(values, bits=16, white_is_zero=True))[..., 0], 255 - right)


def test_12_bit_grey_has_its_own_white() -> None:
    # two pixels of 12 bits lie in three bytes: 0xfff and 0x800
    packed = np.array([[0xFF, 0xF8, 0x00]], dtype=np.uint8)
    assert pixels(tiff(packed, bits=12))[0, :, 0].tolist() == [255, round(0x800 * 255 / 4095)]


def test_pictures_made_by_pillow_keep_their_16_bits() -> None:
    values = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        found = pixels(encoded(Image.fromarray(values), kind))
        np.testing.assert_array_equal(found[..., 1].ravel(), np.arange(256))


def over(rgba: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    """Alpha compositing as it is defined, in floats."""
    alpha = rgba[..., 3:].astype(np.float64) / 255
    return rgba[..., :3] * alpha + np.array(background) * (1 - alpha)


def test_transparency_lies_over_the_background() -> None:
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (40, 50, 4), dtype=np.uint8)
    rgba[:10, :, 3], rgba[10:20, :, 3] = 0, 255
    for background in (WHITE, (0, 0, 0), TEAL):
        for kind in ("PNG", "TIFF"):
            found = pixels(encoded(Image.fromarray(rgba), kind), background)
            assert np.abs(found - over(rgba, background)).max() <= 1
            assert (found[:10] == background).all()
            np.testing.assert_array_equal(found[10:20], rgba[10:20, :, :3])
        grey = rgba.copy()
        grey[..., 1] = grey[..., 2] = grey[..., 0]
        la = Image.fromarray(grey).convert("LA")
        assert np.abs(pixels(encoded(la, "PNG"), background) - over(grey, background)).max() <= 1


def test_a_transparent_palette_lies_over_the_background() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([250, 0, 0, 0, 250, 0, 0, 0, 250])
    image.putdata([0, 1, 2])
    half = np.array([[[250, 0, 0, 255], [0, 250, 0, 128], [0, 0, 250, 0]]], dtype=np.uint8)
    found = pixels(encoded(image, "PNG", transparency=bytes([255, 128, 0])), TEAL)
    assert np.abs(found - over(half, TEAL)).max() <= 1
    keyed = pixels(encoded(image, "GIF", transparency=1), TEAL)
    assert keyed.tolist() == [[[250, 0, 0], list(TEAL), [0, 0, 250]]]


def test_colour_keys_lie_over_the_background() -> None:
    grey = np.array([[10, 20, 30]], dtype=np.uint8)
    assert pixels(grey_png(grey, chunk(b"tRNS", b"\0\x14")), TEAL).tolist() == [[[10] * 3, list(TEAL), [30] * 3]]
    wide = grey.astype(np.uint16) * 257
    key = int(wide[0, 1]).to_bytes(2, "big")
    assert pixels(grey_png(wide, chunk(b"tRNS", key)), TEAL).tolist() == [[[10] * 3, list(TEAL), [30] * 3]]
    near = (int(wide[0, 1]) + 1).to_bytes(2, "big")
    assert pixels(grey_png(wide, chunk(b"tRNS", near)), TEAL).tolist() == [[[10] * 3, [20] * 3, [30] * 3]]
    rgb = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    assert pixels(encoded(rgb, "PNG", transparency=(4, 5, 6)), TEAL).tolist() == [[[1, 2, 3], list(TEAL)]]


MODES = ["1", "L", "P", "LA", "La", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I;16"]


@pytest.mark.parametrize("mode", MODES)
def test_every_readable_mode_keeps_a_known_grey(mode: str) -> None:
    source = Image.new("L", (4, 3), 255)
    steps = {"La": "LA", "PA": "P", "RGBa": "RGBA", "CMYK": "RGB", "HSV": "RGB", "YCbCr": "RGB", "RGBX": "RGB"}
    if mode == "I;16":
        image = Image.fromarray(np.full((3, 4), 65_535, dtype=np.uint16))
    else:
        image = source.convert(steps.get(mode, mode)).convert(mode)
    assert image.mode == mode
    assert (np.asarray(to_rgb(image, TEAL)) == 255).all()


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_modes_without_a_declared_white_are_refused(mode: str) -> None:
    with pytest.raises(Undecodable, match=f"mode {mode} ") as caught:
        to_rgb(Image.new(mode, (4, 3)), WHITE)
    assert caught.value.reason == "unsupported_mode"


def test_cmyk_ink_darkens() -> None:
    inks = {
        (0, 0, 0, 0): WHITE,
        (255, 0, 0, 0): (0, 255, 255),
        (0, 0, 0, 255): (0, 0, 0),
        (0, 255, 255, 0): (255, 0, 0),
    }
    for ink, colour in inks.items():
        for kind, tolerance in (("TIFF", 0), ("JPEG", 2)):
            found = pixels(encoded(Image.new("CMYK", (16, 16), ink), kind))
            assert np.abs(found.astype(int) - colour).max() <= tolerance


# what is stored under each EXIF orientation, as numpy turns it upright
UPRIGHT = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation(kind: str, orientation: int) -> None:
    stored = picture(33, 20)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(stored, kind, exif=exif, **options)
    plain = np.asarray(Image.open(io.BytesIO(encoded(stored, kind, **options))).convert("RGB"))
    np.testing.assert_array_equal(pixels(data), UPRIGHT[orientation](plain))
    np.testing.assert_array_equal(np.asarray(to_rgb(Image.open(io.BytesIO(data)), WHITE)), UPRIGHT[orientation](plain))
    if kind == "JPEG":
        np.testing.assert_array_equal(pixels(data), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))


@pytest.mark.parametrize("value", [0, 9, 255, "six"])
def test_an_orientation_that_means_nothing_is_no_orientation(value: int | str) -> None:
    image = picture(33, 20).copy()
    image.getexif()[0x0112] = value
    np.testing.assert_array_equal(np.asarray(to_rgb(image, WHITE)), np.asarray(picture(33, 20)))


def test_an_open_picture_is_checked_like_a_file() -> None:
    with pytest.raises(Undecodable, match="0 x 5") as caught:
        to_rgb(Image.new("RGB", (0, 5)), WHITE)
    assert caught.value.reason == "empty"
    with pytest.raises(Undecodable, match="50,000,000") as caught:
        to_rgb(Image.new("1", (7_072, 7_072)), WHITE)
    assert caught.value.reason == "too_many_pixels"
    data = encoded(picture(), "PNG")
    with pytest.raises(Undecodable) as caught:
        to_rgb(Image.open(io.BytesIO(data[: len(data) // 2])), WHITE)
    assert caught.value.reason == "truncated"
    plain = Image.new("RGB", (5, 5), "red")
    assert to_rgb(plain, WHITE).tobytes() == plain.tobytes()
