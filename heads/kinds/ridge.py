"""Ridge regression with exact leave-one-out errors: on classes (one target a class) and on numbers.

One decomposition of the centred rows, Xc = U diag(r) Vᵀ, gives the whole path: with s = r²/(r²+λ) the prediction is
ȳ + U s UᵀYc, the leverage of a row h_i = 1/n + Σ_j U_ij² s_j, its error when it is left out (y_i - ŷ_i)/(1 - h_i), and
that of a group that is left out whole (I - H_GG)⁻¹(y_G - ŷ_G). λ is the one of least left-out squared error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from heads.folds import distinct
from heads.kind import Arrays
from heads.kinds._affine import Affine, Codes, Doubles, names_of, ordered, temperature
from heads.stream import Floats, Moments, Rows, rows_at, rows_of, sums

RATIOS = np.logspace(-6, 3, 28)
SCORED_UP_TO, LARGEST_UNIT = 2000, 256
LARGEST_LEVERAGE = 1 - 1e-10


@dataclass(frozen=True)
class Decomposed:
    """Axes `V` (d, r) of the centred rows and their squared singular values `power` (r,), largest first."""

    n: int
    mean: Doubles
    V: Doubles
    power: Doubles

    @classmethod
    def of(cls, X: Floats | Rows) -> Decomposed:
        """Decompose rows (n, d), by their Gram matrix on the smaller side; `Rows` in two passes by blocks."""
        rows = rows_of(X)
        n, d = rows.shape
        if n < d and not isinstance(X, Rows):
            mean = X.mean(axis=0, dtype=np.float64)
            _, s, Vt = np.linalg.svd(X.astype(np.float64) - mean, full_matrices=False)
            kept = s > s[0] * max(n, d) * np.finfo(np.float64).eps if len(s) else s > 0
            return cls(n, mean, Vt[kept].T, s[kept] ** 2)
        moments = Moments.of(rows, np.zeros(n, dtype=np.intp), 1)
        power, V = np.linalg.eigh(moments.scatter)
        kept = power > max(power[-1], 0) * max(n, d) * np.finfo(np.float64).eps
        return cls(n, moments.mean, V[:, kept][:, ::-1], power[kept][::-1])

    def is_of(self, X: Floats | Rows) -> bool:
        """Say whether rows may be those that were decomposed, by their mean."""
        rows = rows_of(X)
        mean = sum(block.sum(axis=0, dtype=np.float64) for _, block in rows.blocks()) / rows.shape[0]
        spread = np.sqrt(self.power.sum() / self.n) if len(self.power) else 0.0
        return bool(np.abs(mean - self.mean).max() <= 1e-5 * (spread + np.abs(self.mean).max()))

    def basis(self, X: Floats) -> Doubles:
        """Return U (m, r) of some of the rows."""
        return np.asarray((X - self.mean) @ self.V / np.sqrt(self.power))

    def grid(self) -> Doubles:
        """Return the λ that are tried, as multiples of the mean power of an axis."""
        return RATIOS * (self.power.mean() if len(self.power) else 1.0)


def left_out(U: Doubles, power: Doubles, target: Doubles, Y: Doubles, n: int, lam: float, units: Units) -> Doubles:
    """Return the errors (m, C) of rows when each is left out with its unit; `target` (r, C) is UᵀYc, `Y` is centred."""
    shrunk = power / (power + lam)
    error = Y - U @ (shrunk[:, None] * target)
    leverage = 1 / n + (U * U) @ shrunk
    found = error / (1 - np.minimum(leverage, LARGEST_LEVERAGE))[:, None]
    for members in units.together:
        H = 1 / n + np.einsum("gaj,j,gbj->gab", U[members], shrunk, U[members], optimize=True)
        eye = np.eye(members.shape[1])
        found[members] = np.linalg.solve((1 + 1e-12) * eye - H, error[members])
    return np.asarray(found)


@dataclass(frozen=True)
class Units:
    """The units of more than one row, as positions: an array (units, rows of each) for each size."""

    together: list[NDArray[np.intp]]

    @classmethod
    def of(cls, units: ArrayLike) -> Units:
        """Sort rows by their unit."""
        inverse = np.unique(np.asarray(units), return_inverse=True)[1]
        counts = np.bincount(inverse)
        rows = np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])
        sizes = sorted({len(r) for r in rows if len(r) > 1})
        kept = [s for s in sizes if s <= LARGEST_UNIT]
        return cls([np.array([r for r in rows if len(r) == size]) for size in kept])


@dataclass(frozen=True)
class _Fit:
    """λ, weights (d, C) and offsets (C,) on rows less `mean`; `rows` were left out, and `held` (m, C) predicted so."""

    lam: float
    axes: Decomposed
    mean: Doubles
    W: Doubles
    offset: Doubles
    rows: NDArray[np.intp]
    held: Doubles
    path: list[list[float]]


def fit_ridge(
    X: Floats | Rows, Y: Doubles | Codes, n_targets: int, units: list[str], lam: float | None,
    found: Decomposed | None = None,
) -> _Fit:  # fmt: skip
    """Fit targets Y: (n, C), or codes (n,) for ±1 against the rest. `found` is what is known of X from before.

    The errors of the rows that `scored` names choose λ; they are exact, a unit left out whole.
    """
    found = Decomposed.of(X) if found is None else found
    cross, offset = _cross(found, X, Y, n_targets)
    target = (found.V.T @ cross) / np.sqrt(found.power)[:, None]
    rows = scored(units)
    U, own = found.basis(rows_at(X, rows)), _targets(Y[rows], n_targets) - offset
    groups = Units.of([units[i] for i in rows])
    path, best = [], None
    for value in [lam] if lam is not None else found.grid():
        errors = left_out(U, found.power, target, own, found.n, float(value), groups)
        path.append([float(value), float(np.mean(errors**2))])
        if best is None or path[-1][1] < best[1]:
            best = (float(value), path[-1][1], errors)
    assert best is not None
    W = found.V @ ((np.sqrt(found.power) / (found.power + best[0]))[:, None] * target)
    return _Fit(best[0], found, found.mean, W, offset, rows, own + offset - best[2], path)


def scored(units: list[str]) -> NDArray[np.intp]:
    """Return the rows that are left out: all up to 2,000, else an even share of the units, each with all of its rows.

    Units of more than 256 rows are not left out, since that costs the cube of their size; if there are no others, rows
    are left out by themselves.
    """
    names, seen = distinct(units)
    rank = np.empty(len(names), dtype=np.intp)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    inverse, counts = rank[seen], np.bincount(rank[seen])
    allowed = np.flatnonzero(counts <= LARGEST_UNIT)
    if not len(allowed):
        step = max(1, len(units) // SCORED_UP_TO)
        return np.arange(0, len(units), step)[:SCORED_UP_TO]
    share = max(1.0, counts[allowed].sum() / SCORED_UP_TO)
    taken = allowed[(np.arange(int(len(allowed) / share)) * share).astype(np.intp)]
    return np.flatnonzero(np.isin(inverse, taken))


def _targets(Y: Doubles | Codes, n_targets: int) -> Doubles:
    if Y.ndim == 2:
        return np.asarray(Y, dtype=np.float64)
    return np.where(Y[:, None] == np.arange(n_targets), 1.0, -1.0)


def _cross(found: Decomposed, X: Floats | Rows, Y: Doubles | Codes, n_targets: int) -> tuple[Doubles, Doubles]:
    """Return XcᵀYc (d, C) and the mean of the targets (C,)."""
    cross, total = np.zeros((len(found.mean), n_targets)), np.zeros(n_targets)
    for start, block in rows_of(X).blocks():
        part = Y[start : start + len(block)]
        centred = block - found.mean.astype(block.dtype)
        if part.ndim == 1:
            cross += (
                2 * sums(centred, part.astype(np.intp), n_targets).T - centred.sum(axis=0, dtype=np.float64)[:, None]
            )
            total += 2.0 * np.bincount(part, minlength=n_targets) - len(part)
        else:
            cross, total = cross + centred.T @ part, total + part.sum(axis=0)
    return cross, total / found.n


class Ridge(Affine):
    """Least squares on ±1 for each class; probabilities are a softmax whose temperature fits the left-out scores.

    Attributes after `fit`, beside those of `Affine`: `lambda_`, `temperature_` and `path_` [[λ, left-out squared
    error], …].
    """

    LEARNED = ("lambda", "temperature", "path")
    _axes: Decomposed | None = None
    CHOSEN: ClassVar[dict[str, str]] = {"lam": "lambda_"}

    def __init__(self, lam: float | None = None, *, seed: int = 0) -> None:
        self.lam, self.seed = lam, seed

    def fit(self, X: ArrayLike | Rows, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Learn from X (n, d) and labels y (n,). Without `groups`, equal rows are one group."""
        return self._fit(X, y, groups, None)

    def relabel(self, X: ArrayLike | Rows, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Fit again to the rows that were fitted last, with other labels: their axes are known, which cost most.

        Raises `ValueError` for other rows than those, as far as their number and mean say.
        """
        axes = self._axes
        rows = X if isinstance(X, Rows) else np.asarray(X)
        if axes is None or rows.shape != (axes.n, len(axes.mean)) or not axes.is_of(rows):
            raise ValueError("not the rows that were fitted last: fit instead")
        return self._fit(rows, y, groups, axes)

    def _fit(self, X: ArrayLike | Rows, y: ArrayLike, groups: ArrayLike | None, axes: Decomposed | None) -> Self:
        rows, codes = self._read(X, y)
        if isinstance(rows, Rows):
            units = names_of(groups, len(codes))
        else:
            order, units = ordered(rows, codes, groups)
            rows, codes = rows[order], codes[order]
        found = fit_ridge(rows, codes, len(self.classes_), units, self.lam, axes)
        self._axes = found.axes
        self.temperature_ = temperature(found.held, codes[found.rows])
        self.lambda_, self.path_ = found.lam, found.path
        self._set(found.W.T / self.temperature_, found.offset / self.temperature_, found.mean)
        return self


class RidgeRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A number for each row. After `fit`: `coef_` (d,), `intercept_`, `lambda_` and `path_`."""

    def __init__(self, lam: float | None = None, *, seed: int = 0) -> None:
        self.lam, self.seed = lam, seed

    def fit(self, X: ArrayLike | Rows, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Learn from X (n, d) and numbers y (n,). Without `groups`, equal rows are one group."""
        if isinstance(X, Rows):
            values, self.n_features_in_ = np.asarray(y, dtype=np.float64), X.shape[1]
            found = fit_ridge(X, values[:, None], 1, names_of(groups, len(values)), self.lam)
        else:
            rows, numbers = validate_data(self, X, y, dtype=[np.float64, np.float32], y_numeric=True)
            values = np.asarray(numbers, dtype=np.float64)
            order, units = ordered(rows, values, groups)
            found = fit_ridge(rows[order], values[order][:, None], 1, units, self.lam)
        self.coef_, self.lambda_, self.path_ = found.W[:, 0], found.lam, found.path
        self.intercept_ = float(found.offset[0] - found.mean @ self.coef_)
        return self

    def predict(self, X: ArrayLike) -> Doubles:
        """Return a number for each row, (m,)."""
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, dtype=np.float64, reset=False) @ self.coef_ + self.intercept_)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return `coef` (d,) float64."""
        return {"coef": self.coef_}

    def params(self) -> dict[str, Any]:
        """Return the rest as JSON values."""
        return {
            "intercept": self.intercept_,
            "lambda": self.lambda_,
            "path": self.path_,
            "arguments": self.get_params(),
        }

    @classmethod
    def restore(cls, arrays: Arrays, params: Mapping[str, Any]) -> Self:
        """Make one from what `arrays` and `params` returned."""
        made = cls(**params["arguments"])
        made.coef_, made.intercept_ = arrays["coef"], float(params["intercept"])
        made.lambda_, made.path_ = float(params["lambda"]), params["path"]
        made.n_features_in_ = len(made.coef_)
        return made


ESTIMATOR = Ridge
REGRESSOR = RidgeRegressor
