"""Which keys are alive: those that `items` holds. A vector whose key is not among them is never answered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedder.records import Keys
from index.store import Collection, scan


@dataclass(frozen=True)
class Live:
    """The keys of `items` at one version, ascending, with the row id of each."""

    version: int
    keys: Keys
    row_ids: NDArray[np.uint64]

    @classmethod
    def read(cls, collection: Collection) -> Live:
        """Read the keys and row ids of all items."""
        table = collection.items
        rows = scan(table, ["key"], row_ids=True)
        keys = rows["key"].to_numpy().astype(np.int64)
        order = np.argsort(keys)
        return cls(int(table.version), keys[order], rows["_rowid"].to_numpy().astype(np.uint64)[order])

    def holds(self, keys: Keys) -> NDArray[np.bool_]:
        """Return a mask (n,) of the keys that are alive."""
        return member(keys, self.keys)


def member(keys: Keys, ascending: Keys) -> NDArray[np.bool_]:
    """Return a mask (n,) of the `keys` that are among the `ascending` ones."""
    if not len(ascending):
        return np.zeros(len(keys), dtype=bool)
    at = np.searchsorted(ascending, keys)
    found: NDArray[np.bool_] = ascending[np.clip(at, 0, len(ascending) - 1)] == keys
    return found
