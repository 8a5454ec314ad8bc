"""Honest probes: every item is predicted by heads that never saw it, on the same folds for every candidate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.preprocessing import normalize

from embedder.errors import UsageError
from embedder.records import FloatMatrix
from heads.folds import Ints, assign
from heads.kinds.linear import Linear
from heads.report.candidates import Candidate
from heads.report.compare import Comparison, Resampler, paired
from heads.report.terms import SparseLinear, TermCounts

FOLDS = 5
REPEATS = ((500, 3), (2000, 2))
NEIGHBOURS, TEMPERATURE, BLOCK = 10, 0.07, 500
TINY = float(np.finfo(np.float32).tiny)


class Head(Protocol):
    """What a probe fits: all that it learns and chooses comes from the rows given to `fit`."""

    classes_: NDArray[Any]

    def fit(self, X: Any, y: Any, groups: Any) -> Any:
        """Learn; rows of one group are held out together."""

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return (m, len(classes_))."""


@dataclass(frozen=True)
class Plan:
    """The folds of a report: `fold[r, i]` is where row i is held out in repeat r; `units` are codes from 0."""

    y: Ints
    n_classes: int
    units: Ints
    fold: Ints
    seed: int

    def __len__(self) -> int:
        return len(self.y)

    @cached_property
    def resampler(self) -> Resampler:
        """The bootstrap draws that all comparisons of this plan share."""
        return Resampler(self.units, seed=self.seed)

    def compare(self, a: Probe, b: Probe) -> Comparison:
        """Compare the accuracies of two probes on this plan."""
        return paired(a.correct, b.correct, self.fold, self.resampler, names=(a.name, b.name))


def plan(y: Ints, units: Sequence[str], *, repeats: int | None = None, seed: int = 0) -> Plan:
    """Deal rows into 5 folds, several times over: stratified, units whole.

    Args:
        y: (n,) codes from 0, each class in two units at least.
        units: (n,) names, equal where rows belong together.
        repeats: none means 3 up to 500 rows, 2 up to 2,000, 1 above.

    Raises:
        UsageError: fewer than five units: nothing can be held out five times.
    """
    codes = np.unique(np.asarray(units, dtype=str), return_inverse=True)[1]
    if codes.max(initial=-1) + 1 < FOLDS:
        raise UsageError(f"{len(y)} rows in {codes.max(initial=-1) + 1} groups cannot be held out in {FOLDS} parts")
    times = repeats or next((r for most, r in REPEATS if len(y) <= most), 1)
    fold = np.stack([assign(units, y, FOLDS, seed * 1000 + r) for r in range(times)])
    return Plan(np.asarray(y, dtype=np.intp), int(y.max()) + 1, np.asarray(codes, dtype=np.intp), fold, seed)


@dataclass(frozen=True)
class Probe:
    """Held-out predictions of one candidate by one family of heads.

    Attributes:
        probabilities: (R, n, C) float32, row i in repeat r by a head that did not see its unit.
        inner: (R, folds) score inside the training rows of each fold, higher is better: minus the NLL that the head's
            own held-out rows had. NaN where the head holds nothing out.
        train_accuracy: (R, folds), on the rows that the head was fitted to.
        seconds: wall time.
        C: the median of the penalties that the heads chose, None where they choose none.
    """

    name: str
    head: str
    y: Ints
    probabilities: NDArray[np.float32]
    inner: NDArray[np.float64]
    train_accuracy: NDArray[np.float64]
    seconds: float
    C: float | None = None

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """(R, n): whether the most probable class is the right one."""
        return np.asarray(self.probabilities.argmax(axis=2) == self.y)

    @property
    def accuracy(self) -> float:
        """Mean over rows and repeats."""
        return float(self.correct.mean())

    @cached_property
    def log2(self) -> NDArray[np.float64]:
        """(n,): log2 of the probability of the true class, mixed with 1 % uniform, mean over repeats."""
        own = self.probabilities[:, np.arange(len(self.y)), self.y].astype(np.float64)
        return np.asarray(np.log2(0.99 * own + 0.01 / self.probabilities.shape[2]).mean(axis=0))


def linear(candidate: Candidate, on: Plan) -> Probe:
    """Probe with logistic regression, its C chosen inside each training part."""
    return cross_validated(candidate, on, lambda: linear_head(candidate), head="linear")


def linear_head(candidate: Candidate, C: float | None = None) -> Head:
    """Return an unfitted logistic regression of the sort that the candidate's features need; it chooses its C itself,
    unless one is given."""
    return SparseLinear(C) if isinstance(candidate.X, TermCounts) else Linear(C)


