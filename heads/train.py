"""The verb: rows with a label, folds, fit, an honest score, and the head saved with what it stands on."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.errors import UsageError
from embedder.space import Space
from heads import saved
from heads.folds import Ints, assign, units
from heads.kind import Estimator, EstimatorClass, estimator
from heads.metrics import scores
from index.features import Features, features
from index.store import Collection

FOLDS, ALL_FOLDS_UP_TO = 5, 20_000
LEAST_ROWS = 10
MOST_CLASSES_OF_NUMBERS = 50
TRAIN_WORDS = frozenset({"train", "training"})
TEST_WORDS = frozenset({"test", "testing"})


@dataclass(frozen=True)
class Trained:
    """A head as it was saved. `left_out` counts the rows of classes that were too small, by class."""

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
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return vars(self).copy()


def train(
    collection: Collection,
    *,
    label: str,
    kind: str = "linear",
    space: Space | None = None,
    name: str | None = None,
    split: str | None = None,
    where: str | Mapping[str, Any] | None = None,
    min_class_size: int = 5,
    seed: int = 0,
) -> Trained:
    """Train a head on stored vectors and save it.

    Without `split` every labelled item is scored once, by a head that never saw it, its group or its exact copies: five
    folds up to 20,000 rows, one of the five above. The folds depend on the items and `seed` alone, so two Spaces of a
    collection are scored on the same ones. The head that is saved is fitted to all rows.

    Args:
        label: the column that holds the classes; rows without a value are left out.
        split: a column of `train` and `test`. Scored on the test rows, fitted to the train rows; others are left out.
        min_class_size: classes with fewer rows are left out, and listed.
        name: of the head; none means the label's, made to fit.

    Raises:
        UnknownName: no such column, kind or Space.
        UsageError: fewer than two classes or ten rows remain, or the label is a measurement rather than a class.
    """
    started = time.monotonic()
    made = estimator(kind)
    chosen = space or collection.space()
    columns = dict.fromkeys([label, "content_hash", "group", *([split] if split else [])])
    rows = features(collection, chosen, list(columns), where)
    task = _task(rows, label, split, min_class_size)
    probabilities, tested, described = _held_out(task, made, seed)
    model = _fitted(task, task.train_rows, made, seed)
    majority = int(np.bincount(task.y[task.train_rows]).argmax())
    metrics = scores(task.y[tested], probabilities, majority, seed=seed)
    facts = {
        "kind": kind, "label": label, "classes": task.classes, "space": chosen.as_json(), "n_train": len(task.train_rows),
        "n_test": len(tested), "metrics": metrics, "seed": seed, "split": described, "left_out": task.left_out,
    }  # fmt: skip
    head = name or re.sub(r"[^a-z0-9_-]+", "-", label.lower()).strip("-_")[:63] or "head"
    version = saved.save(collection, head, facts, model, task.rows.keys[task.kept][task.train_rows])
    seconds = round(time.monotonic() - started, 3)
    return Trained(
        head, version, kind, chosen.fingerprint, label, task.classes, len(task.train_rows), len(tested), metrics,
        task.left_out, described, seconds,
    )  # fmt: skip


@dataclass(frozen=True)
class _Task:
    """What is learned: `kept` rows of the features, their codes `y`, and which units must stay together."""

    rows: Features
    kept: Ints
    y: Ints
    classes: list[str]
    units: list[str]
    left_out: dict[str, int]
    train_rows: Ints
    test_rows: Ints | None

    @property
    def X(self) -> NDArray[np.float32]:
        """The vectors of the kept rows."""
        return self.rows.X[self.kept]


def _task(rows: Features, label: str, split: str | None, min_class_size: int) -> _Task:
    values = rows.columns[label]
    _check_classes(values, label)
    parts = [_part(v) for v in rows.columns[split]] if split else ["train"] * len(rows)
    labels = [None if v is None or part is None else _word(v) for v, part in zip(values, parts, strict=True)]
    counts = Counter(v for v, part in zip(labels, parts, strict=True) if v is not None and part == "train")
    small = {c: n for c, n in Counter(v for v in labels if v is not None).items() if counts[c] < min_class_size}
    kept = np.array([i for i, v in enumerate(labels) if v is not None and v not in small], dtype=np.intp)
    classes = sorted({str(labels[i]) for i in kept})
    if len(classes) < 2 or len(kept) < LEAST_ROWS:
        raise UsageError(
            f"{len(kept)} labelled rows of {len(classes)} classes remain: at least {LEAST_ROWS} of 2 are needed",
            where=f"column {label!r}; {len(small)} classes have fewer than {min_class_size} rows",
            hint="label more items, or lower --min-class-size",
        )
    code = {c: i for i, c in enumerate(classes)}
    y = np.array([code[str(labels[i])] for i in kept], dtype=np.intp)
    part_of = np.array([parts[i] for i in kept])
    whole = units([rows.columns["content_hash"][i] for i in kept], [rows.columns["group"][i] for i in kept])
    test = np.flatnonzero(part_of == "test") if split else None
    if test is not None and not len(test):
        raise UsageError(f"no labelled row has {split!r} = 'test'", hint="the split column holds train and test")
    train_rows = np.flatnonzero(part_of == "train")
    return _Task(rows, kept, y, classes, whole, dict(sorted(small.items())), train_rows, test)


def _check_classes(values: Sequence[Any], label: str) -> None:
    distinct = {v for v in values if v is not None}
    if any(isinstance(v, float) for v in distinct) or (
        len(distinct) > MOST_CLASSES_OF_NUMBERS and all(isinstance(v, int) for v in distinct)
    ):
        raise UsageError(
            f"column {label!r} holds {len(distinct)} different numbers: a measurement, not classes",
            hint="heads for measurements are not there yet; label ranges by name instead",
        )


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _part(value: Any) -> str | None:
    word = str(value).lower()
    return "train" if word in TRAIN_WORDS else "test" if word in TEST_WORDS else None


def _held_out(task: _Task, made: EstimatorClass, seed: int) -> tuple[NDArray[np.float64], Ints, str]:
    """Return probabilities (n, C) of held-out rows, which rows they are, and how they were held out."""
    if task.test_rows is not None:
        model = _fitted(task, task.train_rows, made, seed)
        return _probabilities(model, task, task.test_rows), task.test_rows, "column"
    fold = assign(task.units, task.y, FOLDS, seed)
    parts = range(FOLDS if len(task.y) <= ALL_FOLDS_UP_TO else 1)
    tested = np.flatnonzero(np.isin(fold, list(parts)))
    probabilities = np.empty((len(task.y), len(task.classes)))
    for k in parts:
        held = np.flatnonzero(fold == k)
        if len(held):
            probabilities[held] = _probabilities(_fitted(task, np.flatnonzero(fold != k), made, seed), task, held)
    return probabilities[tested], tested, f"{FOLDS} folds" if len(parts) > 1 else f"1 of {FOLDS} folds"


def _fitted(task: _Task, rows: Ints, made: EstimatorClass, seed: int) -> Estimator:
    return made(seed=seed).fit(task.X[rows], task.y[rows], groups=[task.units[i] for i in rows])


def _probabilities(model: Estimator, task: _Task, rows: Ints) -> NDArray[np.float64]:
    """Return probabilities over all classes; a class that the model never saw gets none."""
    out = np.zeros((len(rows), len(task.classes)))
    out[:, model.classes_.astype(np.intp)] = model.predict_proba(task.X[rows])
    return out
