"""The training rows of a head, looked up where they are stored: what was deleted since has no vote any more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedder.records import FloatMatrix, Keys
from heads.folds import Ints
from index.features import features
from index.live import member
from index.planner import Subset, plan
from index.ranking import rank
from index.readers import reading
from index.search import check_queries
from index.view import Moment, View, unit


class Neighbours:
    """The rows `keys` (n,) with codes `labels` (n,), searched in a view as any query is: through its index, or exactly.

    Of an item with several vectors the nearest counts.
    """

    def __init__(self, view: View, keys: Keys, labels: Ints) -> None:
        order = np.argsort(keys)
        self._view, self._keys, self._labels = view, keys[order], labels[order]
        self._known: tuple[Moment, Subset] | None = None

    def __call__(self, X: FloatMatrix, k: int) -> tuple[Ints, NDArray[np.float64]]:
        """Return codes (m, k), -1 where fewer rows are left, and cosines, nearest first."""
        codes, cosines = np.full((len(X), k), -1, dtype=np.intp), np.full((len(X), k), -np.inf)
        with reading(self._view.collection):
            moment = self._view.now()
            chosen = plan(moment, self._subset(moment), exact=False)
            for i, one in enumerate(rank(chosen, check_queries(X, self._view.space.dim), k)):
                codes[i, : len(one)] = self._labels[np.searchsorted(self._keys, one.keys)]
                cosines[i, : len(one)] = one.scores
        return codes, cosines

    def _subset(self, moment: Moment) -> Subset:
        if self._known is None or self._known[0] is not moment:
            base = moment.base_alive if moment.base is None else member(moment.base.keys, self._keys)
            self._known = moment, Subset.of(moment, base, member(moment.fresh_keys, self._keys))
        return self._known[1]

    def rows(self) -> tuple[FloatMatrix, Ints]:
        """Return the unit vectors (m, dim) of the rows that are left, and their codes."""
        found = features(self._view.collection, self._view.space)
        here = member(found.keys, self._keys)
        return unit(found.X[here]), self._labels[np.searchsorted(self._keys, found.keys[here])]
