"""From a column of `items` to classes: which rows are learned from, which are scored, and which belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from embedder.errors import UsageError
from embedder.records import FloatMatrix, Keys
from heads.folds import Ints, units
from heads.near import near_duplicates
from index import schema
from index.features import Features
from index.spill import Spilled

LEAST_ROWS = 10
FEW_NUMBERS, ROWS_PER_NUMBER = 20, 10
TRAIN_WORDS = frozenset({"train", "training", "val", "valid", "validation", "dev"})
TEST_WORDS = frozenset({"test", "testing"})


@dataclass(frozen=True)
class Task:
    """Rows of classes that are large enough: `y` are codes into `classes` (sorted).

    `units` are equal where rows belong together: copies, near-duplicates, and rows of one group.
    `train` and `test` are positions of rows; `test` is None where no column says which rows to score. `near` rows were
    joined to others as near-duplicates, from the cosine `near_threshold` on; 1 where none were sought. Where `spilled`
    is there, `X` is its mapped file.
    """

    keys: Keys
    X: FloatMatrix
    y: Ints
    classes: list[str]
    units: list[str]
    train: Ints
    test: Ints | None
    left_out: dict[str, int]
    near: int = 0
    near_threshold: float = 1.0
    spilled: Spilled | None = None


def columns(label: str, split: str | None, group: str | None = None) -> list[str]:
    """Return the columns that `task` reads.

    Raises:
        UsageError: one of ours, which holds no classes.
    """
    for name in filter(None, (label, split, group)):
        if name in schema.RESERVED and not (name == "group" and name == group):
            raise UsageError(f"{name!r} is Permafrost's own column", hint="permafrost info lists yours")
    return list(dict.fromkeys([label, "content_hash", "group", *filter(None, (split, group))]))


def task(
    rows: Features, label: str, split: str | None, min_class_size: int, group: str | None = None, *, near: bool = True
) -> Task:
    """Choose rows and classes, and join the rows that must not be parted: copies, near-duplicates, and equal `group`s.

    A class counts its members by distinct content among the rows to train on; without `split` they must also come from
    two units at least, or the class could never be both learned and scored.

    Raises:
        UsageError: the label is a measurement, `split` holds another word, or too little remains.
    """
    labels = [word(v) for v in rows.columns[label]]
    _refuse_measurement(rows.columns[label], label)
    parts = [part_of(v, split) for v in rows.columns[split]] if split else ["train"] * len(rows)
    hashes, groups = rows.columns["content_hash"], [word(v) for v in rows.columns[group or "group"]]
    unit = units(hashes, [None] * len(rows) if label == "group" else groups)
    usable = [i for i, v in enumerate(labels) if v is not None and parts[i] is not None]
    left_out = _too_small(usable, labels, parts, hashes, unit, min_class_size, split is None)
    kept = np.array([i for i in usable if labels[i] not in left_out], dtype=np.intp)
    classes, y = np.unique(np.array([str(labels[i]) for i in kept], dtype=str), return_inverse=True)
    where_part = np.array([str(parts[i]) for i in kept], dtype=str)
    test = np.flatnonzero(where_part == "test") if split else None
    X, spilled = taken(rows, kept)
    found = Task(
        rows.keys[kept], X, np.asarray(y, dtype=np.intp), classes.tolist(), [unit[i] for i in kept],
        np.flatnonzero(where_part == "train"), test, left_out, spilled=spilled,
    )  # fmt: skip
    _refuse_too_little(found, rows, label, split, min_class_size)
    return _joined(found, [hashes[i] for i in kept]) if near else found


def taken(rows: Features, kept: Ints) -> tuple[FloatMatrix, Spilled | None]:
    """Return some of the vectors, and the file that they are in if they are too many to be held."""
    if rows.spilled is None:
        return rows.X[kept], None
    found = rows.spilled.taken(kept)
    return found.array, found


def _joined(found: Task, hashes: Sequence[str]) -> Task:
    """Join the units of near-duplicates."""
    alike, least = near_duplicates(found.X, found.y, hashes)
    joined = units(found.units, [str(code) for code in alike.tolist()])
    parts = Counter(name for name, _ in set(zip(joined, found.units, strict=True)))
    return replace(found, units=joined, near=sum(parts[name] > 1 for name in joined), near_threshold=least)


def word(value: Any) -> str | None:
    """Return a label as the name of a class; None where there is none (null, NaN or blank)."""
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def part_of(value: Any, column: str | None) -> str | None:
    """Return train or test for the word of a split column. Raises `UsageError` for another word."""
    if value is None:
        return None
    text = str(value).strip().lower()
    if text not in TRAIN_WORDS | TEST_WORDS:
        raise UsageError(
            f"column {column!r} says {str(value)[:60]!r}, which is neither train nor test",
            hint="its values are train, val (trained on, too) and test; a row without one is left out",
        )
    return "test" if text in TEST_WORDS else "train"


def measurement(values: Sequence[Any]) -> tuple[bool, int, int]:
    """Return whether a column measures rather than names (fractions, or many numbers that are each seen seldom).

    With it come how many different numbers there are, in how many rows.
    """
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool) and v == v]
    distinct = len(set(numbers))
    fractions = any(isinstance(v, float) and not v.is_integer() for v in numbers)
    measures = fractions or (distinct > FEW_NUMBERS and len(numbers) < ROWS_PER_NUMBER * distinct)
    return measures, distinct, len(numbers)


def _refuse_measurement(values: Sequence[Any], label: str) -> None:
    measures, distinct, n = measurement(values)
    if measures:
        raise UsageError(
            f"column {label!r} holds {distinct} different numbers in {n} rows: a measurement, not classes",
            hint="--head ridge predicts numbers; or label ranges by name",
        )


def _too_small(
    usable: Sequence[int], labels: Sequence[str | None], parts: Sequence[str | None], hashes: Sequence[str],
    unit: Sequence[str], least: int, scored_in_folds: bool,
) -> dict[str, int]:  # fmt: skip
    train = [i for i in usable if parts[i] == "train"]
    members = Counter(c for c, _ in {(labels[i], hashes[i]) for i in train})
    spread = Counter(c for c, _ in {(labels[i], unit[i]) for i in train})
    least_units = 2 if scored_in_folds else 1
    classes = sorted({str(labels[i]) for i in usable})
    return {c: members[c] for c in classes if members[c] < least or spread[c] < least_units}


def _refuse_too_little(found: Task, rows: Features, label: str, split: str | None, least: int) -> None:
    n, n_classes = len(found.train), len(found.classes)
    where = f"column {label!r}, Space {rows.space}"
    if n_classes < 2 or n < LEAST_ROWS:
        small = ", ".join(f"{c} ({m})" for c, m in list(found.left_out.items())[:5]) or "none"
        raise UsageError(
            f"{n} labelled rows of {n_classes} classes remain; at least {LEAST_ROWS} rows of 2 classes are needed",
            where=where, hint=f"label more items, or lower --min-class-size (now {least}); classes left out: {small}",
        )  # fmt: skip
    if found.test is not None and not len(found.test):
        raise UsageError(f"no row of these classes has {split!r} = 'test'", where=where, hint="mark some as test")
