"""A query made of examples: near to the liked items, away from the others.

Rocchio's formula (1971) with the weights of Qdrant's `average_vector`: the mean of the liked items plus its difference
to the mean of the others, `q = 2 * mean(like) - mean(unlike)`, over unit vectors, scaled to unit length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedder.errors import UsageError
from embedder.records import FloatMatrix
from index.view import View, unit

MOST_EXAMPLES = 256


def combine(like: FloatMatrix, unlike: FloatMatrix | None = None) -> FloatMatrix:
    """Return one unit query (1, dim) from examples (p, dim) and (n, dim) of any length but zero.

    Raises:
        UsageError: the examples cancel out, so that they point nowhere.
    """
    near = unit(like).mean(axis=0, keepdims=True, dtype=np.float64)
    away = near if unlike is None or not len(unlike) else unit(unlike).mean(axis=0, keepdims=True, dtype=np.float64)
    query = near + (near - away)
    if np.linalg.norm(query) < 1e-6:
        raise UsageError("the examples cancel out: no direction is left", hint="take other examples, or fewer")
    return unit(query.astype(np.float32))


def of_items(view: View, like: Sequence[str], unlike: Sequence[str] = ()) -> FloatMatrix:
    """Return the query (1, dim) of stored items, by id.

    Raises:
        UnknownName: an id that is not stored, or has no vector in this Space.
        UsageError: nothing is liked, one id is on both sides, or there are more than 256.
    """
    if not like:
        raise UsageError("unlike needs an item that is liked", hint="give at least one --like")
    if both := sorted(set(like) & set(unlike)):
        raise UsageError(f"{both[0]!r} is both liked and not liked")
    if len(like) + len(unlike) > MOST_EXAMPLES:
        raise UsageError(f"{len(like) + len(unlike)} examples; at most {MOST_EXAMPLES} are taken")
    near = np.concatenate([view.vector_of(id) for id in like])
    return combine(near, np.concatenate([view.vector_of(id) for id in unlike]) if unlike else None)
