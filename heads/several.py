"""An honest account of a head that gives several classes an item: scores beside their controls, and its guard.

Thresholds and temperature are chosen on held-out rows; what is scored was chosen on rows of other folds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.errors import UsageError
from heads import conformal, controls, domain, tag_scores, tags
from heads.folds import Ints, assign
from heads.holding import FOLDS, Held, part_of_task
from heads.honest import NAIVE_FROM, Wishes
from heads.labels import Task
from heads.tables import class_row
from heads.tags import Floats, Tags

Hold = Callable[[Task, int | None], Held]


def account(task: Task, held: Held, hold: Hold, wishes: Wishes, seed: int) -> tuple[dict[str, Any], Tags]:
    """Score held-out probabilities and fit the guard to them.

    Args:
        hold: predicts held-out rows of a task with the head's kind, on at most so many folds, for the controls.

    Returns:
        the facts to save: `metrics`, `per_class` with `threshold` and `average_precision`, `calibration`, `sets`,
        `promise`; and the guard.

    Raises:
        UsageError: a risk was asked for; each class has its own.
    """
    if wishes.max_risk is not None:
        raise UsageError("an answer of several classes is not simply right or wrong", hint="leave --max-risk out")
    raw, Y = held.probabilities, task.y[held.rows]
    units = [task.units[i] for i in held.rows]
    fold, unit = assign(units, Y, FOLDS, seed), np.asarray(units)
    fitted, P = tags.calibrated(raw, Y, fold)
    said = tags.said(P, Y, fold)
    metrics, precisions = tag_scores.scores(Y, P, said, unit, seed)
    metrics |= _uncalibrated(Y, raw, unit, seed)
    inside, size = tags.covered(raw, Y, fold, wishes.coverage, per_class=wishes.per_class)
    metrics |= {**controls.share("coverage", inside, unit), **controls.mean("set_size", size, unit, seed)}
    metrics |= _constant(task, Y, unit, seed)
    if wishes.controls:
        metrics |= _controls(task, held, hold, P, seed)
    near = domain.fit(task.X[task.train], [task.units[i] for i in task.train], seed)
    sets = tags.fit_sets(raw, Y, wishes.coverage, per_class=wishes.per_class)
    guard = Tags(fitted, tuple(tags.thresholds(tags.warmed(raw, fitted), Y).tolist()), sets, near)
    at = np.unique(unit, return_inverse=True)[1]
    table = [
        class_row(name, Y[:, c] == 1, said[:, c], at) | precisions[c] | {"threshold": guard.thresholds[c]}
        for c, name in enumerate(task.classes)
    ]
    promise = conformal.EXACT if task.test is not None else conformal.FOLDED
    facts = {"metrics": metrics, "per_class": table, "confusion": {}, "promise": promise}
    return {**facts, "calibration": fitted.as_json(), "sets": sets.as_json()}, guard


def _uncalibrated(Y: Ints, raw: Floats, unit: NDArray[Any], seed: int) -> dict[str, Any]:
    at = np.unique(unit, return_inverse=True)[1]
    before = tag_scores.calibration_error(Y, raw, at, np.ones((1, int(at.max()) + 1), dtype=np.int64))
    loss = controls.mean("log_loss_uncalibrated", tags.losses(raw, Y), unit, seed)
    return {**loss, "ece_uncalibrated": before["ece"]}


def _constant(task: Task, Y: Ints, unit: NDArray[Any], seed: int) -> dict[str, Any]:
    """Score what needs no head: always the classes with the best F1 on the training rows, and a random order."""
    n, counts = len(task.train), task.y[task.train].sum(axis=0)
    order = np.argsort(-counts, kind="stable")
    f1 = 2 * np.cumsum(counts[order]) / (n * np.arange(1, len(order) + 1) + counts.sum())
    always = np.zeros(Y.shape, dtype=bool)
    always[:, order[: int(f1.argmax()) + 1]] = True
    hits, size = (always & (Y == 1)).sum(), always.sum() + Y.sum()
    chance = Y.mean(axis=0)
    return {
        "majority_micro_f1": float(2 * hits / max(size, 1)),
        "chance_average_precision": float(chance[chance > 0].mean()),
        "labels_per_item": float(Y.sum(axis=1).mean()),
    }


def _controls(task: Task, held: Held, hold: Hold, P: Floats, seed: int) -> dict[str, Any]:
    """Return the mean average precision of neighbours, of shuffled labels, and of a split that parts copies."""
    queries, votes = controls.neighbours(task.X, task.y, task.units, task.train, held.rows, seed)
    found = {f"knn_{k}": _mean_precision(task.y[queries], V) for k, V in votes.items()}
    some = controls.sample(len(task.train), controls.SHUFFLED_ROWS, seed)
    part = part_of_task(task, task.train[some])
    first, at = np.unique(np.asarray(part.units), return_index=True, return_inverse=True)[1:]
    dealt = np.random.default_rng([seed, 1]).permutation(part.y[first])[at]
    blind = hold(replace(part, y=dealt), controls.FOLDS_SCORED)
    found["shuffled"] = _mean_precision(dealt[blind.rows], blind.probabilities)
    return found | (_naive(task, held, hold, P) if task.test is None else {})


def _naive(task: Task, held: Held, hold: Hold, P: Floats) -> dict[str, Any]:
    """Score a split that deals rows out one by one, where at least 5 % have mates, on the rows of two of its folds."""
    at, sizes = np.unique(np.asarray(task.units), return_inverse=True, return_counts=True)[1:]
    if (sizes[at] > 1).mean() < NAIVE_FROM:
        return {}
    naive = hold(replace(task, units=[str(key) for key in task.keys.tolist()]), controls.FOLDS_SCORED)
    rows, mine, theirs = np.intersect1d(held.rows, naive.rows, return_indices=True)
    if not len(rows):
        return {}
    flattered = _mean_precision(task.y[rows], naive.probabilities[theirs])
    return {"naive_average_precision": flattered, "naive_gap": flattered - _mean_precision(task.y[rows], P[mine])}


def _mean_precision(Y: Ints, P: Floats) -> float:
    each = tag_scores.average_precision(Y, P)
    return float(np.nanmean(each)) if not np.isnan(each).all() else 0.0


def rows_of(task: Task, held: Held, most: int) -> dict[str, NDArray[Any]]:
    """Return what is saved beside the model: `row_keys` (n_train,) and `row_labels` (n_train, C) uint8.

    With them, up to `most` values, `test_keys`, `test_labels` (n_test, C) uint8 and `test_probabilities` float32.
    """
    Y = task.y.astype(np.uint8)
    found: dict[str, NDArray[Any]] = {"row_keys": task.keys[task.train], "row_labels": Y[task.train]}
    if held.probabilities.size <= most:
        found |= {"test_keys": task.keys[held.rows], "test_labels": Y[held.rows]}
        found["test_probabilities"] = held.probabilities.astype(np.float32)
    return found
