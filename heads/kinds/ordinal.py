"""Classes in an order: cumulative logits with proportional odds (McCullagh 1980).

P(y <= k | x) = 1 / (1 + exp(-(θ_k - x·w))): one direction for all classes, and C-1 thresholds that ascend. The mean
negative log likelihood plus ‖w‖²/(2nC) is convex in (w, θ) (Burridge 1981) and is minimised by L-BFGS on axes that the
curvature's bound scales, along a path of penalties. Rows are prepared as `linear` prepares them, and C is chosen
alike. With two classes it is logistic regression.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from heads.folds import assign
from heads.kind import Arrays
from heads.kinds._affine import Codes, Doubles, ordered
from heads.kinds.linear import ALL_FOLDS_UP_TO, FOLDS, GRID, ONE_THREAD_UP_TO, chosen_from, principal_axes, scale_of

MAX_ITERATIONS = 1000
LEAST_GAP = -30.0
TOL_CHOOSING, TOL = 1e-4, 1e-8


class Ordinal(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier after scikit-learn's contract; the order of the classes is that of their labels.

    Attributes after `fit`: `classes_` (C,), `C_`, `coef_` (d,) and `theta_` (C-1,) on rows less `mean_` (d,) over
    `scale_`, `path_` [[C, held-out NLL], …], `n_features_in_`.
    """

    CHOSEN: ClassVar[dict[str, str]] = {"C": "C_"}

    def __init__(self, C: float | None = None, *, seed: int = 0) -> None:
        self.C, self.seed = C, seed

    def __sklearn_tags__(self) -> Tags:
        """Say that classes which lie in no order are told apart poorly."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Learn from X (n, d) and labels y (n,). Without `groups`, equal rows are one group."""
        given, labels = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        order, units = ordered(given, codes, groups)
        work = given.size * min(given.shape)
        with threadpool_limits(limits=1 if work <= ONE_THREAD_UP_TO else None, user_api="blas"):
            self._solve(given[order].astype(np.float64), codes[order], units)
        return self

    def _solve(self, rows: Doubles, codes: Codes, units: list[str]) -> None:
        self.mean_, d = rows.mean(axis=0), rows.shape[1]
        centred = rows - self.mean_
        axes = principal_axes(centred)
        rotated = centred @ axes
        if self.C is None:
            self.path_, self.C_ = chosen_from(_folds(rotated, codes, units, d, self.seed))
        else:
            self.path_, self.C_ = [], float(self.C)
        self.scale_ = scale_of(centred, d)
        (found,) = path(rotated / self.scale_, codes, len(self.classes_), [self.C_])
        self.coef_, self.theta_ = axes @ found.w, found.theta

    def predict_proba(self, X: ArrayLike) -> Doubles:
        """Return (m, C) probabilities, in the order of `classes_`."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=np.float64, reset=False)
        below = expit(self.theta_ - ((rows - self.mean_) / self.scale_ @ self.coef_)[:, None])
        ends = np.zeros((len(rows), 1)), np.ones((len(rows), 1))
        return np.asarray(np.maximum(np.diff(np.hstack([ends[0], below, ends[1]]), axis=1), 0))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable label of each row, (m,)."""
        chances = self.predict_proba(X)
        return np.asarray(self.classes_[chances.argmax(axis=1)])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return `coef` (d,), `theta` (C-1,) and `mean` (d,), float64."""
        return {"coef": self.coef_, "theta": self.theta_, "mean": self.mean_}

    def params(self) -> dict[str, Any]:
        """Return the rest as JSON values."""
        facts = {"classes": self.classes_.tolist(), "scale": self.scale_, "C": self.C_, "path": self.path_}
        return {**facts, "arguments": self.get_params()}

    @classmethod
    def restore(cls, arrays: Arrays, params: Mapping[str, Any]) -> Self:
        """Make one from what `arrays` and `params` returned."""
        made = cls(**params["arguments"])
        made.classes_, made.scale_ = np.asarray(params["classes"]), float(params["scale"])
        made.C_, made.path_ = float(params["C"]), params["path"]
        made.coef_, made.theta_, made.mean_ = arrays["coef"], arrays["theta"], arrays["mean"]
        made.n_features_in_ = len(made.coef_)
        if made.theta_.shape != (len(made.classes_) - 1,) or made.mean_.shape != made.coef_.shape:
            raise ValueError(f"{made.coef_.shape}, {made.theta_.shape} and {made.mean_.shape} do not fit together")
        return made


@dataclass(frozen=True)
class Line:
    """A direction `w` (d,) and thresholds `theta` (C-1,), ascending."""

    w: Doubles
    theta: Doubles

    def losses(self, X: Doubles, y: Codes) -> Doubles:
        """Return the negative log likelihood of each row, (n,), in nats."""
        return _likelihood(X @ self.w, self.theta, y)[0]


def _likelihood(f: Doubles, theta: Doubles, y: Codes) -> tuple[Doubles, Doubles, Doubles]:
    """Return -log(F(b) - F(a)) of each row and its derivatives by b = θ_y - f and a = θ_(y-1) - f, all (n,).

    F is the logistic function. F(b) - F(a) = F(b) F(-a) (1 - exp(a - b)), which loses no
    digits; beyond the ends b is ∞ and a is -∞.
    """
    ends = np.concatenate([[-np.inf], theta, [np.inf]])
    a, b = ends[y] - f, ends[y + 1] - f
    gap = ends[y + 1] - ends[y]
    shrink = np.exp(-gap)
    pull = shrink / np.maximum(-np.expm1(-gap), 1e-300)
    value = np.logaddexp(0, -b) + np.logaddexp(0, a) - np.log(np.maximum(-np.expm1(-gap), 1e-300))
    return value, -expit(-b) - pull, expit(a) + pull


def path(X: Doubles, y: Codes, n_classes: int, Cs: Sequence[float], tol: float = TOL) -> Iterator[Line]:
    """Yield the optimum for each C from the one before; `X` (n, d) is centred, each code of `y` has a row.

    It stops where no scaled derivative is above `tol`.
    """
    n, d = X.shape
    share = np.cumsum(np.bincount(y, minlength=n_classes))[:-1] / n
    theta = np.log(share / (1 - share))
    gaps = np.log(np.maximum(np.diff(theta), 1e-3))
    at, variance = np.concatenate([np.zeros(d), theta[:1], gaps]), X.var(axis=0)
    for C in Cs:
        penalty = 1 / (n * C)
        size = np.concatenate([1 / np.sqrt(variance / 4 + penalty), np.ones(n_classes - 1)])
        found = minimize(
            _objective, at / size, args=(X, y, penalty, size), jac=True, method="L-BFGS-B",
            bounds=[(None, None)] * (d + min(1, n_classes - 1)) + [(LEAST_GAP, None)] * max(0, n_classes - 2),
            options={"maxiter": MAX_ITERATIONS, "maxcor": 20, "gtol": tol, "ftol": 1e-4 * tol},
        )  # fmt: skip
        at = found.x * size
        yield Line(at[:d], _ascending(at[d:]))


def _ascending(free: Doubles) -> Doubles:
    return np.asarray(np.cumsum(np.concatenate([free[:1], np.exp(free[1:])])))


def _objective(u: Doubles, X: Doubles, y: Codes, penalty: float, size: Doubles) -> tuple[float, Doubles]:
    """Return the loss at the parameters u · size (w, the first threshold, logs of the gaps), and its gradient by u."""
    (n, d), v = X.shape, u * size
    w, theta = v[:d], _ascending(v[d:])
    value, by_b, by_a = _likelihood(X @ w, theta, y)
    by_theta = np.bincount(y, by_b, len(theta) + 1)[:-1] + np.bincount(y, by_a, len(theta) + 1)[1:]
    later = np.cumsum(by_theta[::-1])[::-1]
    free = np.concatenate([later[:1], later[1:] * np.exp(v[d + 1 :])])
    gradient = np.concatenate([-(X.T @ (by_b + by_a)) / n + penalty * w, free / n])
    return float(value.mean() + 0.5 * penalty * w @ w), gradient * size


class _Fold:
    """One held-out part on its way along the grid. Rows of a class that the other part lacks are not scored."""

    def __init__(self, X: Doubles, y: Codes, held: NDArray[np.bool_], d: int) -> None:
        train, (present, codes) = X[~held], np.unique(y[~held], return_inverse=True)
        self.rows = np.flatnonzero(held & np.isin(y, present))
        self.y = np.searchsorted(present, y[self.rows])
        mean, scale = train.mean(axis=0), scale_of(train - train.mean(axis=0), d)
        self.X = (X[self.rows] - mean) / scale
        self.path = path((train - mean) / scale, codes, len(present), GRID, TOL_CHOOSING)

    def losses(self) -> Doubles:
        """Return the NLL of each scored row at the next C."""
        return next(self.path).losses(self.X, self.y)


def _folds(X: Doubles, y: Codes, units: list[str], d: int, seed: int) -> list[_Fold]:
    fold = assign(units, y, FOLDS, seed)
    parts = range(FOLDS if len(y) <= ALL_FOLDS_UP_TO else 1)
    found = [_Fold(X, y, fold == k, d) for k in parts if 0 < (fold == k).sum() < len(y)]
    return [one for one in found if len(one.rows)]


ORDINAL = Ordinal
