"""The verb: rows with a label, folds, fit, an honest score, and the head saved with what it stands on."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from embedder.errors import UsageError
from embedder.space import Space
from heads import conformal, labels, numbers, saved, spilling
from heads.controls import sample
from heads.folds import Ints, assign
from heads.honest import Account, Held, Wishes, account
from heads.kind import Estimator, EstimatorClass, estimator, predicts_numbers, regressor
from heads.labels import Task
from heads.report import pilot
from index import tuned
from index.features import Features, features
from index.store import Collection, check_name

FOLDS, ALL_FOLDS_UP_TO = 5, 20_000
MOST_SCORED = 100_000
UNSEEN = "; only rows that the tuned encoder did not see are scored"
CLASSES, REGRESSION = TASKS = ("classes", "regression")


@dataclass(frozen=True)
class Trained:
    """A head as it was saved. `left_out` has the classes that were too small, with how many members each had.

    `n_train` rows made the head; `n_test` rows were scored, as `split` says, each by a head that never saw it.
    `calibration` and `sets` say how probabilities and prediction sets are made, `promise` what the sets promise.
    """

    head: str
    version: int
    kind: str
    space: str
    label: str
    classes: list[str]
    n_train: int
    n_test: int
    metrics: dict[str, Any]
    left_out: dict[str, int]
    split: str
    near_duplicates: dict[str, Any]
    calibration: dict[str, Any]
    sets: dict[str, Any]
    promise: str
    per_class: list[dict[str, Any]]
    confusion: dict[str, Any]
    seconds: float
    task: str = CLASSES

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return vars(self).copy()


def train(
    collection: Collection,
    *,
    label: str,
    kind: str = "linear",
    space: Space | str | None = None,
    name: str | None = None,
    split: str | None = None,
    group: str | None = None,
    where: str | Mapping[str, Any] | None = None,
    min_class_size: int = 5,
    wishes: Wishes | None = None,
    task: str | None = None,
    seed: int = 0,
) -> Trained:
    """Train a head on stored vectors and save it.

    Without `split` every labelled item is scored once, by a head that never saw it, its exact or near copies or its
    group: five stratified folds up to 20,000 rows, one of the five above. What a head chooses (such as C) it chooses
    inside its own training rows. Folds depend on the items' content, their near-duplicates and `seed`, so two Spaces of
    a collection that see the same near-duplicates are scored on the same ones. The head that is saved is fitted to all
    rows; what it needs to calibrate itself and to abstain comes from the held-out predictions. In the Space of a tuned
    encoder only rows are scored that it did not see.

    Args:
        label: the column that holds the classes; rows without a value are left out.
        split: a column of train, val (which counts as train) and test; the head is fitted to train, scored on test.
        group: a column of what must stay together, such as a patient or a document; none means `group`.
        min_class_size: classes with fewer distinct members are left out, and listed.
        name: of the head; none means the label's, made to fit.
        task: classes, or regression for a number; none means a number where the column measures and the kind can.

    Raises:
        UnknownName: no such column, kind or Space.
        NothingToDo: no item has a vector in the Space, or none passes the filter.
        UsageError: fewer than two classes or ten rows remain, or the label is a measurement rather than a class.
    """
    started = time.monotonic()
    estimator(kind)
    head = check_name(name if name is not None else default_name(label), "head")
    chosen = space if isinstance(space, Space) else collection.space(space)
    rows = features(collection, chosen, labels.columns(label, split, group), where, held_up_to=spilling.HELD_BYTES)
    wanted = _task(rows.columns[label], kind, task)
    seen = tuned.seen(collection, chosen)
    asked = _Asked(label, kind, split, group, min_class_size, wishes or Wishes(), seed, seen)
    facts, model, arrays, guard = (_numbers if wanted == REGRESSION else _classes)(rows, asked)
    facts |= {"kind": kind, "label": label, "task": wanted}
    version = saved.save(collection, head, {**facts, "space": chosen.as_json(), "seed": seed}, model, arrays, guard)
    seconds = round(time.monotonic() - started, 3)
    return Trained(head=head, version=version, space=chosen.fingerprint, seconds=seconds, **facts)


@dataclass(frozen=True)
class _Asked:
    label: str
    kind: str
    split: str | None
    group: str | None
    min_class_size: int
    wishes: Wishes
    seed: int
    seen: frozenset[str] = frozenset()


Made = tuple[dict[str, Any], Any, dict[str, NDArray[Any]], Any]


def _task(values: Sequence[Any], kind: str, task: str | None) -> str:
    if task is None:
        return REGRESSION if labels.measurement(values)[0] and predicts_numbers(kind) else CLASSES
    if task not in TASKS:
        raise UsageError(f"a task is classes or regression, not {task!r}")
    return task


def _classes(rows: Features, asked: _Asked) -> Made:
    made, seed = estimator(asked.kind), asked.seed
    task = labels.task(rows, asked.label, asked.split, asked.min_class_size, asked.group)
    held = held_out(task, made, seed, asked.split)
    if asked.seen:
        kept = _unseen(rows, task, held.rows, asked.seen)
        held = Held(held.rows[kept], held.probabilities[kept], held.how + UNSEEN)
    model = fitted(task, task.train, made, seed)
    again = settled(made, model)
    found = account(task, held, lambda part, most: held_out(part, again, seed, most=most), asked.wishes, seed)
    facts = {"n_test": len(held.rows), "split": held.how, **_facts(task, found)}
    return facts, model, saved.rows_of(task, held.rows, held.probabilities, found.suspects), found.guard


def _numbers(rows: Features, asked: _Asked) -> Made:
    made, seed = regressor(asked.kind), asked.seed
    task = numbers.measured(rows, asked.label, asked.split, asked.group)
    held, model = numbers.held_out(task, made, seed), numbers.fitted(task, task.train, made, seed)
    if asked.seen:
        kept = _unseen(rows, task, held.rows, asked.seen)
        held = numbers.HeldValues(held.rows[kept], held.said[kept], held.means[kept], held.how + UNSEEN)
    metrics, margin = numbers.account(task, held, made, model, asked.wishes, seed)
    facts = {
        "classes": [], "n_train": len(task.train), "n_test": len(held.rows), "metrics": metrics, "left_out": {},
        "split": held.how, "near_duplicates": {"items": task.near, "threshold": task.near_threshold},
        "calibration": {}, "sets": margin.as_json(), "per_class": [], "confusion": {},
        "promise": conformal.EXACT if task.test is not None else conformal.FOLDED,
    }  # fmt: skip
    return facts, model, numbers.rows_of(task, held), margin


def _unseen(rows: Features, task: Task | numbers.Measured, scored: Ints, seen: frozenset[str]) -> Ints:
    """Return which of the scored rows are like no row that a tuned encoder saw with its label: others score memory.

    Raises:
        UsageError: none is left.
    """
    hashes = dict(zip(rows.keys.tolist(), rows.columns["content_hash"], strict=True))
    free = set(pilot.parts(task.units, [hashes[key] for key in task.keys.tolist()], seen)[1].tolist())
    kept = np.array([at for at, row in enumerate(scored.tolist()) if row in free], dtype=np.intp)
    if not len(kept):
        raise UsageError(
            "the encoder was tuned on every row that could be scored, so that no score would be honest",
            where=f"Space {rows.space}", hint="label items that it has not seen, or train in the frozen Space: --space",
        )  # fmt: skip
    return kept


def _facts(task: Task, found: Account) -> dict[str, Any]:
    guard = found.guard.as_json()
    return {
        "classes": task.classes, "n_train": len(task.train), "left_out": task.left_out, "metrics": found.metrics,
        "near_duplicates": {"items": task.near, "threshold": task.near_threshold},
        "calibration": guard["calibration"], "sets": guard["sets"], "promise": found.promise,
        "per_class": found.per_class, "confusion": found.confusion,
    }  # fmt: skip


def default_name(label: str) -> str:
    """Return a label's name made to fit the name of a head."""
    return re.sub(r"[^a-z0-9_-]+", "-", label.lower()).strip("-_")[:63] or "head"


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
    given = {name: getattr(model, learned) for name, learned in getattr(made, "CHOSEN", {}).items()}
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
