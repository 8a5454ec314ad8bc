"""HNSW graph of FAISS (Malkov & Yashunin 2016, arXiv:1603.09320) over unit vectors, by inner product."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embedder.records import FloatMatrix
from index.kinds import _cost, _faiss

EXACT = False
AUTO = True
MIN_SELECTIVITY = 0.5
FILES = ("hnsw.faiss",)


@dataclass(frozen=True)
class Args:
    """`links`: neighbours a node (FAISS's M). `ef_construction`, `ef_search`: breadth while building and searching."""

    links: int = 32
    ef_construction: int = 64
    ef_search: int = 64


def estimate(n: int, dim: int, args: Args) -> _cost.Estimate:
    """Return the cost: the graph has its own copy of the vectors, and twice the links on the ground level."""
    held = n * (dim * 4 + args.links * 2 * 4 + 24)
    build = _cost.graph_seconds(n, dim * 4, args.links, args.ef_construction)
    query = _cost.graph_seconds(n, dim * 4, args.links, args.ef_search) / max(1, n) * 1000
    # the arrays grow by doubling while rows are added
    return _cost.Estimate(held, 2 * held + _cost.block_bytes(n, dim), build, query)


def tunable(n: int, args: Args) -> dict[str, tuple[int, ...]]:
    """Return the values of what trades recall for time, the fastest first."""
    return {"ef_search": _cost.doubling(16, 2048)}


def build(matrix: FloatMatrix, folder: Path, args: Args) -> None:
    """Build the graph and write it."""
    faiss = _faiss.library()
    graph = faiss.IndexHNSWFlat(matrix.shape[1], args.links, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = args.ef_construction
    _faiss.add_and_write(graph, matrix, folder / FILES[0])


def load(folder: Path, matrix: FloatMatrix, args: Args) -> _faiss.Searcher:
    """Read the graph. Raises `Damaged` where it is not the graph of this matrix."""
    return _faiss.Searcher(_faiss.read(folder / FILES[0], matrix), matrix, args, _faiss.walking)
