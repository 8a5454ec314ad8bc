"""Golden inputs never change, because vectors of them are stored; and stored ones that cannot be read are named."""

from __future__ import annotations

import base64
import hashlib

import numpy as np
import pytest

from embedder import golden
from embedder.encoder import load_encoder
from embedder.errors import Damaged, SpaceMismatch

ENCODER = load_encoder("hashing:64")
PICTURES = [((320, 240), "211a54f062b74db5"), ((200, 300), "6957e4cedf313279")]


def test_pictures_are_the_same_bytes_everywhere() -> None:
    found = [(picture.size, hashlib.sha256(picture.tobytes()).hexdigest()[:16]) for picture in golden.pictures()]
    assert found == PICTURES


def test_packed_vectors_are_little_endian_float32() -> None:
    vectors = golden.vectors(ENCODER)
    packed = golden.pack(vectors)
    for medium, array in vectors.items():
        assert np.array_equal(np.frombuffer(base64.b64decode(packed[medium]), "<f4").reshape(-1, 64), array)


def test_a_small_difference_passes_and_a_real_one_does_not() -> None:
    vectors = golden.vectors(ENCODER)
    noise = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    golden.check(ENCODER, golden.pack({**vectors, "text": vectors["text"] + noise * 1e-4}))
    with pytest.raises(SpaceMismatch, match="golden text cosine 0"):
        golden.check(ENCODER, golden.pack({**vectors, "text": vectors["text"] + noise * 0.01}))


@pytest.mark.parametrize("stored", ["", "!!", "AAAA", None])
def test_stored_vectors_that_cannot_be_read(stored: str | None) -> None:
    packed = golden.pack(golden.vectors(ENCODER))
    damaged = {k: v for k, v in packed.items() if k != "text"} | ({} if stored is None else {"text": stored})
    with pytest.raises(Damaged, match="golden text vectors"):
        golden.check(ENCODER, damaged)


def test_a_vector_that_is_not_a_number_is_a_mismatch() -> None:
    vectors = golden.vectors(ENCODER)
    with pytest.raises(SpaceMismatch):
        golden.check(ENCODER, golden.pack({**vectors, "image": np.full_like(vectors["image"], np.nan)}))
