"""Cutting a window into batches: against all cuts there are, and against what real lengths allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedder.packing import PASS_COST, batches, cuts
from tests.embedder.spy import Spy, vector


def walked(lengths: list[int], budget: float, most: int, pass_cost: float) -> list[int]:
    """Where the batches begin and end."""
    stops, places = cuts(lengths, budget, most, pass_cost), [0]
    while places[-1] < len(lengths):
        places.append(int(stops[places[-1]]))
    return places


def price(lengths: list[int], places: list[int], pass_cost: float) -> float:
    return sum(pass_cost + lengths[a] * (b - a) for a, b in pairwise(places))


def all_cuts(n: int) -> Iterator[list[int]]:
    for mask in range(1 << (n - 1)):
        yield [0, *(i + 1 for i in range(n - 1) if mask >> i & 1), n]


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=9),
    st.integers(1, 90),
    st.integers(1, 9),
    st.sampled_from([0, 1, 7, 40]),
)
def test_no_other_cut_costs_less(lengths: list[int], budget: int, most: int, pass_cost: int) -> None:
    lengths.sort(reverse=True)
    places = walked(lengths, budget, most, pass_cost)
    assert all(b - a <= most for a, b in pairwise(places))
    assert all(b - a == 1 or lengths[a] * (b - a) <= budget for a, b in pairwise(places))
    allowed = [
        price(lengths, other, pass_cost)
        for other in all_cuts(len(lengths))
        if all(b - a <= most and (b - a == 1 or lengths[a] * (b - a) <= budget) for a, b in pairwise(other))
    ]
    assert price(lengths, places, pass_cost) == min(allowed)


@pytest.mark.parametrize(
    ("lengths", "padding"),
    [
        (np.clip(np.random.default_rng(0).lognormal(3.1, 1.2, 8192).astype(int) + 3, 3, 256), 1.005),
        (np.clip(np.random.default_rng(0).normal(18, 8, 8192).astype(int), 5, 80), 1.005),
        (np.full(5000, 17), 1.0),
    ],
    ids=["long-tailed", "glosses", "equal"],
)
def test_little_is_computed_on_padding(lengths: np.ndarray, padding: float) -> None:
    ordered = sorted(lengths.tolist(), reverse=True)
    places = walked(ordered, 2048, len(ordered), PASS_COST["cpu"])
    assert price(ordered, places, 0) / sum(ordered) <= padding
    # and not by many small passes: no more than a twentieth over what full batches would take
    assert len(places) - 1 <= 1.05 * sum(ordered) / 2048 + 60


@settings(deadline=None)
@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 2000), st.integers(1, 20))
def test_each_text_is_in_one_batch_with_others_of_its_length(lengths: list[int], budget: int, most: int) -> None:
    found = [rows.tolist() for rows in batches(lengths, budget, most, "cpu")]
    assert sorted(at for rows in found for at in rows) == list(range(len(lengths)))
    falling = [lengths[at] for rows in found for at in rows]
    assert falling == sorted(lengths, reverse=True)
    assert all(len(rows) <= most and (len(rows) == 1 or lengths[rows[0]] * len(rows) <= budget) for rows in found)


def test_a_list_of_texts_is_encoded_with_little_padding_and_answered_in_its_order() -> None:
    chance = np.random.default_rng(0)
    texts = [" ".join(["word"] * int(n)) + f" {at}" for at, n in enumerate(chance.integers(1, 200, 300))]
    spy = Spy(normalize=False)
    found = spy.encoder.encode(texts, batch_size=64)
    np.testing.assert_array_equal(found, [vector(text.encode()) for text in texts])
    assert max(spy.sizes) <= 64
    padded = sum(len(call) * max(map(len, call)) for call in spy.calls)
    assert padded <= 1.06 * sum(len(words) for call in spy.calls for words in call)


def test_a_list_of_texts_and_pictures_keeps_its_order() -> None:
    def forward(prepared: Sequence[Any]) -> Any:
        rows = [one[:6, 0, 0] if isinstance(one, np.ndarray) else [len(one)] * 6 for one in prepared]
        return np.asarray([np.resize(row, 6) for row in rows], dtype=np.float32)

    spy = Spy(forward, normalize=False)
    values = [Image.new("RGB", (4, 4), (9, 0, 0)), "one two", Image.new("RGB", (4, 4), (7, 0, 0)), "one"]
    assert spy.encoder.encode(values, batch_size=1)[:, 0].tolist() == [9, 2, 7, 1]
    assert spy.sizes == [1] * 4
