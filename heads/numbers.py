"""Heads that predict a number: held-out values, R² against the mean with its interval, and the margin to save.

R² = 1 - Σ(y-ŷ)² / Σ(y-ȳ)², ȳ the mean of the rows that each prediction was fitted to; intervals by bootstrap over
units. `r2_left_out` is that of the exact errors of leaving each unit out, at the λ that was chosen by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.errors import UsageError
from embedder.records import FloatMatrix, Keys
from heads import conformal, controls, domain
from heads.controls import mean, share
from heads.folds import Ints, assign, units
from heads.honest import Wishes
from heads.interval import Margin
from heads.kind import RegressorClass
from heads.labels import LEAST_ROWS, part_of, taken, word
from heads.metrics import DRAWS
from heads.near import near_duplicates
from heads.spilling import by_blocks, rows_for
from index.features import Features
from index.spill import Spilled

Floats = NDArray[np.float64]
FOLDS, ALL_FOLDS_UP_TO = 5, 20_000


@dataclass(frozen=True)
class Measured:
    """Rows with a number `y` (n,): `units`, `train`, `test` and `near` are those of `heads.labels.Task`."""

    keys: Keys
    X: FloatMatrix
    y: Floats
    units: list[str]
    train: Ints
    test: Ints | None
    near: int
    near_threshold: float
    spilled: Spilled | None = None


@dataclass(frozen=True)
class HeldValues:
    """Held-out predictions `said` (m,) of `rows`, and `means` (m,) of the rows that each was fitted to."""

    rows: Ints
    said: Floats
    means: Floats
    how: str


def measured(rows: Features, label: str, split: str | None, group: str | None = None) -> Measured:
    """Choose the rows with a number, and join those that must not be parted.

    Raises:
        UsageError: a value is no finite number, all are equal, or fewer than ten rows remain.
    """
    where = f"column {label!r}, Space {rows.space}"
    parts = [part_of(v, split) for v in rows.columns[split]] if split else ["train"] * len(rows)
    kept = [i for i, v in enumerate(rows.columns[label]) if word(v) is not None and parts[i] is not None]
    y = np.array([_number(rows.columns[label][i], where) for i in kept], dtype=np.float64)
    part = np.array([str(parts[i]) for i in kept], dtype=str)
    train, test = np.flatnonzero(part == "train"), np.flatnonzero(part == "test") if split else None
    if len(train) < LEAST_ROWS or not np.ptp(y[train]):
        raise UsageError(
            f"{len(train)} rows with a number remain, or all are equal; {LEAST_ROWS} are needed", where=where
        )
    if test is not None and not len(test):
        raise UsageError(f"no row with a number has {split!r} = 'test'", where=where, hint="mark some as test")
    hashes = [rows.columns["content_hash"][i] for i in kept]
    groups = [word(rows.columns[group or "group"][i]) for i in kept]
    X, spilled = taken(rows, np.array(kept, dtype=np.intp))
    alike, least = near_duplicates(X, np.zeros(len(kept), dtype=np.intp), hashes)
    own = units(hashes, groups)
    joined = units(hashes, groups, [str(code) for code in alike.tolist()])
    sizes = {name: set() for name in joined}  # type: dict[str, set[str]]
    for name, before in zip(joined, own, strict=True):
        sizes[name].add(before)
    near = sum(len(sizes[name]) > 1 for name in joined)
    return Measured(rows.keys[np.array(kept, dtype=np.intp)], X, y, joined, train, test, near, least, spilled)


def _number(value: Any, where: str) -> float:
    if isinstance(value, (int, float)) and np.isfinite(value):
        return float(value)
    raise UsageError(
        f"{str(value)[:40]!r} is no finite number", where=where, hint="--task classes, or clean the column"
    )


def fitted(task: Measured, rows: Ints, made: RegressorClass, seed: int) -> Any:
    """Fit to some of the rows."""
    return made(seed=seed).fit(rows_for(made, task, rows), task.y[rows], groups=[task.units[i] for i in rows])


def held_out(task: Measured, made: RegressorClass, seed: int, most: int | None = None) -> HeldValues:
    """Predict each row that is to be scored with a head that saw neither it nor anything of its unit."""
    if task.test is not None:
        model = fitted(task, task.train, made, seed)
        mean = np.full(len(task.test), task.y[task.train].mean())
        return HeldValues(task.test, by_blocks(model.predict, task, task.test), mean, "the test rows of a column")
    fold = assign(task.units, np.zeros(len(task.y), dtype=np.intp), FOLDS, seed)
    wanted = (FOLDS if len(task.y) <= ALL_FOLDS_UP_TO else 1) if most is None else most
    parts = [k for k in range(wanted) if (fold == k).any() and (fold != k).any()]
    said, means = np.zeros(len(task.y)), np.zeros(len(task.y))
    for k in parts:
        model = fitted(task, np.flatnonzero(fold != k), made, seed)
        said[fold == k] = by_blocks(model.predict, task, np.flatnonzero(fold == k))
        means[fold == k] = task.y[fold != k].mean()
    rows = np.flatnonzero(np.isin(fold, parts))
    which = f"{len(parts)} of {FOLDS}" if len(parts) < FOLDS else f"{FOLDS}"
    return HeldValues(rows, said[rows], means[rows], f"{which} folds, groups and near copies kept together")


def account(
    task: Measured, held: HeldValues, made: RegressorClass, model: Any, wishes: Wishes, seed: int
) -> tuple[dict[str, Any], Margin]:
    """Score held-out values, and fit the margin to their residuals."""
    if wishes.per_class or wishes.max_risk is not None:
        raise UsageError("a number has no classes to promise for, and no risk of being wrong", hint="--coverage")
    y, names = task.y[held.rows], np.array([task.units[i] for i in held.rows])
    off = np.abs(y - held.said)
    found = r_squared("r2", y, held.said, held.means, names, seed)
    found |= mean("mae", off, names, seed) | mean("mae_of_mean", np.abs(y - held.means), names, seed)
    found["rmse"] = float(np.sqrt(np.mean(off**2)))
    found["r2_left_out"] = 1 - min(error for _, error in model.path_) / float(np.var(task.y[task.train]))
    if wishes.controls:
        found |= _shuffled(task, made, seed)
    half, inside = conformal.quantile(off, wishes.coverage), _inside(off, names, wishes.coverage, seed)
    found |= share("coverage", inside, names)
    found["width"] = 2 * half if np.isfinite(half) else None
    near = domain.fit(task.X, task.units, seed, rows=task.train)
    return found, Margin(wishes.coverage, half, near)


def r_squared(name: str, y: Floats, said: Floats, means: Floats, unit: NDArray[Any], seed: int) -> dict[str, Any]:
    """Return 1 - Σ(y-said)²/Σ(y-means)² with a 95 % interval by bootstrap over units."""
    at = np.unique(unit, return_inverse=True)[1]
    left, whole = np.bincount(at, (y - said) ** 2), np.bincount(at, (y - means) ** 2)
    rng, n = np.random.default_rng(seed), len(left)
    drawn = [np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(DRAWS)]
    values = [1 - float(w @ left) / max(float(w @ whole), np.finfo(np.float64).tiny) for w in drawn]
    total = max(float(whole.sum()), np.finfo(np.float64).tiny)
    return {name: 1 - float(left.sum()) / total, f"{name}_interval": np.quantile(values, [0.025, 0.975]).tolist()}


def _shuffled(task: Measured, made: RegressorClass, seed: int) -> dict[str, Any]:
    """Deal values anew among the units: R² must then not be above 0."""
    some = controls.sample(len(task.train), controls.SHUFFLED_ROWS, seed)
    rows = task.train[some]
    names, at = np.unique([task.units[i] for i in rows], return_inverse=True)
    own = np.bincount(at, task.y[rows]) / np.bincount(at)
    dealt = np.random.default_rng([seed, 1]).permutation(own)[at]
    part = replace(
        task, X=np.asarray(task.X[rows]), y=dealt, units=names[at].tolist(), train=np.arange(len(rows)), test=None,
        spilled=None,
    )  # fmt: skip
    blind = held_out(part, made, seed, controls.FOLDS_SCORED)
    unit = np.array([part.units[i] for i in blind.rows])
    return r_squared("shuffled_r2", part.y[blind.rows], blind.said, blind.means, unit, seed)


def _inside(off: Floats, unit: NDArray[Any], coverage: float, seed: int) -> NDArray[np.bool_]:
    """Say which rows lie within the margin of the residuals of the other units' folds."""
    fold = assign(unit.tolist(), np.zeros(len(off), dtype=np.intp), FOLDS, seed)
    return np.array([o <= conformal.quantile(off[fold != k], coverage) for o, k in zip(off, fold, strict=True)])


def rows_of(task: Measured, held: HeldValues) -> dict[str, NDArray[Any]]:
    """Return what is saved beside the model: `row_keys`, `row_values`, and `test_keys`, `test_values`, `test_said`."""
    train: Sequence[int] = task.train.tolist()
    return {
        "row_keys": task.keys[train], "row_values": task.y[train], "row_labels": np.empty(0, dtype=np.int64),
        "test_keys": task.keys[held.rows], "test_values": task.y[held.rows], "test_said": held.said,
    }  # fmt: skip
