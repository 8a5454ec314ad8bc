from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import energy_distance
from sklearn.metrics import roc_auc_score

from heads.report import twosample
from heads.report.twosample import (
    Sample,
    auc,
    bandwidth,
    classifier,
    density_and_coverage,
    describe,
    energy,
    frechet,
    kid,
    mmd_and_energy,
    unbiased_mmd2,
)  # fmt: skip

# transfer_oracles.json, two_sample: by brute force with numpy
X = np.array([[1.431, -0.764], [-0.277, -1.78], [0.338, 0.445], [0.651, -0.927], [0.236, -0.884]])
Y = np.array([[0.521, 0.921], [2.293, 0.56], [1.174, 0.153], [0.427, 0.295]])


def alone(rows: np.ndarray) -> Sample:
    return Sample.of(rows, np.arange(len(rows)))


def drawn(n: int, d: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    rows = np.concatenate([x, y])
    return ((rows[:, None] - rows) ** 2).sum(axis=2)


def test_mmd_and_energy_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    assert bandwidth(squared(X, Y)) == pytest.approx(1.967783, rel=1e-9)
    mmd, distance = mmd_and_energy(alone(X), alone(Y), rng)
    assert mmd.statistic == pytest.approx(0.28645215296788473, rel=1e-9)
    assert distance.statistic == pytest.approx(1.3972844105906521, rel=1e-9)


def test_energy_in_one_dimension_is_scipys_squared() -> None:
    a, b = drawn(30, 1), drawn(20, 1, 1) + 0.5
    labels = np.repeat([1.0, 0.0], [30, 20])[None]
    found = energy(np.sqrt(squared(a, b)), labels)[0]
    assert found == pytest.approx(energy_distance(a[:, 0], b[:, 0]) ** 2, rel=1e-9)


def test_each_labelling_of_many_is_computed_as_if_alone() -> None:
    kernel = np.exp(-squared(X, Y))
    np.fill_diagonal(kernel, 0)
    labels = np.array([[1, 1, 1, 1, 1, 0, 0, 0, 0], [0, 1, 0, 1, 1, 0, 0, 1, 1]], dtype=float)
    for row, found in zip(labels.astype(bool), unbiased_mmd2(kernel, labels), strict=True):
        a, b = kernel[row][:, row], kernel[~row][:, ~row]
        within = a.sum() / (len(a) * (len(a) - 1)) + b.sum() / (len(b) * (len(b) - 1))
        assert found == pytest.approx(within - 2 * kernel[row][:, ~row].mean())


def test_units_are_relabelled_whole() -> None:
    x, y = np.array([0, 0, 1, 2], dtype=np.intp), np.array([0, 1, 1], dtype=np.intp)
    labels = twosample._relabellings(x, y, np.random.default_rng(0))
    assert labels[0].tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert len(np.unique(labels, axis=0)) > 5
    assert (labels[:, 0] == labels[:, 1]).all()
    assert (labels[:, 5] == labels[:, 6]).all()
    by_unit = labels[:, [0, 2, 3, 4, 5]]
    assert (by_unit.sum(axis=1) == 3).all()


def test_permutation_p_counts_the_sample_itself_and_its_ties() -> None:
    constant = mmd_and_energy(alone(np.zeros((10, 3))), alone(np.zeros((10, 3))), np.random.default_rng(0))
    assert [test.p for test in constant] == [1.0, 1.0]
    far = mmd_and_energy(alone(drawn(30)), alone(drawn(30, seed=1) + 5), np.random.default_rng(0))
    assert [test.p for test in far] == [1 / 200, 1 / 200]


def test_auc_is_scikit_learns_with_ties() -> None:
    rng = np.random.default_rng(3)
    high, low = rng.integers(0, 6, 40) + 1.0, rng.integers(0, 6, 25).astype(float)
    truth = np.repeat([1, 0], [40, 25])
    assert auc(high, low) == pytest.approx(roc_auc_score(truth, np.concatenate([high, low])))


def test_the_classifier_tells_a_shift_and_brackets_its_auc() -> None:
    found = classifier(alone(drawn(200)), alone(drawn(200, seed=1) + 0.5), np.random.default_rng(0))
    assert found.held == (100, 100)
    assert found.interval[0] < found.auc < found.interval[1]
    assert found.auc > 0.8
    assert found.p < 1e-6


def test_the_classifier_works_on_equal_rows_and_more_dimensions_than_rows() -> None:
    same = classifier(alone(np.ones((40, 3))), alone(np.ones((40, 3))), np.random.default_rng(0))
    assert same.p > 0.05
    wide = classifier(alone(drawn(40, 300)), alone(drawn(40, 300, 1) + 1), np.random.default_rng(0))
    assert wide.auc > 0.9


def test_frechet_is_that_of_the_closed_form_with_a_matrix_root() -> None:
    for n, d in ((60, 5), (8, 30)):
        a, b = drawn(n, d), 2 * drawn(n + 3, d, 1) + 1
        covariances = [np.cov(rows, rowvar=False) for rows in (a, b)]
        root = np.trace(sqrtm(covariances[0] @ covariances[1])).real if n > d else None
        shift = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
        if root is None:
            values = np.linalg.eigvals(covariances[0] @ covariances[1]).real
            root = np.sqrt(np.maximum(values, 0)).sum()
        expected = shift + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root
        assert frechet(a, b) == pytest.approx(expected, rel=1e-4)


def test_frechet_of_exact_moments() -> None:
    """Rows whose means and covariances are (0, 0), diag(1, 4) and (1, 2), diag(4, 1): the oracle's 7."""
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * np.sqrt(3 / 4)
    assert frechet(corners * [1, 2], corners * [2, 1] + [1, 2]) == pytest.approx(7)


def test_kid_by_hand() -> None:
    x, y = np.array([[1.0], [0.0]]), np.array([[2.0], [0.0]])
    assert kid(x, y) == pytest.approx(1 + 1 - 2 * (27 + 1 + 1 + 1) / 4)


def test_coverage_of_samples_drawn_alike_is_the_closed_form() -> None:
    found = np.mean([density_and_coverage(drawn(500, 8, s), drawn(500, 8, 100 + s)) for s in range(5)], axis=0)
    assert found == pytest.approx([1.0, 0.9692], abs=0.04)
    assert density_and_coverage(drawn(50) + 100, drawn(50)) == (0.0, 0.0)


def test_descriptions_are_of_as_many_rows_of_each() -> None:
    found = describe(drawn(30), drawn(50, seed=1))
    assert found["rows"] == 30
    assert found["frechet"] == frechet(drawn(30), drawn(50, seed=1)[:30])


def test_subsamples_keep_units_whole_and_are_of_about_the_size_asked() -> None:
    units = np.repeat(np.arange(40), 5)
    sample = Sample.of(drawn(200), units).at_most(52, np.random.default_rng(0))
    assert len(sample) == 50
    assert np.bincount(sample.units).tolist() == [5] * 10
    one = Sample.of(drawn(20), np.zeros(20, dtype=np.intp)).at_most(5, np.random.default_rng(0))
    assert len(one) == 20


def test_halves_share_no_unit_and_lose_no_row() -> None:
    units = np.array([3, 3, 5, 7, 7, 9, 9, 9], dtype=np.intp)
    first, second = Sample.of(np.arange(8.0)[:, None], units).halves(np.random.default_rng(1))
    sides = [set(units[half.X[:, 0].astype(int)].tolist()) for half in (first, second)]
    assert not sides[0] & sides[1]
    assert len(first) + len(second) == 8
    assert {first.n_units, second.n_units} == {2}
