"""The mean cross entropy of logits that are affine in a row, and how it changes along a direction (no kind).

Logits are linear in the weights, so the loss at every point of a line costs no product once those of its direction
are known: in memory (`Held`) a line search is nearly free, and a step costs two products, X·step and Xᵀ·residual. Of
rows that are gone through by blocks (`Passed`) nothing is kept, and each point that is looked at costs two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from heads.stream import BLOCK, Floats, InMemory, Rows

Doubles = NDArray[np.float64]
Codes = NDArray[np.intp]

HELD_UP_TO = 50_000_000


@dataclass(frozen=True)
class Point:
    """Weights with the bias below them (d + 1, C), the loss there, its gradient, and the mean of p(1-p) by class."""

    theta: Doubles
    value: float
    gradient: Doubles
    curvature: Doubles


class Line(Protocol):
    """The loss at `here + size * step`, penalty included."""

    def at(self, size: float) -> tuple[float, float]:
        """Return the value and the slope; the latest one looked at is where `point` is."""

    def point(self) -> Point:
        """Return the point there, with its gradient."""


@dataclass(frozen=True)
class Passed:
    """Of rows by blocks; the looks along a line are passes."""

    rows: Rows
    y: NDArray[Any]
    n_classes: int

    def point(self, theta: Doubles, penalty: float) -> Point:
        """Go through the rows once."""
        n, dtype = self.rows.shape[0], self.rows.dtype
        W, b = theta[:-1].astype(dtype), theta[-1].astype(dtype)
        value, products, sums = 0.0, np.zeros(W.shape, dtype=np.float64), _Sums.none(self.n_classes)
        for start, block in self.rows.blocks():
            logits = block @ W
            logits += b
            y = self.y[start : start + len(block)]
            lost, P = lost_by(logits, y)
            value += lost
            sums.add(P, y)
            products += block.T @ P
        whole = value / n + 0.5 * penalty * dot(theta[:-1], theta[:-1])
        return Point(theta, whole, _gradient(products, sums.bias, theta, penalty, n), sums.curvature / n)

    def line(self, here: Point, step: Doubles, penalty: float) -> Line:
        """Return the line from a point."""
        return _Walk(self, here.theta, step, penalty)


@dataclass
class _Walk:
    loss: Passed
    theta: Doubles
    step: Doubles
    penalty: float
    found: list[Point] = field(default_factory=list)

    def at(self, size: float) -> tuple[float, float]:
        self.found = [self.loss.point(self.theta + size * self.step, self.penalty)]
        return self.found[0].value, dot(self.found[0].gradient, self.step)

    def point(self) -> Point:
        return self.found[0]


@dataclass
class Held:
    """Of an array: the logits of the latest point stay, (n, C). With an `offset` to them there is no bias."""

    rows: InMemory
    y: NDArray[Any]
    n_classes: int
    offset: Doubles | None = None
    logits: Floats = field(default_factory=lambda: np.empty((0, 0)))

    def point(self, theta: Doubles, penalty: float) -> Point:
        """Return the point of weights, from scratch."""
        self.logits = self.product(theta)
        if self.offset is not None:
            self.logits += self.offset.astype(self.logits.dtype)
        ray = _Ray(self, theta, np.zeros_like(theta), penalty, np.zeros_like(self.logits))
        ray.at(0.0)
        return ray.point()

    def line(self, here: Point, step: Doubles, penalty: float) -> Line:
        """Return the line from the latest point."""
        return _Ray(self, here.theta, step, penalty, self.product(step))

    def product(self, theta: Doubles) -> Floats:
        """Return X·W + b, (n, C)."""
        found = np.asarray(self.rows.X @ theta[:-1].astype(self.rows.dtype))
        if self.offset is None:
            found += theta[-1].astype(self.rows.dtype)
        return found

    def parts(self) -> Iterator[slice]:
        """Yield rows that fit the processor's cache together."""
        return (slice(a, a + BLOCK) for a in range(0, len(self.rows.X), BLOCK))


