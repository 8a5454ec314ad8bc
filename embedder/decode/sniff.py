"""What bytes look like, by their first few: so that a refused file is called by its name."""

from __future__ import annotations

import re
from typing import NamedTuple


class Look(NamedTuple):
    """`name`: what bytes look like; `readable`: whether `decode.image` reads that format; `hint`: what to do."""

    name: str
    readable: bool = False
    hint: str = ""


CONVERT = "convert it to JPEG or PNG"
JXL = f"{CONVERT}; Pillow reads JPEG XL only with the pillow-jxl-plugin package"
WEB = "it may be an error page saved under a picture's name: download it again"

# (where it starts, the bytes, what that is)
MAGIC: tuple[tuple[int, bytes, Look], ...] = (
    (0, b"\xff\xd8\xff", Look("JPEG", True)),
    (0, b"\x89PNG\r\n\x1a\n", Look("PNG", True)),
    (8, b"WEBP", Look("WebP", True)),
    (0, b"GIF8", Look("GIF", True)),
    (0, b"II*\0", Look("TIFF", True)),
    (0, b"MM\0*", Look("TIFF", True)),
    (0, b"II+\0", Look("BigTIFF", True)),
    (0, b"MM\0+", Look("BigTIFF", True)),
    (0, b"BM", Look("BMP", True)),
    (0, b"\xff\x0a", Look("JPEG XL", hint=JXL)),
    (0, b"\0\0\0\x0cJXL ", Look("JPEG XL", hint=JXL)),
    (0, b"\0\0\0\x0cjP  ", Look("JPEG 2000", hint=CONVERT)),
    (0, b"\xff\x4f\xff\x51", Look("JPEG 2000", hint=CONVERT)),
    (0, b"%PDF", Look("PDF", hint="render its pages as pictures first")),
    (0, b"%!PS", Look("PostScript", hint=CONVERT)),
    (0, b"\xc5\xd0\xd3\xc6", Look("PostScript", hint=CONVERT)),
    (0, b"8BPS", Look("Photoshop", hint=CONVERT)),
    (0, b"SIMPLE  =", Look("FITS", hint=CONVERT)),
    (0, b"qoif", Look("QOI", hint=CONVERT)),
    (0, b"\0\0\1\0", Look("Windows icon", hint=CONVERT)),
    (128, b"DICM", Look("DICOM", hint=CONVERT)),
    (0, b"PK\3\4", Look("zip archive", hint="unpack it first")),
    (0, b"\x1f\x8b", Look("gzip", hint="unpack it first")),
    (0, b"version https://git-lfs", Look("Git LFS pointer", hint="fetch the real files with git lfs pull")),
)  # fmt: skip

# ISO media files (`ftyp` at offset 4) are told apart by their brands
BRANDS: tuple[tuple[tuple[bytes, ...], Look], ...] = (
    ((b"avif", b"avis"), Look("AVIF", True)),
    (
        (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"),
        Look("HEIC", hint=f"{CONVERT}; Pillow reads HEIC only with the pillow-heif package"),
    ),
    ((b"",), Look("video", hint="take frames out of it first")),
)

MARKUP: tuple[tuple[bytes, Look], ...] = (
    (rb"<svg[\s>]", Look("SVG", hint=f"it is a drawing without pixels: {CONVERT}")),
    (rb"<!doctype html|<html[\s>]|<head[\s>]|<body[\s>]", Look("HTML", hint=WEB)),
    (rb"^\s*<\?xml", Look("XML", hint=WEB)),
)


def look(data: bytes) -> Look | None:
    """Return what the bytes look like, or None where they look like nothing known."""
    for start, magic, found in MAGIC:
        if data.startswith(magic, start):
            return found
    head = data[:1024]
    if head[4:8] == b"ftyp":
        brands = head[8 : max(16, int.from_bytes(head[:4], "big"))]
        return next(found for names, found in BRANDS if any(name in brands for name in names))
    for pattern, found in MARKUP:
        if re.search(pattern, head, re.IGNORECASE):
            return found
    return Look("text", hint=WEB) if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8") if len(head) < 1024 else head[:-4].decode("utf-8", "ignore")
    except UnicodeDecodeError:
        return False
    return bool(text) and all(c.isprintable() or c in "\t\r\n\f\ufeff" for c in text)
