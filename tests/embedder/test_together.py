"""Encoders of one model: one pass for all of them, and the very vectors and Spaces of each loaded alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from embedder import together
from embedder.batches import Batches
from embedder.encoder import Encoder, load_encoder
from embedder.errors import UnknownName, UsageError
from embedder.records import Decoded, Failure, Item, Medium, Vectors
from embedder.shared import Shared
from embedder.together import load_encoders, same_inputs
from tests import tiny_transformers
from tests.checkpoints import timm_folder, torchvision_file
from tests.sentence import sentence_folder

Folder = Callable[[Path], str]
TEXTS = ["a short one", "another text that is rather longer than the first", "42", "a short one more"]
CASES: dict[str, tuple[Folder, Medium, Sequence[str]]] = {
    "timm cnn": (
        lambda f: f"timm:local-dir:{timm_folder(f, 'test_efficientnet')}", "image",
        ("", "layer=-1", "layer=-3&pooling=max", "layer=1&pooling=gem", "pooling=mean", "normalize=false"),
    ),
    "timm vit": (
        lambda f: f"timm:local-dir:{timm_folder(f, 'test_vit', mean=(0.5,) * 3, std=(0.5,) * 3)}", "image",
        ("layer=-1", "layer=0&pooling=cls", "pooling=cls", "", "layer=-3&pooling=max"),
    ),
    "vit": (
        lambda f: f"transformers:{tiny_transformers.image_folder(f, 'vit')}", "image",
        ("", "layer=1", "layer=0&pooling=max", "pooling=mean", "layer=-1"),
    ),
    "resnet": (
        lambda f: f"transformers:{tiny_transformers.image_folder(f, 'resnet')}", "image", ("layer=1", "pooling=max"),
    ),
    "bert": (
        lambda f: f"transformers:{tiny_transformers.text_folder(f, 'bert')}", "text",
        ("", "layer=-2", "layer=0&pooling=max", "pooling=cls", "layer=-1&pooling=last&normalize=false"),
    ),
    "gpt2": (
        lambda f: f"transformers:{tiny_transformers.text_folder(f, 'gpt2')}", "text",
        ("layer=1", "", "pooling=mean", "layer=-2&pooling=max"),
    ),
    "sentence": (
        lambda f: f"sentence_transformers:{sentence_folder(f)}", "text",
        ("pooling=max", "", "layer=1&pooling=max", "layer=1", "pooling=cls&normalize=false"),
    ),
    "minilm": (lambda f: "bundled:minilm", "text", ("", "layer=-3&pooling=max", "pooling=max", "pooling=cls")),
    "lite": (
        lambda f: "bundled:efficientnet_lite0?weights=random&image_size=64", "image",
        ("", "layer=-2&pooling=max", "pooling=max"),
    ),
    "torchvision": (
        lambda f: f"torchvision:shufflenet_v2_x0_5/IMAGENET1K_V1?image_size=64&weights={_file(f)}", "image",
        ("", "layer=conv5.2&pooling=max", "layer=stage3", "normalize=false"),
    ),
}  # fmt: skip


def _file(folder: Path) -> Path:
    folder.mkdir()
    return torchvision_file(folder, "shufflenet_v2_x0_5")


def named(case: str, folder: Path) -> list[str]:
    make, _, options = CASES[case]
    base = make(folder / "model")
    return [base + (("&" if "?" in base else "?") + option if option else "") for option in options]


def prepared(encoder: Encoder, medium: Medium) -> list[Any]:
    if medium == "text":
        return [encoder.prepare(text)[1] for text in TEXTS]
    draw = np.random.default_rng(3)
    return [encoder.prepare(draw.integers(0, 256, (90, 70, 3), dtype=np.uint8))[1] for _ in range(3)]


class Passes:
    """Counts the batches that go through a model: those of the convolutions or embeddings shaped as its first one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.first: tuple[int, ...] | None = None
        call: Any = torch.nn.Module._call_impl

        def counted(module: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Embedding)):
                self._see(module, args[0])
            return call(module, *args, **kwargs)

        monkeypatch.setattr(torch.nn.Module, "__call__", counted)

    def _see(self, module: Any, given: Any) -> None:
        if self.first is None:
            self.first = tuple(module.weight.shape)
        if tuple(module.weight.shape) == self.first:
            self.sizes.append(len(given))


