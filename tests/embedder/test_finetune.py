"""Tuning an encoder: closed forms, exactness at the frozen end, determinism, memory, and every kind that can be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from embedder import golden
from embedder.encoder import Encoder, load_encoder
from embedder.errors import EncoderError, OutOfResource, UsageError
from embedder.finetune import Labels, Tuned, finetune
from embedder.recipe import Recipe, Step
from embedder.records import Medium
from embedder.trainable import LORA_A, LORA_B, LowRank, add_low_rank, apply, depths, remove_low_rank, scales
from tests.checkpoints import EXAMPLES, timm_folder
from tests.tiny_transformers import text_folder

N = 24


class Listed:
    """Inputs held in a list."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def take(self, rows: Any) -> list[Any]:
        return [self.values[row] for row in rows]


def inputs(encoder: Encoder, medium: Medium) -> Listed:
    rng = np.random.default_rng(0)
    if medium == "text":
        words = ["frost", "snow", "ice", "sun", "sand", "heat"]
        return Listed([encoder.prepare(f"{words[3 * (i % 2) + i % 3]} {i}")[1] for i in range(N)])
    pictures = rng.integers(0, 200, (N, 24, 24, 3)).astype(np.uint8)
    pictures[1::2, :, :12] += 50
    return Listed([encoder.prepare(one)[1] for one in pictures])


LABELS = Labels(np.arange(N) % 2, np.arange(16), np.arange(16, N))
QUICK = Recipe(epochs=2, lr=1e-3, batch_size=8, patience=2)


def head(encoder: Encoder, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(seed).normal(size=(2, encoder.space.dim)), np.zeros(2)


def tune(encoder: Encoder, recipe: Recipe = QUICK, medium: Medium = "image", **more: Any) -> Tuned:
    return finetune(encoder, medium, inputs(encoder, medium), LABELS, head(encoder), recipe, **more)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("models")
    return {
        "cnn": f"timm:local-dir:{timm_folder(home / 'cnn', input_size=(3, 32, 32))}",
        "vit": f"timm:local-dir:{timm_folder(home / 'vit', 'test_vit', input_size=(3, 32, 32))}",
        "bert": f"transformers:{text_folder(home / 'bert', 'bert')}",
    }


@pytest.fixture
def load(names: dict[str, str]) -> Callable[[str], Encoder]:
    return lambda which: load_encoder(names.get(which, which), device="cpu")


def test_rate_of_a_layer_is_decay_to_the_power_of_its_depth() -> None:
    bert = ["embeddings.word", "encoder.layer.0.a.weight", "encoder.layer.0.b.bias", "encoder.layer.1.a.weight", "norm"]
    assert depths(bert) == dict(zip(bert, [3, 2, 2, 1, 0], strict=True))
    assert list(scales(bert, 0.5).values()) == [0.125, 0.25, 0.25, 0.5, 1]
    chain = ["0.model.emb.weight", "0.model.layers.0.w", "0.model.layers.1.w", "2.linear.weight"]
    assert list(depths(chain).values()) == [3, 2, 1, 0], "a module of a chain is no block"
    vit = ["conv_proj.weight", "encoder.layers.encoder_layer_0.w", "encoder.layers.encoder_layer_1.w", "ln.weight"]
    assert list(depths(vit).values()) == [3, 2, 1, 0]
    between = ["stem.w", "stages.0.w", "pool.w", "stages.1.w"]
    assert list(depths(between).values()) == [3, 2, 2, 1]
    plain = [f"part{chr(97 + i)}.weight" for i in range(24)]
    assert list(depths(plain).values()) == [12 - i // 2 for i in range(24)], "no blocks: twelve runs"


def test_rate_of_a_step_rises_linearly_and_falls_along_a_cosine() -> None:
    recipe = Recipe(warmup=0.2)
    found = [recipe.factor(step, 20) for step in range(20)]
    assert found[:4] == [0.25, 0.5, 0.75, 1]
    assert found[4:] == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 16)) for i in range(16)])


def test_optimiser_gets_these_rates(load: Callable[[str], Encoder], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[int, float]] = []
    step = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *args: Any) -> Any:
        seen.append({id(part): group["lr"] for group in self.param_groups for part in group["params"]})
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    encoder = load("vit")
    by_name = {name: id(part) for name, part in encoder.module.named_parameters()}
    tune(encoder, replace(QUICK, epochs=1, layer_decay=0.5, warmup=0))
    assert len(seen) == 2
    count = len(encoder.module.blocks)
    assert seen[0][by_name["norm.weight"]] == pytest.approx(1e-3)
    assert seen[0][by_name["blocks.0.mlp.fc1.weight"]] == pytest.approx(1e-3 * 0.5**count)
    assert seen[0][by_name["patch_embed.proj.weight"]] == pytest.approx(1e-3 * 0.5 ** (count + 1))
    assert by_name["head.weight"] not in seen[0], "the classifier has no part in the vectors"


