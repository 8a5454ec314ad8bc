"""An index on disk: a folder with the matrix, the keys, the kind's own files, and a manifest written last.

    indexes/<fingerprint>/current.json        which build answers now; replaced by a rename
    indexes/<fingerprint>/<build>/            manifest.json matrix.npy keys.npy + the kind's files

Nothing here is needed to answer correctly. Every file is compared with its sha256 before any engine reads it: those of
a build with its manifest, and the manifest with `current.json`. That finds damage of any kind. It does not make a
store from a stranger safe, who can write checksums too: delete its `indexes/`, and `permafrost index` makes them again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from embedder import kinds
from embedder.errors import Damaged, UnknownName, UsageError
from embedder.records import FloatMatrix, Keys
from embedder.space import Space
from index import files
from index.kinds._cost import Estimate
from index.store import Collection

MATRIX, KEYS = "matrix.npy", "keys.npy"
KEPT_BUILDS = 2
UNREADABLE = ".unreadable"


class Engine(Protocol):
    """What a kind's `load` returns. What `tunable` names may be replaced in `args` while it is loaded."""

    args: Any

    def search(
        self, queries: FloatMatrix, k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], FloatMatrix]:
        """Return positions (m, k) int64, -1 where there are fewer, and scores (m, k) float32, higher is nearer."""


class IndexKind(Protocol):
    """What a file in `index/kinds/` offers.

    `AUTO`: it is among those that are chosen from. `MIN_SELECTIVITY`: the share of allowed rows under which a scan of
    them is better, until a build measures it. `FILES`: the files or folders that `build` writes.
    A kind that needs what a machine may not have also offers `missing() -> str | None`, which says what that is.
    """

    EXACT: bool
    AUTO: bool
    MIN_SELECTIVITY: float
    FILES: tuple[str, ...]
    Args: type[Any]

    def estimate(self, n: int, dim: int, args: Any) -> Estimate:
        """Return what an index over `n` vectors costs."""

    def tunable(self, n: int, args: Any) -> dict[str, tuple[int, ...]]:
        """Return the arguments that trade recall for time after a build, with values from the fastest to the surest."""

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
    """Return a kind's typed arguments; values may be text, as from a command line.

    Raises:
        UnknownName: the kind has no such argument; the nearest ones are in the hint.
        UsageError: a value is not of the argument's type, or is negative.
    """
    known = {field.name: type(field.default) for field in fields(kind.Args)}
    for name in values:
        if name not in known:
            taken = f"it takes {', '.join(known)}" if known else "it takes none"
            raise UnknownName.of("argument of this index kind", name, known, hint=taken)
    return kind.Args(**{name: _typed(name, value, known[name]) for name, value in values.items()})


def _typed(name: str, value: Any, wanted: type[Any]) -> Any:
    try:
        typed = wanted(value)
        if isinstance(value, bool) or typed < 0 or (not isinstance(value, str) and typed != value):
            raise ValueError
    except (TypeError, ValueError):
        raise UsageError(
            f"{name} takes {wanted.__name__} values of at least 0, not {value!r}", where="index arguments"
        ) from None
    return typed


def folder_of(collection: Collection, space: Space) -> Path:
    """Return the folder of a Space's indexes."""
    return collection.path / "indexes" / space.fingerprint


def current(collection: Collection, space: Space) -> str | None:
    """Return the name of the build that answers now; `UNREADABLE` where the file that says so is damaged."""
    found = _current(collection, space)
    return None if found is None else found[0]


def _current(collection: Collection, space: Space) -> tuple[str, str] | None:
    path = folder_of(collection, space) / "current.json"
    try:
        found = files.read_json(path)
        return str(found["build"]), str(found["manifest_sha256"])
    except FileNotFoundError:
        return None
    except (Damaged, KeyError, TypeError):
        return UNREADABLE, ""


def manifest_of(collection: Collection, space: Space) -> dict[str, Any] | None:
    """Return the manifest of the build that answers now, unverified; None where there is none to read."""
    try:
        name = current(collection, space)
        path = folder_of(collection, space) / str(name) / "manifest.json"
        return cast(dict[str, Any], files.read_json(path)) if name and path.exists() else None
    except Damaged:
        return None


def seal(
    folder: Path, *, kind: str, args: Any, space: Space, rows: int, min_selectivity: float, measured: Mapping[str, Any]
) -> None:
    """Sync a build's files and write its manifest, with their checksums, last.

    Args:
        min_selectivity: the share of allowed rows under which a scan of them is better, as measured.
    """
    names = _files(folder)
    for name in names:
        files.sync_file(folder / name)
    facts = {name: {"sha256": files.sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in names}
    record = {
        "kind": kind, "args": asdict(args), "space": space.as_json(), "rows": rows,
        "min_selectivity": min_selectivity, "measured": dict(measured), "files": facts,
    }  # fmt: skip
    files.write_json(folder / "manifest.json", record)


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def swap_in(collection: Collection, space: Space, build: Path) -> str:
    """Make a sealed build the one that answers, in one rename, and drop older ones."""
    home = folder_of(collection, space)
    name = build.name.removeprefix(".tmp-")
    files.checkpoint("index:swap")
    build.rename(home / name)
    files.sync_folder(home)
    checksum = files.sha256(home / name / "manifest.json")
    files.write_json(home / "current.json", {"build": name, "manifest_sha256": checksum})
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
    found = _current(collection, space)
    if found is None:
        return None
    name, checksum = found
    folder = folder_of(collection, space) / name
    try:
        if name == UNREADABLE:
            raise Damaged("current.json cannot be read", where=str(folder.parent))
        files.check_sha256(folder / "manifest.json", checksum)
        return _open(folder, space)
    except Damaged as error:
        if _current(collection, space) != found:
            # another build was swapped in, and this one swept, while it was being read
            return load(collection, space)
        hint = f"permafrost index {collection.name} rebuilds it; until then every vector is searched"
        raise Damaged(f"{error.what}; {hint}", where=error.where, hint=hint) from error


def _open(folder: Path, space: Space) -> Loaded:
    try:
        manifest = files.read_json(folder / "manifest.json")
        found = Space.from_json(manifest["space"])
        if found.fingerprint != space.fingerprint:
            space.require(found, what="the index")
        for file, facts in manifest["files"].items():
            files.check_sha256(folder / file, facts["sha256"])
        strange = set(_files(folder)) - {"manifest.json", *manifest["files"]}
        if strange:
            raise Damaged(f"the index's folder has files that its manifest does not name: {min(strange)}")
        kind = kind_of(manifest["kind"])
        args = make_args(kind, manifest["args"])
        matrix = cast(FloatMatrix, np.load(folder / MATRIX, mmap_mode="r", allow_pickle=False))
        keys = cast(Keys, np.load(folder / KEYS, allow_pickle=False))
        if matrix.shape != (manifest["rows"], space.dim) or keys.shape != (len(matrix),):
            raise Damaged("the index's matrix has another shape than its manifest says", where=str(folder))
        return Loaded(folder.name, kind, kind.load(folder, matrix, args), matrix, keys, manifest)
    except (KeyError, TypeError, ValueError, AttributeError, OSError, UsageError) as error:
        raise Damaged(f"the index cannot be opened: {type(error).__name__}: {error}", where=str(folder)) from error
