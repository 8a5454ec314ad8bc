"""Ridge regression to class codes over fixed folds: the cheap probe that orders many candidates, and permutes labels.

Every training part's normal equations are sums of the folds' own, so one pass over the rows gives the models of all
folds and, for pairs of folds, those of the inner choice: what is held out twice is solved once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from embedder.records import FloatMatrix
from heads.folds import Ints

Floats = NDArray[np.float64]
GRID = (0.001, 0.01, 0.1, 1.0)
FIXED = 1.0
MOST_CELLS = 20_000_000


@dataclass(frozen=True)
class Fit:
    """How well each of several sets of labels was predicted, held out: `accuracy` (L,), and `error` (L,), the mean
    squared distance of what was predicted to the labels' codes."""

    accuracy: Floats
    error: Floats


@dataclass(frozen=True)
class RidgeProbe:
    """`correct` (n,) held-out; `inner` (k,): accuracy inside each fold's training rows, each held out once more."""

    correct: NDArray[np.bool_]
    inner: Floats

    @property
    def accuracy(self) -> float:
        """Share of rows predicted right."""
        return float(self.correct.mean())


class FoldRidge:
    """The factors of (X, fold), ready for any labels.

    Args:
        X: (n, d) float; where n < d it is rotated into n axes first, which changes nothing.
        fold: (n,) codes 0 to k-1, k >= 3.
    """

    def __init__(self, X: FloatMatrix, fold: Ints) -> None:
        rows = np.asarray(X, dtype=np.float32) - X.mean(axis=0, dtype=np.float64).astype(np.float32)
        if rows.shape[0] < rows.shape[1]:
            u, s, _ = np.linalg.svd(rows, full_matrices=False)
            rows = u * s
        self.fold, self.rows = fold, [np.flatnonzero(fold == k) for k in range(int(fold.max()) + 1)]
        self.parts = [np.asarray(rows[at], dtype=np.float32) for at in self.rows]
        self.grams = [np.asarray(part.T @ part, dtype=np.float64) for part in self.parts]
        self.sums = [part.sum(axis=0, dtype=np.float64) for part in self.parts]

    def probe(self, y: Ints, n_classes: int) -> RidgeProbe:
        """Predict every fold by the others, the penalty chosen among `GRID` by accuracy inside those others."""
        known = self._known([_one_hot(y[at], n_classes) for at in self.rows])
        right = np.zeros((len(GRID), len(self.parts)))
        for f, g in combinations(range(len(self.parts)), 2):
            for c, weights in enumerate(self._solved(known, (f, g), GRID)):
                right[c, f] += self._hits(g, weights, y).sum()
                right[c, g] += self._hits(f, weights, y).sum()
        held = np.array([len(self.fold) - len(at) for at in self.rows])
        chosen = right.argmax(axis=0)
        correct = np.zeros(len(y), dtype=bool)
        for f, at in enumerate(self.rows):
            (weights,) = self._solved(known, (f,), [GRID[chosen[f]]])
            correct[at] = self._hits(f, weights, y)
        return RidgeProbe(correct, right.max(axis=0) / held)

    def fits(self, ys: Sequence[Ints], n_classes: int) -> Fit:
        """Predict each set of labels at one fixed penalty."""
        many = max(1, MOST_CELLS // (max(map(len, self.rows)) * n_classes))
        blocks = [self._fits(ys[start : start + many], n_classes) for start in range(0, len(ys), many)]
        return Fit(np.concatenate([b.accuracy for b in blocks]), np.concatenate([b.error for b in blocks]))

    def _fits(self, ys: Sequence[Ints], n_classes: int) -> Fit:
        hot = [np.concatenate([_one_hot(y[at], n_classes) for y in ys], axis=1) for at in self.rows]
        known = self._known(hot)
        right, error = np.zeros(len(ys)), np.zeros(len(ys))
        for f, at in enumerate(self.rows):
            ((W, b),) = self._solved(known, (f,), [FIXED])
            given = (self.parts[f] @ W + b).reshape(len(at), len(ys), n_classes)
            right += (given.argmax(axis=2) == np.stack([y[at] for y in ys], axis=1)).sum(axis=0)
            error += ((given - hot[f].reshape(given.shape)) ** 2).sum(axis=(0, 2), dtype=np.float64)
        return Fit(right / len(self.fold), error / len(self.fold))

    def _hits(self, f: int, weights: tuple[FloatMatrix, FloatMatrix], y: Ints) -> NDArray[np.bool_]:
        return np.asarray((self.parts[f] @ weights[0] + weights[1]).argmax(axis=1) == y[self.rows[f]])

    def _known(self, hot: list[FloatMatrix]) -> list[tuple[Floats, Floats]]:
        """Return for each fold what its labels add to the equations: products with the rows, and counts."""
        return [
            (np.asarray(part.T @ own, dtype=np.float64), own.sum(axis=0, dtype=np.float64))
            for part, own in zip(self.parts, hot, strict=True)
        ]

    def _solved(
        self, known: list[tuple[Floats, Floats]], without: tuple[int, ...], penalties: Sequence[float]
    ) -> list[tuple[FloatMatrix, FloatMatrix]]:
        """Return (W, b) for each penalty, fitted to all folds but `without`, the intercept unpenalised."""
        kept = [k for k in range(len(self.parts)) if k not in without]
        n = sum(len(self.rows[k]) for k in kept)
        mean = np.sum([self.sums[k] for k in kept], axis=0) / n
        share = np.sum([known[k][1] for k in kept], axis=0) / n
        gram = np.sum([self.grams[k] for k in kept], axis=0) - n * np.outer(mean, mean)
        target = np.sum([known[k][0] for k in kept], axis=0) - n * np.outer(mean, share)
        unit = max(float(np.trace(gram)) / len(gram), float(np.finfo(np.float64).tiny))
        found = []
        for penalty in penalties:
            W = cho_solve(cho_factor(gram + penalty * unit * np.eye(len(gram))), target)
            found.append((W.astype(np.float32), (share - mean @ W).astype(np.float32)))
        return found


def _one_hot(y: Ints, n_classes: int) -> FloatMatrix:
    return np.eye(n_classes, dtype=np.float32)[y]
