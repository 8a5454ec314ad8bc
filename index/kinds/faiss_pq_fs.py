"""All vectors as product codes of 4 bits, scanned in registers, with our own exact refine from the matrix.

No list and no graph: every code is read, at some 20 GB/s, so the cost is linear in the rows and recall does not depend
on how they cluster. Of FAISS's indexes this had the best recall and speed a byte up to some 100,000 rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from embedder.records import FloatMatrix
from index.kinds import _cost, _faiss, _pq

EXACT = False
AUTO = True
MIN_SELECTIVITY = 0.3
FILES = ("pq_fs.faiss",)


@dataclass(frozen=True)
class Args:
    """`dims_per_code`: dimensions that one code of 4 bits stands for. `shortlist`: rows that are scored exactly."""

    dims_per_code: int = 2
    shortlist: int = 100


def estimate(n: int, dim: int, args: Args) -> _cost.Estimate:
    """Return the cost: the codes, in blocks of 32 rows, and the centroids."""
    codes, width = _pq.shape(dim, args.dims_per_code)
    held = math.ceil(n / 32) * 32 * _pq.code_bytes(dim, args.dims_per_code) + _pq.CENTROIDS * width * 4
    trained = min(n, _pq.TRAIN_ROWS) * width * 4
    build = trained * 25 * _pq.CENTROIDS / 2e10 + n * width * _pq.CENTROIDS / 2e9
    query = 0.02 + n * codes / 2 / 2e7 + _cost.refine_ms(args.shortlist, dim)
    # the codes grow by doubling while rows are added, and are written from a copy
    peak = 3 * held + 2 * trained + 3 * _cost.block_bytes(n, width)
    return _cost.Estimate(held, peak, build, query)


def tunable(n: int, args: Args) -> dict[str, tuple[int, ...]]:
    """Return the values of what trades recall for time, the fastest first."""
    return {"shortlist": _cost.doubling(20, min(n, 4000))}


def build(matrix: FloatMatrix, folder: Path, args: Args) -> None:
    """Find the centroids on a sample, encode all rows and write the codes."""
    faiss = _faiss.library()
    codes, width = _pq.shape(matrix.shape[1], args.dims_per_code)
    index = faiss.IndexPQFastScan(width, codes, 4, faiss.METRIC_INNER_PRODUCT)
    _pq.train(index, matrix, _pq.TRAIN_ROWS)
    _faiss.add_and_write(index, matrix, folder / FILES[0])


def load(folder: Path, matrix: FloatMatrix, args: Args) -> _faiss.Searcher:
    """Read the codes. Raises `Damaged` where they are not of this matrix."""
    index = _faiss.read(folder / FILES[0], matrix, _pq.shape(matrix.shape[1], args.dims_per_code)[1])
    return _faiss.Searcher(index, matrix, args, None, refine=True, selects=False)
