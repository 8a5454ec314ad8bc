"""Which items of a collection are the same or nearly so: by content first, then by their vectors in one Space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedder.records import FloatMatrix, Keys
from index.duplicates import THRESHOLD, check_threshold, near_duplicate_groups
from index.features import features
from index.planner import Plan, Positions, Subset, plan
from index.search import Where
from index.store import scan
from index.view import Moment, View, unit

EXACT_UP_TO = 50_000


def find(view: View, *, threshold: float = THRESHOLD, where: Where = None, exact: bool = False) -> dict[str, Any]:
    """Find groups of copies and near-duplicates among the items that have a vector.

    Up to 50,000 items, and always with `exact` or without an index that is not, every pair is compared; above, the
    index proposes pairs, whose cosines are computed. An item of several parts is compared by their mean. A group is a
    chain of near pairs, so its ends may be further apart than the threshold.

    Returns:
        `threshold`, `exact` (whether every pair was compared), `index`, `compared`, `items` (in groups), `extra` (those
        beyond the one to keep), and `groups`, the largest first: `keep`, the item that was stored first, `extra`, the
        others, the cosine of each to it under `scores`, and under `same_content` whether their contents are equal.

    Raises:
        UsageError: a threshold out of range.
        NothingToDo: no item has a vector here.
    """
    check_threshold(threshold)
    moment = view.now()
    subset = view.subset(where, moment)
    compared = _compared(view, moment, subset, where)
    chosen = plan(moment, subset, exact=exact or moment.parted or len(compared.keys) <= EXACT_UP_TO)
    finder = None if chosen.exact else _Proposer(chosen, compared.keys)
    labels = near_duplicate_groups(compared.vectors, threshold, hashes=compared.hashes, finder=finder)
    groups = [_group(compared, rows) for rows in _grouped(labels)]
    groups.sort(key=lambda group: (-len(group["extra"]), group["keep"]))
    extra = sum(len(group["extra"]) for group in groups)
    return {
        "threshold": threshold, "exact": chosen.exact, "index": chosen.index, "compared": len(labels),
        "items": extra + len(groups), "extra": extra, "groups": groups,
    }  # fmt: skip


@dataclass(frozen=True)
class _Compared:
    """Items by ascending key, so that the first of a group was stored first; `vectors` (n, dim) have unit length."""

    keys: Keys
    ids: Sequence[str]
    hashes: Sequence[str]
    vectors: FloatMatrix


def _compared(view: View, moment: Moment, subset: Subset, where: Where) -> _Compared:
    """Take the vectors from memory where each item has one; means of parts are read from the store."""
    if moment.parted or not subset.searched:
        found = features(view.collection, view.space, ["content_hash"], where)
        return _Compared(found.keys, found.ids, found.columns["content_hash"], unit(found.X))
    base, fresh = moment.base, subset.fresh
    keys = [moment.fresh_keys if fresh is None else moment.fresh_keys[fresh]]
    vectors = [moment.fresh if fresh is None else moment.fresh[fresh]]
    if base is not None:
        keys.append(base.keys if subset.rows is None else base.keys[subset.rows])
        vectors.append(np.asarray(base.matrix if subset.rows is None else base.matrix[subset.rows]))
    all_keys = np.concatenate(keys)
    order = np.argsort(all_keys)
    rows = scan(view.collection.items, ["key", "id", "content_hash"])
    row_keys = rows["key"].to_numpy()
    by_key = np.argsort(row_keys)
    at = np.searchsorted(row_keys[by_key], all_keys[order])
    here = row_keys[by_key][np.clip(at, 0, len(by_key) - 1)] == all_keys[order]
    taken = rows.take(by_key[at[here]])
    hashes, ids = taken["content_hash"].to_pylist(), taken["id"].to_pylist()
    return _Compared(all_keys[order][here], ids, hashes, np.concatenate(vectors)[order[here]])


def _grouped(labels: Positions) -> list[Positions]:
    """Return the rows of each group of more than one."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    return [rows for rows in np.split(order, starts[1:]) if len(rows) > 1]


def _group(compared: _Compared, rows: Positions) -> dict[str, Any]:
    first, others = rows[0], rows[1:]
    scores = compared.vectors[others].astype(np.float64) @ compared.vectors[first].astype(np.float64)
    return {
        "keep": compared.ids[first],
        "extra": [compared.ids[i] for i in others],
        "scores": [round(float(score), 6) for score in scores],
        "same_content": [compared.hashes[i] == compared.hashes[first] for i in others],
    }


class _Proposer:
    """Neighbours by an index, as positions among the compared items."""

    def __init__(self, plan: Plan, keys: Keys) -> None:
        self.plan, self.keys = plan, keys

    def search(self, queries: FloatMatrix, k: int) -> tuple[Positions, FloatMatrix]:
        """Return positions (m, r) of candidates, -1 where there are fewer, and no scores: they are computed anyway."""
        base, fresh, _ = self.plan.candidates(queries, k)
        moment = self.plan.moment
        found = [self._at(moment.fresh_keys, fresh)]
        if moment.base is not None:
            found.append(self._at(moment.base.keys, base))
        both = np.concatenate(found, axis=1)
        return both, np.zeros(both.shape, dtype=np.float32)

    def _at(self, keys: Keys, rows: Positions) -> Positions:
        if not rows.shape[1]:
            return rows
        wanted = keys[np.clip(rows, 0, None)]
        at = np.clip(np.searchsorted(self.keys, wanted), 0, len(self.keys) - 1)
        return np.where((rows >= 0) & (self.keys[at] == wanted), at, -1)
