"""What an accuracy must be compared with: shuffled labels, the nearest neighbours, and a split that lies.

The head's own kind is trained again on shuffled labels and on rows dealt out one by one. Labels are shuffled between
units, on at most 500 rows; two of five folds are scored; a score well above the majority class means that something
leaks. Neighbours vote by exp(cos/0.07) (Wu et al. 2018, arXiv:1805.01978), rows of the own unit excluded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.records import FloatMatrix
from heads.folds import Ints, distinct
from heads.metrics import DRAWS, wilson
from index.view import unit as to_unit

Floats = NDArray[np.float64]
SHUFFLED_ROWS, FOLDS_SCORED = 500, 2
NEIGHBOURS = (5, 10)
TEMPERATURE = 0.07
MOST_QUERIES, MOST_BANK = 2000, 20_000
TILE = 256


def share(name: str, hits: NDArray[np.bool_], unit: NDArray[Any]) -> dict[str, Any]:
    """Return the mean of hits (n,) with Wilson's interval over units."""
    value = float(hits.mean())
    return {name: value, f"{name}_interval": wilson(value, len(np.unique(unit)))}


def mean(name: str, values: NDArray[Any], unit: NDArray[Any], seed: int) -> dict[str, Any]:
    """Return the mean of values (n,) with a 95 % interval by bootstrap over units."""
    at = np.unique(unit, return_inverse=True)[1]
    sums, sizes = np.bincount(at, values), np.bincount(at)
    rng = np.random.default_rng(seed)
    drawn = [np.bincount(rng.integers(len(sizes), size=len(sizes)), minlength=len(sizes)) for _ in range(DRAWS)]
    means = [float(w @ sums / (w @ sizes)) for w in drawn]
    return {name: float(values.mean()), f"{name}_interval": np.quantile(means, [0.025, 0.975]).tolist()}


def shuffled(y: Ints, units: Sequence[str], seed: int) -> Ints:
    """Return labels dealt anew: each unit gets the commonest label of another one, drawn at random."""
    at = np.unique(np.asarray(units, dtype=str), return_inverse=True)[1]
    votes = np.zeros((int(at.max()) + 1, int(y.max()) + 1), dtype=np.int64)
    np.add.at(votes, (at, y), 1)
    drawn = np.random.default_rng([seed, 1]).permutation(votes.argmax(axis=1))
    return np.asarray(drawn[at], dtype=np.intp)


def sample(n: int, most: int, seed: int) -> Ints:
    """Return at most so many positions of n rows, ascending."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng([seed, 2]).choice(n, size=most, replace=False))


def neighbours(
    X: FloatMatrix, y: Ints, units: Sequence[str], bank: Ints, queries: Ints, seed: int
) -> tuple[Ints, dict[int, Floats]]:
    """Let the nearest rows of a bank vote on queries, both positions in X; those of a query's own unit have no vote.

    Of more than 20,000 rows of the bank or 2,000 queries a sample is taken.

    Returns:
        the queries that were asked, and for each k the (m, C) probabilities.
    """
    bank = bank[sample(len(bank), MOST_BANK, seed)]
    queries = queries[sample(len(queries), MOST_QUERIES, seed)]
    unit = distinct(units)[1]
    rows, C = to_unit(X[bank]), y.shape[1] if y.ndim == 2 else int(y.max()) + 1
    found = {k: np.zeros((len(queries), C)) for k in NEIGHBOURS}
    for start in range(0, len(queries), TILE):
        part = queries[start : start + TILE]
        cosines = to_unit(X[part]) @ rows.T
        cosines[unit[part][:, None] == unit[bank][None]] = -np.inf
        for k, out in found.items():
            out[start : start + TILE] = vote(cosines, y[bank], C, k)
    return queries, found


def vote(cosines: FloatMatrix, y: Ints, n_classes: int, k: int) -> Floats:
    """Return (m, C): the shares of exp(cos/0.07) among each row's k nearest; all zero where it has no neighbour.

    `y` are codes, or (n, C) of 0 and 1 where a row may have several classes.
    """
    k = min(k, cosines.shape[1])
    near = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    weights = np.exp((np.take_along_axis(cosines, near, axis=1).astype(np.float64) - 1) / TEMPERATURE)
    total = weights.sum(axis=1, keepdims=True)
    if y.ndim == 2:
        out = np.einsum("mk,mkc->mc", weights, y[near].astype(np.float64))
    else:
        out = np.zeros((len(cosines), n_classes))
        np.add.at(out, (np.arange(len(cosines))[:, None], y[near]), weights)
    return np.asarray(np.divide(out, total, out=np.zeros_like(out), where=total > 0))
