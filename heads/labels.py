"""From a column of `items` to classes: which rows are learned from, which are scored, and which belong together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from embedder.errors import UnknownName, UsageError
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
    """Rows of classes that are large enough: `y` are codes into `classes` (sorted, or in the user's order).

    Where a row may have several classes, `y` is (n, C) of 0 and 1.

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
    rows: Features, label: str, split: str | None, min_class_size: int, group: str | None = None, *, near: bool = True,
    order: Sequence[str] | None = None,
) -> Task:  # fmt: skip
    """Choose rows and classes, and join the rows that must not be parted: copies, near-duplicates, and equal `group`s.

    A class counts its members by distinct content among the rows to train on; without `split` they must also come from
    two units at least, or the class could never be both learned and scored. With `order` the codes follow it.

    Raises:
        UsageError: the label is a measurement, `split` holds another word, or too little remains.
        UnknownName: the column holds a value that `order` lacks.
    """
    _refuse_measurement(rows.columns[label], label)
    words = [word(value) for value in rows.columns[label]]
    asked = _Asked(rows, label, split, min_class_size, group)
    usable = _usable(asked, [None if one is None else (one,) for one in words])
    kept = [i for i in usable.rows if usable.named[i][0] not in usable.left_out]
    classes, y = np.unique(np.array([usable.named[i][0] for i in kept], dtype=str), return_inverse=True)
    known, codes = classes.tolist(), np.asarray(y, dtype=np.intp)
    if order is not None:
        known, codes = _placed(known, codes, order, label)
    return _task(asked, usable, kept, known, codes, near=near)


def _placed(classes: Sequence[str], y: Ints, order: Sequence[str], label: str) -> tuple[list[str], Ints]:
    """Return the classes in an order, and codes that follow it."""
    if len(set(order)) < len(order):
        raise UsageError(f"the order {','.join(order)} names a class twice", hint="--order A,B,C, the lowest first")
    for name in classes:
        if name not in order:
            hint = f"--order names every class of column {label!r}: {', '.join(classes[:10])}"
            raise UnknownName.of("class of the order", name, order, where=f"column {label!r}", hint=hint)
    ranked = [name for name in order if name in classes]
    return ranked, np.array([ranked.index(name) for name in classes], dtype=np.intp)[y]


def order_of(values: Sequence[Any], label: str) -> list[str]:
    """Return the order of classes that are whole numbers. Raises `UsageError` where they are not."""
    words = sorted({said for said in map(word, values) if said is not None})
    try:
        return sorted(words, key=int)
    except ValueError:
        shown = ", ".join(words[:4]) + (", …" if len(words) > 4 else "")
        raise UsageError(
            f"the order of the classes of column {label!r} is not known",
            hint=f"--order A,B,C, the lowest first: {shown}",
        ) from None


def several(
    rows: Features, label: str, split: str | None, min_class_size: int, group: str | None = None, *,
    separator: str | None = None,
) -> Task:  # fmt: skip
    """Choose rows and classes as `task` does, of a column whose items may have several: `y` is (n, C) of 0 and 1.

    A class that is too small is left out, and its items stay: they have what other classes they have, perhaps none.

    Raises:
        UsageError: no item has more than one class, `split` holds another word, or too little remains.
    """
    named = [names(value, separator) for value in rows.columns[label]]
    if not any(len(one or ()) > 1 for one in named):
        raise UsageError(
            f"no item has more than one class in column {label!r}", where=f"Space {rows.space}",
            hint='a value is a JSON list such as ["a","b"], or a text that --separator ";" splits',
        )  # fmt: skip
    asked = _Asked(rows, label, split, min_class_size, group)
    usable = _usable(asked, named)
    classes = sorted({c for i in usable.rows for c in usable.named[i]} - usable.left_out.keys())
    y = np.array([[c in usable.named[i] for c in classes] for i in usable.rows], dtype=np.intp)
    return _task(asked, usable, usable.rows, classes, y.reshape(len(usable.rows), len(classes)), near=True)


