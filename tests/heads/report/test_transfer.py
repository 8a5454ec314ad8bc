from __future__ import annotations

import json

import numpy as np
import pytest

from heads.report.selection import bias_corrected, nested
from heads.report.transfer import transfer
from tests.heads.report.tools import even, probe, share


@pytest.mark.parametrize(
    ("ours", "theirs", "value", "words"),
    [
        (0.9, 0.6, "helps", "Pretraining helps: on 400 items, enc gets "),
        (0.6, 0.9, "hurts", "enc is worse than ctrl by "),
        (0.8, 0.8, "undecided", "Not enough data to say: a 3.0-point difference needs about "),
    ],
)
def test_verdicts_and_their_words(ours: float, theirs: float, value: str, words: str) -> None:
    on = even(400)
    found = transfer([probe(on, share(on, ours, 1), "enc")], [probe(on, share(on, theirs, 2), "ctrl")], on)
    assert found.verdict.value == value
    assert found.verdict.sentence.startswith(words)
    assert found.verdict.evidence["negative_transfer"] == (value == "hurts")
    json.dumps(found.as_json(), allow_nan=False)


def test_the_figures_in_words_are_those_of_the_interval() -> None:
    on = even(400, copies=2)
    found = transfer([probe(on, share(on, 0.9, 1), "enc")], [probe(on, share(on, 0.6, 2), "ctrl")], on).verdict
    low, high = found.interval or (0, 0)
    assert f"({100 * low:+.1f} to {100 * high:+.1f}) over the best control (ctrl)" in found.sentence
    assert "400 items in 200 groups" in found.sentence


def test_equal_predictions_are_a_tie() -> None:
    on = even(400)
    right = share(on, 0.8, 1)
    found = transfer([probe(on, right, "enc")], [probe(on, right, "ctrl")], on).verdict
    assert found.value == "no_difference"
    assert "tied within ±3.0 points" in found.sentence
    assert transfer([probe(on, right)], [probe(on, right, "b")], on, margin=0.0).verdict.value == "undecided"


def test_a_control_that_the_inner_rows_overlooked_still_counts() -> None:
    on = even(400)
    weak, strong = probe(on, share(on, 0.5, 2), "weak", inner=1.0), probe(on, share(on, 0.95, 3), "strong", inner=0.0)
    found = transfer([probe(on, share(on, 0.9, 1), "enc")], [weak, strong], on)
    assert found.verdict.evidence["control"] == "weak"
    assert found.verdict.value == "undecided"
    assert [c.b for c in found.against] == ["weak", "strong"]
    assert found.adjusted[0] == pytest.approx(2 * found.against[0].p, abs=1e-9)


def test_the_best_control_is_the_bar() -> None:
    on = even(400)
    chance = probe(on, share(on, 0.5, 2), "chance", inner=-0.7)
    good = probe(on, share(on, 0.97, 3), "pixels", inner=-0.1)
    found = transfer([probe(on, share(on, 0.85, 1), "enc")], [chance, good], on).verdict
    assert (found.value, found.evidence["control"]) == ("hurts", "pixels")


def test_nested_rows_are_those_of_the_candidate_that_each_fold_chose() -> None:
    on = even(100)
    a, b = probe(on, True, "a"), probe(on, False, "b")
    a.inner[:], b.inner[:] = 0.0, -1.0
    b.inner[1, 2] = 1.0
    found = nested([a, b], on)
    assert found.picked == {"a": 9, "b": 1}
    assert found.name == "a"
    expected = np.ones((2, 100), dtype=bool)
    expected[1, on.fold[1] == 2] = False
    assert np.array_equal(found.correct, expected)
    assert found.accuracy == expected.mean()


def test_bias_correction_by_brute_force() -> None:
    on = even(60)
    probes = [probe(on, share(on, 0.6, k), f"p{k}") for k in range(4)]
    right = np.stack([p.correct.mean(axis=0) for p in probes], axis=1)
    found = []
    for weights in on.resampler.weights[:, on.units]:
        best = int((weights @ right).argmax())
        found.append(right[weights == 0, best].mean())
    assert bias_corrected(probes, on.resampler) == pytest.approx(np.mean(found))
