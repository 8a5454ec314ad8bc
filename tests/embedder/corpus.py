"""The torture corpus: pictures that have broken decoders, made by code from one seed, and what must become of each."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

GOOD = "ok"
CUT = ("truncated", "damaged")


@dataclass(frozen=True)
class Case:
    """`outcome`: `ok`, or the reasons that are right; `size`: of the decoded picture, where it is `ok`."""

    name: str
    data: bytes
    outcome: tuple[str, ...]
    size: tuple[int, int] = (640, 480)


@cache
def picture(width: int = 640, height: int = 480, seed: int = 7) -> Image.Image:
    """A gradient with noise, RGB."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([x * 225 // width, y * 225 // height, (x + y) * 225 // (width + height)], axis=-1)
    noise = np.random.default_rng(seed).integers(0, 30, waves.shape)
    return Image.fromarray((waves + noise).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The picture as a file of that kind."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(name: bytes, body: bytes, *, crc: int | None = None) -> bytes:
    """One PNG chunk, with the right checksum unless another is given."""
    check = zlib.crc32(name + body) if crc is None else crc
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)


def png(width: int, height: int, idat: bytes, *extra: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG by hand: `idat` is what the compressed pixels are said to be; `extra` chunks come before it."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(extra) + chunk(b"IDAT", idat) + chunk(b"IEND", b"")


def grey_png(rows: np.ndarray, *extra: bytes) -> bytes:
    """A grey PNG of uint8 or uint16 values."""
    raw = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in rows)
    return png(rows.shape[1], rows.shape[0], zlib.compress(raw), *extra, depth=8 * rows.dtype.itemsize)


def tiff(
    rows: np.ndarray, *, bits: int, white_is_zero: bool = False, order: str = "<", sample_format: int = 1
) -> bytes:
    """An uncompressed grey TIFF by hand; `rows` are already packed as the file has them, two-dimensional."""
    height, width = rows.shape[0], rows.shape[1] * rows.dtype.itemsize * 8 // bits
    raw = rows.astype(rows.dtype.newbyteorder(order)).tobytes()
    tags = [
        (256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, 0 if white_is_zero else 1),
        (273, 4, 8 + 2 + 12 * 10 + 4), (277, 3, 1), (278, 3, height), (279, 4, len(raw)), (339, 3, sample_format),
    ]  # fmt: skip
    one = {3: lambda value: struct.pack(order + "HH", value, 0), 4: lambda value: struct.pack(order + "I", value)}
    entries = b"".join(struct.pack(order + "HHI", tag, kind, 1) + one[kind](value) for tag, kind, value in tags)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "IH", 8, len(tags)) + entries + struct.pack(order + "I", 0) + raw


def repeated_gif(frames: int, side: int) -> bytes:
    """A GIF whose one frame comes `frames` times."""
    one = encoded(Image.new("L", (side, side), 90), "GIF")
    start = 13 + 3 * 2 ** ((one[10] & 7) + 1)
    return one[:start] + one[start:-1] * frames + b";"


