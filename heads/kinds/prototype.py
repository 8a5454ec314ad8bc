"""Nearest class mean by cosine: the answer when labels are few or have just changed.

Logits are cos(x, μ_c) / T. A label more or less moves one mean, O(d). T fits the cosines of rows that were left out of
their own class's mean, (n_c μ_c - x) / (n_c - 1).
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heads.kinds._affine import Affine, Codes, Doubles, temperature, unit
from heads.kinds.ridge import SCORED_UP_TO
from heads.stream import Floats, Rows, rows_at, rows_of, sums


class Prototype(Affine):
    """A classifier after scikit-learn's contract, which reads rows at unit length.

    Attributes after `fit`: `counts_` (C,), `sums_` (C, d) of unit rows, `temperature_`, and those of `Affine`.
    """

    UNIT = True
    LEARNED = ("temperature",)
    MORE = ("counts", "sums")

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, X: ArrayLike | Rows, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Learn from X (n, d) and labels y (n,); rows of one group are left out together when T is chosen."""
        rows, codes = self._read(X, y)
        n_classes = len(self.classes_)
        self.sums_ = np.zeros((n_classes, rows.shape[1]))
        for start, block in rows_of(rows).blocks():
            self.sums_ += sums(unit(block), codes[start : start + len(block)], n_classes)
        self.counts_ = np.bincount(codes, minlength=n_classes).astype(np.float64)
        picked = (np.arange(min(len(codes), SCORED_UP_TO)) * max(1.0, len(codes) / SCORED_UP_TO)).astype(np.intp)
        together = None if groups is None else np.asarray(groups)[picked]
        held = self._left_out(unit(rows_at(rows, picked)).astype(np.float64), codes[picked], together)
        self.temperature_ = temperature(held, codes[picked])
        return self._settle()

    def update(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Take more rows of known classes in; T stays. Raises `ValueError` for a class that `fit` did not see."""
        return self._change(X, y, 1.0)

    def downdate(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Take rows out that were taken in; T stays. Raises `ValueError` where a class has fewer."""
        return self._change(X, y, -1.0)

    def _change(self, X: ArrayLike, y: ArrayLike, sign: float) -> Self:
        codes = codes_of(y, self.classes_)
        counts = self.counts_ + sign * np.bincount(codes, minlength=len(self.classes_))
        if (counts < 0).any():
            raise ValueError("more rows of a class to remove than there are")
        self.counts_ = counts
        self.sums_ = self.sums_ + sign * sums(unit(np.asarray(X, dtype=np.float64)), codes, len(counts))
        return self._settle()

    def _settle(self) -> Self:
        self._set(np.asarray(unit(self.sums_) / self.temperature_, dtype=np.float64), np.zeros(len(self.classes_)))
        return self

    def _left_out(self, rows: Floats, codes: Codes, groups: NDArray[np.generic] | None) -> Doubles:
        """Return cosines (m, C), a row's own group taken out of its class's mean."""
        cosines, own = rows @ unit(self.sums_).T, self.sums_[codes] - rows
        if groups is not None:
            _, member = np.unique(
                np.stack([np.unique(groups, return_inverse=True)[1], codes]), axis=1, return_inverse=True
            )
            together = np.zeros((int(member.max()) + 1, rows.shape[1]))
            np.add.at(together, member, rows)
            own = self.sums_[codes] - together[member]
        cosines[np.arange(len(codes)), codes] = np.einsum("ij,ij->i", rows, unit(own))
        return np.asarray(cosines)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {"counts": self.intercept_.shape, "sums": self.coef_.shape}


def codes_of(y: ArrayLike, classes: NDArray[np.generic]) -> Codes:
    """Return labels as codes into sorted classes. Raises `ValueError` for one that is not among them."""
    labels = np.asarray(y)
    codes = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    if (unknown := labels[classes[codes] != labels]).size:
        raise ValueError(f"class {unknown[0]!r} was not there when it was fitted: fit again")
    return np.asarray(codes, dtype=np.intp)


ESTIMATOR = Prototype
