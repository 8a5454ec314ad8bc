"""Which rows a filter leaves, and how they are searched: through the index with a selector, or by scanning them.

A graph or a list that is walked under a filter loses recall silently as the filter narrows, while a scan of what is
left gets cheaper; below a share that is measured for each kind, the scan is faster and exact. Above it, a query whose
own neighbourhood the filter empties is scanned too: a filter may follow the clusters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedder.records import FloatMatrix
from index.derived import Engine, Loaded
from index.kinds.flat import Flat

if TYPE_CHECKING:
    from index.view import Moment

SCAN_ALL_FROM = 0.85
GATHERED_BYTES = 128 << 20
BLOCK_ROWS = 16_384
NEAR_ROWS, SURELY_NEAR = 32, 0.95
Positions = NDArray[np.int64]


@dataclass
class Subset:
    """What a filter leaves of one moment.

    `mask` (n,) and `rows` are the allowed rows of the index's matrix, None where all are; `fresh` those of the rows
    that are in no index. `gathered` holds the vectors of `rows` together, once they were scanned. Without a filter
    (`filtered` False) only deleted rows are left out.
    """

    mask: NDArray[np.bool_] | None
    rows: Positions | None
    fresh: Positions | None
    searched: int
    share: float
    filtered: bool = True
    gathered: FloatMatrix | None = field(default=None, repr=False)

    @classmethod
    def of(cls, moment: Moment, wanted: NDArray[np.bool_] | None, fresh: NDArray[np.bool_] | None) -> Subset:
        """Make the subset of the indexed rows `wanted` and of the `fresh` ones, None meaning all that are alive."""
        mask = moment.base_alive if wanted is None else moment.base_alive & wanted
        count = int(mask.sum())
        whole = count == len(mask)
        late = None if fresh is None else np.flatnonzero(fresh)
        searched = count + (len(moment.fresh_keys) if late is None else len(late))
        rows = None if whole else np.flatnonzero(mask)
        share = count / len(mask) if len(mask) else 1.0
        return cls(None if whole else mask, rows, late, searched, share, filtered=wanted is not None)

    def gather(self, matrix: FloatMatrix) -> None:
        """Put the vectors of the subset together, where they are few enough to be held."""
        if self.rows is None or self.gathered is not None or self.share >= SCAN_ALL_FROM:
            return
        if len(self.rows) * matrix.shape[1] * 4 <= GATHERED_BYTES:
            self.gathered = np.ascontiguousarray(matrix[self.rows])


@dataclass(frozen=True)
class Plan:
    """How one question is answered. `engine` None means that the rows are scanned; `fallback` says why, if the index
    would have been used otherwise."""

    moment: Moment
    subset: Subset
    engine: Engine | None
    index: str
    fallback: str | None = None

    @property
    def exact(self) -> bool:
        """Whether every candidate is scored."""
        return self.engine is None

    def scanned(self) -> Plan:
        """Return the plan that scans instead."""
        return Plan(self.moment, self.subset, None, "flat", self.fallback)

    def candidates(self, queries: FloatMatrix, k: int) -> tuple[Positions, Positions, NDArray[np.bool_]]:
        """Return rows of the matrix (m, r) and of the fresh vectors (m, s) that may be among the `k` nearest.

        All that is returned is in the subset, in no order; -1 stands where there is nothing. The mask (m,) says of
        which queries every row was scored: those whose neighbourhood the filter leaves nearly empty, and those that the
        index answered with fewer rows than there are.
        """
        nothing = np.empty((len(queries), 0), dtype=np.int64)
        fresh = scan(self.moment.fresh, self.subset.fresh, queries, k) if len(self.moment.fresh) else nothing
        base = self.moment.base
        if base is None:
            return nothing, fresh, np.ones(len(queries), dtype=bool)
        if self.engine is None:
            return _scan_base(base, self.subset, queries, k), fresh, np.ones(len(queries), dtype=bool)
        scanned = self._secluded(base, self.engine, queries)
        found = np.full((len(queries), min(k, len(base.matrix))), -1, dtype=np.int64)
        if not scanned.all():
            found[~scanned] = self._by_index(self.engine, queries[~scanned], found.shape[1])
        possible = len(base.matrix) if self.subset.rows is None else len(self.subset.rows)
        scanned |= (found >= 0).sum(axis=1) < min(k, possible)
        if scanned.any():
            found[scanned] = _scan_base(base, self.subset, queries[scanned], found.shape[1])
        return found, fresh, scanned

    def _by_index(self, engine: Engine, queries: FloatMatrix, k: int) -> Positions:
        mask = self.subset.mask
        found, _ = engine.search(queries, k, mask)
        return found if mask is None else np.where((found >= 0) & mask[np.clip(found, 0, None)], found, -1)

    def _secluded(self, base: Loaded, engine: Engine, queries: FloatMatrix) -> NDArray[np.bool_]:
        """Return a mask of the queries among whose nearest rows the filter leaves far fewer than the index needs.

        A filter that follows the clusters may leave half of all rows and none around a query; an index that is walked
        there finds other rows than the nearest, and says nothing.
        """
        mask = self.subset.mask
        if mask is None or self.subset.share >= SURELY_NEAR:
            return np.zeros(len(queries), dtype=bool)
        near, _ = engine.search(queries, min(NEAR_ROWS, len(base.matrix)), None)
        left = ((near >= 0) & mask[np.clip(near, 0, None)]).mean(axis=1)
        return np.asarray(left < max(min_selectivity(base) / 2, self.subset.share / 4), dtype=bool)


def plan(moment: Moment, subset: Subset, *, exact: bool, fallback: str | None = None) -> Plan:
    """Choose how to search: exactly where that was asked, is cheaper, or where the index is not to be trusted."""
    base = moment.base
    if base is None or exact or base.kind.EXACT or subset.share < least_share(base, subset):
        chosen = Plan(moment, subset, None, "flat")
    elif fallback is not None:
        chosen = Plan(moment, subset, None, "flat", fallback)
    else:
        chosen = Plan(moment, subset, base.engine, str(base.manifest["kind"]))
    if chosen.exact and base is not None:
        subset.gather(base.matrix)
    return chosen


def min_selectivity(base: Loaded) -> float:
    """Return the share of allowed rows under which a scan is better: as measured at the build, or as the kind says."""
    return float(base.manifest.get("min_selectivity", base.kind.MIN_SELECTIVITY))


def least_share(base: Loaded, subset: Subset) -> float:
    """Return under which share of rows this subset is scanned.

    What was measured is for filters. A few deleted rows must not turn every query into a scan of all others.
    """
    return min_selectivity(base) if subset.filtered else base.kind.MIN_SELECTIVITY


def _exactly(base: Loaded) -> Engine:
    """Return what scores every row: the engine itself where its kind is exact, which may be on a GPU."""
    return base.engine if base.kind.EXACT else Flat(base.matrix)


def scan(matrix: FloatMatrix, rows: Positions | None, queries: FloatMatrix, k: int) -> Positions:
    """Return the `k` best of some rows (None: all) by scoring each: (m, min(k, rows)) positions in the matrix."""
    if rows is None:
        return Flat(matrix).search(queries, min(k, len(matrix)))[0]
    best = np.full((len(queries), 0), -1, dtype=np.int64)
    scores = np.full((len(queries), 0), -np.inf, dtype=np.float32)
    for part in _blocks(rows):
        found, near = Flat(np.ascontiguousarray(matrix[part])).search(queries, min(k, len(part)))
        best = np.concatenate([best, np.where(found >= 0, part[np.clip(found, 0, None)], -1)], axis=1)
        scores = np.concatenate([scores, near], axis=1)
        if best.shape[1] > k:
            top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            best, scores = np.take_along_axis(best, top, axis=1), np.take_along_axis(scores, top, axis=1)
    return best


def _blocks(rows: Positions) -> Iterator[Positions]:
    for start in range(0, len(rows), BLOCK_ROWS):
        yield rows[start : start + BLOCK_ROWS]


def _scan_base(base: Loaded, subset: Subset, queries: FloatMatrix, k: int) -> Positions:
    if subset.rows is None:
        return _exactly(base).search(queries, min(k, len(base.matrix)))[0]
    if not len(subset.rows):
        return np.full((len(queries), min(k, len(base.matrix))), -1, dtype=np.int64)
    width = min(k, len(base.matrix))
    if subset.gathered is not None:
        found = scan(subset.gathered, None, queries, k)
        found = np.where(found >= 0, subset.rows[np.clip(found, 0, None)], -1)
    elif subset.share >= SCAN_ALL_FROM:
        return _exactly(base).search(queries, width, subset.mask)[0]
    else:
        found = scan(base.matrix, subset.rows, queries, k)
    return np.pad(found, ((0, 0), (0, width - found.shape[1])), constant_values=-1)
