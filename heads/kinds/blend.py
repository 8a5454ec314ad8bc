"""Few labels and the names of classes together: a linear probe whose prior is the text classifier of a joint encoder.

Logits of a unit row x are x·(w_c + alpha t_c) + b_c, t_c the unit text vector of class c: LP++'s form (Huang et al.,
CVPR 2024, arXiv:2404.02285) with one alpha instead of one a class, and with a penalty on w and b (as Silva-Rodriguez et
al., CVPR 2024, arXiv:2312.12730) instead of an early stop, so that the optimum is unique. alpha is 0, 1/2, 1 or 2 times
the value at which the texts alone fit the training rows (under a prior: faultless rows ask for infinity), and C is of
`linear`'s grid, or 0 for the texts alone; the pair with the least held-out loss is taken, of 5 folds up to 2,000
rows, one above. alpha = 0 is the probe without texts: both parts are among what is chosen from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from heads.folds import assign
from heads.kind import Arrays
from heads.kinds._affine import Affine, Codes, Doubles, ordered, unit
from heads.kinds._softmax import Weights, path
from heads.kinds.linear import (
    ALL_FOLDS_UP_TO,
    FOLDS,
    GRID,
    ONE_THREAD_UP_TO,
    PATIENCE,
    TOL,
    TOL_CHOOSING,
    principal_axes,
    scale_of,
)

SHARES = (0.0, 0.5, 1.0, 2.0)
USUAL, ENOUGH = 3.0, 1e-2


class Blend(Affine):
    """A classifier after scikit-learn's contract.

    `texts` (C, d) are vectors of the classes `names` (C,), sorted; without `names` those of `y`. A class that has a
    text needs no row. Without `texts` it is logistic regression on unit rows.

    Attributes after `fit`: `alpha_`, `C_` (0: the texts alone), `texts_` (C, d) of unit length (zeros without texts),
    `path_` [[share of alpha, C, held-out NLL], …], and those of `Affine`.
    """

    UNIT = True
    TEXTS: ClassVar[bool] = True
    LEARNED = ("alpha", "C", "path")
    MORE = ("texts",)
    CHOSEN: ClassVar[dict[str, str]] = {"C": "C_", "alpha": "alpha_"}

    def __init__(
        self, C: float | None = None, alpha: float | None = None, *, names: ArrayLike | None = None,
        texts: ArrayLike | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.C, self.alpha, self.names, self.texts, self.seed = C, alpha, names, texts, seed

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Learn from X (n, d) and labels y (n,). Without `groups`, equal rows are one group."""
        given, codes = self._read(X, y)
        if self.names is not None:
            present, self.classes_ = self.classes_, np.asarray(self.names)
            if not np.isin(present, self.classes_).all():
                raise ValueError("y has a label that is not among the names")
            codes = np.searchsorted(self.classes_, present)[codes]
        n_classes = len(self.classes_)
        texts = np.zeros((n_classes, self.n_features_in_)) if self.texts is None else np.asarray(self.texts, np.float64)
        if texts.shape != (n_classes, self.n_features_in_):
            raise ValueError(f"texts are {texts.shape}, not {(n_classes, self.n_features_in_)}")
        order, units = ordered(np.asarray(given), codes, groups)
        rows, self.texts_ = unit(np.asarray(given)[order].astype(np.float64)), np.asarray(unit(texts))
        work = rows.size * max(n_classes, min(rows.shape))
        with threadpool_limits(limits=1 if work <= ONE_THREAD_UP_TO else None, user_api="blas"):
            self._solve(np.asarray(rows), codes[order], units)
        return self

    def _solve(self, rows: Doubles, codes: Codes, units: list[str]) -> None:
        told, mean, d = rows @ self.texts_.T, rows.mean(axis=0), rows.shape[1]
        centred = rows - mean
        axes = principal_axes(centred)
        rotated = centred @ axes
        self.path_: list[list[float]] = []
        if self.C is None or self.alpha is None:
            share, self.C_, self.path_ = _choose(rotated, told, codes, units, d, self.seed)
            self.alpha_ = share * heat(told, codes)
        else:
            self.alpha_, self.C_ = float(self.alpha), float(self.C)
        coef, bias = self.alpha_ * self.texts_, np.zeros(len(self.texts_))
        if self.C_ > 0:
            scale = scale_of(centred, d)
            found = next(_probes(rotated / scale, codes, self.alpha_ * told, [self.C_], TOL))
            W = axes @ found.W[:-1] / scale
            coef, bias = coef + W.T, found.W[-1] - mean @ W
        self._set(np.asarray(coef, dtype=np.float64), np.asarray(bias, dtype=np.float64))

    def params(self) -> dict[str, Any]:
        """Return the arguments but for names and texts, the classes, and what was learned, as JSON values."""
        found = super().params()
        return found | {"arguments": {"C": self.C, "alpha": self.alpha, "seed": self.seed}}

    @classmethod
    def restore(cls, arrays: Arrays, params: Mapping[str, Any]) -> Self:
        """Make one from what `arrays` and `params` returned."""
        made = super().restore(arrays, params)
        made.texts = made.texts_ if made.texts_.any() else None
        made.names = made.classes_ if made.texts_.any() else None
        return made

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {"texts": (len(self.classes_), self.n_features_in_)}


