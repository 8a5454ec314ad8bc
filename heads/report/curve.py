"""Question 5, first half: would more labels help? Error as a function of labels, with a model that extrapolates twice.

Each of eight draws holds a fifth of the units out and trains on nested subsets of the rest; e(m) = a·m^-b + c is fitted
by weighted least squares, b from a grid. Bands bootstrap the draws; planted curves showed bands so made to be too
narrow at twice the labels, so half-widths are 1.4 times larger. A curve whose slope breaks past the data fools any
such model (Viering and Loog 2022): no verdict rests on it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heads.folds import Ints
from heads.report.candidates import Candidate
from heads.report.compare import nadeau_bengio
from heads.report.probes import Head, Plan, rows_of
from heads.report.verdict import Interval, plain

Floats = NDArray[np.float64]
DRAWS, BOOTSTRAPS, HELD = 8, 1000, 5
SMALLEST, HALVINGS = 10, 5
EXPONENTS = np.geomspace(0.05, 2.0, 40)
WIDEN, FARTHEST = 1.4, 2.0
DELTA = 0.02


@dataclass(frozen=True)
class Measured:
    """Errors (D, S) of D draws at S training sizes, ascending; `held`: on how many rows each was scored, in the mean.

    Row d, column s: share of the held-out rows that a head trained on `sizes[s]` rows gets wrong.
    """

    sizes: Ints
    errors: Floats
    held: float


@dataclass(frozen=True)
class Curve:
    """The fitted curve.

    Attributes:
        a, b, c: of a·m^-b + c, an error's share.
        gain: e(n) - e(2n) with n the largest size measured, by the model; `gain_interval` is 95 %, widened.
        last_halving: e(n/2) - e(n) as measured, with the interval that allows for training sets that overlap.
    """

    measured: Measured
    a: float
    b: float
    c: float
    parameters: Floats
    gain: float
    gain_interval: Interval
    last_halving: float
    last_halving_interval: Interval

    @property
    def n(self) -> int:
        """The largest size measured."""
        return int(self.measured.sizes[-1])

    def trend(self, delta: float = DELTA) -> Literal["falling", "flat", "undecided"]:
        """Say whether twice the labels would gain more than `delta`, or less, or whether that is open."""
        low, high = self.gain_interval
        return "falling" if low > delta else "flat" if high < delta else "undecided"

    def error(self, sizes: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
        """Return (error, low, high) at sizes up to twice the largest measured; beyond that, NaN."""
        near = np.where(np.asarray(sizes) <= FARTHEST * self.n, sizes, np.nan)
        point = _at(np.array([[self.a, self.b, self.c]]), near)[0]
        low, high = np.quantile(_at(self.parameters, near), [0.025, 0.975], axis=0)
        return point, np.clip(_widen(point, low), 0, 1), np.clip(_widen(point, high), 0, 1)

    def as_json(self) -> dict[str, Any]:
        """Return every figure but the bootstrapped parameters, with the band at the sizes measured and at 2n."""
        sizes = np.append(self.measured.sizes, 2 * self.n)
        error, low, high = self.error(sizes)
        shown = {k: v for k, v in vars(self).items() if k != "parameters"}
        shown |= {"trend": self.trend(), "sizes": sizes, "error": error, "low": low, "high": high}
        return {name: plain(value) for name, value in shown.items()}


def measure(candidate: Candidate, on: Plan, make: Callable[[], Head], *, draws: int = DRAWS) -> Measured:
    """Train on nested subsets of rows, n/32 … n of the four fifths that are not held out, alike for every candidate.

    Sizes under ten rows, or under two rows a class, are left out.
    """
    rng = np.random.default_rng(on.seed)
    splits = [_Split.of(on, rng) for _ in range(draws)]
    most = min(len(split.train) for split in splits)
    least = max(SMALLEST, 2 * on.n_classes)
    sizes = [most >> k for k in range(HALVINGS, -1, -1) if most >> k >= least or k == 0]
    errors = [[split.error(candidate, on, make, size) for size in sizes] for split in splits]
    held = float(np.mean([len(split.held) for split in splits]))
    return Measured(np.array(sizes, dtype=np.intp), np.array(errors), held)


@dataclass(frozen=True)
class _Split:
    """Rows to train on, in an order whose every prefix holds the classes in proportion, units whole; rows to score."""

    train: Ints
    held: Ints

    @classmethod
    def of(cls, on: Plan, rng: np.random.Generator) -> _Split:
        label = np.zeros(int(on.units.max()) + 1, dtype=np.intp)
        # a unit's class is that of its first row
        label[on.units[::-1]] = on.y[::-1]
        in_turn = np.concatenate([rng.permutation(np.flatnonzero(label == k)) for k in rng.permutation(on.n_classes)])
        held = np.isin(on.units, in_turn[HELD - 1 :: HELD])
        train = np.flatnonzero(~held)
        rank = _stratified(label, rng)
        return cls(train[np.argsort(rank[on.units[train]], kind="stable")], np.flatnonzero(held))

    def error(self, candidate: Candidate, on: Plan, make: Callable[[], Head], size: int) -> float:
        rows = self.train[:size]
        if len(np.unique(on.y[rows])) < 2:
            return float((on.y[self.held] != on.y[rows[0]]).mean())
        fitted, scored = rows_of(candidate, rows)
        model = make()
        model.fit(fitted, on.y[rows], groups=on.units[rows])
        said = model.classes_[model.predict_proba(scored(self.held)).argmax(axis=1)]
        return float((said != on.y[self.held]).mean())


def _stratified(label: Ints, rng: np.random.Generator) -> Ints:
    """Return the rank of each unit in a random order that spreads classes evenly."""
    place = np.empty(len(label))
    for k in np.unique(label):
        members = rng.permutation(np.flatnonzero(label == k))
        # each within its own part: with one number for the class, classes of one size would always come in one order
        place[members] = (np.arange(len(members)) + rng.random(len(members))) / len(members)
    return np.argsort(np.argsort(place, kind="stable"), kind="stable").astype(np.intp)


def fit(measured: Measured, *, seed: int = 0) -> Curve:
    """Fit the model and its band."""
    rng = np.random.default_rng(seed)
    n_draws, sizes = len(measured.errors), measured.sizes.astype(np.float64)
    picked = rng.integers(n_draws, size=(BOOTSTRAPS, n_draws))
    means = np.concatenate([measured.errors.mean(axis=0)[None], measured.errors[picked].mean(axis=1)])
    found = _least_squares(sizes, means, measured.held)
    first, rest = found[:1], found[1:]
    gains = [_at(p, sizes[-1:])[:, 0] - _at(p, 2 * sizes[-1:])[:, 0] for p in (first, rest)]
    low, high = np.quantile(gains[1], [0.025, 0.975])
    gain, (a, b, c) = float(gains[0][0]), first[0].tolist()
    interval = (float(_widen(gain, low)), float(_widen(gain, high)))
    halving, halving_interval = _last_halving(measured)
    return Curve(measured, a, b, c, rest, gain, interval, halving, halving_interval)


def _last_halving(measured: Measured) -> tuple[float, Interval]:
    if len(measured.sizes) < 2:
        return float("nan"), (float("-inf"), float("inf"))
    gaps = measured.errors[:, -2] - measured.errors[:, -1]
    return float(gaps.mean()), nadeau_bengio(gaps, 1 / (HELD - 1)).interval


def _widen(point: Any, end: Any) -> Any:
    return point + WIDEN * (end - point)


def _at(parameters: Floats, sizes: NDArray[Any]) -> Floats:
    a, b, c = (parameters[:, k : k + 1] for k in range(3))
    return np.asarray(a * np.asarray(sizes, dtype=np.float64)[None] ** -b + c)


def _least_squares(sizes: Floats, means: Floats, held: float) -> Floats:
    """Return (B, 3): for each row of `means` (B, S) the a, b, c >= 0 of least weighted squares, b on the grid.

    Weights are inverse variances of a share of `held` rows. For given b the problem is a line in m^-b; where its slope
    or intercept would be negative, the better of the two edges is the optimum.
    """
    weight = 1 / (means * (1 - means) + 1 / held)
    weight /= weight.sum(axis=1, keepdims=True)
    tried = np.stack([_line(sizes**-b, means, weight) for b in EXPONENTS], axis=1)
    best = tried[:, :, 2].argmin(axis=1)
    a, c, _ = tried[np.arange(len(means)), best].T
    return np.stack([a, EXPONENTS[best], c], axis=1)


def _line(x: Floats, means: Floats, weight: Floats) -> Floats:
    """Return (B, 3): slope, intercept (both >= 0) and the sum of squares."""
    centre, level = weight @ x, (weight * means).sum(axis=1)
    through = (weight * means) @ x / (weight @ x**2)
    spread = weight @ x**2 - centre**2
    slope = ((weight * means) @ x - centre * level) / np.maximum(spread, np.finfo(np.float64).tiny)
    zero = np.zeros_like(level)
    edges = [(through, zero), (zero, level)]
    inside = (slope > 0) & (level - slope * centre > 0) & (spread > 0)
    options = [(np.where(inside, slope, 0), np.where(inside, level - slope * centre, level)), *edges]
    losses = [(weight * (means - a[:, None] * x - c[:, None]) ** 2).sum(axis=1) for a, c in options]
    best = np.argmin(losses, axis=0)
    rows = np.arange(len(means))
    return np.stack(
        [
            np.stack([a for a, _ in options])[best, rows],
            np.stack([c for _, c in options])[best, rows],
            np.stack(losses)[best, rows],
        ],
        axis=1,
    )
