"""Heads from stored vectors: the path of penalties beside scikit-learn's, one fit, and retraining.

Rows are synthetic: 100 classes in 512 dimensions whose spread falls off, as that of real vectors does. The note of a
path or fit is its worst excess over the best loss that any contender of its scope reached, in nats a row.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benches.frame import Contender
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import NearestCentroid

from heads.kind import estimator
from heads.kinds._softmax import path
from heads.kinds.linear import Linear

UNIT = "values"
DIM, CLASSES = 512, 100
CS = tuple(float(c) for c in np.logspace(-6, 5, 45))
ONE = (1.0,)
ROWS, QUICK_ROWS, RETRAIN_ROWS = 8_000, 2_000, 100_000

Solved = list[tuple[NDArray[Any], NDArray[Any]]]


def contenders(work: Path, options: argparse.Namespace) -> list[Contender]:
    """Return the contenders; `--rows` are those of the path and the fit, 8,000 without it."""
    quick = options.quick
    n = options.rows or (QUICK_ROWS if quick else ROWS)
    Cs = CS[::9] if quick else CS
    X, y = planted(n)
    many, labels = planted(10_000 if quick else RETRAIN_ROWS)
    return [
        *compared(X, y, Cs, f"the path of {len(Cs)} penalties, {n:,} x {DIM}, {CLASSES} classes"),
        *compared(X, y, ONE, f"one fit, C = {ONE[0]:g}"),
        *retrained(many, labels),
    ]


def planted(n: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return rows (n, 512) float32, centred, with one scale, and their classes."""
    chance = np.random.default_rng(0)
    spread = np.exp(-np.arange(DIM) / (DIM / 4))
    y = chance.integers(0, CLASSES, n)
    X = (chance.standard_normal((CLASSES, DIM))[y] + 1.5 * chance.standard_normal((n, DIM))) * spread
    X -= X.mean(axis=0)
    return (X / np.sqrt(X.var(axis=0).mean())).astype(np.float32), y


def compared(X: Any, y: Any, Cs: Sequence[float], scope: str) -> list[Contender]:
    """Return scikit-learn's solver at two tolerances and ours, with what each leaves to gain."""
    ways: dict[str, tuple[Any, Callable[[], Solved]]] = {
        "scikit-learn, as it comes": ("peer", lambda: theirs(X, y, Cs, 1e-4)),
        "scikit-learn, tol 1e-6": ("peer", lambda: theirs(X, y, Cs, 1e-6)),
        "permafrost": ("us", lambda: ours(X, y, Cs)),
    }
    losses = {
        name: [loss(X, y, W, b, C) for (W, b), C in zip(run(), Cs, strict=True)] for name, (_, run) in ways.items()
    }
    best = np.min(list(losses.values()), axis=0)
    notes = {name: f"excess {np.max(np.array(found) - best):.1e}" for name, found in losses.items()}

    def counted(run: Callable[[], Solved]) -> Callable[[], int]:
        return lambda: len(run())

    return [Contender(role, name, counted(run), scope, notes[name]) for name, (role, run) in ways.items()]


def theirs(X: Any, y: Any, Cs: Sequence[float], tol: float) -> Solved:
    """Fit scikit-learn once a value, each from nothing, as its own sweep does."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for C in Cs:
            model = LogisticRegression(C=C, tol=tol, max_iter=1000).fit(X, y)
            found.append((model.coef_.T, model.intercept_))
    return found


def ours(X: Any, y: Any, Cs: Sequence[float]) -> Solved:
    """Turn the rows to their principal axes, as `linear` does, and follow the path; or fit `linear` at one value."""
    if len(Cs) == 1:
        model = Linear(C=Cs[0]).fit(X, y)
        W = model.coef_.T / model.scale_
        return [(W, model.intercept_ - model.mean_ @ W)]
    axes = np.linalg.eigh(X.T @ X)[1][:, ::-1]
    return [(axes @ w.W, w.b) for w in path(X @ axes, y, CLASSES, Cs, tol=1e-6)]


def loss(X: Any, y: Any, W: Any, b: Any, C: float) -> float:
    """Return the objective in float64."""
    logits = X.astype(np.float64) @ W + b
    nll = logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]
    return float(nll.mean() + np.vdot(W, W) / (2 * C * len(y)))


def retrained(X: Any, y: Any) -> list[Contender]:
    """Return fits to many rows, and the change of a hundred labels."""
    scope = f"retraining, {len(X):,} x {DIM}, {CLASSES} classes"

    def fitted(made: Callable[[], Any], groups: Any = None) -> Callable[[], int]:
        return lambda: len(made().fit(X, y, *([groups] if groups is not None else [])).classes_)

    alone = np.arange(len(X))
    moved = estimator("prototype")().fit(X, y, alone)

    def relabelled() -> int:
        moved.downdate(X[:100], y[:100]).update(X[:100], y[:100])  # type: ignore[attr-defined]
        return CLASSES

    return [
        Contender("peer", "scikit-learn NearestCentroid", fitted(NearestCentroid), scope),
        Contender("peer", "scikit-learn RidgeClassifier, one penalty", fitted(RidgeClassifier), scope),
        *(
            Contender("us", f"permafrost {k}", fitted(estimator(k), alone), scope)
            for k in ("prototype", "ridge", "lda")
        ),
        Contender("us", "permafrost prototype, 100 labels out and in", relabelled, scope),
    ]
