"""Are two samples of vectors of one Space drawn alike? Tests, and distances that describe.

MMD (Gretton et al. 2012), energy distance (Székely and Rizzo 2013), a classifier's held-out AUC (Lopez-Paz and Oquab
2017), KID (Bińkowski et al. 2018), Fréchet distance (Heusel et al. 2017), density and coverage (Naeem et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import svdvals
from scipy.stats import mannwhitneyu, rankdata
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import euclidean_distances

from heads.folds import Ints
from heads.report.verdict import Interval

Floats = NDArray[np.float64]
PERMUTATIONS, DRAWS = 199, 1000
NEIGHBOURS = 5


@dataclass(frozen=True)
class Sample:
    """Rows X (n, d) float64 and their units (n,), codes from 0; rows of one unit are not independent."""

    X: Floats
    units: Ints

    @classmethod
    def of(cls, X: NDArray[np.floating[Any]], units: Ints) -> Sample:
        """Make one from rows of any float type and any codes of units."""
        return cls(np.asarray(X, dtype=np.float64), np.unique(units, return_inverse=True)[1].astype(np.intp))

    def __len__(self) -> int:
        return len(self.X)

    @property
    def n_units(self) -> int:
        """How many units the rows are of."""
        return int(self.units.max()) + 1

    def take(self, rows: Ints) -> Sample:
        """Return these rows."""
        return Sample.of(self.X[rows], self.units[rows])

    def at_most(self, most: int, rng: np.random.Generator) -> Sample:
        """Return whole units, drawn at random, that have about `most` rows together (one unit at least)."""
        if len(self) <= most:
            return self
        rank = rng.permutation(self.n_units)
        filled = np.cumsum(np.bincount(rank[self.units])) <= most
        filled[0] = True
        return self.take(np.flatnonzero(filled[rank[self.units]]))

    def halves(self, rng: np.random.Generator) -> tuple[Sample, Sample]:
        """Return two halves of the units, at random."""
        first = np.isin(self.units, rng.permutation(self.n_units)[: self.n_units // 2])
        return self.take(np.flatnonzero(first)), self.take(np.flatnonzero(~first))


@dataclass(frozen=True)
class PermutationTest:
    """A statistic, and the share of relabellings of whole units (with itself) that reach it."""

    statistic: float
    p: float


@dataclass(frozen=True)
class ClassifierTest:
    """AUC of telling held-out units of the two apart (0.5: not at all), bootstrapped, with Mann and Whitney's p."""

    auc: float
    interval: Interval
    p: float
    held: tuple[int, int]


def mmd_and_energy(x: Sample, y: Sample, rng: np.random.Generator) -> tuple[PermutationTest, PermutationTest]:
    """Test by unbiased MMD² (Gaussian kernel) and by energy distance (V-statistic), on the same relabellings."""
    squared = euclidean_distances(np.concatenate([x.X, y.X]), squared=True)
    labels = _relabellings(x.units, y.units, rng)
    kernel = np.exp(-squared / bandwidth(squared))
    np.fill_diagonal(kernel, 0.0)
    return _tested(unbiased_mmd2(kernel, labels)), _tested(energy(np.sqrt(squared), labels))


def bandwidth(squared: Floats) -> float:
    """Return the median squared distance of the pooled rows, 1 where it is 0."""
    return float(np.median(squared[np.triu_indices(len(squared), 1)])) or 1.0


def unbiased_mmd2(kernel: Floats, labels: Floats) -> Floats:
    """Return (B,) MMD² from a kernel (N, N) with zero diagonal and labellings (B, N): 1 is the first sample."""
    within, between, other = _sums(kernel, labels)
    a = labels.sum(axis=1)
    b = labels.shape[1] - a
    return np.asarray(within / (a * (a - 1)) + other / (b * (b - 1)) - 2 * between / (a * b))


def energy(distances: Floats, labels: Floats) -> Floats:
    """Return (B,) energy distances 2E|x-y| - E|x-x'| - E|y-y'|, pairs of a row with itself counted."""
    within, between, other = _sums(distances, labels)
    a = labels.sum(axis=1)
    b = labels.shape[1] - a
    return np.asarray(2 * between / (a * b) - within / a**2 - other / b**2)


def _sums(matrix: Floats, labels: Floats) -> tuple[Floats, Floats, Floats]:
    within = ((labels @ matrix) * labels).sum(axis=1)
    between = labels @ matrix.sum(axis=0) - within
    return within, between, matrix.sum() - within - 2 * between