def heat(told: Doubles, y: Codes) -> float:
    """Return the alpha at which softmax(alpha · cosines with the texts) fits labels best; 0 where there is no text.

    Its log has a normal prior of variance 1 around that of 3 over the spread of the cosines among classes: CLIP's 100.
    """
    usual = float(told.std(axis=1).mean())
    if usual <= 0:
        return 0.0
    rows = np.arange(len(y))

    def loss(away: float) -> float:
        log_p = log_softmax(USUAL / usual * np.exp(away) * told, axis=1)
        return float(-log_p[rows, y].mean() + 0.5 * away * away / len(y))

    return USUAL / usual * float(np.exp(minimize_scalar(loss, bounds=(-6.0, 6.0), method="bounded").x))


def _probes(X: Doubles, y: Codes, offset: Doubles, Cs: Sequence[float], tol: float) -> Iterator[Weights]:
    """Yield the weights for each C; the last row is of a constant 1, a penalised bias: classes without a row keep 0."""
    rows = np.hstack([X, np.ones((len(X), 1))])
    spread = np.append(X.var(axis=0), 1.0)
    return path(rows, y, offset.shape[1], Cs, tol=tol, offset=offset, variance=spread)


class _Fold:
    """One held-out part. `losses` goes along the grid at one share of alpha."""

    def __init__(self, X: Doubles, told: Doubles, y: Codes, held: Codes, d: int) -> None:
        train = ~held
        mean = X[train].mean(axis=0)
        scale = scale_of(X[train] - mean, d)
        # a class that only the texts know is scored; without texts nothing could know it
        scored = held if told.any() else held & np.isin(y, y[train])
        self.X = np.hstack([(X[scored] - mean) / scale, np.ones((int(scored.sum()), 1))])
        self.y, self.told = y[scored], told[scored]
        self.train = (X[train] - mean) / scale, y[train], told[train]
        self.heat = heat(told[train], y[train])

    def losses(self, share: float) -> Any:
        """Yield the NLL of each scored row: of the texts alone, then at each C."""
        X, y, told = self.train
        alpha = share * self.heat
        yield -log_softmax(alpha * self.told, axis=1)[np.arange(len(self.y)), self.y]
        for found in _probes(X, y, alpha * told, GRID, TOL_CHOOSING):
            yield found.losses(self.X, self.y, alpha * self.told)


def _choose(
    X: Doubles, told: Doubles, y: Codes, units: list[str], d: int, seed: int
) -> tuple[float, float, list[list[float]]]:
    """Return the share of alpha and the C with the least held-out loss, and [[share, C, loss], …] of all."""
    fold = assign(units, y, FOLDS, seed)
    parts = [fold == k for k in range(FOLDS if len(y) <= ALL_FOLDS_UP_TO else 1)]
    folds = [_Fold(X, told, y, held, d) for held in parts if 0 < held.sum() < len(y)]
    folds = [one for one in folds if len(one.y)]
    if not folds:
        return (1.0, 0.0, []) if told.any() else (0.0, 1.0, [])
    seen = [step for share in (SHARES if told.any() else SHARES[:1]) for step in _along(folds, share)]
    share, C, _ = min((step for step in seen if step[1] > 0 or told.any()), key=lambda step: step[2])
    return share, C, seen


def _along(folds: list[_Fold], share: float) -> list[list[float]]:
    """Return [[share, C, mean loss], …] from C = 0 to where more only makes it worse."""
    runs, seen = [one.losses(share) for one in folds], []
    for C in (0.0, *GRID):
        seen.append([share, C, float(np.concatenate([next(run) for run in runs]).mean())])
        if C >= ENOUGH and min(step[2] for step in seen[-PATIENCE:]) > min(step[2] for step in seen):
            break
    return seen


ESTIMATOR = Blend
