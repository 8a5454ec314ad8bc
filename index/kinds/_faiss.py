"""What the kinds of FAISS share: reading and writing, training, selectors, and our own exact refine.

FAISS's own Refine ignores the selector that it is given, and its fast-scan indexes refuse one; so a shortlist is taken
from the bare index, checked against the set of allowed rows, and scored here from the stored vectors.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.errors import Damaged
from embedder.records import FloatMatrix
from index.kinds._cost import BLOCK_ROWS

BATCH = 16
GATHERED_VALUES = 1 << 22
SPARE_SHARE = 1.2
Settings = Callable[[Any, int, Any], Any]


@cache
def library() -> Any:
    """Import FAISS when it is needed; its stubs do not know the parameter classes."""
    return importlib.import_module("faiss")


@cache
def _machine_threads() -> int:
    # the first call, before any thread set its own, sees what OMP_NUM_THREADS or the machine allows
    return int(library().omp_get_max_threads())


def use_threads(count: int | None = None) -> None:
    """Set how many threads FAISS uses when called from this thread; none means all that the machine allows."""
    most = _machine_threads()
    library().omp_set_num_threads(most if count is None else min(count, most))


def spread(matrix: FloatMatrix, count: int, least: int = 1) -> FloatMatrix:
    """Return up to `count` rows at even distances to train on, repeated where there are fewer than `least`."""
    step = max(1, math.ceil(len(matrix) / count))
    rows = np.ascontiguousarray(matrix[::step], dtype=np.float32)
    return np.tile(rows, (math.ceil(least / len(rows)), 1)) if len(rows) < least else rows


def padded(rows: FloatMatrix, width: int) -> FloatMatrix:
    """Return the rows with zeros appended up to `width` columns; their inner products stay the same."""
    if rows.shape[1] == width:
        return np.ascontiguousarray(rows, dtype=np.float32)
    wide = np.zeros((len(rows), width), dtype=np.float32)
    wide[:, : rows.shape[1]] = rows
    return wide


def add_and_write(index: Any, matrix: FloatMatrix, path: Path) -> None:
    """Add all rows, a block at a time, and write the index."""
    use_threads()
    for start in range(0, len(matrix), BLOCK_ROWS):
        index.add(padded(matrix[start : start + BLOCK_ROWS], index.d))
    library().write_index(index, str(path))


def quiet(clustering: Any, rounds: int = 10) -> None:
    """Let k-means train on as few points as there are without printing that they are few."""
    clustering.min_points_per_centroid, clustering.niter = 1, rounds


def read(path: Path, matrix: FloatMatrix, width: int | None = None) -> Any:
    """Read an index whose checksum was verified.

    The checksum shows that these are the bytes that were written here. What FAISS may allocate for them is bounded all
    the same by the size of the file, and what it made of them is compared with the matrix.

    Raises:
        Damaged: FAISS cannot read it, or it is not an index of this matrix.
    """
    faiss = library()
    try:
        faiss.set_deserialization_vector_byte_limit(max(1 << 20, 2 * path.stat().st_size))
        index = faiss.read_index(str(path))
    except (RuntimeError, MemoryError, OSError) as error:
        raise Damaged("FAISS cannot read the index", where=str(path)) from error
    expected = (len(matrix), width or matrix.shape[1], faiss.METRIC_INNER_PRODUCT)
    if (index.ntotal, index.d, index.metric_type) != expected:
        raise Damaged(f"the index holds {index.ntotal} x {index.d}, the matrix {matrix.shape}", where=str(path))
    return index


class Searcher:
    """A loaded index of FAISS; positions are rows of the matrix it was built from.

    Args:
        settings: gives FAISS's parameters for (args, reach, selector), or None where the index takes none.
        refine: score a shortlist of `args.shortlist` rows exactly; without it the index's own scores are cosines.
        selects: the index takes a selector. Where not, more rows are fetched, so that enough of them are allowed.
    """

    def __init__(
        self, index: Any, matrix: FloatMatrix, args: Any, settings: Settings | None,
        *, refine: bool = False, selects: bool = True,
    ) -> None:  # fmt: skip
        self.index, self.args, self.settings = index, args, settings
        self.matrix = np.asarray(matrix)
        self.refine, self.selects = refine, selects

    def search(
        self, queries: FloatMatrix, k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], FloatMatrix]:
        """Return about the `k` best rows for each query; shapes and padding as in `flat`."""
        use_threads(1 if len(queries) < BATCH else None)
        reach = max(k, self.args.shortlist) if self.refine else k
        positions, scores = self._shortlist(padded(queries, self.index.d), reach, allowed)
        bad = (positions < 0) | (positions >= len(self.matrix))
        if allowed is not None:
            bad |= ~allowed[np.where(bad, 0, positions)]
        if self.refine:
            scores = self._exact(queries, np.where(bad, 0, positions))
        return best(np.where(bad, -1, positions), np.where(bad, -np.inf, scores), k)

    def _shortlist(
        self, queries: FloatMatrix, reach: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], FloatMatrix]:
        n, selector, bits = len(self.matrix), None, None
        if allowed is not None and self.selects:
            bits = np.packbits(allowed, bitorder="little")
            selector = library().IDSelectorBitmap(bits)
        elif allowed is not None:
            reach = math.ceil(reach * SPARE_SHARE * n / max(1, int(allowed.sum())))
        settings = self.settings(self.args, reach, selector) if self.settings else None
        scores, positions = self.index.search(queries, max(1, min(reach, n)), params=settings)
        return positions, scores

    def _exact(self, queries: FloatMatrix, positions: NDArray[np.int64]) -> FloatMatrix:
        scores = np.empty(positions.shape, dtype=np.float32)
        step = max(1, GATHERED_VALUES // max(1, positions.shape[1] * self.matrix.shape[1]))
        for start in range(0, len(queries), step):
            rows = self.matrix[positions[start : start + step]]
            scores[start : start + step] = np.matmul(rows, queries[start : start + step, :, None])[..., 0]
        return scores


def best(positions: NDArray[np.int64], scores: FloatMatrix, k: int) -> tuple[NDArray[np.int64], FloatMatrix]:
    """Return the `k` best of each row, best first, padded with -1 and -inf."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    positions, scores = np.take_along_axis(positions, order, 1), np.take_along_axis(scores, order, 1)
    short = ((0, 0), (0, k - positions.shape[1]))
    return (
        np.pad(positions, short, constant_values=-1).astype(np.int64),
        np.pad(scores, short, constant_values=-np.inf).astype(np.float32),
    )


def list_count(n: int, wanted: int) -> int:
    """Return how many inverted lists there are: as wanted, or for 0 four times the root of `n`, with 39 rows each."""
    return max(1, min(wanted or round(4 * math.sqrt(n)), max(1, n // 39) if not wanted else n))


def probing(args: Any, reach: int, selector: Any) -> Any:
    """Return the parameters of a search through inverted lists."""
    return library().SearchParametersIVF(nprobe=args.probes, sel=selector)


def walking(args: Any, reach: int, selector: Any) -> Any:
    """Return the parameters of a search through a graph."""
    return library().SearchParametersHNSW(efSearch=max(args.ef_search, reach), sel=selector)
