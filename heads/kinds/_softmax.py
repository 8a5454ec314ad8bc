"""Logistic regression by L-BFGS along a path of penalties (no kind: a solver that kinds share).

What makes 45 values cost little more than one: the start is extrapolated from the last two optima, in log C; the
curvature pairs of one C serve the next, since the penalty's part of them is known exactly; and the preconditioner
follows the probabilities (axis j of class c: 1/(h_c·var_j + 1/(nC)), h_c the mean of p(1-p); Böhning 1992 has the bound
1/2 for h). A step is as long as a line search by slopes says, which rows in memory make nearly free. It stops by the
Newton decrement ½gᵀH⁻¹g, which estimates how much loss is left to gain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from heads.kinds import _losses
from heads.kinds._losses import Loss, Point, dot
from heads.stream import Floats, Rows, rows_of

Doubles = NDArray[np.float64]
Codes = NDArray[np.intp]

MAX_ITERATIONS = 500
PAIRS = 10
LOOKS = 20
ARMIJO = 1e-4
FLATTER_HELD, FLATTER_PASSED = 0.3, 0.9


@dataclass(frozen=True)
class Weights:
    """`W` (d, C) and `b` (C,), float64; logits of a row x are x·W + b."""

    W: Doubles
    b: Doubles

    def losses(self, X: Floats, y: Codes, offset: Doubles | None = None) -> Doubles:
        """Return the cross entropy of each row, (n,): of its code y (n,), or the mean over classes of y (n, C).

        `offset` (n, C) is added to the logits.
        """
        logits = np.asarray(X @ self.W.astype(X.dtype) + self.b, dtype=np.float64)
        if offset is not None:
            logits = logits + offset
        if y.ndim == 2:
            return np.asarray((np.logaddexp(0, logits) - logits * y).mean(axis=1))
        return np.asarray(logsumexp(logits, axis=1) - logits[np.arange(len(y)), y])


def path(
    X: Floats | Rows, y: Codes, n_classes: int, Cs: Iterable[float], *, tol: float, axes: Doubles | None = None,
    variance: Doubles | None = None, start: Weights | None = None, offset: Doubles | None = None,
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
        start: weights to begin with; none means none but the shares of the classes.
        offset: (n, C), what is known of each row before anything is learned: added to its logits; then X is an array,
            and there is no bias.
    """
    rows = rows_of(X)
    n = rows.shape[0]
    spread = _variance(rows) if variance is None else variance
    each = y.ndim == 2
    share = y.mean(axis=0) if each else np.bincount(y, minlength=n_classes) / n
    kept = np.clip(share, 0.5 / n, 1 - 0.5 / n)
    bias = np.log(kept / (1 - kept)) if each else np.log(kept) - np.log(kept).mean()
    bias = bias if offset is None else np.zeros(n_classes)
    loss = _losses.of(rows, y, n_classes, offset)
    W, b = (np.zeros((rows.shape[1], n_classes)), bias) if start is None else (start.W, start.b)
    search = _Search(loss, np.vstack([W, b]), spread, axes, tol)
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


