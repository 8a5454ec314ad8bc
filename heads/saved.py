"""Heads on disk: `heads/<name>/<version>/` with `head.safetensors` and, written last, `manifest.json`. No pickle."""

from __future__ import annotations

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
from embedder.space import Space
from heads.kind import Estimator, estimator
from index import files
from index.store import Collection, check_name
from index.view import Live

FORMAT = 1
ARRAYS, MANIFEST, ROW_KEYS = "head.safetensors", "manifest.json", "row_keys"


@dataclass(frozen=True)
class Prediction:
    """The most probable class, and the probability of each class (the `top_k` likeliest, where that was asked)."""

    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Head:
    """A head that was verified and read. `row_keys` are the keys of the rows it was trained on, ascending."""

    name: str
    version: int
    kind: str
    label: str
    space: Space
    classes: list[str]
    row_keys: Keys
    manifest: Mapping[str, Any]
    model: Estimator

    def as_json(self) -> dict[str, Any]:
        """Return what `train` returned of it, as plain values."""
        names = ("kind", "label", "classes", "n_train", "n_test", "metrics", "left_out", "split")
        facts = {name: self.manifest[name] for name in names}
        return {"head": self.name, "version": self.version, "space": self.space.fingerprint, **facts}

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
        return [self._prediction(row, top_k or len(self.classes)) for row in self.model.predict_proba(X)]

    def _prediction(self, row: NDArray[np.float64], top_k: int) -> Prediction:
        best = np.argsort(-row, kind="stable")
        return Prediction(self.classes[best[0]], {self.classes[i]: float(row[i]) for i in best[:top_k]})

    def stale(self, collection: Collection) -> str | None:
        """Say why the head no longer stands on the rows it was trained on; None where it does."""
        gone = int((~Live.read(collection).holds(self.row_keys)).sum())
        if not gone:
            return None
        return f"{gone} of {len(self.row_keys)} training rows were deleted or have other content now: train again"


def save(collection: Collection, name: str, manifest: Mapping[str, Any], model: Estimator, row_keys: Keys) -> int:
    """Write the next version of a head, whole or not at all, and return its number."""
    from safetensors.numpy import save as to_bytes

    home = collection.path / "heads" / check_name(name, "head")
    with files.lock(collection.lock_path(f"head-{name}")):
        for leftover in home.glob(".tmp-*"):
            shutil.rmtree(leftover)
        version = max(_versions(home), default=0) + 1
        folder = home / f".tmp-{version}"
        arrays = {k: np.ascontiguousarray(v) for k, v in model.arrays().items()} | {ROW_KEYS: row_keys}
        files.write_bytes(folder / ARRAYS, to_bytes(arrays))
        facts = {"format": FORMAT, "name": name, "version": version, "params": model.params()}
        facts["created"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        files.write_json(folder / MANIFEST, {**manifest, **facts, "sha256": files.sha256(folder / ARRAYS)})
        files.checkpoint("head:rename")
        folder.rename(home / str(version))
        files.sync_folder(home)
    return version


def list_heads(collection: Collection) -> list[dict[str, Any]]:
    """Return every head of a collection with its versions and the facts of the newest one."""
    found = []
    for home in sorted((collection.path / "heads").glob("*")):
        versions = _versions(home)
        if versions:
            facts = files.read_json(home / str(max(versions)) / MANIFEST)
            keys = ("kind", "label", "classes", "n_train", "n_test", "metrics", "created")
            space = facts["space"]["fingerprint"]
            found.append({"head": home.name, "versions": versions, "space": space, **{key: facts[key] for key in keys}})
    return found


def load_head(collection: Collection, reference: str) -> Head:
    """Read a head.

    Args:
        reference: `NAME` for the newest version, or `NAME@VERSION`.

    Raises:
        UnknownName: there is no such head or version; the nearest names are in the hint.
        Damaged: its arrays fail their checksum, or do not fit its manifest; nothing is parsed before it is checked.
    """
    name, _, wanted = reference.partition("@")
    known = [row["head"] for row in list_heads(collection)]
    where = f"collection {collection.name}"
    if name not in known:
        hint = f"heads: {', '.join(known)}" if known else f"permafrost train {collection.name} --label X"
        raise UnknownName.of("head", name, known, where=where, hint=hint)
    home = collection.path / "heads" / name
    versions = _versions(home)
    if wanted and (not wanted.isdigit() or int(wanted) not in versions):
        raise UnknownName(f"head {name!r} has no version {wanted!r}", where=where, hint=f"versions: {versions}")
    return _read(home / str(int(wanted) if wanted else max(versions)))


def _read(folder: Path) -> Head:
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    facts = files.read_json(folder / MANIFEST)
    hint = "train it again: permafrost train"
    try:
        files.check_sha256(folder / ARRAYS, facts["sha256"])
        if facts["format"] != FORMAT:
            raise Damaged(f"the head has format {facts['format']}; this version reads {FORMAT}", where=str(folder))
        arrays = from_bytes((folder / ARRAYS).read_bytes())
        row_keys = arrays.pop(ROW_KEYS)
        model = estimator(facts["kind"]).restore(arrays, facts["params"])
        classes = [str(name) for name in facts["classes"]]
        return Head(
            facts["name"], facts["version"], facts["kind"], facts["label"], Space.from_json(facts["space"]),
            classes, row_keys, facts, model,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
        raise Damaged(f"the head cannot be read: {error}", where=str(folder), hint=hint) from error


def _versions(home: Path) -> list[int]:
    return sorted(int(p.name) for p in home.glob("*") if p.name.isdigit() and (p / MANIFEST).exists())
