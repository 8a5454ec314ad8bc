"""Predictions of rows that a head did not see: folds that keep together what belongs together, or the user's split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from heads import spilling
from heads.controls import sample
from heads.folds import Ints, assign
from heads.kind import Estimator, EstimatorClass
from heads.labels import Task

FOLDS, ALL_FOLDS_UP_TO = 5, 20_000
MOST_SCORED = 100_000


@dataclass(frozen=True)
class Held:
    """Held-out predictions: `probabilities[i]` (C,) of row `rows[i]` of the task; `how` says how they were held out."""

    rows: Ints
    probabilities: NDArray[np.float64]
    how: str


def held_out(task: Task, made: EstimatorClass, seed: int, split: str | None = None, *, most: int | None = None) -> Held:
    """Predict every row that is to be scored with a head that saw neither it nor anything of its unit.

    `most` limits how many of the five folds are scored.
    """
    if task.test is not None:
        model = fitted(task, task.train, made, seed)
        return Held(task.test, _probabilities(model, task, task.test), _describe(task, split))
    fold = assign(task.units, task.y, FOLDS, seed)
    wanted = (FOLDS if len(task.y) <= ALL_FOLDS_UP_TO else 1) if most is None else most
    parts = [k for k in range(wanted) if (fold == k).any()]
    asked: list[Ints] = []
    answers: list[NDArray[np.float64]] = []
    for k in parts:
        model = fitted(task, np.flatnonzero(fold != k), made, seed)
        held = np.flatnonzero(fold == k)
        asked.append(held[sample(len(held), MOST_SCORED, seed)])
        answers.append(_probabilities(model, task, asked[-1]))
    order = np.argsort(np.concatenate(asked))
    rows, probabilities = np.concatenate(asked)[order], np.concatenate(answers)[order]
    which = f"{len(parts)}" if len(task.y) <= ALL_FOLDS_UP_TO else f"one of {FOLDS}"
    return Held(rows, probabilities, f"{which} stratified folds, groups and near copies kept together")


def _describe(task: Task, split: str | None) -> str:
    seen = {task.units[i] for i in task.train}
    known = sum(task.units[i] in seen for i in task.test) if task.test is not None else 0
    warning = f"; {known} of its test rows are near copies of training rows, or in their group" if known else ""
    return f"column {split!r}{warning}"


def settled(made: EstimatorClass, model: Estimator) -> EstimatorClass:
    """Return a class that does not choose again what `model` chose: controls need one fit each, not a path."""
    given = {name: getattr(model, learned) for name, learned in getattr(type(model), "CHOSEN", {}).items()}
    return cast(EstimatorClass, partial(made, **given))


def fitted(task: Task, rows: Ints, made: EstimatorClass, seed: int) -> Estimator:
    """Fit to some of the rows, at ascending positions."""
    rows = rows[spilling.learned_from(made, task, len(rows), seed)]
    return made(seed=seed).fit(spilling.rows_for(made, task, rows), task.y[rows], groups=[task.units[i] for i in rows])


def _probabilities(model: Estimator, task: Task, rows: Ints) -> NDArray[np.float64]:
    """Return probabilities over all classes; a class that the model never saw gets none."""
    out = np.zeros((len(rows), len(task.classes)))
    out[:, model.classes_.astype(np.intp)] = spilling.by_blocks(model.predict_proba, task, rows)
    return out


def part_of_task(task: Task, rows: Ints) -> Task:
    """Return a task of some rows, all of them to train on."""
    return replace(
        task, keys=task.keys[rows], X=np.asarray(task.X[rows]), y=task.y[rows], units=[task.units[i] for i in rows],
        train=np.arange(len(rows)), test=None, spilled=None,
    )  # fmt: skip
