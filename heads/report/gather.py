"""What a report stands on: the labelled items that every Space holds, their candidates, controls and units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.errors import Damaged
from embedder.records import FloatMatrix, Keys
from embedder.space import Space
from heads import labels
from heads.folds import Ints
from heads.report import raw
from heads.report.candidates import Candidate, histogram, majority, pixels, tfidf
from heads.report.domain import Reference
from heads.report.pilot import TunedRows, TunedSpace, rows_of
from heads.report.steps import Say, Step, silent
from index import files
from index.features import Features, features
from index.store import Collection

MOST_ROWS = 20_000
LEAST_ROWS, LEAST_CLASS = 50, 5
MOST_GONE = 0.05
BYTES = 4


@dataclass(frozen=True)
class Chosen:
    """A Space to compare. `kind`: encoder, layer (of the encoder named `of`) or random (the untrained twin of `of`)."""

    space: Space
    kind: str = "encoder"
    of: str | None = None

    @property
    def name(self) -> str:
        """The encoder's name, which is the candidate's."""
        return self.space.encoder


@dataclass(frozen=True)
class Gathered:
    """All that the questions read, on the same n items.

    Attributes:
        task: labels, units and classes; None where there are too few items for any of it, and then nothing is compared.
        ids: (n,) of the items.
        encoders: candidates of kind encoder and layer, in the order asked; `parents` names the encoder of a layer.
        notes: what was left out and why, one sentence each.
        labelled, per_class: how many items have a label, and the size of the smallest class that was kept.
        tuned: the Space of a tuned encoder, which is in no ranking: it saw some of the labels.
    """

    collection: str
    label: str
    task: labels.Task | None
    ids: list[str]
    encoders: list[Candidate]
    controls: list[Candidate]
    parents: dict[str, str]
    notes: list[str] = field(default_factory=list)
    labelled: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    tuned: TunedRows | None = None


def gather(
    collection: Collection,
    label: str,
    chosen: Sequence[Chosen],
    *,
    group: str | None = None,
    where: Any = None,
    min_class_size: int = LEAST_CLASS,
    raw_controls: bool = True,
    workers: int | None = None,
    seed: int = 0,
    tuned: TunedSpace | None = None,
    say: Say = silent,
) -> Gathered:
    """Read vectors and labels; decode pictures again for the controls that need them.

    Units are those of `heads.train`: exact copies, near-duplicates in the first Space, and rows of one group. Above
    20,000 labelled items a sample is drawn by `seed`.

    Args:
        chosen: at least one; the first one's vectors say which items are near-duplicates.
        raw_controls: whether to read pixels, colours and words.
        workers: processes that decode.

    Raises:
        UnknownName, NothingToDo, UsageError: as `heads.train.train`, but for too few rows, which are an answer.
    """
    say(Step("vectors", chosen[0].name, 0, len(chosen)))
    first = features(collection, chosen[0].space, labels.columns(label, None, group), where)
    notes: list[str] = []
    rows, rest = _shared(collection, label, first, chosen[1:], notes, seed, say)
    counted = _members(rows, label)
    left_out = {name: n for name, n in sorted(counted.items()) if n < min_class_size}
    enough = {name: n for name, n in counted.items() if n >= min_class_size}
    labelled = sum(value is not None for value in rows.columns[label])
    if len(counted) > 1 and (len(enough) < 2 or sum(enough.values()) < LEAST_ROWS):
        return Gathered(collection.name, label, None, [], [], [], {}, notes, labelled, left_out)
    task = labels.task(rows, label, None, min_class_size, group)
    task, controls = _raw(collection, task, notes, workers, say) if raw_controls else (task, list[Candidate]())
    made = [_candidate(collection, c, found, task.keys) for c, found in [(chosen[0], rows), *rest]]
    at = dict(zip(rows.keys.tolist(), rows.ids, strict=True))
    ids = [at[key] for key in task.keys.tolist()]
    controls = [*(c for c in made if c.kind == "random"), *controls, majority(len(ids))]
    parents, ours = {c.name: c.of for c in chosen if c.of}, [c for c in made if c.kind != "random"]
    return Gathered(
        collection.name, label, task, ids, ours, controls, parents, notes, labelled, task.left_out,
        _tuned(collection, tuned, rows, task),
    )  # fmt: skip


def _tuned(collection: Collection, tuned: TunedSpace | None, first: Features, task: labels.Task) -> TunedRows | None:
    if tuned is None:
        return None
    at = dict(zip(first.keys.tolist(), first.columns["content_hash"], strict=True))
    hashes = [str(at[key]) for key in task.keys.tolist()]
    return rows_of(tuned, features(collection, tuned.space), task.keys, task.units, hashes)


def drawn_again(found: Gathered, collection: Collection, twins: Sequence[Chosen]) -> Gathered:
    """Return the same with more untrained twins among the controls; one that lacks some of the items is left out."""
    assert found.task is not None
    keys, more, notes = found.task.keys, [], []
    for it in twins:
        read = features(collection, it.space)
        if np.isin(keys, read.keys).all():
            more.append(_candidate(collection, it, read, keys))
        else:
            notes.append(f"{it.name} has no vector of some of the items and is left out.")
    return replace(found, controls=[*more, *found.controls], notes=[*found.notes, *notes])


def _shared(
    collection: Collection, label: str, first: Features, others: Sequence[Chosen], notes: list[str], seed: int, say: Say
) -> tuple[Features, list[tuple[Chosen, Features]]]:
    """Return the labelled rows of `first` that are in all other Spaces, at most 20,000, and the same rows of those.

    The others are read one after the other and at once cut to rows that may be kept, so that memory does not grow with
    what has no label.
    """
    has = np.array([labels.word(value) is not None for value in first.columns[label]], dtype=bool)
    keys, rest = first.keys[has], []
    for at, chosen in enumerate(others, 1):
        say(Step("vectors", chosen.name, at, len(others) + 1))
        found = features(collection, chosen.space)
        keys = keys[np.isin(keys, found.keys)]
        rest.append((chosen, _of(found, keys)))
    if missing := int(has.sum() - len(keys)):
        notes.append(f"{missing:,} labelled items have no vector in one of the Spaces and are left out.")
    if len(keys) > MOST_ROWS:
        notes.append(f"{MOST_ROWS:,} of {len(keys):,} labelled items were drawn at random (seed {seed}).")
        keys = np.sort(np.random.default_rng(seed).choice(keys, MOST_ROWS, replace=False))
    return _of(first, keys), [(chosen, _of(found, keys)) for chosen, found in rest]


def _of(found: Features, keys: Keys) -> Features:
    """Return the rows of some keys."""
    kept = np.flatnonzero(np.isin(found.keys, keys))
    if len(kept) == len(found):
        return found
    columns = {name: [values[i] for i in kept] for name, values in found.columns.items()}
    return replace(found, keys=found.keys[kept], ids=[found.ids[i] for i in kept], X=found.X[kept], columns=columns)


def _members(rows: Features, label: str) -> Counter[str]:
    """Count the distinct contents of each class."""
    words = map(labels.word, rows.columns[label])
    pairs = {(word, content) for word, content in zip(words, rows.columns["content_hash"], strict=True) if word}
    return Counter(word for word, _ in pairs)


def _candidate(collection: Collection, it: Chosen, found: Features, keys: Keys) -> Candidate:
    X = found.X if len(keys) == len(found) else found.X[np.searchsorted(found.keys, keys)]
    return Candidate(it.name, it.kind, X, speed(collection, it.space), it.space.dim * BYTES, it.of)


def speed(collection: Collection, space: Space) -> float | None:
    """Return items a second of the largest run that embedded into this Space, None where no record says."""
    largest, found = 0, None
    for path in sorted((collection.path / "runs").glob("*/run.json")):
        try:
            record = files.read_json(path)
        except (Damaged, OSError):
            # of a run that was killed
            continue
        if record.get("space") == space.fingerprint and record.get("embedded", 0) > largest and record.get("seconds"):
            largest, found = record["embedded"], record["embedded"] / record["seconds"]
    return found


def _raw(
    collection: Collection, task: labels.Task, notes: list[str], workers: int | None, say: Say
) -> tuple[labels.Task, list[Candidate]]:
    """Return the controls that need no encoder, and the task without the few items whose content is gone."""
    rows = raw.rows(collection, task.keys)
    media = {raw.medium(row) for row in rows}
    if len(media) > 1:
        notes.append("The items are pictures and texts: neither pixels nor words are a control of all of them.")
        return task, []
    if media == {"text"}:
        say(Step("contents", "counting words"))
        return task, [tfidf([row["text"] or "" for row in rows])]
    say(Step("contents", "decoding pictures"))
    images, good = raw.pictures(collection, rows, workers)
    gone = int((~good).sum())
    if gone > MOST_GONE * len(good):
        notes.append(f"{gone:,} of {len(good):,} pictures are gone or cannot be read: pixels are no control here.")
        return task, []
    if gone:
        notes.append(f"{gone:,} pictures are gone or cannot be read and are left out, as pixels are a control.")
        task, images = keep(task, good), images[good]
    return task, [pixels(images, len(images)), histogram(images, len(images))]


def keep(task: labels.Task, good: NDArray[np.bool_]) -> labels.Task:
    """Return a task of some of its rows; classes that lost all of theirs are forgotten."""
    codes, y = np.unique(task.y[good], return_inverse=True)
    return replace(
        task, keys=task.keys[good], X=task.X[good], y=np.asarray(y, dtype=np.intp),
        classes=[task.classes[c] for c in codes], units=[u for u, kept in zip(task.units, good, strict=True) if kept],
        train=np.arange(int(good.sum())),
    )  # fmt: skip


def reference_of(collection: Collection, space: Space, seed: int) -> Reference:
    """Return another collection's vectors of one Space; copies and groups are units. At most 20,000, drawn by seed."""
    found = features(collection, space, ["content_hash", "group"])
    kept = np.arange(len(found))
    if len(kept) > MOST_ROWS:
        kept = np.sort(np.random.default_rng(seed).choice(kept, MOST_ROWS, replace=False))
    together = [found.columns["group"][i] or found.columns["content_hash"][i] for i in kept]
    units: Ints = np.unique(np.asarray(together, dtype=str), return_inverse=True)[1].astype(np.intp)
    X: FloatMatrix = found.X[kept]
    return Reference(collection.name, X, units)