def with_jpeg_size(data: bytes, width: int, height: int) -> bytes:
    """The same JPEG, but its header claims another size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def with_exif(data: bytes, exif: bytes) -> bytes:
    """The same JPEG with these EXIF bytes, right or wrong."""
    body = b"Exif\0\0" + exif
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def not_pictures() -> Iterator[Case]:
    """What is found under the name of a picture and is none, or is one that we do not read."""
    noise = np.random.default_rng(3).integers(0, 256, 4096, dtype=np.uint8).tobytes()
    yield Case("zero bytes", b"", ("empty",))
    yield Case("random bytes", b"\x01\x02" + noise, ("not_an_image",))
    yield Case("html", b"\xef\xbb\xbf<!DOCTYPE html>\n<html><body>404</body></html>", ("not_an_image",))
    yield Case("text", "a caption, in Grönland\n".encode() * 90, ("not_an_image",))
    yield Case("git lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", ("not_an_image",))
    yield Case("svg", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', ("unsupported_format",))
    yield Case("heic", struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + noise, ("unsupported_format",))
    yield Case("heif mif1", struct.pack(">I", 24) + b"ftypmif1\0\0\0\0mif1heic" + noise, ("unsupported_format",))
    yield Case("mp4", struct.pack(">I", 20) + b"ftypisom\0\0\2\0isom" + noise, ("unsupported_format",))
    yield Case("jxl bare", b"\xff\x0a" + noise, ("unsupported_format",))
    yield Case("jxl boxed", b"\0\0\0\x0cJXL \r\n\x87\n" + noise, ("unsupported_format",))
    yield Case("postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", ("unsupported_format",))
    yield Case("fits", b"SIMPLE  =                    T".ljust(2880), ("unsupported_format",))


def cut() -> Iterator[Case]:
    """Each format, cut at every eighth."""
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "jpg": ("JPEG", {}), "progressive": ("JPEG", {"progressive": True}), "png": ("PNG", {}), "webp": ("WEBP", {}),
        "gif": ("GIF", {}), "tif": ("TIFF", {}), "avif": ("AVIF", {"speed": 10}), "bmp": ("BMP", {}),
    }  # fmt: skip
    for name, (kind, options) in ways.items():
        data = encoded(picture(), kind, **options)
        yield Case(f"whole {name}", data, (GOOD,))
        for k in range(1, 8):
            yield Case(f"{k}/8 of {name}", data[: len(data) * k // 8], CUT)


def bombs() -> Iterator[Case]:
    """Small files that claim or unpack to a lot."""
    zeros = zlib.compress(b"\0" * 1_000_000)
    for width, height in ((7_072, 7_072), (9_000, 10_000), (13_350, 13_350), (20_000, 20_000), (63_000, 63_500)):
        yield Case(f"png of {width} x {height}", png(width, height, zeros, depth=1), ("too_many_pixels",))
    small = encoded(picture(), "JPEG")
    yield Case("jpg that claims 81 Mpx", with_jpeg_size(small, 9_000, 9_000), ("too_many_pixels",))
    vp8x = b"VP8X" + struct.pack("<II", 10, 16) + b"\xff\x3f\0\xff\x3f\0" + encoded(picture(), "WEBP")[12:]
    webp = b"RIFF" + struct.pack("<I", len(vp8x) + 4) + b"WEBP" + vp8x
    yield Case("webp that claims 268 Mpx", webp, ("too_many_pixels", "damaged"))
    burst = zlib.compress(b"A" * 80_000_000)
    grey = np.zeros((8, 8), dtype=np.uint8)
    yield Case("zTXt bomb", grey_png(grey, chunk(b"zTXt", b"k\0\0" + burst)), ("damaged",))
    yield Case("iTXt bomb", grey_png(grey, chunk(b"iTXt", b"k\0\1\0\0\0" + burst)), ("damaged",))
    yield Case("iCCP bomb", grey_png(grey, chunk(b"iCCP", b"k\0\0" + burst)), ("damaged",))
    yield Case("gif of 31 x 25 Mpx", repeated_gif(31, 5_000), (GOOD,), (5_000, 5_000))
    yield Case("1 x 100 000", grey_png(np.zeros((100_000, 1), dtype=np.uint8)), ("bad_aspect",))


def damaged() -> Iterator[Case]:
    """Files with a wrong part, and files with a part that is only decoration."""
    head = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    whole = zlib.compress((b"\0" + b"\x90" * 8) * 8)
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 0x10
    yield Case("png, wrong checksum in its header", start[:-1] + b"?" + chunk(b"IDAT", whole), CUT)
    yield Case("png, wrong checksum of its pixels", start + chunk(b"IDAT", whole, crc=1) + chunk(b"IEND", b""), CUT)
    yield Case("png, rows that never come", png(8, 8, zlib.compress((b"\0" + b"\x90" * 8) * 5)), CUT)
    yield Case("png, a black last row", png(8, 8, zlib.compress((b"\0" + b"\x90" * 8) * 7 + bytes(9))), (GOOD,), (8, 8))
    yield Case("png, a flipped bit", png(8, 8, bytes(flipped)), CUT)
    yield Case("png, pixels cut short", png(8, 8, whole[:-5]), CUT)
    yield Case("png of 0 x 0", png(0, 0, zlib.compress(b"")), ("empty", "damaged"))
    profile = chunk(b"iCCP", b"k\0\0" + zlib.compress(b"no"))
    yield Case("png, broken colour profile", png(8, 8, whole, profile), (GOOD,), (8, 8))
    small = encoded(picture(), "JPEG")
    yield Case("jpg, broken exif", with_exif(small, b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 9), (GOOD,))
    yield Case("jpg, exif without sense", with_exif(small, b"nonsense"), (GOOD,))
    yield Case("jpg, broken colour profile", encoded(picture(), "JPEG", icc_profile=b"broken"), (GOOD,))
    yield Case("only a png signature", b"\x89PNG\r\n\x1a\n", CUT)


def modes() -> Iterator[Case]:
    """Every way to write a pixel that a supported format has, and those that have no declared white."""
    ways = "1 PNG, L PNG, L JPEG, P PNG, LA PNG, RGBA PNG, RGBA WEBP, CMYK JPEG, CMYK TIFF, YCbCr TIFF, 1 TIFF, P BMP"
    for mode, kind in (way.split() for way in ways.split(", ")):
        yield Case(f"{mode} {kind}", encoded(picture().convert(mode), kind), (GOOD,))
    wide = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    yield Case("16-bit grey png", grey_png(wide), (GOOD,), (8, 8))
    yield Case("16-bit grey tiff", tiff(wide, bits=16), (GOOD,), (8, 8))
    yield Case("16-bit grey tiff, big-endian", tiff(wide, bits=16, order=">"), (GOOD,), (8, 8))
    yield Case("float tiff", tiff(wide.astype(np.float32), bits=32, sample_format=3), ("unsupported_mode",))
    yield Case("32-bit tiff", tiff(wide.astype(np.uint32), bits=32, sample_format=2), ("unsupported_mode",))
    yield Case("signed 16-bit tiff", tiff(wide.astype(np.int16), bits=16, sample_format=2), ("unsupported_mode",))
    yield Case("Lab tiff", encoded(Image.new("LAB", (8, 8)), "TIFF"), ("unsupported_mode",))


def animations() -> Iterator[Case]:
    """Several pictures in one file: the first counts."""
    first, others = picture(), [Image.new("RGB", (640, 480), "red")] * 2
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO"):
        speed = {"speed": 10} if kind == "AVIF" else {}
        yield Case(f"animated {kind}", encoded(first, kind, save_all=True, append_images=others, **speed), (GOOD,))


GROUPS = (not_pictures, cut, bombs, damaged, modes, animations)


@cache
def cases() -> tuple[Case, ...]:
    """The whole corpus; names are unique."""
    return tuple(case for group in GROUPS for case in group())