@pytest.mark.parametrize("case", CASES)
def test_together_is_one_pass_and_equals_alone(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, medium = named(case, tmp_path), CASES[case][1]
    alone = [load_encoder(name) for name in names]
    made = load_encoders(names)
    inputs = prepared(alone[0], medium)
    expected = [encoder.forward(medium, inputs)[0] for encoder in alone]
    assert [e.space.fingerprint for e in made] == [e.space.fingerprint for e in alone]
    assert [str(e.name) for e in made] == [str(e.name) for e in alone]
    assert all(same_inputs(made[0], other, medium) for other in made)
    seen = Passes(monkeypatch)
    made[0].forward(medium, inputs)
    once = len(seen.sizes)
    seen.sizes.clear()
    shared = Shared(inputs)
    found = [encoder.forward(medium, shared)[0] for encoder in made]
    assert len(seen.sizes) == once > 0
    for one, other in zip(found, expected, strict=True):
        close(one, other)
    for encoder, other in zip(made, expected, strict=True):
        close(encoder.forward(medium, inputs)[0], other)


def close(one: NDArray[np.float32], other: NDArray[np.float32]) -> None:
    scale = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    assert one.shape == other.shape
    assert (np.sum(one * other, axis=1) / scale >= 0.999999).all()
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_nothing_is_kept_after_a_batch(tmp_path: Path) -> None:
    one, two = load_encoders(named("timm cnn", tmp_path)[:2])
    inputs = prepared(one, "image")
    first = one.forward("image", Shared(inputs))[0]
    other = two.forward("image", Shared([255 - pixels for pixels in inputs]))[0]
    again = one.forward("image", Shared(inputs))[0]
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(other, two.forward("image", Shared(inputs))[0])


@pytest.mark.parametrize("options", [("", "layer=fc"), ("layer=layer4.0.bn1", "layer=layer4.1", "")])
def test_a_model_that_cannot_be_shared_is_loaded_for_each(options: Sequence[str], tmp_path: Path) -> None:
    """The classifier is gone for one of them; or what one reads is written over further on in the same pass."""
    base = f"torchvision:resnet18/IMAGENET1K_V1?image_size=64&weights={torchvision_file(tmp_path, 'resnet18')}"
    names = [f"{base}&{option}" if option else base for option in options]
    made, alone = load_encoders(names), [load_encoder(name) for name in names]
    inputs = prepared(alone[0], "image")
    shared = Shared(inputs)
    for one, other in zip(made, alone, strict=True):
        assert one.space.fingerprint == other.space.fingerprint
        close(one.forward("image", shared)[0], other.forward("image", inputs)[0])


def test_what_decides_the_inputs_is_not_shared(tmp_path: Path) -> None:
    base = f"timm:local-dir:{timm_folder(tmp_path / 'a')}"
    plain, padded, deep = load_encoders([base, f"{base}?fit=pad", f"{base}?layer=-1"])
    assert same_inputs(plain, deep, "image")
    assert not same_inputs(plain, padded, "image")
    texts = load_encoders(["hashing:64", "hashing:32", "hashing:64?normalize=false"])
    assert not same_inputs(texts[0], texts[1], "text")
    assert [str(e.name) for e in texts] == ["hashing:64", "hashing:32", "hashing:64?normalize=false"]


def test_options_are_checked_as_they_are_alone(tmp_path: Path) -> None:
    base = named("bert", tmp_path)[0]
    with pytest.raises(UnknownName, match="pooing"):
        load_encoders([base, f"{base}?layer=1&pooing=max", f"{base}?pooing=max"])
    with pytest.raises(UsageError, match="layer must be a whole number"):
        load_encoders([base, f"{base}?layer=99"])
    chunked = load_encoders([f"{base}?chunk=9", f"{base}?layer=1&chunk=9", f"{base}?layer=1"])
    assert [e.text is not None and e.text.split is not None for e in chunked] == [True, True, False]
    assert same_inputs(chunked[0], chunked[1], "text")
    assert not same_inputs(chunked[1], chunked[2], "text")


def planted(forward: Callable[[Sequence[Any]], NDArray[np.float32]]) -> Encoder:
    found = load_encoder("hashing:64?normalize=false")
    assert found.text is not None
    return replace(found, text=replace(found.text, forward=forward))


def batch(*values: int) -> list[tuple[Decoded, int]]:
    return [(Decoded(Item(f"i{n}", "text", "s", text=str(n)), str(n), str(n), 1), n) for n in values]


def test_a_fault_of_one_encoder_costs_the_others_nothing() -> None:
    def rows(values: Sequence[Any]) -> NDArray[np.float32]:
        return np.array([[v + 1.0] * 64 for v in values], dtype=np.float32)

    def zero_at_2(values: Sequence[Any]) -> NDArray[np.float32]:
        return np.asarray(rows(values) * np.array([[v != 2] for v in values]), dtype=np.float32)

    def broken_at_3(values: Sequence[Any]) -> NDArray[np.float32]:
        if 3 in values:
            raise RuntimeError("cannot read 3")
        return rows(values)

    batches = Batches(planted(rows), "text", [planted(zero_at_2), planted(broken_at_3)])
    for _ in range(2):
        found = batches.encode_all(batch(0, 1, 2, 3, 4))
        kept = [[d.item.id for r in one if isinstance(r, Vectors) for d in r.decoded] for one in found]
        lost = [[(r.id, r.reason) for r in one if isinstance(r, Failure)] for one in found]
        everything = [f"i{n}" for n in range(5)]
        assert kept == [everything, [i for i in everything if i != "i2"], [i for i in everything if i != "i3"]]
        assert lost == [[], [("i2", "non_finite")], [("i3", "encode_failed")]]
    assert batches.share == 1


def test_no_memory_for_one_encoder_makes_the_batches_of_all_smaller() -> None:
    sizes: list[int] = []

    def tight(values: Sequence[Any]) -> NDArray[np.float32]:
        sizes.append(len(values))
        if len(values) > 2:
            raise RuntimeError("out of memory")
        return np.ones((len(values), 64), dtype=np.float32)

    batches = Batches(planted(lambda v: np.ones((len(v), 64), dtype=np.float32)), "text", [planted(tight)])
    found = batches.encode_all(batch(*range(8)))
    assert [sum(len(r.decoded) for r in one if isinstance(r, Vectors)) for one in found] == [8, 8]
    assert sizes[:3] == [8, 4, 2]
    assert batches.share == 0.25


def test_agreement_notices_a_state_that_is_written_over() -> None:
    def reading(values: Sequence[Any]) -> NDArray[np.float32]:
        kept = values.once("state", lambda: state(values)) if isinstance(values, Shared) else state(values)
        return np.asarray(kept.copy(), dtype=np.float32)

    def writing(values: Sequence[Any]) -> NDArray[np.float32]:
        kept = values.once("state", lambda: state(values)) if isinstance(values, Shared) else state(values)
        kept[:, ::2] = 0
        return np.asarray(kept.copy(), dtype=np.float32)

    def state(values: Sequence[Any]) -> NDArray[np.float32]:
        return np.ones((len(values), 64), dtype=np.float32)

    assert together.agree([planted(reading), planted(reading)], "text")
    assert not together.agree([planted(reading), planted(writing)], "text")
    assert not together.agree([planted(writing), planted(reading)], "text")
