"""Linear discriminant analysis with a shrunken covariance, from moments that take rows in and out.

w_c = Σ⁻¹μ_c and b_c = -½ μ_cᵀw_c + log π_c with Σ = (1-rho) S/n + rho tr(S/n)/d · I, S the scatter within classes: what
scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=rho)` solves, and streaming LDA (Hayes & Kanan 2020)
with rho of another form. rho is Ledoit & Wolf's (2004) on the rows less their class's mean.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve

from heads.kinds._affine import Affine, Codes
from heads.kinds.prototype import codes_of
from heads.stream import Moments, Rows, rows_of

LEAST_SHRINKAGE = 1e-6


class Lda(Affine):
    """A classifier after scikit-learn's contract.

    Attributes after `fit`: `counts_` (C,), `means_` (C, d), `scatter_` (d, d), `shrinkage_`, and those of `Affine`.
    """

    LEARNED = ("shrinkage",)
    MORE = ("counts", "means", "scatter")

    def __init__(self, shrinkage: float | None = None, *, seed: int = 0) -> None:
        self.shrinkage, self.seed = shrinkage, seed

    def fit(self, X: ArrayLike | Rows, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Learn from X (n, d) and labels y (n,), in two or three passes by blocks; nothing is held out."""
        read, codes = self._read(X, y)
        rows = rows_of(read)
        moments = Moments.of(rows, codes, len(self.classes_))
        self.shrinkage_ = ledoit_wolf(rows, codes, moments) if self.shrinkage is None else float(self.shrinkage)
        return self._settle(moments)

    def update(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Take more rows of known classes in; rho stays. Raises `ValueError` for a class that `fit` did not see."""
        moments = self._moments()
        moments.add(np.asarray(X), codes_of(y, self.classes_))
        return self._settle(moments)

    def downdate(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Take rows out that were taken in, exactly; rho stays. Raises `ValueError` where a class has fewer."""
        moments = self._moments()
        moments.remove(np.asarray(X), codes_of(y, self.classes_))
        return self._settle(moments)

    def _moments(self) -> Moments:
        return Moments(self.counts_.copy(), self.means_.copy(), self.scatter_.copy())

    def _settle(self, moments: Moments) -> Self:
        self.counts_, self.means_, self.scatter_ = moments.counts, moments.means, moments.scatter
        d = len(self.scatter_)
        covariance = self.scatter_ / moments.n
        level = float(np.trace(covariance)) / d or 1.0
        # a floor keeps it solvable where rows are few or equal; it is far below what shrinkage usually adds
        shrunk = (1 - self.shrinkage_) * covariance + (self.shrinkage_ * level) * np.eye(d)
        if self.shrinkage_ < LEAST_SHRINKAGE:
            shrunk += LEAST_SHRINKAGE**2 * level * np.eye(d)
        W = cho_solve(cho_factor(shrunk), self.means_.T).T
        prior = np.log(np.maximum(self.counts_, 0.5) / moments.n)
        self._set(W, prior - 0.5 * np.einsum("cd,cd->c", self.means_, W))
        return self

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        c, d = self.coef_.shape
        return {"counts": (c,), "means": (c, d), "scatter": (d, d)}


def ledoit_wolf(rows: Rows, y: Codes, moments: Moments) -> float:
    """Return Ledoit & Wolf's shrinkage, in [0, 1], of the covariance within classes; a pass through the rows."""
    d, fourth = rows.shape[1], 0.0
    means = moments.means.astype(rows.dtype)
    for start, block in rows.blocks():
        off = block - means[y[start : start + len(block)]]
        fourth += float(np.sum(np.einsum("ij,ij->i", off, off, dtype=np.float64) ** 2))
    covariance = moments.scatter / moments.n
    square = float(np.vdot(covariance, covariance))
    apart = square - float(np.trace(covariance)) ** 2 / d
    noise = (fourth / moments.n - square) / moments.n
    return float(np.clip(noise / apart, 0, 1)) if apart > 0 else 1.0


ESTIMATOR = Lda
