"""An honest account of a classifier: scores beside their controls, and what the head needs to know its own limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.errors import UsageError
from heads import abstain, calibration, conformal, controls, domain
from heads.controls import mean, share
from heads.folds import Ints, distinct
from heads.guard import Guard
from heads.holding import Held, part_of_task
from heads.labels import Task
from heads.metrics import scores
from heads.noise import Suspects, suspects
from heads.tables import confusion, per_class

Floats = NDArray[np.float64]
NAIVE_FROM = 0.05


Hold = Callable[[Task, int | None], Held]


@dataclass(frozen=True)
class Wishes:
    """What the user asks of a head beyond its label. `max_risk` none: it never abstains for being unsure.

    Raises `UsageError` where a share is not between 0 and 1.
    """

    coverage: float = 0.9
    per_class: bool = False
    max_risk: float | None = None
    controls: bool = True

    def __post_init__(self) -> None:
        for name, value in (("coverage", self.coverage), ("max_risk", self.max_risk)):
            if value is not None and not 0 < value < 1:
                raise UsageError(f"{name} is a share between 0 and 1, not {value}")


@dataclass(frozen=True)
class Account:
    """`metrics` by name; the tables; the guard to save; and `suspects`, whose rows are positions in the task.

    `said` (n_test,) are the codes of the most probable classes of the held-out rows.
    """

    metrics: dict[str, Any]
    per_class: list[dict[str, Any]]
    confusion: dict[str, Any]
    promise: str
    guard: Guard
    suspects: Suspects
    said: Ints


def account(task: Task, held: Held, hold: Hold, wishes: Wishes, seed: int) -> Account:
    """Score held-out predictions and fit the guard to them.

    Scores are those of calibrated probabilities, each row calibrated by rows of other units, as the head will serve
    them; `log_loss_uncalibrated` and `ece_uncalibrated` are those of the head's own.

    Args:
        hold: predicts held-out rows of a task with the head's kind, on at most so many folds, for the controls.
    """
    raw, y = held.probabilities, task.y[held.rows]
    units = [task.units[i] for i in held.rows]
    unit = np.asarray(units)
    fitted, P = calibration.choose(raw, y, units, seed)
    majority = int(np.bincount(task.y[task.train]).argmax())
    right = P.argmax(axis=1) == y
    metrics = scores(y, P, majority, units=unit, seed=seed)
    metrics |= _calibrated(raw, P, y, unit, majority, seed)
    metrics |= _covered(raw, y, units, wishes, seed)
    guard, found = _guarded(task, raw, right, y, fitted, wishes, seed)
    metrics |= found
    if wishes.controls:
        metrics |= _controls(task, held, hold, right, seed)
    doubted = suspects(raw, y)
    metrics |= {"noise_rate": doubted.noise_rate, "suspicious_labels": len(doubted.rows)}
    said, promise = P.argmax(axis=1), conformal.EXACT if task.test is not None else conformal.FOLDED
    return Account(
        metrics, per_class(y, said, task.classes, unit), confusion(y, said, task.classes, unit), promise, guard,
        replace(doubted, rows=held.rows[doubted.rows]), said,
    )  # fmt: skip


def _calibrated(raw: Floats, P: Floats, y: Ints, unit: NDArray[Any], majority: int, seed: int) -> dict[str, Any]:
    before = scores(y, raw, majority, units=unit, seed=seed)
    found = {
        f"{name}_uncalibrated{end}": before[f"{name}{end}"] for name in ("log_loss", "ece") for end in ("", "_interval")
    }
    confidence, right = P.max(axis=1), P.argmax(axis=1) == y
    squared = calibration.debiased_ece(confidence, right)
    found["ece_debiased"] = float(np.sqrt(max(0.0, squared)))
    found["calibration_p"] = calibration.miscalibration_p(confidence, right, seed)
    return found


def _covered(raw: Floats, y: Ints, units: list[str], wishes: Wishes, seed: int) -> dict[str, Any]:
    inside, size = conformal.measured(raw, y, units, wishes.coverage, per_class=wishes.per_class, seed=seed)
    unit = np.asarray(units)
    return {**share("coverage", inside, unit), **mean("set_size", size, unit, seed)}


def _guarded(
    task: Task, raw: Floats, right: NDArray[np.bool_], y: Ints, fitted: calibration.Calibration, wishes: Wishes,
    seed: int,
) -> tuple[Guard, dict[str, Any]]:  # fmt: skip
    sure = raw.max(axis=1)
    found: dict[str, Any] = {"aurc": abstain.aurc(sure, right), "risk_coverage": abstain.points(sure, right)}
    least = 0.0
    if wishes.max_risk is not None:
        chosen = abstain.select(sure, right, wishes.max_risk)
        least = chosen.threshold
        found |= {"answered": chosen.coverage, "answered_risk": chosen.risk, "answered_risk_bound": chosen.bound}
    sets = conformal.fit(raw, y, wishes.coverage, per_class=wishes.per_class)
    near = domain.fit(task.X, task.units, seed, rows=task.train)
    return Guard(fitted, sets, near, wishes.max_risk, least), found


def _controls(task: Task, held: Held, hold: Hold, right: NDArray[np.bool_], seed: int) -> dict[str, Any]:
    queries, votes = controls.neighbours(task.X, task.y, task.units, task.train, held.rows, seed)
    asked = np.asarray([task.units[i] for i in queries])
    found: dict[str, Any] = {}
    for k, P in votes.items():
        found |= share(f"knn_{k}", P.argmax(axis=1) == task.y[queries], asked)
    some = controls.sample(len(task.train), controls.SHUFFLED_ROWS, seed)
    part = part_of_task(task, task.train[some])
    part = replace(part, y=controls.shuffled(part.y, part.units, seed))
    blind = hold(part, controls.FOLDS_SCORED)
    found |= share(
        "shuffled", blind.probabilities.argmax(axis=1) == part.y[blind.rows], np.asarray(part.units)[blind.rows]
    )
    return found | (_naive(task, held, hold, right, seed) if task.test is None else _copies(task, held, right))


def _naive(task: Task, held: Held, hold: Hold, right: NDArray[np.bool_], seed: int) -> dict[str, Any]:
    """Score a split that deals rows out one by one, where that matters, and how much it flatters.

    Both are scored on the rows of two of its folds; nothing is said where under 5 % of the rows have mates.
    """
    at = distinct(task.units)[1]
    sizes = np.bincount(at)
    if (sizes[at] > 1).mean() < NAIVE_FROM:
        return {}
    naive = hold(replace(task, units=[str(key) for key in task.keys.tolist()]), controls.FOLDS_SCORED)
    rows, mine, theirs = np.intersect1d(held.rows, naive.rows, return_indices=True)
    hits = naive.probabilities[theirs].argmax(axis=1) == task.y[rows]
    if not len(rows):
        return {}
    gap = hits.astype(float) - right[mine]
    return {**share("naive_accuracy", hits, at[rows]), **mean("naive_gap", gap, at[rows], seed)}


def _copies(task: Task, held: Held, right: NDArray[np.bool_]) -> dict[str, Any]:
    """Score the test rows of the user's split that are like no training row, where some are."""
    seen = {task.units[i] for i in task.train}
    clean = np.array([task.units[i] not in seen for i in held.rows], dtype=bool)
    if clean.all() or not clean.any():
        return {}
    unit = np.asarray([task.units[i] for i in held.rows])
    return share("accuracy_without_copies", right[clean], unit[clean])
