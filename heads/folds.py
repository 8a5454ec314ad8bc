"""Which rows are scored together: folds that depend on what the items are, not on their order or their vectors."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.intp]


def units(*facts: Sequence[str | None]) -> list[str]:
    """Return one name a row: rows that share a value of any fact, directly or through others, have the same name.

    The first fact must not be None; the name is the smallest first fact among the rows that belong together. Content
    hashes come first, so that a name says the same in every Space and after an item was deleted and added again.
    """
    n = len(facts[0])
    edges: list[tuple[int, int]] = []
    nodes: dict[tuple[int, str], int] = {}
    for k, fact in enumerate(facts):
        edges += [(row, nodes.setdefault((k, v), n + len(nodes))) for row, v in enumerate(fact) if v is not None]
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    size = n + len(nodes)
    _, component = connected_components(coo_array((np.ones(len(edges)), (ends[0], ends[1])), shape=(size, size)))
    names: dict[int, str] = {}
    for c, name in zip(component[:n].tolist(), map(str, facts[0]), strict=True):
        names[c] = min(name, names.get(c, name))
    return [names[c] for c in component[:n].tolist()]


def assign(unit_of: Sequence[str], y: Ints, k: int, seed: int) -> Ints:
    """Return the fold (0 to k-1) of each row: units stay whole, classes are spread evenly.

    Units are dealt class by class, large ones first, each to the fold that has fewest rows of its classes; ties are
    broken by a hash of `seed` and the unit's name, so the order of the rows does not matter. With units of one row
    every class's counts differ by at most one between folds.
    """
    names, unit = np.unique(np.asarray(unit_of, dtype=str), return_inverse=True)
    classes: list[Counter[int]] = [Counter() for _ in names]
    for u, label in zip(unit.tolist(), y.tolist(), strict=True):
        classes[u][label] += 1
    drawn = [hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest() for name in names]
    order = sorted(range(len(names)), key=lambda u: (min(classes[u]), -classes[u].total(), drawn[u]))
    held: Counter[tuple[int, int]] = Counter()
    total = [0] * k
    fold = np.zeros(len(names), dtype=np.intp)
    for u in order:
        best = min(range(k), key=lambda f: (sum(held[f, c] for c in classes[u]), total[f], f))
        fold[u] = best
        total[best] += classes[u].total()
        for label, count in classes[u].items():
            held[best, label] += count
    return np.asarray(fold[unit], dtype=np.intp)
