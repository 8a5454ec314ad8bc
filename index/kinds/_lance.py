"""What the kinds of Lance share: a table of its own in the index's folder, from position to vector, and its index.

The table is derived like every index: it may be deleted, and nothing else reads it. Lance's `_distance` changes scale
with the kind of index, so that only its order is used, and a shortlist is scored from the matrix. Lance cannot take a
mask of rows; more rows are fetched instead. A query costs 2 to 10 ms of planning, whatever the size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedder.errors import Damaged
from embedder.records import FloatMatrix
from index.kinds import _cost, _faiss

TABLE = "vectors"
FILE = f"{TABLE}.lance"
MULTIPLE = 8
ROWS_A_PART = 256
PLANNING_MS = 5.0


def width_of(dim: int) -> int:
    """Return the dimension that vectors are padded to: its codes need a multiple of eight."""
    return math.ceil(dim / MULTIPLE) * MULTIPLE


def parts_of(n: int, wanted: int) -> int:
    """Return how many partitions there are: as wanted, or for 0 the root of `n`; at most one for 256 rows."""
    return max(1, min(wanted or round(math.sqrt(n)), n // ROWS_A_PART))


def write(matrix: FloatMatrix, folder: Path, config: Any) -> None:
    """Write the table, half precision being enough for a shortlist, and its index; a table too small has none."""
    width = width_of(matrix.shape[1])
    schema = pa.schema([("position", pa.int64()), ("vector", pa.list_(pa.float16(), width))])

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(matrix), _cost.BLOCK_ROWS):
            rows = _faiss.padded(matrix[start : start + _cost.BLOCK_ROWS], width).astype(np.float16)
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), width)
            positions = pa.array(np.arange(start, start + len(rows)))
            yield pa.RecordBatch.from_arrays([positions, vectors], schema=schema)

    table = lancedb.connect(str(folder)).create_table(TABLE, pa.RecordBatchReader.from_batches(schema, batches()))
    if len(matrix) >= ROWS_A_PART:
        table.create_index("vector", config=config)


class Searcher:
    """A table of Lance with an index; positions are rows of the matrix it was built from."""

    def __init__(self, table: Any, matrix: FloatMatrix, args: Any) -> None:
        self.table, self.args, self.matrix = table, args, np.asarray(matrix)

    def search(
        self, queries: FloatMatrix, k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], FloatMatrix]:
        """Return about the `k` best rows for each query; shapes and padding as in `flat`."""
        n, reach = len(self.matrix), max(k, self.args.shortlist)
        if allowed is not None:
            reach = math.ceil(reach * _faiss.SPARE_SHARE * n / max(1, int(allowed.sum())))
        positions = np.full((len(queries), min(reach, n)), -1, dtype=np.int64)
        for i, query in enumerate(_faiss.padded(queries, width_of(self.matrix.shape[1]))):
            found = self.table.search(query).distance_type("dot").nprobes(self.args.probes).limit(positions.shape[1])
            rows = found.select(["position", "_distance"]).to_arrow()["position"].to_numpy()
            rows = rows[(rows >= 0) & (rows < n)]
            positions[i, : len(rows)] = rows if allowed is None else np.where(allowed[rows], rows, -1)
        scores = np.stack([self.matrix[p] @ q for p, q in zip(positions, queries, strict=True)])
        return _faiss.best(positions, np.where(positions < 0, -np.inf, scores), k)


def read(folder: Path, matrix: FloatMatrix, args: Any) -> Searcher:
    """Open the table. Raises `Damaged` where it is not of this matrix."""
    try:
        table = lancedb.connect(str(folder)).open_table(TABLE)
        rows, width = table.count_rows(), table.schema.field("vector").type.list_size
    except (RuntimeError, ValueError, OSError, KeyError, AttributeError) as error:
        raise Damaged("Lance cannot read the index", where=str(folder / FILE)) from error
    if (rows, width) != (len(matrix), width_of(matrix.shape[1])):
        raise Damaged(f"the index holds {rows} x {width}, the matrix {matrix.shape}", where=str(folder / FILE))
    return Searcher(table, matrix, args)


def estimate(n: int, dim: int, args: Any, code_bytes: float, build_us: float) -> _cost.Estimate:
    """Return the cost of codes of this size, held by Lance's cache with a row id of 8 bytes each;
    `build_us` is the time to build for each value of the matrix."""
    width, parts = width_of(dim), parts_of(n, args.parts)
    held = math.ceil(n * (code_bytes + 8)) + parts * width * 4
    read = n * min(args.probes, parts) / parts * code_bytes / 2e6
    peak = 3 * held + min(n, parts * ROWS_A_PART) * width * 4 + 4 * _cost.block_bytes(n, width)
    return _cost.Estimate(
        held, peak, n * width * build_us * 1e-6, PLANNING_MS + read + _cost.refine_ms(args.shortlist, dim)
    )


def tunable(n: int, args: Any) -> dict[str, tuple[int, ...]]:
    """Return the values of what trades recall for time, the fastest first."""
    return {"probes": _cost.doubling(1, parts_of(n, args.parts)), "shortlist": _cost.doubling(20, min(n, 2000))}
