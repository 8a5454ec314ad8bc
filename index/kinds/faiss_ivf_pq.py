"""Inverted lists of product codes of 4 bits, scanned in registers, with our own exact refine from the matrix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embedder.records import FloatMatrix
from index.kinds import _cost, _faiss, _pq

EXACT = False
AUTO = True
MIN_SELECTIVITY = 0.1
FILES = ("ivf_pq.faiss",)
TRAIN_ROWS_A_LIST = 64


@dataclass(frozen=True)
class Args:
    """`lists`, `probes` as in `faiss_ivf_flat`, `dims_per_code`, `shortlist` as in `faiss_pq_fs`."""

    lists: int = 0
    probes: int = 32
    dims_per_code: int = 2
    shortlist: int = 100


def estimate(n: int, dim: int, args: Args) -> _cost.Estimate:
    """Return the cost: codes in blocks of 32 rows, an id of 8 bytes for each row, and the centres."""
    lists = _faiss.list_count(n, args.lists)
    codes, width = _pq.shape(dim, args.dims_per_code)
    held = (n + 16 * lists) * (_pq.code_bytes(dim, args.dims_per_code) + 8) + (lists + _pq.CENTROIDS) * width * 4
    trained = _train_rows(n, lists)
    build = (10 * trained + n) * lists * width / 2e10 + n * width * _pq.CENTROIDS / 2e9
    read = n * min(args.probes, lists) / lists * codes / 2 / 1e7 + lists * width * 4 / 1e7
    peak = 3 * held + 3 * trained * width * 4 + 3 * _cost.block_bytes(n, width)
    return _cost.Estimate(held, peak, build, 0.03 + read + _cost.refine_ms(args.shortlist, dim))


def _train_rows(n: int, lists: int) -> int:
    return min(n, max(_pq.TRAIN_ROWS, TRAIN_ROWS_A_LIST * lists))


def tunable(n: int, args: Args) -> dict[str, tuple[int, ...]]:
    """Return the values of what trades recall for time, the fastest first."""
    probes = _cost.doubling(1, _faiss.list_count(n, args.lists))
    return {"probes": probes, "shortlist": _cost.doubling(20, min(n, 2000))}


def build(matrix: FloatMatrix, folder: Path, args: Args) -> None:
    """Find centres and centroids on a sample, fill the lists and write them."""
    faiss = _faiss.library()
    codes, width = _pq.shape(matrix.shape[1], args.dims_per_code)
    lists = _faiss.list_count(len(matrix), args.lists)
    index = faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(width), width, lists, codes, 4, faiss.METRIC_INNER_PRODUCT)
    _faiss.quiet(index.cp)
    _pq.train(index, matrix, _train_rows(len(matrix), lists))
    _faiss.add_and_write(index, matrix, folder / FILES[0])


def load(folder: Path, matrix: FloatMatrix, args: Args) -> _faiss.Searcher:
    """Read the lists. Raises `Damaged` where they are not of this matrix."""
    index = _faiss.read(folder / FILES[0], matrix, _pq.shape(matrix.shape[1], args.dims_per_code)[1])
    return _faiss.Searcher(index, matrix, args, _faiss.probing, refine=True)
