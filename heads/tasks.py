"""What training does for each task: rows from a column, held-out predictions, the account of them, and what to save."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from embedder.errors import UsageError
from embedder.records import FloatMatrix
from heads import conformal, controls, labels, numbers, ranks, saved, several
from heads.folds import Ints
from heads.holding import Held, fitted, held_out, settled
from heads.honest import Wishes, account
from heads.kind import CLASSES, MULTILABEL, ORDINAL, REGRESSION, EstimatorClass, maker, reads_texts
from heads.labels import Task
from index.features import Features
from index.view import unit as to_unit

UNSEEN = "; only rows that the tuned encoder did not see are scored"


@dataclass(frozen=True)
class Asked:
    """What the user asks of a head.

    `split` is a column of train, val (which counts as train) and test: the head is fitted to train, scored on test.
    `group` is a column of what must stay together, such as a patient or a document; none means `group`. Classes with
    fewer distinct members than `min_class_size` are left out, and listed. `separator` stands between the classes of an
    item, where a column of several is not made of JSON lists. `order` has the classes of an order, the lowest first.
    `seen` has the contents (sha256) that the encoder was tuned on with their labels: they are not scored.
    `texts` makes unit vectors (C, d) of names of classes and `templates`, for kinds that read them.
    """

    label: str
    kind: str
    split: str | None = None
    group: str | None = None
    min_class_size: int = 5
    wishes: Wishes = field(default_factory=Wishes)
    seed: int = 0
    separator: str | None = None
    order: Sequence[str] | None = None
    seen: frozenset[str] = frozenset()
    templates: Sequence[str] = ()
    texts: Callable[[Sequence[str], Sequence[str]], FloatMatrix] | None = None


@dataclass(frozen=True)
class Made:
    """A trained model with the `facts` to tell and save, `more` to save, `arrays` beside the model, and its guard."""

    facts: dict[str, Any]
    model: Any
    arrays: dict[str, NDArray[Any]]
    guard: Any
    more: dict[str, Any] = field(default_factory=dict)


def classes(rows: Features, asked: Asked) -> Made:
    """Train a head that gives each item one of several classes."""
    task = labels.task(rows, asked.label, asked.split, asked.min_class_size, asked.group)
    return _one_of(rows, task, maker(asked.kind, CLASSES), asked)[0]


def ordinal(rows: Features, asked: Asked) -> Made:
    """Train a head that gives each item one of classes in an order, and score it in ranks as well."""
    given = [str(labels.word(name)) for name in asked.order or ()]
    order = given or labels.order_of(rows.columns[asked.label], asked.label)
    task = labels.task(rows, asked.label, asked.split, asked.min_class_size, asked.group, order=order)
    made, tested, said = _one_of(rows, task, maker(asked.kind, ORDINAL), asked)
    unit, middle = np.asarray([task.units[i] for i in tested]), int(np.median(task.y[task.train]))
    made.facts["metrics"] |= ranks.scores(task.y[tested], said, middle, unit, asked.seed)
    return made


def _one_of(rows: Features, task: Task, made: EstimatorClass, asked: Asked) -> tuple[Made, Ints, Ints]:
    """Return what was made, the rows that were held out, and the codes that were said of them."""
    seed = asked.seed
    words = _worded(task, asked)
    if words is not None:
        made = cast(EstimatorClass, partial(made, **words))
    held = _unseen(rows, task, held_out(task, made, seed, asked.split), asked.seen)
    model = fitted(task, task.train, made, seed)
    found = account(task, held, _again(settled(made, model), seed), asked.wishes, seed)
    guard = found.guard.as_json()
    facts = {
        **_facts(task, held), "metrics": found.metrics, "calibration": guard["calibration"], "sets": guard["sets"],
        "promise": found.promise, "per_class": found.per_class, "confusion": found.confusion,
    }  # fmt: skip
    more: dict[str, Any] = {}
    if words is not None:
        more = {"templates": list(asked.templates)}
        facts["metrics"] |= _parts(task, held, made, words["texts"], asked)
    arrays = saved.rows_of(task, held.rows, held.probabilities, found.suspects)
    return Made(facts, model, arrays, found.guard, more), held.rows, found.said


def _worded(task: Task, asked: Asked) -> dict[str, Any] | None:
    """Return the texts of the classes for a kind that reads them; None for others.

    Raises:
        UsageError: it reads them, and nobody can make any; or the other way round.
    """
    reads = reads_texts(asked.kind)
    if not reads and asked.templates:
        raise UsageError(f"heads of kind {asked.kind} read no texts", hint="--head blend takes --template")
    if not reads:
        return None
    if asked.texts is None:
        raise UsageError(f"heads of kind {asked.kind} need the texts of the classes")
    return {"names": np.arange(len(task.classes)), "texts": asked.texts(task.classes, asked.templates)}


def _parts(task: Task, held: Held, made: EstimatorClass, texts: FloatMatrix, asked: Asked) -> dict[str, Any]:
    """Score the parts of a blend on the same rows: the texts alone, and (a control) the items alone."""
    unit, y = np.asarray([task.units[i] for i in held.rows]), task.y[held.rows]
    named = (to_unit(task.X[held.rows]) @ to_unit(texts).T).argmax(axis=1)
    found = controls.share("texts_alone", named == y, unit)
    if asked.wishes.controls:
        without: Any = partial(cast(Any, made), texts=None)
        alone = held_out(task, without, asked.seed, asked.split)
        same = np.isin(alone.rows, held.rows)
        found |= controls.share("items_alone", alone.probabilities[same].argmax(axis=1) == y, unit)
    return found


def multilabel(rows: Features, asked: Asked) -> Made:
    """Train a head that gives each item any number of classes."""
    made, seed = maker(asked.kind, MULTILABEL), asked.seed
    task = labels.several(
        rows, asked.label, asked.split, asked.min_class_size, asked.group, separator=asked.separator
    )  # fmt: skip
    held = _unseen(rows, task, held_out(task, made, seed, asked.split), asked.seen)
    model = fitted(task, task.train, made, seed)
    found, guard = several.account(task, held, _again(settled(made, model), seed), asked.wishes, seed)
    arrays = several.rows_of(task, held, saved.MOST_PROBABILITIES)
    return Made({**_facts(task, held), **found}, model, arrays, guard, {"separator": asked.separator})


def regression(rows: Features, asked: Asked) -> Made:
    """Train a head that gives each item a number."""
    made, seed = maker(asked.kind, REGRESSION), asked.seed
    task = numbers.measured(rows, asked.label, asked.split, asked.group)
    held = _unseen(rows, task, numbers.held_out(task, made, seed), asked.seen)
    model = numbers.fitted(task, task.train, made, seed)
    metrics, margin = numbers.account(task, held, made, model, asked.wishes, seed)
    facts = {
        "classes": [], "n_train": len(task.train), "n_test": len(held.rows), "metrics": metrics, "left_out": {},
        "split": held.how, "near_duplicates": {"items": task.near, "threshold": task.near_threshold},
        "calibration": {}, "sets": margin.as_json(), "per_class": [], "confusion": {},
        "promise": conformal.EXACT if task.test is not None else conformal.FOLDED,
    }  # fmt: skip
    return Made(facts, model, numbers.rows_of(task, held), margin)


def _unseen(rows: Features, task: Task | numbers.Measured, held: Any, seen: frozenset[str]) -> Any:
    """Return the part of what was held out that is like no row that a tuned encoder saw: others score memory.

    Raises:
        UsageError: none is left.
    """
    if not seen:
        return held
    # scikit-learn takes a second to import, and what only reads heads has no use for it
    from heads.report import pilot

    hashes = dict(zip(rows.keys.tolist(), rows.columns["content_hash"], strict=True))
    free = set(pilot.parts(task.units, [hashes[key] for key in task.keys.tolist()], seen)[1].tolist())
    kept = np.array([at for at, row in enumerate(held.rows.tolist()) if row in free], dtype=np.intp)
    if not len(kept):
        raise UsageError(
            "the encoder was tuned on every row that could be scored, so that no score would be honest",
            where=f"Space {rows.space}", hint="label items that it has not seen, or train in the frozen Space: --space",
        )  # fmt: skip
    parts = {name: value[kept] for name, value in vars(held).items() if isinstance(value, np.ndarray)}
    return replace(held, how=held.how + UNSEEN, **parts)


def _again(made: EstimatorClass, seed: int) -> Callable[[Task, int | None], Held]:
    return lambda part, most: held_out(part, made, seed, most=most)


def _facts(task: Task, held: Held) -> dict[str, Any]:
    return {
        "classes": task.classes, "n_train": len(task.train), "n_test": len(held.rows), "left_out": task.left_out,
        "split": held.how, "near_duplicates": {"items": task.near, "threshold": task.near_threshold},
    }  # fmt: skip


MAKERS: Mapping[str, Callable[[Features, Asked], Made]] = {
    CLASSES: classes, REGRESSION: regression, MULTILABEL: multilabel, ORDINAL: ordinal,
}  # fmt: skip
OPTIONS = {"separator": MULTILABEL, "order": ORDINAL}
