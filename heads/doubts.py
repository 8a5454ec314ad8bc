"""The rows whose label a head doubts, each beside the stored items of the class that it looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.errors import NothingToDo
from embedder.records import FloatMatrix
from heads.folds import Ints
from heads.kind import PREDICTS
from heads.labels import word
from heads.saved import Head
from index.features import features
from index.store import Collection
from index.view import unit

LIKE = 3
SAYING = "each is hard or mislabelled; look before you relabel"


@dataclass(frozen=True)
class Doubt:
    """An item whose label `given` the head doubts: the two classes' probabilities, and what it looks most like."""

    id: str
    given: str
    suggested: str
    given_probability: float
    suggested_probability: float
    like: list[dict[str, Any]]


def doubts(collection: Collection, head: Head, limit: int) -> dict[str, Any]:
    """Return the most suspicious rows that still stand, most suspicious first.

    Probabilities are those of a head that did not see the row, before calibration. An item that was relabelled, changed
    or deleted since is not listed; `settled` counts those.

    Returns:
        `looked_at noise_rate found settled saying errors:[{id given suggested given_probability
        suggested_probability like:[{id score}]}]`, `like` having the nearest training items of the suggested class.
    """
    facts = head.manifest
    if "noise_rate" not in facts["metrics"] and "task" in facts:
        raise NothingToDo(f"head {head.name}@{head.version} predicts {PREDICTS[head.task]}, and doubts no labels")
    if "keys" not in head.suspects:
        raise NothingToDo(
            f"head {head.name}@{head.version} was saved without label errors", hint=f"train it again: {head.name}"
        )
    keys, given = head.suspects["keys"], head.suspects["given"]
    rows = features(collection, head.space, [head.label])
    at = np.searchsorted(rows.keys, keys)
    alive = rows.keys[np.minimum(at, len(rows.keys) - 1)] == keys
    values = rows.columns[head.label]
    stands = np.array(
        [ok and word(values[i]) == head.classes[c] for ok, i, c in zip(alive, at, given, strict=True)], dtype=bool
    )
    shown = np.flatnonzero(stands)[:limit]
    nearest = _Nearest(head, rows.keys, rows.ids, rows.X)
    errors = [vars(_doubt(head, int(i), int(at[i]), nearest)) for i in shown]
    return {
        "looked_at": facts["n_test"], "noise_rate": facts["metrics"]["noise_rate"], "found": int(stands.sum()),
        "settled": int((~stands).sum()), "saying": SAYING, "errors": errors,
    }  # fmt: skip


def _doubt(head: Head, i: int, row: int, nearest: _Nearest) -> Doubt:
    given, suggested = int(head.suspects["given"][i]), int(head.suspects["suggested"][i])
    first, second = head.suspects["probabilities"][i].tolist()
    classes = head.classes
    return Doubt(nearest.ids[row], classes[given], classes[suggested], first, second, nearest.of_class(row, suggested))


class _Nearest:
    """The training rows of a head that still have their vectors, by class."""

    def __init__(self, head: Head, keys: NDArray[np.int64], ids: list[str], X: FloatMatrix) -> None:
        self.ids, self.rows = ids, unit(X)
        at = np.minimum(np.searchsorted(keys, head.row_keys), len(keys) - 1)
        alive = keys[at] == head.row_keys
        self.trained, self.codes = at[alive], head.row_labels[alive]

    def of_class(self, row: int, code: int) -> list[dict[str, Any]]:
        """Return the ids and cosines of the nearest training rows of a class, nearest first."""
        members: Ints = self.trained[self.codes == code]
        members = members[members != row]
        cosines = self.rows[members] @ self.rows[row]
        best = np.argsort(-cosines, kind="stable")[:LIKE]
        return [{"id": self.ids[members[k]], "score": float(cosines[k])} for k in best]
