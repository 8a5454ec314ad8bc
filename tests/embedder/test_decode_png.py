from __future__ import annotations

import itertools
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from embedder.decode.image import decode
from embedder.errors import Undecodable
from tests.embedder.corpus import chunk, encoded, picture

BLACK = (0, 0, 0)
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def test_no_flipped_bit_passes_as_other_pixels() -> None:
    data, right = encoded(picture(64, 48), "PNG"), picture(64, 48).tobytes()
    start = data.index(b"IDAT") + 4
    (size,) = struct.unpack_from(">I", data, start - 8)
    rng = np.random.default_rng(0)
    # the last bytes are where Pillow no longer looks
    places = [*rng.integers(0, size, 200), *range(size - 100, size)]
    refused = 0
    for place in places:
        bad = bytearray(data)
        bad[start + int(place)] ^= 1 << int(rng.integers(8))
        try:
            assert decode(bytes(bad), BLACK).tobytes() == right
        except Undecodable:
            refused += 1
    assert refused == len(places)


def file(
    width: int, height: int, depth: int, colour: int, *, interlaced: bool, cut: bool, fill: bytes = b"\0"
) -> bytes:
    """A PNG whose rows are all `fill`, filter byte included; with `cut`, its stream ends before the last of them."""
    rows: list[int] = []
    for left, top, across, down in PASSES if interlaced else ((0, 0, 1, 1),):
        if columns := len(range(left, width, across)):
            rows += [1 + -(-columns * depth * CHANNELS[colour] // 8)] * len(range(top, height, down))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced)))
    palette = chunk(b"PLTE", bytes(768)) if colour == 3 else b""
    body = chunk(b"IDAT", zlib.compress(fill * sum(rows[: len(rows) - cut])))
    return b"\x89PNG\r\n\x1a\n" + head + palette + body + chunk(b"IEND", b"")


KINDS = [(1, 0), (8, 0), (16, 0), (8, 2), (16, 2), (1, 3), (4, 3), (8, 3), (8, 4), (16, 4), (8, 6), (16, 6)]


@pytest.mark.parametrize("interlaced", [False, True])
def test_rows_are_counted_in_every_kind_of_png(interlaced: bool) -> None:
    for (depth, colour), (width, height) in itertools.product(KINDS, [(1, 1), (5, 3), (9, 17), (64, 33), (3, 100)]):
        # zeros are where it cannot be seen; ones are the Sub filter and then a picture of no zeros
        for fill in (b"\0", b"\1"):
            name = f"{depth} bits, colour {colour}, {width} x {height}, {fill!r}"
            whole = file(width, height, depth, colour, interlaced=interlaced, cut=False, fill=fill)
            assert decode(whole, BLACK).shape == (height, width, 3), name
            with pytest.raises(Undecodable) as caught:
                decode(file(width, height, depth, colour, interlaced=interlaced, cut=True, fill=fill), BLACK)
            assert caught.value.reason == "truncated", name


def test_decoration_behind_the_pixels_is_no_reason_to_refuse() -> None:
    data = encoded(picture(20, 10), "PNG")
    noted = data[:-12] + chunk(b"tEXt", b"k\0v", crc=1) + data[-12:]
    for whole in (noted, data + b"what another program left here"):
        assert decode(whole, BLACK).tobytes() == picture(20, 10).tobytes()


@contextmanager
def little_memory(pixels: int = 0) -> Iterator[None]:
    """Python may take 10 MiB more than its two copies of so many pixels; Pillow's own are not counted."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < (10 << 20) + 2 * 3 * pixels
    finally:
        tracemalloc.stop()


def test_a_large_stream_is_counted_in_pieces() -> None:
    whole = file(3000, 2000, 8, 2, interlaced=False, cut=False)
    with little_memory(2000 * 3000):
        assert decode(whole, BLACK).shape == (2000, 3000, 3)
    with pytest.raises(Undecodable, match="rows") as caught:
        decode(file(3000, 2000, 8, 2, interlaced=False, cut=True), BLACK)
    assert caught.value.reason == "truncated"


def test_a_bomb_behind_the_last_row_is_not_unpacked() -> None:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100 << 20))) + chunk(b"IEND", b"")
    with little_memory():
        assert decode(data, BLACK).shape == (8, 8, 3)
