"""Product codes of 4 bits (Jegou et al. 2011; fast scan: Andre et al. 2015), as two kinds use them."""

from __future__ import annotations

import math
from typing import Any

from embedder.records import FloatMatrix
from index.kinds import _faiss

CENTROIDS = 16
TRAIN_ROWS = 256 * CENTROIDS * 4


def shape(dim: int, dims_per_code: int) -> tuple[int, int]:
    """Return how many codes a vector has and the width it is padded to: a multiple of `dims_per_code`."""
    codes = math.ceil(dim / max(1, dims_per_code))
    return codes, codes * max(1, dims_per_code)


def code_bytes(dim: int, dims_per_code: int) -> int:
    """Return the bytes of a vector's codes, two of them in a byte, as fast scan lays them out."""
    return math.ceil(shape(dim, dims_per_code)[0] / 2)


def train(index: Any, matrix: FloatMatrix, rows: int) -> None:
    """Train on a sample, in one thread: k-means of so few centroids takes longer with more."""
    _faiss.quiet(index.pq.cp, 25)
    _faiss.use_threads(1)
    index.train(_faiss.padded(_faiss.spread(matrix, rows, least=CENTROIDS), index.d))
