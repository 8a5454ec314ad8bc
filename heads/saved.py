"""Heads on disk: `heads/<name>/<version>/` with `head.safetensors` and, written last, `manifest.json`. No pickle.

The manifest holds its own checksum and that of the arrays; nothing is parsed into a model before both agree.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.errors import Damaged, UnknownName, UsageError
from embedder.records import FloatMatrix, Keys
from embedder.space import Space, canonical_json
from heads.folds import Ints
from heads.guard import Guard
from heads.interval import Margin
from heads.kind import CLASSES, MULTILABEL, ORDINAL, REGRESSION, Estimator, Regressor, maker
from heads.labels import Task, names, word
from heads.neighbours import Neighbours
from heads.noise import Suspects
from heads.prediction import Prediction, ranked
from heads.tags import Tags
from index import files
from index.store import Collection, check_name, scan
from index.view import View

FORMAT, FORMATS_READ = 2, (1, 2)
ARRAYS, MANIFEST, CHECK = "head.safetensors", "manifest.json", "manifest_sha256"
MODEL, GUARD, SUSPECT = "model.", "guard.", "suspect_"
MOST_PROBABILITIES = 5_000_000
FACTS = ("kind", "label", "classes", "n_train", "n_test", "metrics", "left_out", "split", "created")
GUARDS: Mapping[str, Any] = {CLASSES: Guard, REGRESSION: Margin, MULTILABEL: Tags, ORDINAL: Guard}
DETAILS = ("task", "near_duplicates", "calibration", "sets", "promise", "per_class", "confusion")


@dataclass(frozen=True)
class Head:
    """A head that was verified and read.

    `row_keys` (n_train,) are the keys of the rows it was fitted to, and `row_labels` their codes into `classes`, or
    (n_train, C) of 0 and 1 where items have several. `suspects` are the rows whose label it doubts. `model` is an
    `Estimator` with a `Guard` (None in a head of format 1), or with `Tags` where items have several classes; where it
    predicts numbers, a `Regressor` with a `Margin`, and `row_values` (n_train,) instead of labels.
    """

    name: str
    version: int
    kind: str
    label: str
    space: Space
    classes: list[str]
    row_keys: Keys
    row_labels: Ints
    manifest: Mapping[str, Any]
    model: Any
    guard: Any
    suspects: Mapping[str, NDArray[Any]]
    row_values: NDArray[np.float64] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what `train` returned of it, as plain values."""
        facts = {name: self.manifest[name] for name in (*FACTS, *DETAILS) if name in self.manifest}
        return {"head": self.name, "version": self.version, "space": self.space.fingerprint, **facts}

    @property
    def looks_up(self) -> bool:
        """Whether it keeps no rows, and looks its neighbours up where they are stored."""
        return bool(getattr(self.model, "ELSEWHERE", ())) and not hasattr(self.model, "rows_")

    def standing_on(self, view: View) -> Head:
        """Return the same head, which looks its rows up in a view of its Space."""
        self.require_space(view.space)
        self.model.neighbours = Neighbours(view, self.row_keys, self.row_labels)
        return self

    def require_space(self, space: Space) -> None:
        """Refuse vectors of another Space. Raises `SpaceMismatch`, which names both."""
        self.space.require(space, what=f"what head {self.name}@{self.version} was asked about")

    def predict(self, X: FloatMatrix, top_k: int | None = None) -> list[Prediction]:
        """Classify vectors (n, dim) of the head's own Space.

        Raises:
            UsageError: vectors of another dimension, not finite, or `top_k` below 1.
        """
        if X.ndim != 2 or X.shape[1] != self.space.dim or not np.isfinite(X).all():
            raise UsageError(f"head {self.name} reads finite vectors of {self.space.dim} dimensions, not {X.shape}")
        if top_k is not None and top_k < 1:
            raise UsageError(f"top_k is at least 1, not {top_k}")
        if not len(X):
            return []
        if self.guard is not None:
            return list(self.guard.answer(self.model, X, self.classes, top_k))
        shown = [ranked(row, self.classes, top_k) for row in self.model.predict_proba(X)]
        return [Prediction(next(iter(one)), one) for one in shown]

    @property
    def task(self) -> str:
        """What its column is to its items."""
        return str(self.manifest.get("task", CLASSES))

    def named(self, value: Any) -> tuple[str, ...] | None:
        """Return the classes that a value of its column names; None where the value says nothing."""
        if self.task == MULTILABEL:
            return names(value, self.manifest["separator"])
        said = word(value)
        return None if said is None else (said,)

    def _learned(self) -> list[Any]:
        """Return what it learned of each training row, as `_says` puts it."""
        if self.row_values is not None:
            return [self._says(value) for value in self.row_values.tolist()]
        if self.task == MULTILABEL:
            return [tuple(self.classes[c] for c in np.flatnonzero(row)) for row in self.row_labels]
        return [(self.classes[code],) for code in self.row_labels.tolist()]

    def _says(self, value: Any) -> Any:
        if self.row_values is not None:
            return word(float(value) if isinstance(value, int) else value)
        found = self.named(value)
        return tuple(c for c in found if c in self.classes) if found and self.task == MULTILABEL else found

    def stale(self, collection: Collection) -> str | None:
        """Say why the head no longer stands on the rows it was fitted to; None where it does."""
        now = scan(collection.items, ["key", self.label])
        labels = dict(zip(now["key"].to_pylist(), now[self.label].to_pylist(), strict=True))
        keys = self.row_keys.tolist()
        gone = sum(key not in labels for key in keys)
        learned = zip(keys, self._learned(), strict=True)
        changed = sum(key in labels and self._says(labels[key]) != was for key, was in learned)
        reasons = [
            f"{gone} were deleted or have other content" if gone else "",
            f"{changed} have another label" if changed else "",
        ]
        said = " and ".join(filter(None, reasons))
        return f"of {len(keys)} training rows {said} now: train again" if said else None