@dataclass
class _Ray:
    """`along` (n, C) is what a step of size one adds to the logits."""

    loss: Held
    theta: Doubles
    step: Doubles
    penalty: float
    along: Floats
    size: float = 0.0
    value: float = 0.0
    P: Floats = field(default_factory=lambda: np.empty((0, 0)))

    def at(self, size: float) -> tuple[float, float]:
        n, value, slope = len(self.along), 0.0, 0.0
        self.size, self.P = size, np.empty_like(self.along)
        factor = self.along.dtype.type(size)
        for part in self.loss.parts():
            logits = np.multiply(self.along[part], factor, out=self.P[part])
            logits += self.loss.logits[part]
            y, along = self.loss.y[part], self.along[part]
            lost, P = lost_by(logits, y)
            if P is not logits:
                logits[...] = P
            value += lost
            slope += float(np.einsum("ij,ij->", logits, along)) - chosen(along, y)
        W, V = self.theta[:-1], self.step[:-1]
        across, along_too = dot(W, V), dot(V, V)
        square = dot(W, W) + 2 * size * across + size * size * along_too
        self.value = value / n + 0.5 * self.penalty * square
        return self.value, slope / n + self.penalty * (across + size * along_too)

    def point(self) -> Point:
        loss, theta = self.loss, self.theta + self.size * self.step
        sums = _Sums.none(loss.n_classes)
        factor = self.along.dtype.type(self.size)
        for part in loss.parts():
            sums.add(self.P[part], loss.y[part])
            loss.logits[part] += factor * self.along[part]
        products = np.asarray(loss.rows.X.T @ self.P, dtype=np.float64)
        n, bias = len(self.P), sums.bias if loss.offset is None else np.zeros(loss.n_classes)
        return Point(theta, self.value, _gradient(products, bias, theta, self.penalty, n), sums.curvature / n)


@dataclass
class _Sums:
    """Over rows: of p - y, and of p(1-p), by class."""

    bias: Doubles
    curvature: Doubles

    @classmethod
    def none(cls, n_classes: int) -> _Sums:
        return cls(np.zeros(n_classes), np.zeros(n_classes))

    def add(self, P: Floats, y: NDArray[Any]) -> None:
        """Take probabilities in, and leave p - y in their place."""
        self.curvature += P.sum(axis=0, dtype=np.float64) - np.einsum("ij,ij->j", P, P)
        if y.ndim == 2:
            P -= y
        else:
            P[np.arange(len(y)), y] -= 1
        self.bias += P.sum(axis=0, dtype=np.float64)


Loss = Held | Passed


def of(rows: Rows, y: NDArray[Any], n_classes: int, offset: Doubles | None = None) -> Loss:
    """Return the loss of rows with codes (n,), or with 0 and 1 for each class (n, C); an offset asks for an array."""
    if isinstance(rows, InMemory) and (offset is not None or len(y) * n_classes <= HELD_UP_TO):
        return Held(rows, y, n_classes, offset)
    return Passed(rows, y, n_classes)


def _gradient(products: Doubles, bias: Doubles, theta: Doubles, penalty: float, n: int) -> Doubles:
    return np.vstack([products / n + penalty * theta[:-1], bias / n])


def lost_by(logits: Floats, y: NDArray[Any]) -> tuple[float, Floats]:
    """Return the summed cross entropy, and the probabilities; logits are written over."""
    if y.ndim == 2:
        lost = np.logaddexp(0, logits).sum(dtype=np.float64) - chosen(logits, y)
        return float(lost), np.asarray(expit(logits))
    logits -= logits.max(axis=1, keepdims=True)
    own = chosen(logits, y)
    odds = np.exp(logits, out=logits)
    totals = odds.sum(axis=1, keepdims=True)
    odds /= totals
    return float(np.log(totals, dtype=np.float64).sum() - own), odds


def chosen(values: Floats, y: NDArray[Any]) -> float:
    """Return the sum of what `y` points at."""
    if y.ndim == 2:
        return float(np.einsum("ij,ij->", values, y.astype(values.dtype)))
    return float(values[np.arange(len(y)), y].sum(dtype=np.float64))


def dot(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return Σ a·b of two matrices, by one thread: waking BLAS's for a vector costs more than the product."""
    return float(np.einsum("ij,ij->", a, b))
