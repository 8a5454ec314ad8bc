"""Half precision: what it makes unusable is encoded again in float32, each row and no other; else it is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedder import extract
from embedder.encoder import Encoder, load_encoder
from embedder.stages import Stages
from tests.checkpoints import EXAMPLES
from tests.embedder.spy import Spy, of_texts, split, text_items, vector

BROKEN = (np.nan, np.inf, -np.inf, 0.0)
WORDS = [f"w{n}" for n in range(1000)]


def in_half(prepared: Sequence[list[str]]) -> np.ndarray:
    """Planted vectors; every 97th overflows, one way or another."""
    rows = of_texts(prepared)
    for row, words in zip(rows, prepared, strict=True):
        number = int(words[0][1:])
        if number % 97 == 0:
            row[:] = BROKEN[number // 97 % len(BROKEN)]
    return rows


def half(exact: Callable[[], Encoder], forward: Any = in_half) -> tuple[Spy, Encoder]:
    spy = Spy(forward)
    space = replace(spy.encoder.space, identity={**spy.encoder.space.identity, "dtype": "float16"})
    return spy, replace(spy.encoder, space=space, exact=exact)


def run(encoder: Encoder) -> tuple[dict[str, Any], dict[str, Any]]:
    found = extract.extract(text_items(*WORDS), encoder, "text", pool=None, batch_size=None, stages=Stages())
    return split(found)


def test_what_overflows_is_encoded_again_and_nothing_else_is() -> None:
    full = Spy()
    spy, encoder = half(lambda: full.encoder)
    vectors, failures = run(encoder)
    assert not failures
    for id, row in vectors.items():
        np.testing.assert_allclose(row, vector(f"w{id}".encode()), rtol=1e-6)
    again = sorted(int(words[0][1:]) for call in full.calls for words in call)
    assert again == list(range(0, 1000, 97))
    assert sum(spy.sizes) == 1000


def test_what_float32_cannot_encode_either_is_named() -> None:
    _, encoder = half(lambda: Spy(in_half).encoder)
    vectors, failures = run(encoder)
    assert len(vectors) == 1000 - 11
    assert {failure.reason for failure in failures.values()} == {"non_finite"}
    assert set(failures) == {str(n) for n in range(0, 1000, 97)}


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory")])
def test_no_room_for_the_second_model_costs_only_what_needs_it(error: Exception) -> None:
    def exact() -> Encoder:
        raise error

    spy, encoder = half(exact)
    vectors, failures = run(encoder)
    assert (len(vectors), len(failures)) == (989, 11)
    assert {failure.reason for failure in failures.values()} == {"non_finite"}
    assert sum(spy.sizes) == 1000


def test_queries_are_encoded_again_too() -> None:
    _, encoder = half(lambda: Spy().encoder)
    np.testing.assert_allclose(encoder.encode(["w97"])[0], vector(b"w97"), rtol=1e-6)


@pytest.mark.parametrize("kind", ["timm", "torchvision", "open_clip", "transformers", "sentence_transformers"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_real_models_in_half_precision(kind: str, dtype: str, tmp_path: Path) -> None:
    """Each kind declares both, agrees with float32 to cosine 0.999, and knows the way back."""
    example = EXAMPLES[kind](tmp_path)
    encoder = load_encoder(f"{example.name}{'&' if '?' in example.name else '?'}dtype={dtype}", device="cpu")
    full = load_encoder(example.name, device="cpu")
    assert (full.exact, encoder.space.dtype) == (None, dtype)
    assert encoder.space.fingerprint != full.space.fingerprint
    values: list[Any] = []
    if encoder.text is not None:
        values += ["frost", "a longer sentence, with some more words"]
    if encoder.image is not None:
        values += [np.random.default_rng(n).integers(0, 256, (40, 50, 3), dtype=np.uint8) for n in range(2)]
    one, two = encoder.encode(values), full.encode(values)
    cosines = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    assert cosines.min() >= 0.999
    assert encoder.exact is not None
    exact = encoder.exact()
    assert exact is encoder.exact()
    assert exact.space.fingerprint == full.space.fingerprint
