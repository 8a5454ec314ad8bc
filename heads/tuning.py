"""What tuning an encoder takes from heads: which rows it may see, the head it begins with, and what it gained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.errors import UsageError
from embedder.records import FloatMatrix
from heads.folds import Ints, assign
from heads.kinds.linear import Linear
from heads.labels import Task
from heads.report import pilot
from heads.report.compare import Comparison
from heads.report.verdict import MARGIN, percent, points, rounded, span

FOLDS = 5
LEAST_TEST = 10
NEVER = -30.0


@dataclass(frozen=True)
class Split:
    """Positions in a task: `fit` and `validation` are seen with their labels, `test` is not, nor any of its units."""

    fit: Ints
    validation: Ints
    test: Ints

    @property
    def seen(self) -> Ints:
        """What is seen with its labels."""
        return np.sort(np.concatenate([self.fit, self.validation]))


def split(task: Task, readable: NDArray[np.bool_], seed: int) -> Split:
    """Hold out one of the five folds that heads are scored on, or the test rows of a column; of the rest, one in five
    says when to stop.

    Args:
        readable: (n,) rows whose content could be read again; the others are in no part.

    Raises:
        UsageError: too few rows are held out for anything to be said.
    """
    if task.test is None:
        held = assign(task.units, task.y, FOLDS, seed) == 0
        train, test = np.flatnonzero(~held & readable), np.flatnonzero(held & readable)
    else:
        train, test = task.train[readable[task.train]], task.test[readable[task.test]]
        known = {task.units[i] for i in train}
        test = np.array([i for i in test if task.units[i] not in known], dtype=np.intp)
    inner = assign([task.units[i] for i in train], task.y[train], FOLDS, seed) == 0
    if len(test) < LEAST_TEST or not inner.any() or inner.all():
        raise UsageError(
            f"{len(train)} rows to learn from and {len(test)} to be scored on are too few to tune on",
            hint=f"label more items: at least {LEAST_TEST} are held out, one in {FOLDS}",
        )
    return Split(train[~inner], train[inner], test)


def first_head(task: Task, rows: Ints, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weight (C, d) and bias (C,) of a linear head on frozen vectors: logits are X·Wᵀ + b.

    A class without a row among these begins as one that is never said.
    """
    model = Linear(seed=seed).fit(task.X[rows], task.y[rows], groups=[task.units[i] for i in rows])
    weight, bias = np.zeros((len(task.classes), task.X.shape[1])), np.full(len(task.classes), NEVER)
    codes = model.classes_.astype(np.intp)
    weight[codes] = model.coef_ / model.scale_
    bias[codes] = model.intercept_ - weight[codes] @ model.mean_
    return weight, bias


def account(
    task: Task, parts: Split, tuned: FloatMatrix, head: tuple[NDArray[Any], NDArray[Any]], seed: int
) -> tuple[dict[str, Any], Comparison]:
    """Return what was measured on the test rows, by plain names, and the comparison behind `gain`.

    `accuracy` is of a linear probe fitted again to the tuned vectors of the rows that were seen, `frozen_accuracy` of
    one on their frozen vectors, `gain` the difference, paired; `end_to_end_accuracy` of the head tuned along.

    Args:
        tuned: (n, d) tuned vectors of the task's rows.
        head: weight and bias that were tuned along.
    """
    found = pilot.measure(task.X, tuned, task.y, task.units, parts.seen, parts.test, ("tuned", "frozen"), seed)
    said = (tuned[parts.test] @ head[0].T + head[1]).argmax(axis=1)
    y = task.y[parts.test]
    majority = int(np.bincount(task.y[parts.seen]).argmax())
    return {
        "accuracy": found.tuned, "frozen_accuracy": found.frozen, "gain": found.gain.difference,
        "gain_interval": list(found.gain.sure), "gain_p": found.gain.p, "mcnemar_p": found.gain.mcnemar,
        "end_to_end_accuracy": float((said == y).mean()), "majority": float((y == majority).mean()),
        "n_fit": len(parts.fit), "n_validation": len(parts.validation), "n_test": len(parts.test),
    }, found.gain  # fmt: skip


def sentence(gain: Comparison, metrics: Mapping[str, Any]) -> str:
    """Return what the gain says in plain words; which words follows from its interval."""
    both = f"{percent(metrics['accuracy'])} against {percent(metrics['frozen_accuracy'])} frozen"
    size = f"{points(gain.difference)} points ({span(gain.sure, signed=True)}) on {gain.items} items it did not see"
    way = gain.direction(MARGIN)
    if way == "above":
        return f"Fine-tuning gains {size}: {both}."
    if way == "below":
        return f"Fine-tuning loses {size}: {both}. Stay frozen."
    if way == "tie":
        return f"Fine-tuning and frozen are tied within ±{points(MARGIN)} points: {both}. Stay frozen."
    delta, need = gain.needed(MARGIN)
    return (
        f"No gain is shown: {both}. Not enough data to say: a {points(delta)}-point difference needs about "
        f"{rounded(need)} items held out; here are {gain.items}."
    )
