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

    `y` (n,) holds codes; or (n, C) of 0 and 1, where a row may have several classes: `_dealt` deals those.

    Units are dealt class by class, large ones first, each to the fold that has fewest rows of its classes; ties are
    broken by a hash of `seed` and the unit's name, so the order of the rows does not matter. With units of one row
    every class's counts differ by at most one between folds.
    """
    names, unit = np.unique(np.asarray(unit_of, dtype=str), return_inverse=True)
    if y.ndim == 2:
        return _dealt(names, unit, y, k, seed)[unit]
    classes: list[Counter[int]] = [Counter() for _ in names]
    for u, label in zip(unit.tolist(), y.tolist(), strict=True):
        classes[u][label] += 1
    drawn = _drawn(names, seed)
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


def _drawn(names: NDArray[np.str_], seed: int) -> list[bytes]:
    return [hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest() for name in names]


def _dealt(names: NDArray[np.str_], unit: Ints, y: Ints, k: int, seed: int) -> Ints:
    """Return the fold of each unit by iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011).

    The class with the fewest rows left is dealt first, its units one by one to the fold that lacks most of its rows;
    ties go to the fold that lacks most rows. Units without a class come last. All counts are whole numbers.
    """
    held = np.zeros((len(names), y.shape[1]), dtype=np.int64)
    np.add.at(held, unit, y)
    sizes, drawn = np.bincount(unit, minlength=len(names)), _drawn(names, seed)
    lacks, room = np.tile(held.sum(axis=0), (k, 1)), np.full(k, len(unit))
    fold, left = np.full(len(names), -1, dtype=np.intp), held.sum(axis=0)

    def deal(units: Ints, share: NDArray[np.int64], wanted: NDArray[np.int64]) -> None:
        for u in sorted(units.tolist(), key=lambda u: (-share[u], drawn[u])):
            best = max(range(k), key=lambda f: (wanted[f], room[f], -f))
            fold[u] = best
            lacks[best] -= k * held[u]
            room[best] -= k * sizes[u]
            left[:] -= held[u]

    while left.any():
        rarest = int(np.where(left > 0, left, left.max() + 1).argmin())
        deal(np.flatnonzero((fold < 0) & (held[:, rarest] > 0)), held[:, rarest], lacks[:, rarest])
    deal(np.flatnonzero(fold < 0), sizes, room)
    return fold
