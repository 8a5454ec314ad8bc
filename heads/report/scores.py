"""Scores of features that train nothing: cheap enough to order a queue, shown with how well they agreed with probes.

None of them decides anything: small changes of the setting flip their winner (Agostinelli et al. 2022), and on features
whose classes are not linearly separable LogME and the H-score rank weak linear ones above (planted in the tests).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.covariance import ledoit_wolf_shrinkage

from embedder.records import FloatMatrix
from heads.folds import Ints
from heads.report.candidates import Candidate
from heads.report.probes import Plan, similarities, vote
from heads.report.terms import TermCounts

Floats = NDArray[np.float64]
MOST_ROWS = 5000
EPSILON = 1e-4
ITERATIONS, TOLERANCE = 500, 1e-10


def scores(candidate: Candidate, on: Plan) -> dict[str, float]:
    """Score one candidate on at most 5,000 rows, the same ones for all of a plan.

    Returns:
        `knn_loo` (accuracy, units left out whole), `logme` (nats an item), `h_score` (0 to C-1), `transrate` (nats).
        Counts of terms have `knn_loo` alone.
    """
    rows = np.arange(len(on))
    if len(on) > MOST_ROWS:
        rows = np.sort(np.random.default_rng(on.seed).choice(rows, MOST_ROWS, replace=False))
    y, X = on.y[rows], candidate.X
    if isinstance(X, TermCounts):
        return {"knn_loo": _neighbours(candidate, on, rows)}
    X = X[rows]
    part = Candidate(candidate.name, candidate.kind, X)
    sub = Plan(y, on.n_classes, on.units[rows], on.fold[:, rows], on.seed)
    found = {"knn_loo": _neighbours(part, sub, np.arange(len(rows)))}
    return found | {"logme": logme(X, y), "h_score": h_score(X, y), "transrate": transrate(X, y)}


def agreement(scored: Mapping[str, Mapping[str, float]], accuracy: Mapping[str, float]) -> dict[str, float | None]:
    """Return Kendall's tau-b of each score with the probes' accuracy; None with fewer than three candidates, or ties.

    Args:
        scored: by candidate, then by score.
        accuracy: by candidate.
    """
    names = [name for name in scored if name in accuracy]
    found: dict[str, float | None] = {}
    for score in sorted({s for name in names for s in scored[name]}):
        both = [(scored[name][score], accuracy[name]) for name in names if score in scored[name]]
        tau = float(stats.kendalltau(*zip(*both, strict=True)).statistic) if len(both) > 2 else np.nan
        found[score] = None if np.isnan(tau) else tau
    return found


def logme(F: FloatMatrix, y: Ints) -> float:
    """Return the log evidence an item of a Bayesian linear model of each class against the rest, mean over classes.

    You et al. 2021 (ICML): F uncentred, no intercept. The two precisions are found by the fixed point on the
    singular values; k of them, the rank, enter the evidence. (The authors' fast code has d there, which is wrong for
    d > n.)
    """
    X = np.asarray(F, dtype=np.float64)
    n = len(X)
    u, s, _ = np.linalg.svd(X, full_matrices=False)
    kept = s > s.max(initial=0) * max(X.shape) * np.finfo(np.float64).eps
    s2 = s[kept] ** 2
    targets = np.eye(int(y.max()) + 1)[:, y]
    projected = (targets @ u[:, kept]) ** 2
    return float(np.mean([_evidence(s2, x2, float(t.sum()), n) for x2, t in zip(projected, targets, strict=True)]))


def _evidence(s2: Floats, x2: Floats, norm2: float, n: int) -> float:
    """Maximise the evidence of one target; `s2` squared singular values, `x2` squared projections on them."""
    outside, ratio = max(norm2 - float(x2.sum()), 0.0), float(s2.mean())
    tiny, least, most = float(np.finfo(np.float64).tiny), ratio * 1e-12, ratio * 1e12
    for _ in range(ITERATIONS):
        gamma = float((s2 / (s2 + ratio)).sum())
        m2 = max(float((s2 * x2 / (s2 + ratio) ** 2).sum()), tiny)
        r2 = max(float((x2 * (ratio / (s2 + ratio)) ** 2).sum()) + outside, tiny)
        alpha, beta = gamma / m2, max(n - gamma, tiny) / r2
        before, ratio = ratio, float(np.clip(alpha / beta, least, most))
        if abs(ratio - before) <= TOLERANCE * before:
            break
    value = len(s2) / 2 * np.log(alpha) + n / 2 * np.log(beta) - 0.5 * np.log(alpha + beta * s2).sum()
    return float((value - beta * r2 / 2 - alpha * m2 / 2 - n / 2 * np.log(2 * np.pi)) / n)


def h_score(F: FloatMatrix, y: Ints) -> float:
    """Return (1-δ) tr(Σ_LW⁻¹ Σ_between), δ Ledoit and Wolf's shrinkage (Ibrahim et al. 2021, arXiv 2110.06893).

    Without the shrinkage noise in d near n dimensions scores nearly the most, C-1.
    """
    X = np.asarray(F, dtype=np.float64)
    X = X - X.mean(axis=0)
    n, d = X.shape
    delta, level = float(ledoit_wolf_shrinkage(X, assume_centered=True)), float((X**2).sum() / (n * d))
    if level == 0:
        return 0.0
    means = np.stack([X[y == c].mean(axis=0) * np.sqrt((y == c).mean()) for c in np.unique(y)])
    ridge = max(delta * level, level * 1e-10)
    if n < d:
        # Woodbury: (ridge·I + aXᵀX)⁻¹ by an n x n system
        a = (1 - delta) / n
        inner = np.linalg.solve(np.eye(n) + a / ridge * (X @ X.T), X @ means.T)
        solved = (means.T - a / ridge * (X.T @ inner)) / ridge
    else:
        solved = np.linalg.solve((1 - delta) * (X.T @ X) / n + ridge * np.eye(d), means.T)
    return float((1 - delta) * (means.T * solved).sum())


def transrate(F: FloatMatrix, y: Ints) -> float:
    """Return the coding rate of all rows minus the mean one within classes, weighted by size (Huang et al. 2022, ICML).

    Rows are centred and divided by √(mean‖x-μ‖²/d) first, so that the scale of an encoder does not count; ε is 1e-4.
    """
    X = np.asarray(F, dtype=np.float64)
    X = X - X.mean(axis=0)
    level = float(np.sqrt((X**2).mean()))
    X = X / level if level > 0 else X
    within = sum((y == c).mean() * _rate(X[y == c]) for c in np.unique(y))
    return float(_rate(X) - within)


def _rate(Z: Floats) -> float:
    """Return ½ log det(I + ZᵀZ / (nε)), by the smaller of the two Gram matrices."""
    n, d = Z.shape
    gram = Z.T @ Z if d <= n else Z @ Z.T
    return 0.5 * float(np.linalg.slogdet(np.eye(len(gram)) + gram / (n * EPSILON))[1])


def _neighbours(candidate: Candidate, on: Plan, queries: Ints) -> float:
    right = 0
    for rows, similarity in similarities(candidate, queries):
        said = vote(similarity, on.units[rows, None] == on.units, on.y, on.n_classes).argmax(axis=1)
        right += int((said == on.y[rows]).sum())
    return right / len(queries)