def rows_of(task: Task, tested: Ints, probabilities: NDArray[np.float64], doubted: Suspects) -> dict[str, NDArray[Any]]:
    """Return what is saved beside the model: which rows it stands on, and the held-out predictions where they are few.

    `row_keys` and `row_labels` (n_train,) int64; `test_keys`, `test_labels` (n_test,) int64 and `test_probabilities`
    (n_test, C) float32, before calibration, up to 5 million values. `suspect_keys`, `suspect_given` and
    `suspect_suggested` (m,) int64, `suspect_probabilities` (m, 2) float64 of these two classes, most suspicious first.
    """
    codes = task.y.astype(np.int64)
    found: dict[str, NDArray[Any]] = {"row_keys": task.keys[task.train], "row_labels": codes[task.train]}
    given, said = codes[doubted.rows], doubted.suggested.astype(np.int64)
    own = probabilities[np.searchsorted(tested, doubted.rows)]
    sure = np.stack([own[np.arange(len(own)), given], own[np.arange(len(own)), said]], axis=1)
    found |= {"suspect_keys": task.keys[doubted.rows], "suspect_given": given, "suspect_suggested": said}
    found["suspect_probabilities"] = sure
    if probabilities.size <= MOST_PROBABILITIES:
        found |= {"test_keys": task.keys[tested], "test_labels": codes[tested]}
        found["test_probabilities"] = probabilities.astype(np.float32)
    return found


