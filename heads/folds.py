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
    n = size = len(facts[0])
    ends: list[tuple[Ints, Ints]] = []
    for fact in facts:
        codes = distinct(fact)[1]
        here = np.flatnonzero(codes >= 0)
        ends.append((here, size + codes[here]))
        size += int(codes.max(initial=-1)) + 1
    rows, nodes = (np.concatenate(side) for side in zip(*ends, strict=True))
    graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, nodes)), shape=(size, size))
    component = connected_components(graph, directed=False)[1][:n].tolist()
    names: dict[int, str] = {}
    for c, name in zip(component, map(str, facts[0]), strict=True):
        names[c] = min(name, names.get(c, name))
    return [names[c] for c in component]


def distinct(names: Sequence[str | None]) -> tuple[list[str], Ints]:
    """Return the different names in the order they are first seen, and the position of each row's; -1 for None.

    Unlike `numpy.unique` it makes no array of the widest name for every row.
    """
    import pyarrow as pa

    found = pa.array(names, pa.string()).dictionary_encode()
    return found.dictionary.to_pylist(), found.indices.fill_null(-1).to_numpy().astype(np.intp)


def assign(unit_of: Sequence[str], y: Ints, k: int, seed: int) -> Ints:
    """Return the fold (0 to k-1) of each row: units stay whole, classes are spread evenly.

    `y` (n,) holds codes; or (n, C) of 0 and 1, where a row may have several classes: `_dealt` deals those.

    Units are dealt class by class, large ones first, each to the fold that has fewest rows of its classes; ties are
    broken by a hash of `seed` and the unit's name, so the order of the rows does not matter. With units of one row
    every class's counts differ by at most one between folds.
    """
    names, unit = distinct(unit_of)
    drawn = np.array([_drawn(seed, name) for name in names], dtype=np.uint64)
    if y.ndim == 2:
        return _dealt(drawn, unit, y, k)[unit]
    pairs, counts = np.unique(unit * (int(y.max(initial=0)) + 1) + y, return_counts=True)
    owner, label = np.divmod(pairs, int(y.max(initial=0)) + 1)
    first = np.searchsorted(owner, np.arange(len(names) + 1))
    sizes = np.bincount(unit, minlength=len(names))
    order = np.lexsort([drawn, -sizes, label[first[:-1]]])
    held: Counter[tuple[int, int]] = Counter()
    total = [0] * k
    fold = np.zeros(len(names), dtype=np.intp)
    for u in order.tolist():
        part = slice(first[u], first[u + 1])
        own = list(zip(label[part].tolist(), counts[part].tolist(), strict=True))
        best = min(range(k), key=lambda f: (sum(held[f, c] for c, _ in own), total[f], f))
        fold[u] = best
        total[best] += int(sizes[u])
        for c, count in own:
            held[best, c] += count
    return np.asarray(fold[unit], dtype=np.intp)


def _drawn(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest())


def _dealt(drawn: NDArray[np.uint64], unit: Ints, y: Ints, k: int) -> Ints:
    """Return the fold of each unit by iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011).

    The class with the fewest rows left is dealt first, its units one by one to the fold that lacks most of its rows;
    ties go to the fold that lacks most rows. Units without a class come last. All counts are whole numbers.
    """
    held = np.zeros((len(drawn), y.shape[1]), dtype=np.int64)
    np.add.at(held, unit, y)
    sizes = np.bincount(unit, minlength=len(drawn))
    lacks, room = np.tile(held.sum(axis=0), (k, 1)), np.full(k, len(unit))
    fold, left = np.full(len(drawn), -1, dtype=np.intp), held.sum(axis=0)

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
