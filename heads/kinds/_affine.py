"""What kinds share whose logits are affine in a row, perhaps of unit length (no kind: a base class)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from heads.kind import Arrays
from heads.stream import Floats, Rows

Doubles = NDArray[np.float64]
Codes = NDArray[np.intp]

TINY = 1e-12
HOTTEST, COLDEST = 1e2, 1e-3


class Affine(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose logits are ((x - mean_) / scale_) · coef_ᵀ + intercept_; of x / ‖x‖ where `UNIT` says so.

    A kind sets after `fit`: `classes_` (C,), `coef_` (C, d), `intercept_` (C,), `mean_` (d,), `scale_`, all float64.
    """

    STREAMS: ClassVar[bool] = True
    UNIT: ClassVar[bool] = False
    LEARNED: ClassVar[tuple[str, ...]] = ()
    MORE: ClassVar[tuple[str, ...]] = ()

    def decision_function(self, X: ArrayLike) -> Doubles:
        """Return logits: (m, C), or for two classes (m,), how much higher the second one's is."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: ArrayLike) -> Doubles:
        """Return (m, C) probabilities, in the order of `classes_`."""
        return np.asarray(softmax(self._logits(X), axis=1))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable label of each row, (m,)."""
        logits = self._logits(X)
        return np.asarray(self.classes_[logits.argmax(axis=1)])

    def _logits(self, X: ArrayLike) -> Doubles:
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=np.float64, reset=False)
        rows = unit(rows) if self.UNIT else rows
        return np.asarray((rows - self.mean_) / self.scale_ @ self.coef_.T + self.intercept_)

    def _read(self, X: ArrayLike | Rows, y: ArrayLike) -> tuple[Floats | Rows, Codes]:
        """Check both, set `classes_` and `n_features_in_`, and return the rows with their codes."""
        if isinstance(X, Rows):
            labels = np.asarray(y)
            self.n_features_in_, rows = X.shape[1], X
        else:
            rows, labels = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        return rows, np.asarray(codes, dtype=np.intp)

    def _set(self, coef: Doubles, intercept: Doubles, mean: Doubles | None = None, scale: float = 1.0) -> None:
        self.coef_, self.intercept_, self.scale_ = np.ascontiguousarray(coef), intercept, scale
        self.mean_ = np.zeros(coef.shape[1]) if mean is None else mean

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return `coef` (C, d), `intercept` (C,) and `mean` (d,), float64, and what the kind adds."""
        found = {"coef": self.coef_, "intercept": self.intercept_, "mean": self.mean_}
        return found | {name: getattr(self, f"{name}_") for name in self.MORE}

    def params(self) -> dict[str, Any]:
        """Return the arguments, the classes, the scale and what the kind adds, as JSON values."""
        learned = {name: getattr(self, f"{name}_") for name in self.LEARNED}
        facts = {"classes": self.classes_.tolist(), "scale": float(self.scale_)}
        return {**facts, **learned, "arguments": self.get_params()}

    @classmethod
    def restore(cls, arrays: Arrays, params: Mapping[str, Any]) -> Self:
        """Make one from what `arrays` and `params` returned."""
        made = cls(**params["arguments"])
        made.classes_, made.scale_ = np.asarray(params["classes"]), float(params["scale"])
        for name in ("coef", "intercept", "mean", *cls.MORE):
            setattr(made, f"{name}_", arrays[name])
        for name in cls.LEARNED:
            setattr(made, f"{name}_", params[name])
        made.n_features_in_ = made.coef_.shape[1]
        expected = {"coef": (len(made.classes_), made.n_features_in_), "intercept": (len(made.classes_),)}
        for name, shape in (expected | {"mean": (made.n_features_in_,)} | made._shapes()).items():
            if arrays[name].shape != shape:
                raise ValueError(f"{name} is {arrays[name].shape}, not {shape}")
        return made

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays that the kind adds."""
        return {}


def digests(rows: Floats) -> list[str]:
    """Return a name for the content of each row."""
    return [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in np.ascontiguousarray(rows)]


def ordered(rows: Floats, codes: NDArray[Any], groups: ArrayLike | None) -> tuple[NDArray[np.intp], list[str]]:
    """Return an order that does not depend on the one given, and each row's unit in it: equal rows, or its group.

    `codes` is (n,), or (n, C) where a row has several classes.
    """
    units = digests(rows) if groups is None else names_of(groups, len(rows))
    rank = np.argsort(np.argsort(np.asarray(units, dtype=object), kind="stable"), kind="stable")
    order = np.lexsort([rank, *(codes.T if codes.ndim == 2 else [codes]), sketches(rows)])
    return order, [units[i] for i in order]


def sketches(rows: Floats) -> NDArray[np.uint64]:
    """Return a number for the content of each row: equal rows have equal ones, and others hardly ever."""
    words = np.ascontiguousarray(rows).view(np.uint32)
    odd = np.random.default_rng(0).integers(1 << 63, size=words.shape[1], dtype=np.uint64) * 2 + 1
    return np.concatenate([np.empty(0, np.uint64), *(part @ odd for part in _parts(words))])


def _parts(words: NDArray[np.uint32]) -> Iterator[NDArray[np.uint64]]:
    return (words[a : a + 1024].astype(np.uint64) for a in range(0, len(words), 1024))


def names_of(groups: ArrayLike | None, n: int) -> list[str]:
    """Return the unit of each of n rows that are gone through by blocks: its group, or itself."""
    return [str(group) for group in (range(n) if groups is None else cast(Sequence[Any], groups))]


def unit(rows: Floats) -> Floats:
    """Return rows of length one; a row of zeros stays."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), TINY))


def temperature(scores: Doubles, y: Codes) -> float:
    """Return the T > 0 for which softmax(scores / T) has the least NLL on held-out scores (n, C)."""

    def nll(log_t: float) -> float:
        z = scores / np.exp(log_t)
        return float(np.mean(logsumexp(z, axis=1) - z[np.arange(len(y)), y]))

    spread = float(np.abs(scores - scores.mean(axis=1, keepdims=True)).max()) or 1.0
    bounds = np.log(spread * COLDEST), np.log(spread * HOTTEST)
    return float(np.exp(minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))
