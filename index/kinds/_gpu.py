"""Indexes of faiss-gpu: trained, filled and searched on a GPU, and saved as the same index for the processor."""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.errors import Refused
from embedder.records import FloatMatrix
from index.kinds import _faiss

MOST = 2048
_scratch = Lock()


def missing() -> str | None:
    """Return why no index can be built on a GPU here; None where it can."""
    faiss = _faiss.library()
    if not hasattr(faiss, "StandardGpuResources"):
        return "this FAISS is built without GPU code"
    return None if faiss.get_num_gpus() > 0 else "there is no GPU that FAISS can use"


def require() -> None:
    """Raise `Refused` where there is no GPU."""
    why = missing()
    if why is not None:
        raise Refused(why, hint="take the kind of the same name without gpu")


@cache
def _resources() -> Any:
    # one for the process: each takes a gigabyte of scratch memory, and must outlive its indexes
    return _faiss.library().StandardGpuResources()


def to_gpu(index: Any) -> Any:
    """Return a copy of an index on the first GPU."""
    return _faiss.library().index_cpu_to_gpu(_resources(), 0, index)


def to_cpu(index: Any) -> Any:
    """Return a copy of an index of the GPU for the processor."""
    return _faiss.library().index_gpu_to_cpu(index)


class Searcher(_faiss.Searcher):
    """The same lists twice: queries go to the GPU one batch at a time, as its scratch memory is shared.

    What a GPU cannot do goes to the copy for the processor: selectors, and more than 2,048 rows or lists.
    """

    def __init__(self, index: Any, copy: Any | None, matrix: FloatMatrix, args: Any) -> None:
        super().__init__(index, matrix, args, _faiss.probing)
        self.copy = copy

    def _shortlist(
        self, queries: FloatMatrix, reach: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], FloatMatrix]:
        if self.copy is None or allowed is not None or max(reach, self.args.probes) > MOST:
            return super()._shortlist(queries, reach, allowed)
        with _scratch:
            self.copy.nprobe = self.args.probes
            scores, positions = self.copy.search(queries, max(1, min(reach, len(self.matrix))))
        return positions, scores
