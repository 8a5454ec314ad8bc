"""What every encoder kind must satisfy. A new file in `embedder/encoders/` is tested here because it exists.

A kind needs one entry in `tests/checkpoints.py`: a small example that loads without a network.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from embedder import golden, kinds, naming
from embedder.encoder import Encoder, load_encoder
from embedder.errors import SpaceMismatch, UnknownName, UsageError
from embedder.records import MEDIA, Medium
from embedder.space import Space, canonical_json
from tests.checkpoints import EXAMPLES, Example

PACKAGE = "embedder.encoders"
KINDS = kinds.names(PACKAGE)
IDENTITY = {"architecture", "weights", "layer", "pooling", "dtype", "normalize"}
HEAVY = ("torch", "timm", "open_clip", "transformers", "sentence_transformers", "sklearn")
TEXTS = (
    "frost", "A much longer sentence, which goes on for a while so that padding is needed beside short ones.",
    "two words", "ünïcode — and 数字 42", "!", "frost",
)  # fmt: skip
LEAST = 0.9999

pytestmark = pytest.mark.parametrize("kind", KINDS)
Load = Callable[[str, str], Encoder]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Example]:
    @cache
    def build(kind: str) -> Example:
        assert kind in EXAMPLES, f"tests/checkpoints.py has no example of the encoder kind {kind}: add one"
        return EXAMPLES[kind](tmp_path_factory.mktemp(kind))

    return build


@pytest.fixture(scope="module")
def loaded(example: Callable[[str], Example]) -> Load:
    return cache(lambda kind, options="": opened(example(kind), options))


def opened(example: Example, options: str = "") -> Encoder:
    return load_encoder(with_options(example.name, options), device="cpu", endpoint=example.endpoint)


def with_options(name: str, options: str) -> str:
    return name + (("&" if "?" in name else "?") + options if options else "")


def kind_file(kind: str) -> ModuleType:
    return kinds.load(PACKAGE, kind)


def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (61, 40, 3), dtype=np.uint8)
    tiny = np.random.default_rng(1).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    flat = [Image.new("RGB", (50, 50), colour) for colour in ((250, 40, 10), (12, 14, 13))]
    return [*golden.pictures(), *(Image.fromarray(a) for a in (noise, tiny)), *flat]


def inputs(encoder: Encoder) -> dict[Medium, list[Any]]:
    both: dict[Medium, list[Any]] = {"image": pictures(), "text": list(TEXTS)}
    return {medium: both[medium] for medium in encoder.space.media}


def golden_inputs(encoder: Encoder) -> dict[Medium, list[Any]]:
    both: dict[Medium, list[Any]] = {"image": golden.pictures(), "text": list(golden.TEXTS)}
    return {medium: both[medium] for medium in encoder.space.media}


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.sum(a * b, axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def test_offers_options_and_a_catalogue(kind: str) -> None:
    file = kind_file(kind)
    assert isinstance(file.OPTIONS, frozenset)
    assert {"normalize"} <= file.OPTIONS
    listed = file.catalogue()
    assert listed
    assert all(name.startswith(f"{kind}:") for name in listed)
    assert len(set(listed)) == len(listed)
    assert {naming.parse(name).kind for name in listed[:20]} == {kind}


def test_is_cheap_to_import(kind: str) -> None:
    code = f"import sys, {PACKAGE}.{kind}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", "heavy libraries are imported inside catalogue() and load()"


def test_space_says_what_made_the_vectors(kind: str, loaded: Load) -> None:
    space = loaded(kind, "").space
    assert set(space.identity) >= IDENTITY | set(space.media)
    assert Space.from_json(json.loads(json.dumps(space.as_json()))).fingerprint == space.fingerprint
    assert set(space.media) <= set(MEDIA)
    assert space.media
    assert "cpu" not in canonical_json(dict(space.identity))
    assert "version" not in canonical_json(dict(space.identity))


def test_towers_are_those_of_the_space(kind: str, loaded: Load) -> None:
    encoder = loaded(kind, "")
    assert (encoder.image is not None, encoder.text is not None) == tuple(m in encoder.space.media for m in MEDIA)
    if encoder.image is not None:
        assert encoder.space.identity["image"] == encoder.image.transform.as_json()
    for medium in set(MEDIA) - set(encoder.space.media):
        with pytest.raises(UsageError, match=f"does not read {medium}s"):
            encoder.tower(medium)


def test_vectors_are_unit_float32_of_the_dimension_said(kind: str, loaded: Load) -> None:
    encoder = loaded(kind, "")
    for values in inputs(encoder).values():
        vectors = encoder.encode(values)
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(values), encoder.space.dim)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_vectors_differ_where_inputs_do(kind: str, loaded: Load) -> None:
    encoder = loaded(kind, "")
    for medium, values in inputs(encoder).items():
        vectors = encoder.encode(values)
        same = np.abs(vectors[:, None] - vectors[None]).max(axis=2) < 1e-5
        expected = np.eye(len(values), dtype=bool)
        if medium == "text":
            expected[0, 5] = expected[5, 0] = True
        assert (same == expected).all(), same.astype(int)


def test_normalize_false_keeps_the_direction(kind: str, loaded: Load) -> None:
    unit, raw = loaded(kind, ""), loaded(kind, "normalize=false")
    for values in inputs(unit).values():
        kept = raw.encode(values)
        assert not np.allclose(np.linalg.norm(kept, axis=1), 1, atol=1e-4)
        assert cosines(kept, unit.encode(values)).min() > LEAST


def test_alone_equals_batched_in_any_order(kind: str, loaded: Load) -> None:
    encoder = loaded(kind, "")
    for values in inputs(encoder).values():
        batched = encoder.encode(values, batch_size=len(values))
        alone = np.concatenate([encoder.encode([value]) for value in values])
        assert cosines(alone, batched).min() >= LEAST
        turned = encoder.encode(values[::-1], batch_size=4)[::-1]
        assert cosines(turned, batched).min() >= LEAST


def test_runs_in_eval_mode(kind: str, loaded: Load) -> None:
    encoder = loaded(kind, "")
    for values in inputs(encoder).values():
        first = encoder.encode(values)
        assert np.array_equal(encoder.encode(values), first), "dropout, or statistics that move"
        for other in range(1, len(values)):
            pair = encoder.encode([values[0], values[other]])
            assert cosines(pair[:1], first[:1])[0] >= LEAST, "batch statistics"


def test_loading_twice_gives_the_same_space_and_vectors(
    kind: str, example: Callable[[str], Example], loaded: Load
) -> None:
    again, first = opened(example(kind)), loaded(kind, "")
    assert again.space.fingerprint == first.space.fingerprint
    for values in inputs(first).values():
        assert np.array_equal(again.encode(values), first.encode(values))


def test_every_variant_is_a_space_of_its_own(kind: str, example: Callable[[str], Example], loaded: Load) -> None:
    spaces = {"": loaded(kind, "").space}
    for options in example(kind).variants:
        spaces[options] = loaded(kind, options).space
        assert spaces[options].dim == spaces[""].dim, options
    assert len({space.fingerprint for space in spaces.values()}) == len(spaces), spaces


def test_every_option_has_a_variant(kind: str, example: Callable[[str], Example]) -> None:
    shown = {pair.partition("=")[0] for options in example(kind).variants for pair in options.split("&")}
    missing = kind_file(kind).OPTIONS - shown - set(example(kind).exempt)
    assert not missing, "an option that no test exercises: add a variant, or a reason to `exempt`"


def test_half_precision_gives_float32_near_the_full_one(kind: str, loaded: Load) -> None:
    if "dtype" not in kind_file(kind).OPTIONS:
        with pytest.raises(UnknownName):
            loaded(kind, "dtype=bfloat16")
        return
    full, half = loaded(kind, ""), loaded(kind, "dtype=bfloat16")
    assert half.space.dtype == "bfloat16"
    for values in golden_inputs(full).values():
        vectors = half.encode(values)
        assert vectors.dtype == np.float32
        near = cosines(vectors, full.encode(values))
        assert 0.98 < near.min() < 1 - 1e-9, "half precision was not used, or gives something else"


def test_global_random_numbers_are_left_alone(kind: str, example: Callable[[str], Example]) -> None:
    def state() -> tuple[bytes, str]:
        return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state())

    before = state()
    encoder = opened(example(kind), example(kind).variants[0])
    golden.vectors(encoder)
    assert state() == before


def test_modules_are_frozen(kind: str, loaded: Load) -> None:
    encoder, wrong = loaded(kind, ""), []

    def look(module: torch.nn.Module, _: Any) -> None:
        if (
            module.training
            or not torch.is_inference_mode_enabled()
            or any(p.requires_grad for p in module.parameters())
        ):
            wrong.append(type(module).__name__)

    hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        for values in inputs(encoder).values():
            encoder.encode(values)
    finally:
        hook.remove()
    assert not wrong, "in training mode, with gradients, or outside inference_mode"


def test_golden_inputs_agree_with_themselves_only(kind: str, example: Callable[[str], Example], loaded: Load) -> None:
    encoder, other = loaded(kind, ""), loaded(kind, example(kind).variants[0])
    stored = golden.pack(golden.vectors(encoder))
    golden.check(encoder, stored)
    with pytest.raises(SpaceMismatch, match="no longer makes the vectors"):
        golden.check(other, stored)
    with pytest.raises(SpaceMismatch, match="differs in"):
        encoder.space.require(other.space, what="the query")


def test_unknown_option_is_refused_with_the_nearest(kind: str, example: Callable[[str], Example]) -> None:
    with pytest.raises(UnknownName, match="normalize"):
        opened(example(kind), "normalise=false")


@pytest.mark.parametrize("value", ["yes", "True", "0"])
def test_flags_are_true_or_false(kind: str, value: str, example: Callable[[str], Example]) -> None:
    with pytest.raises(UsageError, match="true or false"):
        opened(example(kind), f"normalize={value}")


def test_unknown_name_is_refused(kind: str, example: Callable[[str], Example]) -> None:
    with pytest.raises(UsageError, match="no-such-thing"):
        load_encoder(f"{kind}:no-such-thing", endpoint=example(kind).endpoint)
