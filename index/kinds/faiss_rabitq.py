"""All vectors as one bit a dimension (RaBitQ: Gao & Long 2024, arXiv:2405.12497), with our own exact refine.

The least memory of all kinds, and almost nothing to train.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from embedder.records import FloatMatrix
from index.kinds import _cost, _faiss

EXACT = False
AUTO = True
MIN_SELECTIVITY = 0.3
FILES = ("rabitq.faiss",)
TRAIN_ROWS = 100_000
FACTORS = 8


@dataclass(frozen=True)
class Args:
    """`shortlist`: rows that are scored exactly."""

    shortlist: int = 200


def estimate(n: int, dim: int, args: Args) -> _cost.Estimate:
    """Return the cost: the bits, in blocks of 32 rows, and two factors for each row."""
    held = math.ceil(n / 32) * 32 * (math.ceil(dim / 8) + FACTORS) + dim * 4
    build = min(n, TRAIN_ROWS) * dim / 1e9 + n * dim / 5e8
    query = 0.05 + n * (dim / 8 + FACTORS) / 6e6 + _cost.refine_ms(args.shortlist, dim)
    peak = 3 * held + min(n, TRAIN_ROWS) * dim * 4 + 3 * _cost.block_bytes(n, dim)
    return _cost.Estimate(held, peak, build, query)


def tunable(n: int, args: Args) -> dict[str, tuple[int, ...]]:
    """Return the values of what trades recall for time, the fastest first."""
    return {"shortlist": _cost.doubling(20, min(n, 8000))}


def build(matrix: FloatMatrix, folder: Path, args: Args) -> None:
    """Find the centre on a sample, encode all rows and write the bits."""
    faiss = _faiss.library()
    index = faiss.IndexRaBitQFastScan(matrix.shape[1], faiss.METRIC_INNER_PRODUCT)
    _faiss.use_threads(1)
    index.train(_faiss.spread(matrix, TRAIN_ROWS))
    _faiss.add_and_write(index, matrix, folder / FILES[0])


def load(folder: Path, matrix: FloatMatrix, args: Args) -> _faiss.Searcher:
    """Read the bits. Raises `Damaged` where they are not of this matrix."""
    index = _faiss.read(folder / FILES[0], matrix)
    return _faiss.Searcher(index, matrix, args, None, refine=True, selects=False)