@dataclass
class _Search:
    """What is carried along the path: the last two optima, and pairs (step, change of the gradient without penalty)."""

    loss: Loss
    first: Doubles
    variance: Doubles
    axes: Doubles | None
    tol: float
    optima: list[tuple[float, Doubles]] = field(default_factory=list)
    pairs: list[tuple[Floats, Floats]] = field(default_factory=list)

    def at(self, penalty: float) -> Doubles:
        """Return the optimum (d + 1, C) under a penalty."""
        here, dtype = self._start(penalty), self.loss.rows.dtype
        eps = float(np.finfo(dtype).eps)
        known = [(s, _penalised(s, change, penalty)) for s, change in self.pairs]
        for _ in range(MAX_ITERATIONS):
            step = self._direction(here, known, penalty)
            slope = dot(here.gradient, step)
            if 0.5 * slope <= self.tol * here.value + 0.01 * eps:
                break
            there = self._along(here, -step, -slope, penalty, eps)
            if there is None:
                break
            moved = (there.theta - here.theta).astype(dtype)
            change = (there.gradient - here.gradient).astype(dtype)
            if dot(moved, change) > 0:
                known = [*known, (moved, change)][-PAIRS:]
            here = there
        self.pairs = [(s, _penalised(s, change, -penalty)) for s, change in known]
        self.optima = [*self.optima, (penalty, here.theta)][-2:]
        return here.theta

    def _start(self, penalty: float) -> Point:
        """Return the last optimum moved on as far as it last moved in log C, unless that overshot."""
        if len(self.optima) < 2:
            return self.loss.point(self.optima[-1][1] if self.optima else self.first, penalty)
        (before, one), (last, two) = self.optima
        ahead = self.loss.point(two + np.log(last / penalty) / np.log(before / last) * (two - one), penalty)
        if dot(ahead.gradient, two - ahead.theta) >= 0:
            return ahead
        back = self.loss.point(two, penalty)
        return self.loss.point(ahead.theta, penalty) if ahead.value < back.value else back

    def _direction(self, here: Point, pairs: list[tuple[Floats, Floats]], penalty: float) -> Doubles:
        """Return H⁻¹g by the two-loop recursion (Nocedal 1980)."""
        q, kept = here.gradient.astype(self.loss.rows.dtype), []
        for s, y in reversed(pairs):
            rho = 1 / dot(s, y)
            a = rho * dot(s, q)
            q -= q.dtype.type(a) * y
            kept.append((rho, a))
        r = self._precondition(q, here.curvature, penalty)
        if pairs:
            s, y = pairs[-1]
            r *= r.dtype.type(dot(s, y) / dot(y, self._precondition(y, here.curvature, penalty)))
        for (s, y), (rho, a) in zip(pairs, reversed(kept), strict=True):
            r += r.dtype.type(a - rho * dot(y, r)) * s
        return np.asarray(r, dtype=np.float64)

    def _precondition(self, g: Floats, curvature: Doubles, penalty: float) -> Floats:
        h = np.maximum(curvature, 1e-4 / len(curvature))
        W = g[:-1] if self.axes is None else self.axes.T @ g[:-1]
        W = W / (self.variance[:, None] * h + penalty)
        whole = np.vstack([W if self.axes is None else self.axes @ W, g[-1] / np.maximum(h, 1e-3 / len(h))])
        return np.asarray(whole, dtype=g.dtype)

    def _along(self, here: Point, step: Doubles, slope: float, penalty: float, eps: float) -> Point | None:
        """Return a point with enough less loss and slope (Wolfe 1969); None where rounding hides what is left."""
        line, slack = self.loss.line(here, step, penalty), 0.2 * eps * (here.value + 0.01)
        flatter = FLATTER_HELD if isinstance(self.loss, _losses.Held) else FLATTER_PASSED
        size, low, high, low_slope, high_slope = 1.0, 0.0, np.inf, slope, 0.0
        for look in range(LOOKS):
            value, found = line.at(size)
            enough = value <= here.value + ARMIJO * size * slope + slack
            if enough and (abs(found) <= -flatter * slope or look == LOOKS - 1):
                return line.point() if here.value - value > 0.1 * eps * here.value else None
            if found > 0 or not enough:
                high, high_slope = size, max(found, 0.0)
            else:
                low, low_slope = size, found
            if high == np.inf:
                size *= 3
                continue
            share = low_slope / (low_slope - high_slope) if high_slope > 0 and look % 3 < 2 else 0.5
            size = low + (high - low) * min(0.9, max(0.1, share))
        return None


def _penalised(s: Floats, change: Floats, penalty: float) -> Floats:
    y = change.copy()
    y[:-1] += y.dtype.type(penalty) * s[:-1]
    return y