def _relabellings(x: Ints, y: Ints, rng: np.random.Generator) -> Floats:
    units = np.concatenate([x, y + x.max() + 1])
    first = np.arange(units.max() + 1) <= x.max()
    return np.stack([first[units], *(rng.permutation(first)[units] for _ in range(PERMUTATIONS))]).astype(np.float64)


def _tested(statistics: Floats) -> PermutationTest:
    # equal labellings differ by rounding, which must not count as smaller
    reached = statistics >= statistics[0] - 1e-12 * np.abs(statistics).max()
    return PermutationTest(float(statistics[0]), float(reached.mean()))


def classifier(x: Sample, y: Sample, rng: np.random.Generator) -> ClassifierTest:
    """Train a linear classifier (LDA, Ledoit-Wolf) on half of the units and rank the other half's means by it."""
    (x_train, x_held), (y_train, y_held) = x.halves(rng), y.halves(rng)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5])
    codes = np.repeat([0, 1], [len(x_train), len(y_train)])
    rows = np.concatenate([x_train.X, y_train.X])
    varying = np.ptp(rows, axis=0) > 0
    if not varying.any():
        varying[:1], rows[0, 0] = True, rows[0, 0] + 1.0
    model.fit(rows[:, varying], codes)
    a, b = (_by_unit(model.decision_function(held.X[:, varying]), held.units) for held in (y_held, x_held))
    test = mannwhitneyu(a, b, alternative="greater")
    return ClassifierTest(auc(a, b), _auc_interval(a, b, rng), float(test.pvalue), (len(b), len(a)))


def _by_unit(scores: Floats, units: Ints) -> Floats:
    return np.asarray(np.bincount(units, scores) / np.bincount(units))


def auc(high: Floats, low: Floats) -> float:
    """Return P(high > low) + P(equal)/2."""
    ranks = rankdata(np.concatenate([high, low]))[: len(high)]
    return float((ranks.sum() - len(high) * (len(high) + 1) / 2) / (len(high) * len(low)))


def _auc_interval(a: Floats, b: Floats, rng: np.random.Generator) -> Interval:
    above = (a[:, None] > b).astype(np.float64) + 0.5 * (a[:, None] == b)
    left = rng.multinomial(len(a), np.full(len(a), 1 / len(a)), size=DRAWS) / len(a)
    right = rng.multinomial(len(b), np.full(len(b), 1 / len(b)), size=DRAWS) / len(b)
    low, high = np.quantile(((left @ above) * right).sum(axis=1), [0.025, 0.975]).tolist()
    return low, high


def kid(x: Floats, y: Floats) -> float:
    """Return the unbiased MMD² of the kernel (x·y/d + 1)³; it may be negative."""
    kernels = [(a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in kernels[:2]]
    return float(sum(within) - 2 * kernels[2].mean())


def frechet(x: Floats, y: Floats) -> float:
    """Return ‖μ-μ'‖² + tr(Σ + Σ' - 2(ΣΣ')^½). It is biased up by about 1/n: compare it at equal n only.

    tr (ΣΣ')^½ is the sum of the singular values of AB', with A'A = Σ and B'B = Σ', so no d x d root is needed.
    """
    a, b = (rows - rows.mean(axis=0) for rows in (x, y))
    spread = sum(float((rows**2).sum()) / (len(rows) - 1) for rows in (a, b))
    roots = [np.linalg.qr(rows, mode="r") / np.sqrt(len(rows) - 1) for rows in (a, b)]
    shift = float(((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum())
    return max(0.0, shift + spread - 2 * float(svdvals(roots[0] @ roots[1].T).sum()))


def density_and_coverage(items: Floats, reference: Floats, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Return how densely the items fill the reference's k-neighbour balls (1: alike), and the share of balls hit.

    Between alike samples of equal size n coverage is about 1 - 2^-k.
    """
    radius = np.sort(euclidean_distances(reference), axis=1)[:, min(k, len(reference) - 1)]
    inside = euclidean_distances(items, reference) <= radius
    return float(inside.sum() / (k * len(items))), float(inside.any(axis=0).mean())


def describe(items: Floats, reference: Floats) -> dict[str, Any]:
    """Return what no verdict reads, on as many rows of each: `kid`, `frechet`, `density`, `coverage`, `rows`."""
    n = min(len(items), len(reference))
    items, reference = items[:n], reference[:n]
    density, coverage = density_and_coverage(items, reference)
    found = {"kid": kid(items, reference), "frechet": frechet(items, reference)}
    return found | {"density": density, "coverage": coverage, "rows": n}
