"""What Pillow does not look at in a PNG: checksums of the pixels, and rows that never come.

It ignores the checksum of IDAT chunks and stops before that of the compressed stream: of 2,000 flipped bits 4 passed as
other pixels. A stream that ends early, but properly, leaves the rest of the picture black.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from embedder.errors import Undecodable

PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT"})
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Adam7: first column, first row, step of columns, step of rows
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
PIECE = 1 << 20


def require_whole(data: bytes, picture: Image.Image) -> None:
    """Refuse a PNG whose pixels are not those that were written; `picture` is what Pillow made of `data`, loaded.

    Raises:
        Undecodable: reason `damaged` (a checksum of what the pixels are made of) or `truncated` (missing rows).
    """
    stream: list[bytes] = []
    for name, body, checksum in _chunks(data):
        if name in PIXELS and zlib.crc32(body, zlib.crc32(name)) != checksum:
            raise _bad(f"the checksum of a PNG chunk {name.decode()} is wrong", "damaged")
        if name == b"IDAT":
            stream.append(body)
    # only what ends in zeros can lack rows; to unpack every PNG twice would cost a fifth of the time
    interlaced = bool(picture.info.get("interlace"))
    last = picture.crop((0, picture.height - 1, picture.width, picture.height))
    if (interlaced or not np.asarray(last).any()) and _unpacked(stream, most := _expected(data)) < most:
        raise _bad("rows of the PNG are missing", "truncated")


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    at = 8
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        body = data[at + 8 : at + 8 + size]
        if len(body) < size or at + 12 + size > len(data):
            return
        name = data[at + 4 : at + 8]
        yield name, body, struct.unpack_from(">I", data, at + 8 + size)[0]
        if name == b"IEND":
            return
        at += 12 + size


def _expected(data: bytes) -> int:
    """Return the bytes that the rows take when unpacked, each with its filter byte."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    total = 0
    for left, top, across, down in PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * depth * CHANNELS[colour] + 7) // 8)
    return total


def _unpacked(stream: list[bytes], most: int) -> int:
    """Count the bytes in a compressed stream, as far as `most`, without keeping them."""
    unpacker, count = zlib.decompressobj(), 0
    for part in stream:
        left = part
        while left and count < most:
            count += len(unpacker.decompress(left, PIECE))
            left = unpacker.unconsumed_tail
    # with no input left, what is still to come is short; with some, it may be a bomb behind the last row
    return count if count >= most else count + len(unpacker.flush())


def _bad(what: str, reason: str) -> Undecodable:
    return Undecodable(what, stage="decode", reason=reason, hint="get the file again from where it came")
