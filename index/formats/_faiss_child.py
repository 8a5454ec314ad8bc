"""A FAISS index in a process of its own, since a damaged or hostile file may do anything to the process that reads it.

    python -P _faiss_child.py INDEX FOLDER MEMORY_BYTES SECONDS

Writes `vectors.f32`, `ids.i64` and, last, `facts.json` into FOLDER; says what is wrong on stderr. It imports nothing of
ours and is given nothing but the three limits.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
from numpy.typing import NDArray

ROWS = 4096
EXACT = {"IndexFlat", "IndexFlatL2", "IndexFlatIP", "IndexIVFFlat", "IndexHNSWFlat"}
METRICS = {faiss.METRIC_INNER_PRODUCT: "inner_product", faiss.METRIC_L2: "l2"}


def main(index: str, folder: str, memory: str, seconds: str) -> None:
    """Read the index and write down its vectors and ids."""
    limit(int(memory), int(seconds))
    # what is downcast lives only as long as what was read
    whole = faiss.read_index(index)
    found = faiss.downcast_index(whole)
    ids, inner = None, found
    if isinstance(found, (faiss.IndexIDMap, faiss.IndexIDMap2)):
        inner = faiss.downcast_index(found.index)
        ids = np.array(faiss.vector_to_array(found.id_map), dtype=np.int64)
    if isinstance(inner, faiss.IndexRefineFlat):
        inner = faiss.downcast_index(inner.refine_index)
    vectors, own = write(inner, Path(folder))
    if ids is not None:
        if len(ids) != vectors or (own.size and (own.min() < 0 or own.max() >= len(ids))):
            raise ValueError(f"{len(ids)} ids for {vectors} vectors")
        own = ids[own]
    (Path(folder) / "ids.i64").write_bytes(own.astype("<i8").tobytes())
    exact = type(inner).__name__ in EXACT
    facts = {
        "kind": type(found).__name__ if inner is found else f"{type(found).__name__} of {type(inner).__name__}",
        "rows": vectors, "dim": int(inner.d), "metric": METRICS.get(inner.metric_type, str(inner.metric_type)),
        "exact": exact, "mapped": ids is not None,
    }  # fmt: skip
    (Path(folder) / "facts.json").write_text(json.dumps(facts))


def limit(memory: int, seconds: int) -> None:
    """Bound what reading may take: address space beyond what the libraries have, processor time, and files written."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faiss.set_deserialization_vector_byte_limit(memory)
    faiss.omp_set_num_threads(1)


def write(index: Any, folder: Path) -> tuple[int, NDArray[np.int64]]:
    """Write the vectors, and return how many there are, and the number that the index gives to each."""
    with (folder / "vectors.f32").open("wb") as out:
        if isinstance(index, faiss.IndexIVF):
            ids = np.concatenate([*by_list(index, out), np.empty(0, dtype=np.int64)])
        else:
            for start in range(0, index.ntotal, ROWS):
                rows = index.reconstruct_n(start, min(ROWS, index.ntotal - start))
                out.write(rows.astype("<f4").tobytes())
            ids = np.arange(index.ntotal, dtype=np.int64)
    if len(ids) != index.ntotal:
        raise ValueError(f"the lists hold {len(ids)} vectors, the header says {index.ntotal}")
    return len(ids), ids


def by_list(ivf: Any, out: BinaryIO) -> Iterator[NDArray[np.int64]]:
    """Write the vectors of each inverted list and yield its ids, which may be any numbers."""
    for number in range(ivf.nlist):
        size = ivf.invlists.list_size(number)
        if not size:
            continue
        ids = faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size).copy()
        row = np.empty(ivf.d, dtype=np.float32)
        for offset in range(size):
            ivf.reconstruct_from_offset(number, offset, faiss.swig_ptr(row))
            out.write(row.astype("<f4").tobytes())
        yield ids


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (RuntimeError, ValueError, MemoryError, OSError, AssertionError) as error:
        message = (str(error).splitlines() or [""])[0][-300:]
        sys.exit(f"{type(error).__name__}: {message}")
