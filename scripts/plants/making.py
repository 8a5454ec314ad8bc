"""Planted features, and the quick honest probe that the planted cases share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedder.records import FloatMatrix
from heads.report.candidates import Candidate
from heads.report.probes import FOLDS, Plan, Probe, plan
from heads.report.ridge import FoldRidge

DIMS, INFORMED = 20, 10


def two_classes(n: int, seed: int, **options: int) -> Plan:
    """Balanced labels at random places, every row its own unit."""
    y = np.random.default_rng([seed, 1]).permutation(np.arange(n) % 2)
    return plan(y, [f"u{i}" for i in range(n)], seed=seed, **options)


def shifted(on: Plan, shift: float, seed: int, name: str = "", kind: str = "encoder") -> Candidate:
    """Unit noise in 20 dimensions, the two classes' means ±shift apart in 10 of them."""
    X = np.random.default_rng([seed, 2]).normal(size=(len(on), DIMS))
    X[:, :INFORMED] += shift * (2 * on.y[:, None] - 1)
    return Candidate(name or f"{kind} {shift} {seed}", kind, X.astype(np.float32))


def quick(candidate: Candidate, on: Plan) -> Probe:
    """Probe by ridge, its penalty chosen inside: a hundred times as fast as logistic regression, and as honest."""
    X = candidate.X
    assert isinstance(X, np.ndarray)
    found = [FoldRidge(X, fold).probe(on.y, on.n_classes) for fold in on.fold]
    correct = np.stack([f.correct for f in found])
    return _probe(candidate.name, correct, np.stack([f.inner for f in found]), on)


def flips(n: int, discordance: float, difference: float, seed: int) -> tuple[Plan, Probe, Probe]:
    """Two predictors that disagree on a share of the rows, drawn directly: no features, no training."""
    on = two_classes(n, seed, repeats=1)
    u = np.random.default_rng([seed, 3]).random(n)
    only_a, only_b = u < (discordance + difference) / 2, u > 1 - (discordance - difference) / 2
    none = np.zeros((1, FOLDS))
    return on, _probe("a", ~only_b[None], none, on), _probe("b", ~only_a[None], none, on)


def _probe(name: str, correct: NDArray[np.bool_], inner: NDArray[np.float64], on: Plan) -> Probe:
    said = np.where(correct, on.y, 1 - on.y)
    hot: FloatMatrix = np.eye(on.n_classes, dtype=np.float32)[said]
    return Probe(name, "ridge", on.y, hot, inner, np.full_like(inner, np.nan), 0.0)
