"""Inverted lists over whole vectors (Sivic & Zisserman 2003): a query reads the `probes` nearest lists, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedder.records import FloatMatrix
from index.kinds import _cost, _faiss

EXACT = False
AUTO = True
MIN_SELECTIVITY = 0.1
FILES = ("ivf_flat.faiss",)
TRAIN_ROWS_A_LIST = 64


@dataclass(frozen=True)
class Args:
    """`lists`: how many; 0 is four times the root of the rows. `probes`: lists that a query reads."""

    lists: int = 0
    probes: int = 32


def estimate(n: int, dim: int, args: Args) -> _cost.Estimate:
    """Return the cost: the lists have their own copy of the vectors, with an id of 8 bytes each."""
    lists = _faiss.list_count(n, args.lists)
    held = n * (dim * 4 + 8) + lists * dim * 4
    trained = min(n, TRAIN_ROWS_A_LIST * lists)
    build = (10 * trained + n) * lists * dim / 2e10 + n * dim * 4 / 1e9
    read = lists + n * min(args.probes, lists) / lists
    # a list grows by doubling while rows are added
    peak = 2 * held + trained * dim * 4 + _cost.block_bytes(n, dim)
    return _cost.Estimate(held, peak, build, 0.02 + read * dim * 4 / 1e7)


def tunable(n: int, args: Args) -> dict[str, tuple[int, ...]]:
    """Return the values of what trades recall for time, the fastest first."""
    return {"probes": _cost.doubling(1, _faiss.list_count(n, args.lists))}


def untrained(matrix: FloatMatrix, args: Args) -> Any:
    """Return the empty lists and how their centres are found."""
    faiss, dim = _faiss.library(), matrix.shape[1]
    lists = _faiss.list_count(len(matrix), args.lists)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
    _faiss.quiet(index.cp)
    return index


def build(matrix: FloatMatrix, folder: Path, args: Args) -> None:
    """Find the centres on a sample, fill the lists and write them."""
    index = untrained(matrix, args)
    _faiss.use_threads()
    index.train(_faiss.spread(matrix, TRAIN_ROWS_A_LIST * index.nlist))
    _faiss.add_and_write(index, matrix, folder / FILES[0])


def load(folder: Path, matrix: FloatMatrix, args: Args) -> _faiss.Searcher:
    """Read the lists. Raises `Damaged` where they are not of this matrix."""
    return _faiss.Searcher(_faiss.read(folder / FILES[0], matrix), matrix, args, _faiss.probing)
