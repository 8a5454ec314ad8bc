"""Logistic regression by L-BFGS along a path of penalties (no kind: a solver that kinds share).

What makes 45 values cost little more than one: the start is extrapolated from the last two optima, in log C; the
curvature pairs of one C serve the next, since the penalty's part of them is known exactly; and the preconditioner
follows the probabilities (axis j of class c: 1/(h_c·var_j + 1/(nC)), h_c the mean of p(1-p); Böhning 1992 has the bound
1/2 for h). It stops by the Newton decrement ½gᵀH⁻¹g, which estimates how much loss is left to gain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp

from heads.stream import Floats, Rows, rows_of

Doubles = NDArray[np.float64]
Codes = NDArray[np.intp]

MAX_ITERATIONS = 500
PAIRS = 12
LEAST_STEP = 1e-2
ARMIJO = 1e-4


@dataclass(frozen=True)
class Weights:
    """`W` (d, C) and `b` (C,), float64; logits of a row x are x·W + b."""

    W: Doubles
    b: Doubles

    def losses(self, X: Floats, y: Codes) -> Doubles:
        """Return the cross entropy of each row, (n,): of its code y (n,), or the mean over classes of y (n, C)."""
        logits = np.asarray(X @ self.W.astype(X.dtype) + self.b, dtype=np.float64)
        if y.ndim == 2:
            return np.asarray((np.logaddexp(0, logits) - logits * y).mean(axis=1))
        return np.asarray(logsumexp(logits, axis=1) - logits[np.arange(len(y)), y])


def path(
    X: Floats | Rows, y: Codes, n_classes: int, Cs: Iterable[float], *, tol: float, axes: Doubles | None = None,
    variance: Doubles | None = None,
) -> Iterator[Weights]:  # fmt: skip
    """Yield the weights for each C, each found from those before; `Cs` ascend.

    Minimises (1/n) Σ cross entropy + ‖W‖² / (2nC), the bias unpenalised: scikit-learn's C. As there, two classes are
    penalised by the one vector of their difference, which is twice that. Products run in the dtype of X, sums over
    blocks of rows in float64.

    Args:
        X: (n, d), centred.
        y: (n,) codes from 0, a class may have no row; or (n, C) of 0 and 1, for a logistic regression of each class.
        tol: the loss that may be left to gain, relative to the loss.
        axes: orthonormal (d, d), the principal axes of X; none means that its own are.
        variance: (d,) of X along those; none means that it is computed.
    """
    rows = rows_of(X)
    n = rows.shape[0]
    spread = _variance(rows) if variance is None else variance
    each = y.ndim == 2
    share = y.mean(axis=0) if each else np.bincount(y, minlength=n_classes) / n
    kept = np.clip(share, 0.5 / n, 1 - 0.5 / n)
    bias = np.log(kept / (1 - kept)) if each else np.log(kept) - np.log(kept).mean()
    loss = _Loss(rows, y, n_classes)
    search = _Search(loss, np.vstack([np.zeros((rows.shape[1], n_classes)), bias]), spread, axes, tol)
    for C in Cs if n_classes > 2 or each else (C / 2 for C in Cs):
        found = search.at(1 / (n * C))
        yield Weights(found[:-1], found[-1])


def _variance(rows: Rows) -> Doubles:
    total, squares = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    for _, block in rows.blocks():
        total += block.sum(axis=0, dtype=np.float64)
        squares += np.einsum("ij,ij->j", block, block, dtype=np.float64)
    n = rows.shape[0]
    return np.asarray(np.maximum(squares / n - (total / n) ** 2, 0))


@dataclass(frozen=True)
class _Point:
    """Weights with the bias below them (d + 1, C), the loss there, its gradient, and the mean of p(1-p) by class."""

    theta: Doubles
    value: float
    gradient: Doubles
    curvature: Doubles


@dataclass(frozen=True)
class _Loss:
    """The mean cross entropy without a penalty."""

    rows: Rows
    y: Codes
    n_classes: int

    def at(self, theta: Doubles, penalty: float) -> _Point:
        """Go through the rows once; the penalty is added to value and gradient."""
        n, dtype = self.rows.shape[0], self.rows.dtype
        W, b = theta[:-1].astype(dtype), theta[-1].astype(dtype)
        value, products = 0.0, np.zeros(W.shape, dtype=np.float64)
        bias, curvature = np.zeros(self.n_classes), np.zeros(self.n_classes)
        for start, block in self.rows.blocks():
            logits = block @ W
            logits += b
            y = self.y[start : start + len(block)]
            lost, P = _each(logits, y) if y.ndim == 2 else _one_of(logits, y)
            value += lost
            curvature += P.sum(axis=0, dtype=np.float64) - np.einsum("ij,ij->j", P, P)
            if y.ndim == 2:
                P -= y
            else:
                P[np.arange(len(y)), y] -= 1
            products += block.T @ P
            bias += P.sum(axis=0, dtype=np.float64)
        gradient = np.vstack([products / n + penalty * theta[:-1], bias / n])
        whole = value / n + 0.5 * penalty * dot(theta[:-1], theta[:-1])
        return _Point(theta, whole, gradient, curvature / n)


def _one_of(logits: Floats, y: Codes) -> tuple[float, Floats]:
    """Return the summed cross entropy of a softmax and its probabilities, in the place of the logits."""
    logits -= logits.max(axis=1, keepdims=True)
    own = logits[np.arange(len(y)), y].sum(dtype=np.float64)
    odds = np.exp(logits, out=logits)
    totals = odds.sum(axis=1, keepdims=True)
    odds /= totals
    return float(np.log(totals, dtype=np.float64).sum() - own), odds


def _each(logits: Floats, y: NDArray[Any]) -> tuple[float, Floats]:
    """Return the summed cross entropy of a logistic function for each class, and its probabilities."""
    lost = np.logaddexp(0, logits).sum(dtype=np.float64) - np.vdot(logits, y.astype(logits.dtype))
    return float(lost), np.asarray(expit(logits))


@dataclass
class _Search:
    """What is carried along the path: the last two optima, and pairs (step, change of the gradient without penalty)."""

    loss: _Loss
    first: Doubles
    variance: Doubles
    axes: Doubles | None
    tol: float
    optima: list[tuple[float, Doubles]] = field(default_factory=list)
    pairs: list[tuple[Doubles, Doubles]] = field(default_factory=list)

    def at(self, penalty: float) -> Doubles:
        """Return the optimum (d + 1, C) under a penalty."""
        here = self._start(penalty)
        eps = float(np.finfo(self.loss.rows.dtype).eps)
        for _ in range(MAX_ITERATIONS):
            step = self._direction(here, penalty)
            slope = dot(here.gradient, step)
            if 0.5 * slope <= self.tol * here.value + 0.01 * eps:
                break
            there = self._along(here, step, slope, penalty, eps)
            if there is None:
                break
            moved, change = there.theta - here.theta, there.gradient - here.gradient
            change[:-1] -= penalty * moved[:-1]
            if dot(moved, change) > 0:
                self.pairs = [*self.pairs, (moved, change)][-PAIRS:]
            here = there
        self.optima = [*self.optima, (penalty, here.theta)][-2:]
        return here.theta

    def _start(self, penalty: float) -> _Point:
        """Return the last optimum moved on as far as it last moved in log C, unless that overshot."""
        if len(self.optima) < 2:
            return self.loss.at(self.optima[-1][1] if self.optima else self.first, penalty)
        (before, one), (last, two) = self.optima
        ahead = self.loss.at(two + np.log(last / penalty) / np.log(before / last) * (two - one), penalty)
        if dot(ahead.gradient, two - ahead.theta) >= 0:
            return ahead
        back = self.loss.at(two, penalty)
        return ahead if ahead.value < back.value else back

    def _direction(self, here: _Point, penalty: float) -> Doubles:
        """Return H⁻¹g by the two-loop recursion (Nocedal 1980), the penalty's part of the pairs brought up to date."""
        pairs = [(s, _penalised(s, change, penalty)) for s, change in self.pairs]
        q, kept = here.gradient.copy(), []
        for s, y in reversed(pairs):
            rho = 1 / dot(s, y)
            a = rho * dot(s, q)
            q -= a * y
            kept.append((rho, a))
        r = self._precondition(q, here.curvature, penalty)
        if pairs:
            s, y = pairs[-1]
            r *= dot(s, y) / dot(y, self._precondition(y, here.curvature, penalty))
        for (s, y), (rho, a) in zip(pairs, reversed(kept), strict=True):
            r += s * (a - rho * dot(y, r))
        return np.asarray(r)

    def _precondition(self, g: Doubles, curvature: Doubles, penalty: float) -> Doubles:
        h = np.maximum(curvature, 1e-4 / len(curvature))
        W = g[:-1] if self.axes is None else self.axes.T @ g[:-1]
        W = W / (self.variance[:, None] * h + penalty)
        return np.vstack([W if self.axes is None else self.axes @ W, g[-1] / np.maximum(h, 1e-3 / len(h))])

    def _along(self, here: _Point, step: Doubles, slope: float, penalty: float, eps: float) -> _Point | None:
        """Return a point with enough less loss; None where rounding hides what is left."""
        size, slack = 1.0, 0.2 * eps * (here.value + 0.01)
        while size >= LEAST_STEP:
            there = self.loss.at(here.theta - size * step, penalty)
            gained = here.value - there.value
            if gained >= ARMIJO * size * slope - slack:
                return there if gained > 0.1 * eps * here.value else None
            size = max(0.1 * size, min(0.5 * size, 0.5 * size * size * slope / (size * slope - gained)))
        return None


def dot(a: Doubles, b: Doubles) -> float:
    """Return Σ a·b of two matrices, by one thread: waking BLAS's for a vector costs more than the product."""
    return float(np.einsum("ij,ij->", a, b))


def _penalised(s: Doubles, change: Doubles, penalty: float) -> Doubles:
    y = change.copy()
    y[:-1] += penalty * s[:-1]
    return y