def save(
    collection: Collection, name: str, manifest: Mapping[str, Any], model: Estimator | Regressor,
    rows: Mapping[str, NDArray[Any]], guard: Guard | Margin | Tags,
) -> int:  # fmt: skip
    """Write the next version of a head, whole or not at all, and return its number."""
    from safetensors.numpy import save as to_bytes

    home = collection.path / "heads" / check_name(name, "head")
    elsewhere = getattr(model, "ELSEWHERE", ())
    learned = {key: value for key, value in model.arrays().items() if key not in elsewhere}
    parts = ((MODEL, learned), (GUARD, guard.arrays()))
    arrays = {**{prefix + key: value for prefix, part in parts for key, value in part.items()}, **rows}
    data = to_bytes({key: np.ascontiguousarray(value) for key, value in arrays.items()})
    facts = {
        **manifest, "format": FORMAT, "name": name, "params": model.params(), "guard": guard.as_json(),
        "sha256": hashlib.sha256(data).hexdigest(), "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }  # fmt: skip
    with files.lock(collection.lock_path(f"head-{name}")):
        for leftover in home.glob(".tmp-*"):
            shutil.rmtree(leftover)
        facts["version"] = version = max(_versions(home), default=0) + 1
        folder = home / f".tmp-{version}"
        files.write_bytes(folder / ARRAYS, data)
        files.write_json(folder / MANIFEST, {**facts, CHECK: _sha256_of(facts)})
        files.checkpoint("head:rename")
        folder.rename(home / str(version))
        files.sync_folder(home)
    return version


def list_heads(collection: Collection) -> list[dict[str, Any]]:
    """Return every head with its `versions` and the facts of the newest one; a damaged one says so under `damaged`."""
    found = []
    for name in _names(collection):
        versions = _versions(_home(collection, name))
        row: dict[str, Any] = {"head": name, "version": versions[-1], "versions": versions}
        try:
            facts = _manifest(_home(collection, name) / str(versions[-1]))
            row |= {"space": facts["space"]["fingerprint"], **{key: facts[key] for key in FACTS}}
        except Damaged as error:
            row |= {"kind": "damaged", "label": "", "damaged": error.what}
        found.append(row)
    return found


def damaged(collection: Collection) -> list[tuple[str, str]]:
    """Return each version of a head, as NAME@VERSION, that cannot be read, and why."""
    found = []
    for name in _names(collection):
        home = _home(collection, name)
        for version in _versions(home):
            try:
                _read(home / str(version))
            except Damaged as error:
                found.append((f"{name}@{version}", error.what))
    return found


def load_head(collection: Collection, reference: str) -> Head:
    """Read a head.

    Args:
        reference: `NAME` for the newest version, or `NAME@VERSION`.

    Raises:
        UnknownName: there is no such head or version; the nearest names are in the hint.
        Damaged: its files fail their checksums, or do not fit together.
    """
    name, at, wanted = reference.partition("@")
    known, where = _names(collection), f"collection {collection.name}"
    if name not in known:
        hint = f"heads: {', '.join(known)}" if known else f"permafrost train {collection.name} --label X"
        raise UnknownName.of("head", name, known, where=where, hint=hint)
    versions = _versions(_home(collection, name))
    if at and wanted not in map(str, versions):
        listed = ", ".join(map(str, versions))
        raise UnknownName(f"head {name!r} has no version {wanted!r}", where=where, hint=f"versions: {listed}")
    head = _read(_home(collection, name) / (wanted or str(versions[-1])))
    return head.standing_on(View(collection, head.space)) if head.looks_up else head


def _read(folder: Path) -> Head:
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    facts, hint = _manifest(folder), "train it again: permafrost train"
    try:
        data = (folder / ARRAYS).read_bytes()
        if hashlib.sha256(data).hexdigest() != facts["sha256"]:
            raise Damaged(f"{ARRAYS} fails its checksum", where=str(folder), hint=hint)
        arrays = from_bytes(data)
        task = facts.get("task", CLASSES)
        made, learned = maker(facts["kind"], task), _under(MODEL, arrays)
        whole = learned.keys() >= set(getattr(made, "ELSEWHERE", ()))
        model = (made.restore if whole else made.without_rows)(learned, facts["params"])
        guard = GUARDS[task].restore(_under(GUARD, arrays), facts["guard"]) if "guard" in facts else None
        return Head(
            facts["name"], facts["version"], facts["kind"], facts["label"], Space.from_json(facts["space"]),
            facts["classes"], arrays["row_keys"], arrays["row_labels"], facts, model, guard, _under(SUSPECT, arrays),
            arrays["row_values"] if task == REGRESSION else None,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
        raise Damaged(f"the head cannot be read: {error}", where=str(folder), hint=hint) from error


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def _manifest(folder: Path) -> dict[str, Any]:
    facts = files.read_json(folder / MANIFEST)
    found = facts.pop(CHECK, None) if isinstance(facts, dict) else None
    if found != _sha256_of(facts):
        raise Damaged(f"{MANIFEST} fails its checksum", where=str(folder), hint="train it again: permafrost train")
    if facts["format"] not in FORMATS_READ:
        known = " and ".join(map(str, FORMATS_READ))
        raise Damaged(f"the head has format {facts['format']}; this version reads {known}", where=str(folder))
    return dict(facts)


def _sha256_of(facts: Any) -> str:
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()


def _home(collection: Collection, name: str) -> Path:
    return collection.path / "heads" / name


def _names(collection: Collection) -> list[str]:
    return sorted(home.name for home in (collection.path / "heads").glob("*") if _versions(home))


def _versions(home: Path) -> list[int]:
    return sorted(int(p.name) for p in home.glob("*") if p.name.isdigit() and (p / MANIFEST).exists())
