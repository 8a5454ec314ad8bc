from __future__ import annotations

import numpy as np
import pytest

from heads.report.candidates import Candidate, control_task, histogram, majority, permuted, pixels, tfidf
from heads.report.information import code_length, online_code, permutation_test, selectivity, v_information
from heads.report.labels_saved import labels_saved
from heads.report.probes import linear, plan
from tests.heads.report.tools import ORACLES, even, probe


def features(n: int = 120, shift: float = 2.0) -> tuple[Candidate, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(n) % 2)
    return Candidate("a", "encoder", (rng.normal(size=(n, 4)) + shift * y[:, None]).astype(np.float32)), y


def test_code_length_as_planted() -> None:
    case = ORACLES["online_code"]
    found = code_length(case["first_block"], case["block_bits"], case["n"], case["C"])
    assert found == {"bits": case["total_bits"], "compression": pytest.approx(case["compression"])}


def test_information_beyond_the_shares() -> None:
    on = even(100, repeats=1)
    sure = probe(on, True)
    assert v_information(sure, on) == pytest.approx(np.log2(0.99 * 0.9 + 0.005) + 1, abs=1e-3)
    nothing = linear(majority(100), on)
    assert v_information(nothing, on) == pytest.approx(0, abs=0.01)


def test_labels_in_the_features_are_short_to_send_and_noise_is_not() -> None:
    c, y = features()
    on = plan(y, [f"u{i}" for i in range(120)], repeats=1)
    assert online_code(c, on)["compression"] > 2
    noise = plan(np.random.default_rng(3).permutation(y), [f"u{i}" for i in range(120)], repeats=1)
    assert online_code(c, noise)["compression"] < 1.05


def test_units_are_sent_whole() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(rng.permutation(np.arange(24) % 2), 5)
    X = np.repeat(rng.normal(size=(24, 8)), 5, axis=0).astype(np.float32)
    copies, alone = (plan(y, [f"u{i // k}" for i in range(120)], repeats=1) for k in (5, 1))
    assert online_code(Candidate("a", "encoder", X), copies)["compression"] < 1.0
    assert online_code(Candidate("a", "encoder", X), alone)["compression"] > 1.05


def test_permutation_finds_what_is_there() -> None:
    c, y = features()
    on = plan(y, [f"u{i}" for i in range(120)], repeats=1)
    found = permutation_test(c, on, draws=39)
    assert found.p == 1 / 40
    assert found.permuted_accuracy == pytest.approx(0.5, abs=0.05)
    assert permutation_test(majority(120), on, draws=39).p == 1.0
    with pytest.raises(TypeError, match="counts"):
        permutation_test(tfidf(["a b", "a b"]), on)


def test_permutation_finds_a_rare_class_that_accuracy_cannot_see() -> None:
    rng = np.random.default_rng(0)
    y = (np.arange(200) % 10 == 0).astype(np.intp)
    c = Candidate("a", "encoder", (rng.normal(size=(200, 4)) + 0.7 * y[:, None]).astype(np.float32))
    found = permutation_test(c, plan(y, [f"u{i}" for i in range(200)], repeats=1), draws=39)
    assert found.accuracy == pytest.approx(0.9, abs=0.005)
    assert found.p == 1 / 40


def test_selectivity_is_small_where_types_are_memorised() -> None:
    rng = np.random.default_rng(0)
    types = np.arange(120) % 12
    y = types % 2
    memory = np.eye(12, dtype=np.float32)[types]
    on = plan(y, [f"u{i}" for i in range(120)], repeats=1)
    assert selectivity(Candidate("types", "encoder", memory), on, types)["selectivity"] == pytest.approx(0, abs=0.02)
    meaning = (y[:, None] + 0.1 * rng.normal(size=(120, 2))).astype(np.float32)
    assert selectivity(Candidate("meaning", "encoder", meaning), on, types)["selectivity"] > 0.1
    assert len(np.unique(control_task(types, y, 0)[types == 3])) == 1


def test_permuted_labels_move_by_unit_within_folds() -> None:
    y, units = np.array([0, 0, 1, 1, 1, 2, 3, 4]), np.array([0, 0, 1, 1, 1, 2, 3, 4])
    fold = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    drawn = [permuted(y, units, fold, seed) for seed in range(10)]
    for found in drawn:
        assert all(len(set(found[units == u])) == 1 for u in range(5))
        assert sorted(found[[0, 2, 5]]) == [0, 1, 2]
        assert sorted(found[6:]) == [3, 4]
    assert len({tuple(found) for found in drawn}) > 3


def test_pixels_are_means_of_cells_and_colours_are_counted() -> None:
    image = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    expected = image.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3)) / 255
    assert np.abs(np.asarray(pixels([image], 1).X).reshape(32, 32, 3) - expected).max() < 0.0045
    found = np.asarray(histogram([image], 1).X)[0]
    assert found.sum() == pytest.approx(1)
    red, green, blue = (image.reshape(-1, 3) // 64).T
    assert found[1 * 16 + 2 * 4 + 3] == pytest.approx(((red == 1) & (green == 2) & (blue == 3)).mean())


def test_many_pictures_get_fewer_pixels() -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    assert np.asarray(pixels((image for _ in range(4001)), 4001).X).shape == (4001, 768)
    assert majority(3).control
    assert not Candidate("a", "layer", np.zeros((1, 1), dtype=np.float32)).control
    assert len(majority(3)) == 3


def test_labels_saved_on_exact_curves() -> None:
    sizes = np.array([50.0, 100, 200, 400, 800, 1600])

    def error(n: np.ndarray) -> np.ndarray:
        return np.tile(1.0 * n**-0.4 + 0.02, (8, 1))

    four = labels_saved(sizes, error(4 * sizes), error(sizes))
    assert (four.times, four.bound) == (pytest.approx(4), "about")
    assert four.interval == (pytest.approx(4), pytest.approx(4))
    assert four.sentence == "The pretrained encoder is worth about 4.0 times your labels (4.0 to 4.0)."
    quarter = labels_saved(sizes, error(sizes / 4), error(sizes))
    assert (quarter.times, quarter.bound) == (pytest.approx(0.25), "about")
    far = labels_saved(sizes, error(100 * sizes), error(sizes))
    assert (far.times, far.bound) == (32, "at least")
    assert far.as_json()["sentence"] == "The pretrained encoder is worth at least 32.0 times your labels."
    assert labels_saved(sizes, error(sizes / 100), error(sizes)).bound == "at most"
