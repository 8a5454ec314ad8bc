"""HNSW graph of FAISS (Malkov & Yashunin 2016, arXiv:1603.09320) over unit vectors, by inner product."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.errors import Damaged
from embedder.records import FloatMatrix

EXACT = False
MIN_SELECTIVITY = 0.5
FILES = ("hnsw.faiss",)
TUNE = "ef_search"
TUNE_VALUES = (32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Args:
    """`links`: neighbours a node (FAISS's M). `ef_construction`, `ef_search`: breadth while building and searching."""

    links: int = 32
    ef_construction: int = 64
    ef_search: int = 64


class Graph:
    """A loaded graph; positions are rows of the matrix it was built from."""

    def __init__(self, graph: Any, args: Args) -> None:
        self.graph, self.args = graph, args

    def search(
        self, queries: FloatMatrix, k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], FloatMatrix]:
        """Return about the `k` best rows for each query; shapes and padding as in `flat`."""
        faiss = _faiss()
        faiss.omp_set_num_threads(1)
        settings = faiss.SearchParametersHNSW(efSearch=max(self.args.ef_search, k))
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            settings.sel = faiss.IDSelectorBitmap(bits)
        scores, positions = self.graph.search(np.ascontiguousarray(queries, np.float32), k, params=settings)
        if allowed is not None:
            forbidden = (positions >= 0) & ~allowed[np.clip(positions, 0, None)]
            positions, scores = np.where(forbidden, -1, positions), np.where(forbidden, -np.inf, scores)
        return positions.astype(np.int64), np.where(positions < 0, -np.inf, scores).astype(np.float32)


def estimate_bytes(n: int, dim: int, args: Args) -> int:
    """Return the memory of the loaded graph: its own copy of the vectors, and the links of the ground level."""
    return n * (dim * 4 + args.links * 2 * 4 + 16)


def build(matrix: FloatMatrix, folder: Path, args: Args) -> None:
    """Build the graph and write `hnsw.faiss` in `folder`."""
    faiss = _faiss()
    graph = faiss.IndexHNSWFlat(matrix.shape[1], args.links, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = args.ef_construction
    for start in range(0, len(matrix), 50_000):
        graph.add(np.ascontiguousarray(matrix[start : start + 50_000], dtype=np.float32))
    faiss.write_index(graph, str(folder / FILES[0]))


def load(folder: Path, matrix: FloatMatrix, args: Args) -> Graph:
    """Read a graph whose checksum was verified.

    Raises:
        Damaged: FAISS cannot read it, or it is not the graph of this matrix.
    """
    faiss = _faiss()
    path = folder / FILES[0]
    try:
        graph = faiss.read_index(str(path))
    except RuntimeError as error:
        raise Damaged("FAISS cannot read the graph", where=str(path)) from error
    if graph.ntotal != len(matrix) or graph.d != matrix.shape[1] or graph.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise Damaged(f"the graph holds {graph.ntotal} x {graph.d}, the matrix {matrix.shape}", where=str(path))
    return Graph(graph, args)


def _faiss() -> Any:
    """Import FAISS when it is needed; its stubs do not know the parameter classes."""
    return importlib.import_module("faiss")
