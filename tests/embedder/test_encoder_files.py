"""Hashes of weight files, the facts of a Space, and the pieces that kinds share."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedder import naming
from embedder.encoders import _files, _torch
from embedder.encoders._common import index, settings
from embedder.encoders._declared import open_clip_transform, timm_transform
from embedder.errors import EncoderError, MissingFact, UsageError
from embedder.transform import ImageTransform

TIMM_FACTS: dict[str, Any] = {
    "input_size": (3, 224, 224), "crop_pct": 0.95, "crop_mode": "center", "interpolation": "bicubic",
    "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6),
}  # fmt: skip


def test_one_file_is_hashed_as_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    data = np.random.default_rng(0).bytes((1 << 20) + 17)
    path.write_bytes(data)
    assert _files.sha256_file(path) == _files.fingerprint([path]) == hashlib.sha256(data).hexdigest()
    path.write_bytes(data[:-1] + b"x")
    assert _files.sha256_file(path) == hashlib.sha256(data[:-1] + b"x").hexdigest()


def test_several_files_are_hashed_as_a_list_of_names_and_hashes(tmp_path: Path) -> None:
    paths = [tmp_path / "b.bin", tmp_path / "sub" / "a.bin"]
    (tmp_path / "sub").mkdir()
    for path in paths:
        path.write_bytes(path.name.encode())
    pairs = [[str(path.relative_to(tmp_path)), hashlib.sha256(path.name.encode()).hexdigest()] for path in paths]
    expected = hashlib.sha256(json.dumps(pairs, separators=(",", ":")).encode()).hexdigest()
    assert _files.fingerprint(paths, tmp_path) == _files.fingerprint(paths[::-1], tmp_path) == expected
    paths[0].rename(tmp_path / "c.bin")
    assert _files.fingerprint([tmp_path / "c.bin", paths[1]], tmp_path) != expected


@pytest.mark.parametrize("content", ["", "{", "[1]", '"x"', "\ud800"])
def test_a_configuration_that_is_no_object_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(EncoderError, match=r"config\.json"):
        _files.read_json(path)


def test_a_weight_file_that_holds_no_state_dict(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(EncoderError, match="it holds a Tensor"):
        _files.read_tensors(tmp_path / "tensor.pth")


@pytest.mark.parametrize(
    ("changes", "size", "short", "fit"),
    [
        ({}, 224, 235, "crop"),
        ({"crop_pct": 0.9}, 224, 248, "crop"),
        ({"input_size": (3, 260, 260), "crop_pct": 0.89}, 260, 292, "crop"),
        ({"crop_mode": "squash", "crop_pct": 1.0}, 224, 224, "squash"),
    ],
)
def test_resize_is_rounded_down_as_timm_does(changes: dict[str, Any], size: int, short: int, fit: str) -> None:
    found = timm_transform({**TIMM_FACTS, **changes}, naming.parse("timm:x"))
    assert (found.height, found.width, found.short_side, found.fit) == (size, size, short, fit)
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_options_of_a_name_change_what_is_declared() -> None:
    name = naming.parse("timm:x?image_size=100&fit=pad&background=9,8,7")
    found = timm_transform(TIMM_FACTS, name)
    assert (found.height, found.short_side, found.fit, found.background) == (100, 105, "pad", (9, 8, 7))
    clip = {"mean": 0.5, "std": [0.25], "interpolation": "random", "resize_mode": "shortest"}
    shared = open_clip_transform(clip, (32, 32), naming.parse("open_clip:x?fit=squash"))
    assert shared == ImageTransform(32, 32, 32, (0.5,) * 3, (0.25,) * 3, "bicubic", "squash")


@pytest.mark.parametrize(
    "facts", [{"interpolation": "random"}, {"mean": (0.5, 0.5)}, {"std": (0, 1, 1)}, {"crop_mode": "x"}]
)
def test_impossible_facts_are_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(MissingFact):
        timm_transform({**TIMM_FACTS, **facts}, naming.parse("timm:x"))


def test_grey_models_are_refused_whatever_the_fit() -> None:
    with pytest.raises(EncoderError, match="reads 1 channels"):
        timm_transform({**TIMM_FACTS, "input_size": (1, 28, 28)}, naming.parse("timm:x?fit=squash"))


def test_settings_are_read_from_the_name() -> None:
    plain, drawn, seeded = (
        settings(naming.parse(f"timm:x{options}"))
        for options in ("", "?weights=random", "?weights=random&seed=7&dtype=float16&normalize=false")
    )
    assert (plain.dtype, plain.normalize, plain.weights, plain.seed, plain.path) == (
        "float32",
        True,
        "default",
        None,
        None,
    )
    assert (drawn.seed, seeded.seed, seeded.dtype, seeded.normalize) == (0, 7, "float16", False)
    for bad in ("dtype=float64", "weights=random&seed=-1", "weights=random&seed=one", "seed=1"):
        with pytest.raises(UsageError, match=bad.rpartition("&")[2].partition("=")[0]):
            settings(naming.parse(f"timm:x?{bad}"))


@pytest.mark.parametrize(("layer", "expected"), [("0", 0), ("3", 3), ("-1", 3), ("-4", 0)])
def test_layers_count_from_both_ends(layer: str, expected: int) -> None:
    assert index(naming.parse(f"timm:x?layer={layer}"), 4) == expected
    assert index(naming.parse("timm:x"), 4) is None


def test_pixels_are_scaled_as_torchvision_does() -> None:
    from torchvision.transforms import Compose, Normalize, ToTensor

    transform = ImageTransform(5, 7, 5, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28), "bicubic", "crop")
    images = list(np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8))
    seen: list[torch.Tensor] = []

    def features(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x.flatten(1)

    found = _torch.image_forward(features, transform, torch.device("cpu"), "float32")(images)
    theirs = Compose([ToTensor(), Normalize(transform.mean, transform.std)])
    assert torch.equal(seen[0], torch.stack([theirs(image) for image in images]))
    assert found.dtype == np.float32
    half = _torch.image_forward(features, transform, torch.device("cpu"), "bfloat16")(images)
    assert (seen[1].dtype, half.dtype) == (torch.bfloat16, np.float32)


def test_own_random_numbers_come_from_the_seed_alone() -> None:
    def draw(seed: int | None) -> float:
        torch.rand(3)
        before = torch.get_rng_state()
        with _torch.own_rng(seed):
            value = float(torch.rand(1))
        assert torch.equal(torch.get_rng_state(), before)
        return value

    assert draw(5) == draw(5) != draw(6)
    assert draw(None) == draw(0)


def test_devices() -> None:
    assert _torch.device_of("cpu") == torch.device("cpu")
    assert _torch.device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UsageError, match="CUDA devices that torch can use"):
        _torch.device_of(f"cuda:{torch.cuda.device_count()}")
    with pytest.raises(UsageError, match="must be auto, cpu, cuda or cuda:N"):
        _torch.device_of("mps")
