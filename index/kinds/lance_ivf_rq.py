"""Lance's inverted lists of one bit a dimension (RaBitQ), on disk, with our own exact refine from the matrix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lancedb.index import IvfRq

from embedder.records import FloatMatrix
from index.kinds import _cost, _lance

EXACT = False
AUTO = False
MIN_SELECTIVITY = 0.5
FILES = (_lance.FILE,)


@dataclass(frozen=True)
class Args:
    """`parts`: inverted lists, 0: the root of the rows. `probes`: lists a query reads. `shortlist`: rows scored."""

    parts: int = 0
    probes: int = 20
    shortlist: int = 400


def estimate(n: int, dim: int, args: Args) -> _cost.Estimate:
    """Return the cost; a query's is mostly Lance's planning."""
    width = _lance.width_of(dim)
    return _lance.estimate(n, dim, args, code_bytes=width // 8 + 8, build_us=2)


def tunable(n: int, args: Args) -> dict[str, tuple[int, ...]]:
    """Return the values of what trades recall for time, the fastest first."""
    return _lance.tunable(n, args)


def build(matrix: FloatMatrix, folder: Path, args: Args) -> None:
    """Write the table and train its index."""
    parts = _lance.parts_of(len(matrix), args.parts)
    config = IvfRq(distance_type="dot", num_partitions=parts)
    _lance.write(matrix, folder, config)


def load(folder: Path, matrix: FloatMatrix, args: Args) -> _lance.Searcher:
    """Open the table. Raises `Damaged` where it is not of this matrix."""
    return _lance.read(folder, matrix, args)
