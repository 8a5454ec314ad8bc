"""Tables with a column of vectors, as `VectorSource`: what parquet, Arrow and Lance have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedder.errors import PermafrostError, UnknownName, UsageError
from embedder.space import Space
from index import schema as own
from index.bringing import VECTOR_NAMES, Asked, Block, VectorSource

BATCH_ROWS = 4096
ADDED_KEY = b"permafrost.added"
READ_ERRORS = (pa.ArrowException, OSError, ValueError, RuntimeError)


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Turn what a library says of a damaged file into a `UsageError` that names the file."""
    try:
        yield
    except PermafrostError:
        raise
    except READ_ERRORS as error:
        first = (str(error).splitlines() or [""])[0][:200]
        raise UsageError(f"{path.name} cannot be read: {type(error).__name__}: {first}", where=str(path)) from error


def files_of(path: str, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the file, or the files with these suffixes in a folder, by name."""
    place = Path(path).expanduser()
    if place.is_dir():
        return sorted(p for p in place.iterdir() if p.suffix in suffixes and p.is_file())
    return [place] if place.suffix in suffixes and place.is_file() else []


def table_source(
    root: Path, schema: Any, total: int, tables: Callable[[], Iterator[Any]], asked: Asked
) -> VectorSource:
    """Return tables of one schema as a source.

    Raises:
        UnknownName, UsageError: no column is plainly the vectors.
    """
    name = vector_column(schema.names, _lists(schema), asked.vector_column, str(root))
    kind = schema.field(name).type
    metadata = schema.metadata or {}
    columns = {field.name: type_of(field.type) for field in schema if field.name != name}

    def blocks() -> Iterator[Block]:
        with unreadable(root):
            for table in tables():
                yield table.drop_columns([name]).to_pylist(), vectors_in(table[name])

    return VectorSource(
        root=str(root.absolute()), folder=root.absolute().parent, columns=columns, total=total, blocks=blocks,
        dim=kind.list_size if pa.types.is_fixed_size_list(kind) else None, **stated(metadata),
    )  # fmt: skip


def stated(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Return what a schema of ours says of its vectors. Raises `Damaged` where its Space cannot be read."""
    if own.SPACE_KEY not in metadata:
        return {}
    space = Space.from_json(json.loads(metadata[own.SPACE_KEY]))
    golden = json.loads(metadata.get(own.GOLDEN_KEY, b"{}"))
    added = frozenset(filter(None, metadata.get(ADDED_KEY, b"").decode().split(",")))
    return {"space": space, "golden": golden, "ours": b"permafrost.export" in metadata, "added": added}


def vector_column(names: Sequence[str], lists: Sequence[str], wanted: str | None, where: str) -> str:
    """Return the column of vectors: the one asked for, one with a usual name, or the only one that holds lists."""
    if wanted is not None:
        if wanted not in names:
            raise UnknownName.of("column", wanted, names, where=where, hint=f"columns: {', '.join(names)}")
        return wanted
    usual = [name for name in VECTOR_NAMES if name in lists]
    if usual or len(lists) == 1:
        return usual[0] if usual else lists[0]
    said = f"{', '.join(lists)} could be" if lists else "no column holds lists of numbers that could be"
    raise UsageError(f"{said} the vectors", where=where, hint="--vector-column X says which")


def _lists(schema: Any) -> list[str]:
    types = pa.types
    return [
        f.name
        for f in schema
        if (types.is_list(f.type) or types.is_large_list(f.type) or types.is_fixed_size_list(f.type))
        and (types.is_floating(f.type.value_type) or types.is_integer(f.type.value_type))
    ]


def type_of(kind: Any) -> str:
    """Return the type of a metadata column: string, int, float or bool."""
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return "int"
    return "float" if pa.types.is_floating(kind) else "string"


def vectors_in(column: Any) -> Sequence[NDArray[Any] | None]:
    """Return the vectors of an Arrow column, one for each row; None where one is null or holds a null."""
    merged = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(merged, pa.ChunkedArray):
        merged = pa.concat_arrays(merged.chunks)
    kind = merged.type
    if pa.types.is_fixed_size_list(kind) and not merged.null_count:
        flat = merged.flatten()
        if not flat.null_count and not pa.types.is_nested(flat.type):
            return list(flat.to_numpy(zero_copy_only=False).reshape(len(merged), kind.list_size))
    return [as_vector(value) for value in merged.to_pylist()]


def as_vector(value: Any) -> NDArray[Any] | None:
    """Return a list of numbers as a vector, or None where it is not one."""
    if not isinstance(value, list) or not value or any(isinstance(v, (bool, str)) or v is None for v in value):
        return None
    try:
        return np.asarray(value, dtype=np.float64).reshape(len(value))
    except (TypeError, ValueError, OverflowError):
        return None