def test_batch_statistics_stay(load: Callable[[str], Encoder]) -> None:
    encoder = load("cnn")
    before = {name: part.clone() for name, part in encoder.module.named_buffers()}
    made = tune(encoder)
    assert len(before) > 10
    assert all(torch.equal(part, before[name]) for name, part in encoder.module.named_buffers())
    assert not set(made.tensors) & set(before)
    assert not encoder.module.training
    assert not any(part.requires_grad for part in encoder.module.parameters())


@pytest.mark.parametrize(("which", "method"), [("cnn", "lp_ft"), ("vit", "lora")])
def test_same_seed_same_weights(load: Callable[[str], Encoder], which: str, method: str) -> None:
    recipe = replace(QUICK, method=method)
    before = torch.get_rng_state()
    first, again, other = (tune(load(which), replace(recipe, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before), "global random numbers are left alone"
    assert first.tensors.keys() == again.tensors.keys()
    assert all(torch.equal(part, again.tensors[name]) for name, part in first.tensors.items())
    assert np.array_equal(first.weight, again.weight)
    assert first.history == again.history
    assert not all(torch.equal(part, other.tensors[name]) for name, part in first.tensors.items())


@pytest.mark.parametrize(("which", "method"), [("cnn", "lp_ft"), ("vit", "lora")])
def test_interpolation_to_zero_is_the_frozen_encoder_exactly(
    load: Callable[[str], Encoder], which: str, method: str
) -> None:
    frozen = golden.vectors(load(which))["image"]
    ends = {}
    for a in (0.0, 0.5, 1.0):
        encoder = load(which)
        made = tune(encoder, replace(QUICK, method=method, interpolate=a))
        ends[a] = made, golden.vectors(encoder)["image"]
    assert np.array_equal(ends[0.0][1], frozen)
    assert not np.allclose(ends[1.0][1], frozen, atol=1e-5)
    assert np.allclose(ends[0.0][0].weight, head(load(which))[0])
    if method == "lp_ft":
        whole = dict(load(which).module.named_parameters())
        for name, half in ends[0.5][0].tensors.items():
            assert torch.allclose(half, (whole[name] + ends[1.0][0].tensors[name]) / 2, atol=1e-6)


def test_low_rank_is_the_base_plus_b_times_a(load: Callable[[str], Encoder]) -> None:
    encoder, base = load("vit"), load("vit")
    made = tune(encoder, replace(QUICK, method="lora", rank=3, alpha=6))
    was, now = dict(base.module.named_parameters()), dict(encoder.module.named_parameters())
    tuned = {name.removesuffix(LORA_A) for name in made.tensors if name.endswith(LORA_A)}
    assert was.keys() == now.keys(), "nothing is left of the additions"
    assert all(name.startswith("blocks.") for name in tuned)
    assert len(tuned) == 4 * len(base.module.blocks), "qkv, proj, fc1 and fc2 of every block"
    for name, part in was.items():
        if name in tuned:
            A, B = made.tensors[name + LORA_A], made.tensors[name + LORA_B]
            assert A.shape == (3, part.shape[1])
            assert torch.allclose(now[name], part + B @ A, atol=1e-6)
            assert not torch.equal(now[name], part)
        else:
            assert torch.equal(now[name], part)


def test_an_addition_that_has_learned_nothing_changes_nothing() -> None:
    part = nn.Sequential()
    part.add_module("layers", nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)))
    x, frozen = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)), part(torch.ones(1, 5)).detach()
    names = [name for name, _ in part.named_parameters()]
    added = add_low_rank(part, names, 2, 4.0, torch.Generator().manual_seed(0))
    assert torch.equal(part(torch.ones(1, 5)), frozen)
    one: LowRank = added["layers.0.weight"]
    with torch.no_grad():
        one.B.copy_(torch.ones(4, 2))
    weight, bias = part.layers[0].parametrizations.weight.original, part.layers[0].bias
    expected = x @ (weight + 2.0 * torch.ones(4, 2) @ one.A).T + bias
    assert torch.allclose(part.layers[0](x), expected)
    remove_low_rank(part, list(added))
    assert torch.equal(part(torch.ones(1, 5)), frozen)