def names(value: Any, separator: str | None = None) -> tuple[str, ...] | None:
    """Return the classes of an item, sorted; None where nobody said.

    A text that is a JSON list names its members (`[]`: looked at, and has none); any other is split where `separator`
    stands, or names one class.
    """
    said = word(value)
    if said is None:
        return None
    if isinstance(value, str) and said.lstrip().startswith("["):
        try:
            listed = json.loads(said)
        except json.JSONDecodeError:
            listed = None
        if isinstance(listed, list):
            return _distinct(word(one) for one in listed)
    return _distinct(said.split(separator)) if separator else (said.strip(),)


def _distinct(found: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({one.strip() for one in found if one is not None and one.strip()}))


@dataclass(frozen=True)
class _Asked:
    rows: Features
    label: str
    split: str | None
    least: int
    group: str | None


@dataclass(frozen=True)
class _Usable:
    """Of all rows what they are called, their part, content and unit; `rows` are the positions of the labelled ones."""

    named: list[tuple[str, ...]]
    parts: list[str]
    hashes: list[str]
    units: list[str]
    rows: list[int]
    left_out: dict[str, int]


def _usable(asked: _Asked, named: Sequence[tuple[str, ...] | None]) -> _Usable:
    rows, split = asked.rows, asked.split
    parts = [part_of(v, split) for v in rows.columns[split]] if split else ["train"] * len(rows)
    hashes, groups = rows.columns["content_hash"], [word(v) for v in rows.columns[asked.group or "group"]]
    unit = units(hashes, [None] * len(rows) if asked.label == "group" else groups)
    usable = [i for i, v in enumerate(named) if v is not None and parts[i] is not None]
    found = _Usable([one or () for one in named], [str(p) for p in parts], hashes, unit, usable, {})
    return replace(found, left_out=_too_small(found, asked.least, split is None))


def _task(asked: _Asked, usable: _Usable, kept: list[int], classes: list[str], y: Ints, *, near: bool) -> Task:
    at, rows = np.array(kept, dtype=np.intp), asked.rows
    part = np.array([usable.parts[i] for i in kept], dtype=str)
    test = np.flatnonzero(part == "test") if asked.split else None
    X, spilled = taken(rows, at)
    found = Task(
        rows.keys[at], X, y, classes, [usable.units[i] for i in kept], np.flatnonzero(part == "train"),
        test, usable.left_out, spilled=spilled,
    )  # fmt: skip
    _refuse_too_little(found, asked)
    return _joined(found, [usable.hashes[i] for i in kept]) if near else found


def taken(rows: Features, kept: Ints) -> tuple[FloatMatrix, Spilled | None]:
    """Return some of the vectors, and the file that they are in if they are too many to be held."""
    if rows.spilled is None:
        return rows.X[kept], None
    found = rows.spilled.taken(kept)
    return found.array, found


def _joined(found: Task, hashes: Sequence[str]) -> Task:
    """Join the units of near-duplicates; where items have several classes, these do not say which are tight."""
    of_class = found.y if found.y.ndim == 1 else np.zeros(len(found.y), dtype=np.intp)
    alike, least = near_duplicates(found.X, of_class, hashes)
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


def _too_small(found: _Usable, least: int, scored_in_folds: bool) -> dict[str, int]:
    train = [i for i in found.rows if found.parts[i] == "train"]
    members = Counter(c for c, _ in {(c, found.hashes[i]) for i in train for c in found.named[i]})
    spread = Counter(c for c, _ in {(c, found.units[i]) for i in train for c in found.named[i]})
    least_units = 2 if scored_in_folds else 1
    classes = sorted({c for i in found.rows for c in found.named[i]})
    return {c: members[c] for c in classes if members[c] < least or spread[c] < least_units}


def _refuse_too_little(found: Task, asked: _Asked) -> None:
    n, n_classes, split = len(found.train), len(found.classes), asked.split
    where = f"column {asked.label!r}, Space {asked.rows.space}"
    if n_classes < 2 or n < LEAST_ROWS:
        small = ", ".join(f"{c} ({m})" for c, m in list(found.left_out.items())[:5]) or "none"
        raise UsageError(
            f"{n} labelled rows of {n_classes} classes remain; at least {LEAST_ROWS} rows of 2 classes are needed",
            where=where,
            hint=f"label more items, or lower --min-class-size (now {asked.least}); classes left out: {small}",
        )
    if found.test is not None and not len(found.test):
        raise UsageError(f"no row of these classes has {split!r} = 'test'", where=where, hint="mark some as test")
