"""Multinomial logistic regression by L-BFGS, preconditioned and warm-started (no kind: a solver that kinds share)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

Floats = NDArray[np.floating[Any]]
Codes = NDArray[np.intp]

MAX_ITERATIONS = 500
PAIRS = 10


@dataclass(frozen=True)
class Weights:
    """`W` (d, C) and `b` (C,), float64; logits of a row x are x·W + b."""

    W: NDArray[np.float64]
    b: NDArray[np.float64]

    def log_probabilities(self, X: Floats) -> NDArray[np.float64]:
        """Return (n, C) float64."""
        logits = np.asarray(X @ self.W + self.b, dtype=np.float64)
        return np.asarray(logits - logsumexp(logits, axis=1, keepdims=True))


def path(X: Floats, y: Codes, n_classes: int, Cs: Iterable[float], *, gtol: float) -> Iterator[Weights]:
    """Yield the weights for each C, each found from the one before; `Cs` ascend.

    Minimises (1/n) Σ cross entropy + ‖W‖² / (2nC), the bias unpenalised: scikit-learn's C. As there, two classes are
    penalised by the one vector of their difference, which is twice that. Axis j is scaled by
    1/√(h·var_j + 1/(nC)), h = 1/classes, near the inverse root of the Hessian when the axes of X are principal ones
    (after Böhning 1992). Products run in the dtype of X, sums over rows in float64.

    Args:
        X: (n, d), float32 or float64.
        y: (n,) codes from 0; a class may have no row.
        gtol: largest entry of the scaled gradient, nats a row.
    """
    n, d = X.shape
    variance = np.asarray(X.var(axis=0), dtype=np.float64)
    prior = np.log(np.maximum(np.bincount(y, minlength=n_classes), 0.5) / n)
    found = Weights(np.zeros((d, n_classes)), prior - prior.mean())
    for C in Cs if n_classes > 2 else (C / 2 for C in Cs):
        scale = 1 / np.sqrt(variance / n_classes + 1 / (n * C))
        loss = _Loss(np.asarray(X * scale, dtype=X.dtype), y, scale**2 / (n * C))
        found = _minimise(loss, found, scale, gtol)
        yield found


def _minimise(loss: _Loss, start: Weights, scale: NDArray[np.float64], gtol: float) -> Weights:
    flat = np.concatenate([start.W / scale[:, None], start.b[None]]).ravel()
    options = {"maxiter": MAX_ITERATIONS, "gtol": gtol, "ftol": 1e-14, "maxcor": PAIRS}
    result = minimize(loss, flat, jac=True, method="L-BFGS-B", options=options)
    theta = result.x.reshape(len(scale) + 1, -1)
    return Weights(theta[:-1] * scale[:, None], theta[-1])


@dataclass(frozen=True)
class _Loss:
    """The penalised mean cross entropy and its gradient; `penalty` (d,) weighs the squared scaled weights."""

    X: Floats
    y: Codes
    penalty: NDArray[np.float64]

    def __call__(self, flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        theta = flat.reshape(self.X.shape[1] + 1, -1)
        V, rows = theta[:-1], np.arange(len(self.y))
        logits = self.X @ V.astype(self.X.dtype) + theta[-1].astype(self.X.dtype)
        logits -= logits.max(axis=1, keepdims=True)
        own = logits[rows, self.y].astype(np.float64)
        odds = np.exp(logits, out=logits)
        totals = odds.sum(axis=1, keepdims=True)
        value = np.mean(np.log(totals[:, 0].astype(np.float64)) - own) + 0.5 * np.sum(self.penalty[:, None] * V * V)
        odds /= totals
        odds[rows, self.y] -= 1
        gradient = np.empty_like(theta)
        gradient[:-1] = (self.X.T @ odds) / len(rows) + self.penalty[:, None] * V
        gradient[-1] = odds.mean(axis=0, dtype=np.float64)
        return float(value), gradient.ravel()
