"""The verb: a collection to files that others read. Written aside, synced, renamed; the Space always goes with it.

DEST/permafrost-export.json                     the Space, golden vectors, counts, sha256 of each file; written last
DEST/data/data_0.parquet                        or .arrow, .jsonl
DEST/img_emb DEST/text_emb DEST/metadata        npy: clip-retrieval's layout
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embedder import kinds
from embedder.errors import Refused, UsageError
from embedder.space import Space
from index import files, schema
from index.store import Collection
from index.taking import PartWriter, Shape, Taking

MANIFEST = "permafrost-export.json"
VERSION = 1
Format = Literal["parquet", "npy", "arrow", "jsonl"]
Dtype = Literal["float32", "float16"]
FILE_SUFFIXES = frozenset({".parquet", ".arrow", ".feather", ".jsonl", ".npy", ".npz", ".json", ".csv"})


@dataclass(frozen=True)
class ExportOptions:
    """What leaves and how. `rows` is the most in one file; `dtype` that of `.npy` matrices; without `vectors` only
    items leave."""

    format: Format = "parquet"
    where: str | Mapping[str, Any] | None = None
    columns: Sequence[str] | None = None
    vectors: bool = True
    rows: int | None = None
    dtype: Dtype = "float32"
    overwrite: bool = False


def export(collection: Collection, space: Space | None, to: str, options: ExportOptions) -> dict[str, Any]:
    """Write the live items of a collection, with the vectors of one Space, to a new folder.

    Args:
        to: the folder; its files appear all at once, under their final names.

    Returns:
        the manifest.

    Raises:
        UsageError: a destination that is no folder, a format that cannot hold what was asked.
        Refused: the destination exists, and may not be replaced or is no export.
        UnknownName, NothingToDo: see `index.taking.Taking`.
    """
    place = _destination(to, options)
    taking = Taking(collection, space if options.vectors else None, where=options.where, columns=options.columns)
    shape = Shape(taking.schema, options.dtype, taking.media())
    if options.dtype != "float32" and options.format != "npy":
        raise UsageError(f"--dtype {options.dtype} is for --format npy", hint="the others keep float32 as it is stored")
    aside = place.parent / f".tmp-export-{os.getpid()}-{time.monotonic_ns()}"
    try:
        aside.mkdir(parents=True)
        written = _write(taking, shape, aside, options)
        manifest = _manifest(taking, shape, options, written, aside)
        files.write_json(aside / MANIFEST, manifest)
        _swap(aside, place)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return manifest


def _destination(to: str, options: ExportOptions) -> Path:
    place = Path(to).expanduser().absolute()
    if place.suffix.lower() in FILE_SUFFIXES:
        raise UsageError(f"{to} is the name of a file", where="--to", hint="an export is a folder: give its name")
    if not os.path.lexists(place):
        return place
    if not options.overwrite:
        raise Refused(f"{to} exists", where=str(place), hint="choose another folder, or --overwrite an export")
    if not (place / MANIFEST).is_file():
        raise Refused(f"{to} is no export, and is not overwritten", where=str(place), hint="choose another folder")
    return place


def _write(taking: Taking, shape: Shape, folder: Path, options: ExportOptions) -> list[tuple[list[Path], int]]:
    """Write all parts; return the files and rows of each."""
    most = options.rows or taking.rows
    sizes = [min(most, taking.rows - start) for start in range(0, taking.rows, most)]
    digits = len(str(len(sizes) - 1))
    begin = kinds.load("index.formats", options.format, "format").begin
    done: list[tuple[list[Path], int]] = []
    writer: PartWriter | None = None
    left = 0
    try:
        for rows in taking.tables(sizes):
            if writer is None:
                left = sizes[len(done)]
                # all numbers have one width: readers go by the order of the names
                writer = begin(folder, f"{len(done):0{digits}d}", left, shape)
            writer.write(rows)
            left -= rows.num_rows
            if not left:
                done.append((writer.close(), sizes[len(done)]))
                writer = None
    finally:
        if writer is not None:
            writer.close()
    return done


def _manifest(
    taking: Taking, shape: Shape, options: ExportOptions, written: Sequence[tuple[list[Path], int]], folder: Path
) -> dict[str, Any]:
    listed = []
    for paths, rows in written:
        for path in paths:
            files.sync_file(path)
            name = path.relative_to(folder).as_posix()
            listed.append({"path": name, "rows": rows, "bytes": path.stat().st_size, "sha256": files.sha256(path)})
    space = taking.space
    added = shape.added(shape.one_medium()) if options.format == "npy" else ()
    return {
        "permafrost_export": VERSION, "collection": taking.collection.name, "format": options.format,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "items": taking.items, "rows": taking.rows, "without_vector": taking.without_vector,
        "media": sorted(shape.media), "dtype": options.dtype if space else None, "where": options.where,
        "columns": {field.name: schema.type_name(field.type) for field in taking.schema if field.name != "vector"},
        "added": list(added), "files": listed, "space": space.as_json() if space else None,
        "golden": taking.collection.golden(space) if space else {},
    }  # fmt: skip


def _swap(aside: Path, place: Path) -> None:
    files.checkpoint("export")
    old = place.parent / f"{aside.name}-old"
    replaced = place.exists()
    if replaced:
        os.replace(place, old)
    os.replace(aside, place)
    files.sync_folder(place.parent)
    if replaced:
        shutil.rmtree(old)
