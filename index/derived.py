"""An index on disk: a folder with the matrix, the keys, the kind's own files, and a manifest written last.

    indexes/<fingerprint>/current.json        which build answers now; replaced by a rename
    indexes/<fingerprint>/<build>/            manifest.json matrix.npy keys.npy + the kind's files

Nothing here is needed to answer correctly. Every file is compared with its sha256 before any engine reads it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from embedder import kinds
from embedder.errors import Damaged, UsageError
from embedder.records import FloatMatrix, Keys
from embedder.space import Space
from index import files
from index.store import Collection

MATRIX, KEYS = "matrix.npy", "keys.npy"
KEPT_BUILDS = 2


class Engine(Protocol):
    """What a kind's `load` returns."""

    def search(
        self, queries: FloatMatrix, k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], FloatMatrix]:
        """Return positions (m, k) int64, -1 where there are fewer, and scores (m, k) float32, higher is nearer."""


class IndexKind(Protocol):
    """What a file in `index/kinds/` offers."""

    EXACT: bool
    MIN_SELECTIVITY: float
    FILES: tuple[str, ...]
    Args: type[Any]

    def estimate_bytes(self, n: int, dim: int, args: Any) -> int:
        """Return the bytes of memory that a search over `n` vectors holds."""

    def build(self, matrix: FloatMatrix, folder: Path, args: Any) -> None:
        """Write `FILES` in `folder` from unit vectors (n, dim) float32."""

    def load(self, folder: Path, matrix: FloatMatrix, args: Any) -> Engine:
        """Read what `build` wrote. Raises `Damaged`."""


@dataclass(frozen=True)
class Loaded:
    """An index that was verified and opened. `keys[i]` is the key of row `i` of `matrix`."""

    name: str
    kind: IndexKind
    engine: Engine
    matrix: FloatMatrix
    keys: Keys
    manifest: Mapping[str, Any]


def kind_of(name: str) -> IndexKind:
    """Return a kind by name. Raises `UnknownName` with the nearest ones."""
    return cast(IndexKind, kinds.load("index.kinds", name, "index kind"))


def make_args(kind: IndexKind, values: Mapping[str, Any]) -> Any:
    """Return a kind's typed arguments. Raises `UsageError` for one that it does not have."""
    try:
        return kind.Args(**values)
    except TypeError as error:
        raise UsageError(f"this index kind does not take that argument: {error}") from error


def folder_of(collection: Collection, space: Space) -> Path:
    """Return the folder of a Space's indexes."""
    return collection.path / "indexes" / space.fingerprint


def current(collection: Collection, space: Space) -> str | None:
    """Return the name of the build that answers now."""
    path = folder_of(collection, space) / "current.json"
    return str(files.read_json(path)["build"]) if path.exists() else None


def manifest_of(collection: Collection, space: Space) -> dict[str, Any] | None:
    """Return the manifest of the build that answers now, unverified; None where there is none to read."""
    try:
        name = current(collection, space)
        path = folder_of(collection, space) / str(name) / "manifest.json"
        return cast(dict[str, Any], files.read_json(path)) if name and path.exists() else None
    except Damaged:
        return None


def seal(folder: Path, *, kind: str, args: Any, space: Space, rows: int, measured: Mapping[str, Any]) -> None:
    """Sync a build's files and write its manifest, with their checksums, last."""
    names = sorted(p.name for p in folder.iterdir())
    for name in names:
        files.sync_file(folder / name)
    facts = {name: {"sha256": files.sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in names}
    record = {
        "kind": kind, "args": asdict(args), "space": space.as_json(), "rows": rows, "measured": dict(measured),
        "files": facts,
    }  # fmt: skip
    files.write_json(folder / "manifest.json", record)


def swap_in(collection: Collection, space: Space, build: Path) -> str:
    """Make a sealed build the one that answers, in one rename, and drop older ones."""
    home = folder_of(collection, space)
    name = build.name.removeprefix(".tmp-")
    files.checkpoint("index:swap")
    build.rename(home / name)
    files.sync_folder(home)
    files.write_json(home / "current.json", {"build": name})
    builds = sorted(p for p in home.iterdir() if p.is_dir() and not p.name.startswith(".tmp-") and p.name != name)
    for old in builds[: max(0, len(builds) - KEPT_BUILDS + 1)]:
        shutil.rmtree(old)
    return name


def load(collection: Collection, space: Space) -> Loaded | None:
    """Verify and open the index that answers now; None where there is none.

    Raises:
        Damaged: a file is missing, fails its checksum, or is not what the manifest says.
        SpaceMismatch: it was built from vectors of another Space.
    """
    name = current(collection, space)
    if name is None:
        return None
    folder = folder_of(collection, space) / name
    if not (folder / "manifest.json").exists():
        raise Damaged("the index has no manifest", where=str(folder))
    manifest = files.read_json(folder / "manifest.json")
    try:
        found = Space.from_json(manifest["space"])
        if found.fingerprint != space.fingerprint:
            space.require(found, what="the index")
        for file, facts in manifest["files"].items():
            files.check_sha256(folder / file, facts["sha256"])
        kind = kind_of(manifest["kind"])
        args = make_args(kind, manifest["args"])
        matrix = cast(FloatMatrix, np.load(folder / MATRIX, mmap_mode="r", allow_pickle=False))
        keys = cast(Keys, np.load(folder / KEYS, allow_pickle=False))
        if matrix.shape != (manifest["rows"], space.dim) or keys.shape != (len(matrix),):
            raise Damaged("the index's matrix has another shape than its manifest says", where=str(folder))
        return Loaded(name, kind, kind.load(folder, matrix, args), matrix, keys, manifest)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise Damaged(f"the index cannot be opened: {type(error).__name__}: {error}", where=str(folder)) from error