def cross_validated(candidate: Candidate, on: Plan, make: Callable[[], Head], *, head: str) -> Probe:
    """Fit a head to each training part and predict the part held out.

    Args:
        make: returns a head that has learned nothing yet.
        head: the name of its family.
    """
    started = time.monotonic()
    repeats, n = on.fold.shape
    probabilities = np.zeros((repeats, n, on.n_classes), dtype=np.float32)
    inner, trained = np.full((repeats, FOLDS), np.nan), np.full((repeats, FOLDS), np.nan)
    chosen: list[float] = []
    for r in range(repeats):
        for k in np.unique(on.fold[r]):
            held, train = np.flatnonzero(on.fold[r] == k), np.flatnonzero(on.fold[r] != k)
            model = make()
            fitted, scored = rows_of(candidate, train)
            model.fit(fitted, on.y[train], groups=on.units[train])
            classes = model.classes_.astype(np.intp)
            probabilities[r, held[:, None], classes] = model.predict_proba(scored(held))
            inner[r, k] = _held_out(model)
            chosen += [model.C_] if hasattr(model, "C_") else []
            trained[r, k] = (classes[model.predict_proba(fitted).argmax(axis=1)] == on.y[train]).mean()
    C = float(np.quantile(chosen, 0.5, method="lower")) if chosen else None
    return Probe(candidate.name, head, on.y, probabilities, inner, trained, time.monotonic() - started, C)


def rows_of(candidate: Candidate, train: Ints) -> tuple[Any, Callable[[Ints], Any]]:
    """Return the features of the training rows, and a function that gives those of other rows; weights from `train`."""
    X = candidate.X
    if isinstance(X, TermCounts):
        return X.weighted(train, train), lambda rows: X.weighted(train, rows)
    return X[train], lambda rows: X[rows]


def _held_out(model: Head) -> float:
    """Return minus the NLL of the head's own held-out rows, NaN where it has none."""
    path = dict(getattr(model, "path_", None) or [])
    return -path[model.C_] if path else float(getattr(model, "inner_", np.nan))  # type: ignore[attr-defined]


def neighbours(candidate: Candidate, on: Plan, *, leave: str = "unit") -> Probe:
    """Vote among the ten nearest rows by cosine, weighted by exp(cos/0.07) (Wu et al. 2018).

    Args:
        leave: `unit`: a row's own unit is left out (one repeat); `fold`: its fold, as the other probes do, which makes
            the two comparable.
    """
    started = time.monotonic()
    everyone = np.arange(len(on))
    apart = on.units[None] if leave == "unit" else on.fold
    probabilities = np.empty((len(apart), len(on), on.n_classes), dtype=np.float32)
    for rows, similarity in similarities(candidate, everyone):
        for r, part in enumerate(apart):
            probabilities[r, rows] = vote(similarity, part[rows, None] == part, on.y, on.n_classes)
    none = np.full((len(apart), FOLDS), np.nan)
    return Probe(candidate.name, "knn", on.y, probabilities, none, none, time.monotonic() - started)


def similarities(candidate: Candidate, queries: Ints) -> Iterator[tuple[Ints, FloatMatrix]]:
    """Yield blocks of queries with their cosines (b, n) to all rows; a row of zeros is at 0 from everything."""
    everyone = np.arange(len(candidate))
    X = candidate.X
    Z = normalize(X.weighted(everyone, everyone) if isinstance(X, TermCounts) else X)
    for start in range(0, len(queries), BLOCK):
        rows = queries[start : start + BLOCK]
        product = Z[rows] @ Z.T
        yield rows, product.toarray() if issparse(product) else product


def vote(similarity: FloatMatrix, hidden: NDArray[np.bool_], y: Ints, n_classes: int) -> FloatMatrix:
    """Return (b, C) votes of the nearest rows that are not `hidden` (b, n), summing to one."""
    seen = np.where(hidden, -np.inf, similarity)
    k = min(NEIGHBOURS, seen.shape[1])
    nearest = np.argpartition(seen, -k, axis=1)[:, -k:]
    cosine = np.take_along_axis(seen, nearest, axis=1)
    weights = np.exp((cosine - cosine.max(axis=1, keepdims=True)) / TEMPERATURE)
    flat = y[nearest] + n_classes * np.arange(len(seen))[:, None]
    counted = np.bincount(flat.ravel(), weights.ravel(), n_classes * len(seen)).reshape(-1, n_classes)
    return np.asarray(counted / counted.sum(axis=1, keepdims=True), dtype=np.float32)
