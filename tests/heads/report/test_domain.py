from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embedder.errors import UsageError
from heads.report import strange
from heads.report.domain import Compared, Domain, Reference, decide, domain, items_needed
from heads.report.strange import Strange, percentiles
from heads.report.twosample import ClassifierTest, PermutationTest, Sample


def rows(n: int, seed: int, shift: float = 0.0, d: int = 16) -> Any:
    return (np.random.default_rng(seed).normal(size=(n, d)) + shift).astype(np.float32)


def asked(n: int, m: int, shift: float = 0.0, seed: int = 0) -> Domain:
    return domain(rows(n, 1, shift), np.arange(n), Reference("stock", rows(m, 2), np.arange(m)), seed=seed)


def test_a_shift_is_found_and_said() -> None:
    found = asked(200, 200, shift=1.0).verdict
    assert found.value == "shifted"
    assert found.sentence.startswith("Your items differ from stock (AUC 1.00 (0.99 to 1.00), p = ")
    assert found.interval is not None
    assert found.interval[0] > 0.9


def test_without_a_reference_the_strangest_are_still_found() -> None:
    items = rows(60, 0)
    items[[7, 30]] += 20
    items[30] += 20
    found = domain(items, np.arange(60), None)
    assert found.verdict.value == "no_reference"
    assert found.order[:2].tolist() == [30, 7]


def test_too_few_rows_say_how_many_would_do() -> None:
    found = asked(200, 30)
    assert found.verdict.value == "undecided"
    assert found.verdict.sentence == ("Not enough data to say: both sides need about 40 items or groups; one has 30.")
    grouped = domain(rows(200, 0), np.repeat(np.arange(20), 10), Reference("r", rows(200, 1), np.arange(200)))
    assert grouped.verdict.value == "undecided"
    assert len(grouped.order) == 200


def test_vectors_of_another_length_are_refused() -> None:
    with pytest.raises(UsageError, match="16 dimensions cannot be compared with vectors of 8"):
        domain(rows(50, 0, d=8), np.arange(50), Reference("stock", rows(50, 1), np.arange(50)))


def test_the_same_seed_gives_the_same_answer_to_the_bit() -> None:
    first, again = (json.dumps(asked(150, 150, 0.2).as_json()) for _ in range(2))
    assert first == again
    assert json.loads(first)["strangest"] == asked(150, 150, 0.2).order[:20].tolist()


def test_large_sides_are_cut_to_a_thousand_rows_and_it_is_said() -> None:
    found = asked(1500, 1200)
    assert found.tests is not None
    assert (found.tests.items_used, found.tests.reference_used) == (1000, 1000)
    assert found.strange is not None
    assert len(found.strange.percentile) == 1500


def told(auc: float, low: float, high: float, p: float) -> Compared:
    some = PermutationTest(0.0, 1.0)
    adjusted = {"mmd": p, "energy": 1.0, "classifier": 1.0}
    return Compared(some, some, ClassifierTest(auc, (low, high), p, (100, 100)), adjusted, {}, 200, 200)


def outside(share: float, low: float, high: float) -> Strange:
    none = np.zeros(1)
    return Strange(none, none, share, (low, high), np.zeros(1, dtype=np.intp))


@pytest.mark.parametrize(
    ("auc", "p", "share", "value", "words"),
    [
        ((0.80, 0.75, 0.85), 0.01, (0.20, 0.1, 0.3), "shifted", "differ from"),
        ((0.52, 0.48, 0.56), 0.90, (0.05, 0.0, 0.09), "fits", "are drawn much like"),
        ((0.56, 0.53, 0.59), 0.01, (0.05, 0.0, 0.09), "fits", "differ measurably but little from"),
        ((0.56, 0.53, 0.59), 0.01, (0.08, 0.0, 0.12), "shifted", "differ from"),
        ((0.52, 0.44, 0.61), 0.90, (0.05, 0.0, 0.09), "undecided", "Not enough data"),
        ((0.52, 0.48, 0.56), 0.90, (0.05, 0.0, 0.11), "undecided", "Not enough data"),
    ],
)
def test_the_rule(auc: Any, p: float, share: Any, value: str, words: str) -> None:
    found = decide(told(*auc, p), outside(*share), "stock")
    assert found.value == value
    assert words in found.sentence
    assert found.interval == auc[1:]
    json.dumps(found.as_json())


def test_items_needed_shrinks_the_interval_that_is_too_wide() -> None:
    tests = told(0.5, 0.3, 0.7, 1.0)
    assert items_needed(tests.classifier, outside(0.05, 0.0, 0.09), 200) == pytest.approx(200 * 4)
    assert items_needed(tests.classifier, outside(0.05, 0.0, 0.20), 200) == pytest.approx(200 * 9)
    above = replace(tests.classifier, auc=0.65, interval=(0.45, 0.85))
    assert items_needed(above, outside(0.05, 0.0, 0.09), 200) == pytest.approx(200 * (0.2 / 0.15) ** 2)


def test_percentiles_by_hand() -> None:
    calibration = np.array([1.0, 2.0, 3.0, 4.0])
    assert percentiles(np.array([0.0, 2.0, 3.5, 9.0]), calibration).tolist() == [1.0, 0.8, 0.4, 0.2]


def test_percentiles_are_of_units_that_were_not_compared_with() -> None:
    """Copies of one row are one unit: a reference of pairs would look nearer to itself than new items are."""
    pairs = np.repeat(rows(300, 5), 2, axis=0).astype(np.float64)
    reference = Sample.of(pairs, np.repeat(np.arange(300), 2))
    found = strange.against(rows(300, 6), np.arange(300), reference, np.random.default_rng(0))
    assert found.interval[0] <= 0.05 <= found.interval[1]
    marked_alone = Sample.of(pairs, np.arange(600))
    wrong = strange.against(rows(300, 6), np.arange(300), marked_alone, np.random.default_rng(0))
    assert wrong.outside <= found.outside + 0.05


def test_within_leaves_out_an_items_own_unit() -> None:
    items = rows(41, 0)
    items[39], items[40] = 30, 30.01
    apart = strange.within(items, np.arange(41), np.random.default_rng(0))
    assert set(apart[:2].tolist()) == {39, 40}
    everything = strange.within(items, np.zeros(41, dtype=np.intp), np.random.default_rng(0))
    assert sorted(everything.tolist()) == list(range(41))
