"""HNSW graph over vectors of 8 bits a value, with our own exact refine: half the memory of `faiss_hnsw` or less."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embedder.records import FloatMatrix
from index.kinds import _cost, _faiss

EXACT = False
AUTO = True
MIN_SELECTIVITY = 0.5
FILES = ("hnsw_sq8.faiss",)
TRAIN_ROWS = 100_000


@dataclass(frozen=True)
class Args:
    """`shortlist`: rows that are scored exactly. The others as in `faiss_hnsw`."""

    links: int = 32
    ef_construction: int = 64
    ef_search: int = 64
    shortlist: int = 40


def estimate(n: int, dim: int, args: Args) -> _cost.Estimate:
    """Return the cost: a byte a value, and twice the links on the ground level."""
    held = n * (dim + args.links * 2 * 4 + 24)
    build = _cost.graph_seconds(n, dim, args.links, args.ef_construction)
    query = _cost.graph_seconds(n, dim, args.links, args.ef_search) / max(1, n) * 1000
    return _cost.Estimate(
        held, 2 * held + 2 * _cost.block_bytes(n, dim), build, query + _cost.refine_ms(args.shortlist, dim)
    )


def tunable(n: int, args: Args) -> dict[str, tuple[int, ...]]:
    """Return the values of what trades recall for time, the fastest first."""
    return {"ef_search": _cost.doubling(16, 2048)}


def build(matrix: FloatMatrix, folder: Path, args: Args) -> None:
    """Find each dimension's range on a sample, build the graph and write it."""
    faiss = _faiss.library()
    graph = faiss.IndexHNSWSQ(matrix.shape[1], faiss.ScalarQuantizer.QT_8bit, args.links, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = args.ef_construction
    graph.train(_faiss.spread(matrix, TRAIN_ROWS))
    _faiss.add_and_write(graph, matrix, folder / FILES[0])


def load(folder: Path, matrix: FloatMatrix, args: Args) -> _faiss.Searcher:
    """Read the graph. Raises `Damaged` where it is not the graph of this matrix."""
    index = _faiss.read(folder / FILES[0], matrix)
    return _faiss.Searcher(index, matrix, args, _faiss.walking, refine=True)
