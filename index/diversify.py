"""What is taken from a ranking: the best of each group, one of near-duplicates, or a diverse selection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedder.errors import UsageError
from index.planner import Plan, Positions
from index.ranking import Ranked, vectors_at

SHORTLIST, SHORTLIST_FACTOR = 50, 5
MOST_DIVERSE = 500


@dataclass(frozen=True)
class Refinement:
    """What is asked beyond the nearest items.

    `group_by`: a column; the best item of each value, and none of the items without one. `unique`: of items whose
    cosine to each other is at least this, only the nearest. `diversity`: 0 (none) to 1. `min_score`: every item with
    at least this cosine, found exactly.
    """

    group_by: str | None = None
    unique: float | None = None
    diversity: float | None = None
    min_score: float | None = None

    def check(self, k: int) -> None:
        """Raise `UsageError` for a value out of range."""
        for name, value, low in (
            ("diversity", self.diversity, 0),
            ("unique", self.unique, 0),
            ("min_score", self.min_score, -1),
        ):
            if value is not None and not low <= value <= 1:
                raise UsageError(f"{name} is {low} to 1, not {value}")
        if self.diversity and k > MOST_DIVERSE:
            raise UsageError(f"diversity chooses among pairs: k is at most {MOST_DIVERSE} with it, not {k}")

    @property
    def selects(self) -> bool:
        """Whether some of the nearest items are passed over."""
        return bool(self.group_by or self.unique or self.diversity)

    def needed(self, k: int) -> int:
        """Return how many items the last step chooses among."""
        return max(SHORTLIST_FACTOR * k, SHORTLIST) if self.diversity else k


def select(plan: Plan, ranked: Ranked, refinement: Refinement, k: int, groups: NDArray[np.int64] | None) -> Ranked:
    """Return at most `k` items of a ranking, as the refinement says; `groups` (r,) are theirs, -1 for none."""
    if groups is not None:
        ranked = ranked[_first_of_each(groups)]
    needed = refinement.needed(k)
    if refinement.unique:
        ranked = ranked[_apart(plan, ranked, refinement.unique, needed)]
    ranked = ranked[:needed]
    if refinement.diversity:
        vectors = vectors_at(plan, ranked.places)
        ranked = ranked[mmr(vectors @ vectors.T, ranked.scores, k, 1 - refinement.diversity)]
    return ranked[:k]


def _first_of_each(groups: NDArray[np.int64]) -> Positions:
    values, first = np.unique(groups, return_index=True)
    return np.sort(first[values >= 0])


def _apart(plan: Plan, ranked: Ranked, threshold: float, needed: int) -> Positions:
    """Return the items that are not near a better one that was kept."""
    vectors = vectors_at(plan, ranked.places)
    kept: list[int] = []
    for i in range(len(ranked)):
        if not kept or float((vectors[kept] @ vectors[i]).max()) < threshold - 1e-6:
            kept.append(i)
        if len(kept) == needed:
            break
    return np.asarray(kept, dtype=np.int64)


def mmr(likeness: NDArray[np.float32], scores: NDArray[np.float64], k: int, weight: float) -> Positions:
    """Return positions by maximal marginal relevance (Carbonell & Goldstein 1998), in the order of their choice.

    The next one has the largest `weight * score - (1 - weight) * largest likeness to one that is chosen`.

    Args:
        likeness: (n, n) cosines of the items to each other.
        scores: (n,) cosines to the query, best first.
        weight: the paper's lambda: 1 keeps the order, 0 looks at diversity alone.
    """
    chosen: list[int] = []
    left = np.ones(len(scores), dtype=bool)
    nearest = np.zeros(len(scores))
    for _ in range(min(k, len(scores))):
        value = np.where(left, weight * scores - (1 - weight) * nearest, -np.inf)
        best = int(value.argmax()) if chosen else 0
        nearest = likeness[best] if not chosen else np.maximum(nearest, likeness[best])
        chosen.append(best)
        left[best] = False
    return np.asarray(chosen, dtype=np.int64)
