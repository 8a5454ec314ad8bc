"""Encoders without weights: the same on every machine, and never a zero vector."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedder import golden
from embedder.encoder import load_encoder
from embedder.encoders.hashing import projection
from embedder.errors import UnknownName, UsageError

HASHING = load_encoder("hashing:64")
PIXELS = load_encoder("pixels:8")
KNOWN = [0.1, -0.57735026, 0, 0.57735026, 0, 0, -0.57735026, 0]
CODE = """
from embedder import golden
from embedder.encoder import load_encoder
print(golden.pack(golden.vectors(load_encoder("hashing:32"))))
"""


def test_hashing_does_not_depend_on_the_process() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", CODE],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{golden.pack(golden.vectors(load_encoder('hashing:32')))}\n"}


def test_hashing_known_answer() -> None:
    """Written down once: stored collections depend on it."""
    vector = load_encoder("hashing:8?normalize=false").encode(["frost"])[0]
    assert vector == pytest.approx(KNOWN, abs=1e-5)


def test_hashing_puts_like_near_like() -> None:
    wide = load_encoder("hashing:1024")
    texts = wide.encode(["two dogs in the snow", "a dog in snow", "quarterly tax report", "TWO  dogs in the snow"])
    near = texts @ texts.T
    assert near[0, 1] > near[0, 2] + 0.2
    assert near[0, 3] == pytest.approx(1, abs=1e-6)
    pictures = golden.pictures()
    darker = pictures[0].point(lambda value: value * 0.9)
    images = wide.encode([pictures[0], darker, pictures[1]])
    assert images[0] @ images[1] > images[0] @ images[2] + 0.2


def test_hashing_is_deterministic_in_its_projection() -> None:
    signs = projection(192, 63)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.03
    assert np.abs(signs.T @ signs / 192 - np.eye(63)).max() < 0.35


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1).filter(lambda text: text.replace("\0", "").strip()).filter(lambda text: text.isprintable()))
def test_hashing_gives_every_text_a_vector(text: str) -> None:
    assert np.linalg.norm(HASHING.encode([text])) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("grey", [0, 1, 127, 128, 255])
def test_every_plain_picture_has_a_vector(grey: int) -> None:
    picture = Image.new("RGB", (30, 20), (grey, grey, grey))
    for loaded in (HASHING, PIXELS):
        assert np.linalg.norm(loaded.encode([picture])) == pytest.approx(1, abs=1e-5)


def test_pixels_are_area_means() -> None:
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    found = load_encoder("pixels:8?normalize=false").encode([values])[0].reshape(8, 8, 3)
    means = values.astype(float).reshape(8, 8, 8, 8, 3).mean((1, 3))
    assert found == pytest.approx((means + 1) / 256, abs=1.01 / 256)
    assert PIXELS.space.dim == 192


def test_pixels_show_the_whole_picture_on_its_background() -> None:
    wide = Image.new("RGB", (80, 20), (200, 0, 0))
    for options, edge in (
        ("", 1.0),
        ("&background=black", 1 / 256),
        ("&fit=squash", 201 / 256),
        ("&fit=crop", 201 / 256),
    ):
        found = load_encoder(f"pixels:8?normalize=false{options}").encode([wide])[0].reshape(8, 8, 3)
        assert found[0, 0, 0] == pytest.approx(edge, abs=1e-6), options
        assert found[4, 4] == pytest.approx([201 / 256, 1 / 256, 1 / 256], abs=1e-6)


@pytest.mark.parametrize("name", ["hashing:7", "hashing:5000", "hashing:-8", "hashing:x", "pixels:0", "pixels:1000"])
def test_sizes_out_of_range(name: str) -> None:
    with pytest.raises(UsageError, match="whole number from"):
        load_encoder(name)


def test_revisions_and_weights_are_not_for_these() -> None:
    with pytest.raises(UsageError, match="no revisions"):
        load_encoder("hashing:64@main")
    with pytest.raises(UnknownName, match="no option is called 'weights'"):
        load_encoder("pixels:8?weights=random")
