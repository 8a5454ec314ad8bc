"""`faiss_ivf_flat` on a GPU: k-means, filling and queries run there. Without a GPU it is read, not built."""

from __future__ import annotations

from pathlib import Path

from embedder.records import FloatMatrix
from index.kinds import _cost, _faiss, _gpu, faiss_ivf_flat

EXACT = False
AUTO = True
MIN_SELECTIVITY = faiss_ivf_flat.MIN_SELECTIVITY
FILES = ("gpu_ivf_flat.faiss",)
SPEEDUP = 20

Args = faiss_ivf_flat.Args
tunable = faiss_ivf_flat.tunable
missing = _gpu.missing


def estimate(n: int, dim: int, args: Args) -> _cost.Estimate:
    """Return the cost: the memory of the processor's copy, which the GPU's equals, and a guess at the GPU's speed."""
    same = faiss_ivf_flat.estimate(n, dim, args)
    return _cost.Estimate(same.bytes, same.build_bytes, 1 + same.build_seconds / SPEEDUP, 0.1 + same.query_ms / SPEEDUP)


def build(matrix: FloatMatrix, folder: Path, args: Args) -> None:
    """Find the centres and fill the lists on the GPU, and write them. Raises `Refused` where there is none."""
    _gpu.require()
    index = _gpu.to_gpu(faiss_ivf_flat.untrained(matrix, args))
    index.train(_faiss.spread(matrix, faiss_ivf_flat.TRAIN_ROWS_A_LIST * index.nlist))
    for start in range(0, len(matrix), _cost.BLOCK_ROWS):
        index.add(_faiss.padded(matrix[start : start + _cost.BLOCK_ROWS], matrix.shape[1]))
    _faiss.library().write_index(_gpu.to_cpu(index), str(folder / FILES[0]))


def load(folder: Path, matrix: FloatMatrix, args: Args) -> _gpu.Searcher:
    """Read the lists, and copy them to a GPU where there is one. Raises `Damaged` where they are of another matrix."""
    index = _faiss.read(folder / FILES[0], matrix)
    return _gpu.Searcher(index, None if _gpu.missing() else _gpu.to_gpu(index), matrix, args)
