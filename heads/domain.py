"""How ordinary a query is: a percentile of its distance to the training vectors, among rows that are like them.

The score is 1 - cosine to the K-th nearest of a reference half of the training units (Sun et al. 2022,
arXiv:2204.06507); the percentile p = (1 + #{calibration >= s}) / (n_cal + 1) is taken among the other half, so for a
query that is exchangeable with the training rows P(p <= alpha) <= alpha.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedder.records import FloatMatrix
from index.view import unit

Floats = NDArray[np.float64]
K = 5
MOST_REFERENCE, MOST_CALIBRATION = 2000, 1000
FOREIGN = 0.05
TILE = 1024


@dataclass(frozen=True)
class Domain:
    """`reference` (m, dim) float32 unit rows about `mean` (dim,); `calibration` (n_cal,) scores, ascending."""

    mean: FloatMatrix
    reference: FloatMatrix
    calibration: Floats

    def scores(self, X: FloatMatrix) -> Floats:
        """Return 1 - cosine to the K-th nearest reference row, (n,)."""
        k = min(K, len(self.reference))
        parts = []
        for start in range(0, len(X), TILE):
            near = unit(X[start : start + TILE] - self.mean) @ self.reference.T
            parts.append(1.0 - np.partition(near, len(self.reference) - k, axis=1)[:, len(self.reference) - k])
        return np.concatenate(parts).astype(np.float64) if parts else np.empty(0)

    def percentile(self, X: FloatMatrix) -> Floats:
        """Return p of each row of X (n, dim), in (0, 1]: small where it is unlike the training rows."""
        below = np.searchsorted(self.calibration, self.scores(X), side="left")
        return np.asarray((1 + len(self.calibration) - below) / (len(self.calibration) + 1))


def fit(X: FloatMatrix, units: Sequence[str], seed: int = 0, rows: NDArray[np.intp] | None = None) -> Domain | None:
    """Fit to training rows of X (n, dim), all or those at `rows`; None where there are too few to say anything.

    The split depends on the units' names and `seed`, not on the order of the rows; units stay whole. One row of each
    unit is used, so that copies do not count twice; at most 2,000 as reference and 1,000 to calibrate.
    """
    first: dict[str, int] = {}
    for row in range(len(units)) if rows is None else rows.tolist():
        first.setdefault(units[row], row)
    drawn = sorted(first, key=lambda name: hashlib.blake2b(f"{seed}\0domain\0{name}".encode(), digest_size=8).digest())
    n_reference = min(len(drawn) // 2, MOST_REFERENCE)
    if n_reference < K:
        return None
    reference = X[[first[name] for name in drawn[:n_reference]]].astype(np.float32)
    held = X[[first[name] for name in drawn[n_reference : n_reference + MOST_CALIBRATION]]]
    mean = reference.mean(axis=0, dtype=np.float64).astype(np.float32)
    found = Domain(mean, unit(reference - mean), np.empty(0))
    return Domain(mean, found.reference, np.sort(found.scores(held)))
