"""Weighted nearest neighbours: Σ exp(cos/τ) over the k nearest rows, by class (Wu et al. 2018; τ = 0.07).

The stored vectors are the model. A fitted one holds the unit rows; a saved head leaves them out and asks `neighbours`,
which looks them up where they are stored, so that a deleted row has no vote. `k` is chosen by left-out NLL, a row's
own group not counted among its neighbours. Votes are mixed with the class shares at 1/(k+1), since a class without a
neighbour is not impossible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from heads.kind import Arrays
from heads.kinds._affine import Codes, Doubles, ordered, unit
from heads.stream import Floats

KS = (5, 10, 20, 50)
SCORED_UP_TO = 5000
BLOCK = 512
TINY = 1e-12
Lookup = Callable[[Floats, int], tuple[Codes, Doubles]]


class Knn(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier after scikit-learn's contract.

    Attributes after `fit`: `classes_`, `rows_` (n, d) float32 of unit length, `codes_` (n,), `k_`, `path_` [[k,
    left-out NLL], …].
    """

    CHOSEN: ClassVar[dict[str, str]] = {"k": "k_"}
    ELSEWHERE: ClassVar[tuple[str, ...]] = ("rows",)
    neighbours: Lookup | None = None

    def __init__(self, k: int | None = None, temperature: float = 0.07, *, smooth: bool = True, seed: int = 0) -> None:
        self.k, self.temperature, self.smooth, self.seed = k, temperature, smooth, seed

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Learn from X (n, d) and labels y (n,). Without `groups`, equal rows are one group."""
        rows, labels = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        order, units = ordered(rows, codes, groups)
        self.rows_ = unit(rows[order]).astype(np.float32)
        self.codes_ = codes[order].astype(np.int64)
        self.path_: list[list[float]] = []
        self.k_ = self._choose(np.unique(units, return_inverse=True)[1]) if self.k is None else int(self.k)
        return self

    def _choose(self, units: Codes) -> int:
        n = len(units)
        picked = (np.arange(min(n, SCORED_UP_TO)) * max(1.0, n / SCORED_UP_TO)).astype(np.intp)
        at, cosines = self._nearest(self.rows_[picked], min(max(KS), n), (units, units[picked]))
        for k in KS:
            P = self._votes(self.codes_[at[:, :k]], cosines[:, :k], k)
            own = P[np.arange(len(picked)), self.codes_[picked]]
            self.path_.append([k, float(-np.log(np.maximum(own, TINY)).mean())])
        return int(min(self.path_, key=lambda pair: pair[1])[0])

    def predict_proba(self, X: ArrayLike) -> Doubles:
        """Return (m, C) probabilities, in the order of `classes_`."""
        check_is_fitted(self)
        rows = unit(validate_data(self, X, dtype=np.float64, reset=False)).astype(np.float32)
        if self.neighbours is not None:
            return self._votes(*self.neighbours(rows, self.k_), self.k_)
        at, cosines = self._nearest(rows, min(self.k_, len(self.rows_)))
        return self._votes(self.codes_[at], cosines, self.k_)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable label of each row, (m,)."""
        check_is_fitted(self)
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def _nearest(self, rows: Floats, k: int, apart: tuple[Codes, Codes] | None = None) -> tuple[Codes, Doubles]:
        """Return positions (m, k) and cosines; those of a query's own unit (`apart`) count as -∞."""
        places, values = [], []
        for start in range(0, len(rows), BLOCK):
            scores = (rows[start : start + BLOCK] @ self.rows_.T).astype(np.float64)
            if apart is not None:
                scores[apart[1][start : start + BLOCK, None] == apart[0]] = -np.inf
            best = (
                np.argpartition(-scores, k - 1, axis=1)[:, :k] if k < scores.shape[1] else np.argsort(-scores, axis=1)
            )
            found = np.take_along_axis(scores, best, axis=1)
            order = np.argsort(-found, axis=1, kind="stable")
            places.append(np.take_along_axis(best, order, axis=1))
            values.append(np.take_along_axis(found, order, axis=1))
        return np.concatenate(places), np.concatenate(values)

    def _votes(self, codes: Codes, cosines: Doubles, k: int) -> Doubles:
        """Return (m, C) from codes (m, k), -1 where there is no neighbour, and their cosines."""
        weights = np.where(codes >= 0, np.exp((cosines - 1) / self.temperature), 0.0)
        found = np.zeros((len(codes), len(self.classes_)))
        np.add.at(found, (np.arange(len(codes))[:, None], np.maximum(codes, 0)), weights)
        share = np.bincount(self.codes_, minlength=len(self.classes_)) / len(self.codes_)
        total = found.sum(axis=1, keepdims=True)
        votes = np.where(total > 0, found / np.where(total > 0, total, 1), share)
        return np.asarray((k * votes + share) / (k + 1) if self.smooth else votes)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return `codes` (n,) int64, and `rows` (n, d) float32 where it holds them."""
        return {"codes": self.codes_} | ({} if self.neighbours else {"rows": self.rows_})

    def params(self) -> dict[str, Any]:
        """Return the rest as JSON values."""
        facts = {"classes": self.classes_.tolist(), "dim": self.n_features_in_, "k": self.k_, "path": self.path_}
        return {**facts, "arguments": self.get_params()}

    @classmethod
    def without_rows(cls, arrays: Arrays, params: Mapping[str, Any]) -> Self:
        """Make one that needs `neighbours`, from what `arrays` without `rows`, and `params`, returned."""
        made = cls(**params["arguments"])
        made.classes_, made.k_, made.path_ = np.asarray(params["classes"]), int(params["k"]), params["path"]
        made.codes_, made.n_features_in_ = arrays["codes"], int(params["dim"])
        return made

    @classmethod
    def restore(cls, arrays: Arrays, params: Mapping[str, Any]) -> Self:
        """Make one from what `arrays` and `params` returned."""
        made = cls.without_rows(arrays, {"dim": arrays["rows"].shape[1], **params})
        made.rows_ = arrays["rows"]
        if made.codes_.shape != made.rows_.shape[:1]:
            raise ValueError(f"rows {made.rows_.shape} and codes {made.codes_.shape} do not fit together")
        return made


ESTIMATOR = Knn
