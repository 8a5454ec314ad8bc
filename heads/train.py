"""The verb: rows with a label, folds, fit, an honest score, and the head saved with what it stands on."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedder.errors import UsageError
from embedder.space import Space
from heads import labels, saved, spilling
from heads.kind import CLASSES, ORDINAL, PREDICTS, REGRESSION, maker, tasks
from heads.tasks import MAKERS, OPTIONS, Asked
from index import tuned
from index.features import features
from index.store import Collection, check_name


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
    collection: Collection, *, label: str, kind: str = "linear", space: Space | str | None = None,
    name: str | None = None, where: str | Mapping[str, Any] | None = None, task: str | None = None, **choices: Any,
) -> Trained:  # fmt: skip
    """Train a head on stored vectors and save it.

    Without `split` every labelled item is scored once, by a head that never saw it, its exact or near copies or its
    group: five stratified folds up to 20,000 rows, one of the five above. What a head chooses (such as C) it chooses
    inside its own training rows. Folds depend on the items' content, their near-duplicates and `seed`, so two Spaces of
    a collection that see the same near-duplicates are scored on the same ones. The head that is saved is fitted to all
    rows; what it needs to calibrate itself and to abstain comes from the held-out predictions. In the Space of a tuned
    encoder only rows are scored that it did not see.

    Args:
        label: the column that holds the classes; rows without a value are left out.
        name: of the head; none means the label's, made to fit.
        task: classes, regression for a number, multilabel for several classes an item, or ordinal for an order; none
            means what the kind is for, a number where the column measures and the kind can.
        choices: the other fields of `heads.tasks.Asked`, such as `split`.

    Raises:
        UnknownName: no such column, kind or Space.
        NothingToDo: no item has a vector in the Space, or none passes the filter.
        UsageError: fewer than two classes or ten rows remain, or the label is a measurement rather than a class.
    """
    started = time.monotonic()
    tasks(kind)
    head = check_name(name if name is not None else default_name(label), "head")
    chosen = space if isinstance(space, Space) else collection.space(space)
    asked = Asked(label, kind, seen=tuned.seen(collection, chosen), **choices)
    wanted_columns = labels.columns(label, asked.split, asked.group)
    rows = features(collection, chosen, wanted_columns, where, held_up_to=spilling.HELD_BYTES)
    wanted = _task(rows.columns[label], asked, task)
    made = MAKERS[wanted](rows, asked)
    facts = {**made.facts, "kind": kind, "label": label, "task": wanted}
    told = {**facts, **made.more, "space": chosen.as_json(), "seed": asked.seed}
    version = saved.save(collection, head, told, made.model, made.arrays, made.guard)
    seconds = round(time.monotonic() - started, 3)
    return Trained(head=head, version=version, space=chosen.fingerprint, seconds=seconds, **facts)


def _task(values: Sequence[Any], asked: Asked, task: str | None) -> str:
    """Return the task: the one that was asked, or that has an order; a number where the column measures; the kind's.

    Raises:
        UsageError: there is no such task, the kind does not do it, or an option is for another one.
    """
    offered = tasks(asked.kind)
    if task is None:
        measures = REGRESSION in offered and labels.measurement(values)[0]
        task = ORDINAL if asked.order is not None else REGRESSION if measures else offered[0]
    if task not in MAKERS:
        raise UsageError(f"a task is {', '.join(MAKERS)}, not {task!r}")
    maker(asked.kind, task)
    for name, of in OPTIONS.items():
        if getattr(asked, name) is not None and task != of:
            raise UsageError(f"{name} is for heads that predict {PREDICTS[of]}", hint=f"--task {of}")
    return task


def default_name(label: str) -> str:
    """Return a label's name made to fit the name of a head."""
    return re.sub(r"[^a-z0-9_-]+", "-", label.lower()).strip("-_")[:63] or "head"
