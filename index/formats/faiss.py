"""A FAISS index: the vectors that it holds, with its ids, read by a process that may die of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.errors import Refused, UsageError
from index import files
from index.bringing import Asked, VectorSource
from index.formats._table import files_of
from index.formats.npy import matrix_source, read_ids

SPARE_BYTES = 512 << 20
GROWTH = 4
LOSSY_GROWTH = 64
SECONDS, BYTES_PER_SECOND = 60, 20 << 20


def finds(path: str) -> list[Path]:
    """Return a file of a FAISS index."""
    return files_of(path, (".index", ".faiss")) if Path(path).expanduser().is_file() else []


def read(paths: Sequence[Path], asked: Asked) -> VectorSource:
    """Read an index that holds its vectors as they were added: Flat, IVF-Flat or HNSW-Flat, with an IDMap or without.

    Raises:
        UsageError: the file is damaged, or reading it takes more memory or time than a file of its size may.
        Refused: its vectors are not those that the encoder made (PQ, SQ and the like), and `allow_lossy` is not set.
    """
    path = paths[0]
    checksum = files.sha256(path)
    with tempfile.TemporaryDirectory(prefix="permafrost-") as folder:
        facts = _extract(path, Path(folder), lossy=asked.allow_lossy)
        if not facts["exact"] and not asked.allow_lossy:
            raise Refused(
                f"{path.name} is a {facts['kind']}: its vectors are compressed, not the ones that the encoder made",
                where=str(path), hint="import the vectors that it was built from, or say --allow-lossy",
            )  # fmt: skip
        # mapped: the file is read for as long as somebody holds the matrix, also when its name is gone
        matrix, ids = _load(Path(folder), facts, path)
    positions = not facts["mapped"] and bool(np.array_equal(np.sort(ids), np.arange(len(ids))))
    names = [str(id) for id in ids.tolist()]
    if asked.ids is not None:
        names = _renamed(ids, read_ids(asked.ids, asked.id_column), path, positions=positions)
    kept = {"faiss": facts["kind"], "metric": facts["metric"], "sha256": checksum}
    return matrix_source(path, matrix, names, numbered=positions and asked.ids is None, **kept)


def _renamed(ids: NDArray[np.int64], given: Sequence[str], path: Path, *, positions: bool) -> list[str]:
    if not positions:
        raise UsageError(f"{path.name} has ids of its own", where="--ids", hint="leave out --ids")
    if len(given) != len(ids):
        raise UsageError(f"there are {len(given)} ids for {len(ids)} vectors", where="--ids")
    return [given[id] for id in ids.tolist()]


def _load(folder: Path, facts: dict[str, Any], path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rows, dim = facts["rows"], facts["dim"]
    ids = np.fromfile(folder / "ids.i64", dtype="<i8")
    if not rows or not dim or (folder / "vectors.f32").stat().st_size != 4 * rows * dim or len(ids) != rows:
        raise UsageError(f"{path.name} holds no vectors, or not as many as it says", where=str(path))
    return np.memmap(folder / "vectors.f32", dtype="<f4", mode="r", shape=(rows, dim)), ids


def _extract(path: Path, folder: Path, *, lossy: bool) -> dict[str, Any]:
    size = path.stat().st_size
    memory = (LOSSY_GROWTH if lossy else GROWTH) * size + SPARE_BYTES
    seconds = SECONDS + size // BYTES_PER_SECOND
    # -P: the current folder is the user's, and may hold a file called like one of its imports
    command = [
        sys.executable,
        "-P",
        str(Path(__file__).with_name("_faiss_child.py")),
        str(path.absolute()),
        str(folder),
    ]
    try:
        done = subprocess.run(  # noqa: S603
            [*command, str(memory), str(seconds)], capture_output=True, text=True, errors="replace",
            timeout=2 * seconds, cwd=folder,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UsageError(f"{path.name} was not read within {2 * seconds} s: it is damaged", where=str(path)) from None
    if done.returncode or not (folder / "facts.json").exists():
        raise UsageError(f"{path.name} cannot be read as a FAISS index: {_why(done)}", where=str(path))
    found: dict[str, Any] = json.loads((folder / "facts.json").read_bytes())
    return found


def _why(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"its reader was ended by {signal.Signals(-done.returncode).name}"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1][-300:] if lines else f"its reader ended with {done.returncode}"