def test_without_room_gradients_of_smaller_batches_are_summed(
    load: Callable[[str], Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune(load("cnn"))
    sizes: list[int] = []

    def cramped(encoder: Encoder, most: int) -> Encoder:
        forward: Any = encoder.image.forward if encoder.image else None
        network = type(forward).network

        def small(self: Any, pixels: torch.Tensor) -> torch.Tensor:
            sizes.append(len(pixels))
            if len(pixels) > most:
                raise RuntimeError("CUDA out of memory. Tried to allocate")
            return network(self, pixels)

        monkeypatch.setattr(type(forward), "network", small)
        return encoder

    made = tune(cramped(load("cnn"), 3))
    assert max(sizes[-8:]) <= 3
    assert set(sizes) >= {8, 4, 2}
    for name, part in whole.tensors.items():
        assert torch.allclose(part, made.tensors[name], atol=2e-4), name
    monkeypatch.undo()
    with pytest.raises(OutOfResource, match="one item alone"):
        tune(cramped(load("cnn"), 0))


def test_the_epoch_of_the_least_validation_loss_is_kept(load: Callable[[str], Encoder]) -> None:
    told: list[Step] = []
    made = tune(load("cnn"), replace(QUICK, epochs=6, patience=2), watch=told.append)
    losses = [line["validation"] for line in made.history]
    assert made.best == 1 + int(np.argmin(losses[1:]))
    assert len(losses) - 1 in (6, made.best + 2)
    ends = [step for step in told if step.validation is not None]
    assert [step.epoch for step in ends] == list(range(1, len(losses)))
    assert [step.validation for step in ends] == losses[1:]


def test_time_ends_it_with_what_it_has(load: Callable[[str], Encoder]) -> None:
    ticks = iter(range(1000))
    made = tune(load("cnn"), replace(QUICK, epochs=50, minutes=10 / 60), clock=lambda: float(next(ticks)))
    assert 1 <= len(made.history) - 1 < 5
    assert made.seconds < 20


def test_an_interrupt_leaves_the_frozen_weights(load: Callable[[str], Encoder]) -> None:
    encoder = load("vit")
    frozen = golden.vectors(encoder)["image"]

    def stop(step: Step) -> None:
        if step.step == 2:
            raise KeyboardInterrupt

    for method in ("lp_ft", "lora"):
        with pytest.raises(KeyboardInterrupt):
            tune(encoder, replace(QUICK, method=method), watch=stop)
        assert np.array_equal(golden.vectors(encoder)["image"], frozen)


@pytest.mark.parametrize("kind", ["torchvision", "open_clip", "transformers", "sentence_transformers", "bundled"])
def test_every_torch_kind_is_tuned(kind: str, tmp_path: Path) -> None:
    encoder = load_encoder(EXAMPLES[kind](tmp_path).name, device="cpu")
    medium = encoder.space.media[0]
    before = golden.vectors(encoder)[medium]
    made = tune(encoder, replace(QUICK, epochs=1), medium)
    after = golden.vectors(encoder)[medium]
    assert not np.allclose(before, after, atol=1e-6)
    assert all(torch.isfinite(part).all() for part in made.tensors.values())


def test_text_by_low_rank(load: Callable[[str], Encoder]) -> None:
    encoder = load("bert")
    made = tune(encoder, replace(QUICK, method="lora", lr=1e-2, epochs=8, patience=8), "text")
    assert made.history[-1]["loss"] < made.history[1]["loss"]
    assert all(name.startswith("encoder.layer.") for name in made.tensors)


def test_what_cannot_be_tuned_is_refused(load: Callable[[str], Encoder], names: dict[str, str]) -> None:
    half, cut = f"{names['cnn']}?dtype=bfloat16", f"{names['bert']}?chunk=20"
    for name, why in (("hashing:16", "no weights"), (half, "float32"), (cut, "parts")):
        encoder = load_encoder(name, device="cpu")
        with pytest.raises(UsageError, match=why):
            finetune(encoder, encoder.space.media[-1], Listed([]), LABELS, head(encoder), QUICK)
    with pytest.raises(UsageError, match="lp_ft tunes any"):
        tune(load("cnn"), replace(QUICK, method="lora"))
    with pytest.raises(EncoderError, match="no weight"):
        apply(load("cnn").module, {"nowhere.weight": torch.zeros(1)})


WRONG = ({"method": "magic"}, {"epochs": 0}, {"lr": -1.0}, {"lr": math.nan}, {"interpolate": 1.5}, {"layer_decay": 0})


@pytest.mark.parametrize("wrong", WRONG)
def test_a_recipe_has_sane_values(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Recipe(**wrong)
