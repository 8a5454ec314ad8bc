"""Matrices of numpy: clip-retrieval's folders, and a bare `.npy` or `.npz` with ids beside it.

    img_emb/img_emb_0.npy  text_emb/text_emb_0.npy        (rows, dim), float16 or float32
    metadata/metadata_0.parquet                           row i is what vector i is of: image_path, caption, …

Files are in the order of their names, as clip-retrieval and autofaiss read them; nothing is unpickled.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedder.errors import Damaged, UnknownName, UsageError
from embedder.records import Medium
from index.bringing import ID_NAMES, VECTOR_NAMES, Asked, Block, VectorSource
from index.formats import parquet
from index.formats._table import ADDED_KEY, BATCH_ROWS, files_of, stated, type_of, unreadable, vectors_in
from index.itself import local_path
from index.taking import PartWriter, Shape

FOLDERS: dict[Medium, str] = {"image": "img_emb", "text": "text_emb"}


class _Writer:
    """One part: the header of the matrix says how many rows will come, so that they can be written one by one."""

    def __init__(self, folder: Path, part: str, rows: int, shape: Shape) -> None:
        medium = shape.one_medium()
        name = FOLDERS[medium]
        self.matrix = shape.place(folder, name, f"{name}_{part}.npy")
        self.metadata = shape.place(folder, "metadata", f"metadata_{part}.parquet")
        self.dtype, self.medium, self.added = np.dtype(shape.dtype), medium, shape.added(medium)
        fields = [f for f in shape.schema if f.name != "vector"]
        fields += [pa.field(column, pa.string()) for column in self.added]
        said = {**shape.schema.metadata, ADDED_KEY: ",".join(self.added).encode()}
        self.schema = pa.schema(fields, metadata=said)
        self._out = self.matrix.open("wb")
        size = shape.schema.field("vector").type.list_size
        header = {"descr": self.dtype.newbyteorder("<").str, "fortran_order": False, "shape": (rows, size)}
        np.lib.format.write_array_header_1_0(self._out, header)
        self._table = pq.ParquetWriter(self.metadata, self.schema, compression="zstd")

    def write(self, rows: Any) -> None:
        vectors = np.asarray(vectors_in(rows["vector"]))
        with np.errstate(over="ignore"):
            narrow = np.ascontiguousarray(vectors, dtype=self.dtype.newbyteorder("<"))
        if not np.isfinite(narrow).all():
            raise UsageError(
                f"a vector does not fit into {self.dtype}", where="--dtype", hint="--dtype float32 keeps every value"
            )
        self._out.write(narrow.tobytes())
        columns = {name: rows[name] for name in self.schema.names if name in rows.column_names}
        for column in self.added:
            values = rows["text" if self.medium == "text" else "source"].to_pylist()
            columns[column] = pa.array([_shown(value, self.medium) for value in values], pa.string())
        self._table.write_table(pa.table(columns, schema=self.schema))

    def close(self) -> list[Path]:
        self._out.close()
        self._table.close()
        return [self.matrix, self.metadata]


def _shown(value: str | None, medium: Medium) -> str | None:
    if value is None or medium == "text":
        return value
    # a name that is not UTF-8 has no spelling in a table
    return local_path(value).encode("utf-8", "replace").decode()


def begin(folder: Path, part: str, rows: int, shape: Shape) -> PartWriter:
    """Start the matrix and the metadata of one part."""
    return _Writer(folder, part, rows, shape)


def finds(path: str) -> list[Path]:
    """Return the folder of clip-retrieval's layout, or a file of one matrix or several."""
    place = Path(path).expanduser()
    if place.is_dir() and any((place / name).is_dir() for name in FOLDERS.values()):
        return [place]
    return files_of(path, (".npy", ".npz")) if place.is_file() else []


def read(paths: Sequence[Path], asked: Asked) -> VectorSource:
    """Open a folder in clip-retrieval's layout, or one file."""
    return _folder(paths[0], asked) if paths[0].is_dir() else _file(paths[0], asked)


def _folder(folder: Path, asked: Asked) -> VectorSource:
    present = [medium for medium, name in FOLDERS.items() if (folder / name).is_dir()]
    if asked.media is None and len(present) > 1:
        raise UsageError(
            "there are vectors of images and of texts",
            where=str(folder),
            hint="say which: --media image or --media text",
        )
    medium = asked.media or present[0]
    if medium not in present:
        raise UsageError(f"there is no {FOLDERS[medium]} in {folder.name}", where=str(folder))
    matrices = [_mapped(path) for path in sorted((folder / FOLDERS[medium]).glob("*.npy"))]
    tables = sorted((folder / "metadata").glob("*.parquet"))
    if not matrices:
        raise UsageError(f"there is no .npy file in {FOLDERS[medium]}", where=str(folder))
    rows = sum(map(len, matrices))
    described = bool(tables)
    schema, total = parquet.facts(tables) if described else (pa.schema([]), rows)
    if total != rows:
        raise Damaged(
            f"{FOLDERS[medium]} has {rows} vectors and metadata has {total} rows", where=str(folder),
            hint="the numbering of the two must be the same; make them again together",
        )  # fmt: skip

    def metadata() -> Iterator[Any]:
        yield from (table.to_pylist() for table in parquet.tables(tables))

    blocks = _blocks(matrices, metadata if described else lambda: _empty(rows))
    columns = {field.name: type_of(field.type) for field in schema if not field.name.startswith("__index_level")}
    if asked.ids is not None:
        columns, blocks = _with_ids(columns, blocks, read_ids(asked.ids, asked.id_column), rows)
    return VectorSource(
        str(folder.absolute()), folder.absolute(), columns, rows, matrices[0].shape[1], blocks,
        numbered=not set(ID_NAMES) & set(columns) and asked.id_column is None, **stated(schema.metadata or {}),
    )  # fmt: skip


def _file(path: Path, asked: Asked) -> VectorSource:
    if path.suffix == ".npz":
        matrix, ids = _archive(path, asked)
    else:
        matrix, ids = _mapped(path), None
    if asked.ids is not None:
        ids = read_ids(asked.ids, asked.id_column)
    return matrix_source(path, matrix, ids, numbered=ids is None)


def matrix_source(
    path: Path, matrix: NDArray[Any], ids: Sequence[str] | None, *, numbered: bool, **facts: Any
) -> VectorSource:
    """Return a matrix (n, dim) with its ids, if it has some, as a source; `numbered` ids are positions."""
    blocks, columns = _blocks([matrix], lambda: _empty(len(matrix))), dict[str, str]()
    if ids is not None:
        columns, blocks = _with_ids(columns, blocks, ids, len(matrix))
    root = path.absolute()
    return VectorSource(
        str(root), root.parent, columns, len(matrix), matrix.shape[1], blocks, numbered=numbered, facts=facts
    )


def _mapped(path: Path) -> NDArray[Any]:
    with unreadable(path):
        return _matrix(np.load(path, mmap_mode="r", allow_pickle=False), path)


def _matrix(array: NDArray[Any], path: Path) -> NDArray[Any]:
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.shape[1]:
        raise UsageError(
            f"{path.name} holds {array.dtype} of shape {array.shape}, not rows of vectors", where=str(path)
        )
    return array


def _archive(path: Path, asked: Asked) -> tuple[NDArray[Any], list[str] | None]:
    with unreadable(path), _opened(path) as members:
        names = list(members.files)
        two = [name for name in names if _ndim(members, name) == 2]
        found = asked.vector_column or next((name for name in VECTOR_NAMES if name in two), None)
        found = found or (two[0] if len(two) == 1 else None)
        if found is None or found not in names:
            hint = f"members: {', '.join(names)}"
            if asked.vector_column:
                raise UnknownName.of("member", asked.vector_column, names, where=str(path), hint=hint)
            raise UsageError("no member is plainly the vectors", where=str(path), hint=f"--vector-column; {hint}")
        own = asked.id_column or next((name for name in ID_NAMES if name in names), None)
        if own is not None and own not in names:
            raise UnknownName.of("member", own, names, where=str(path))
        return _matrix(members[found], path), None if own is None else _names(members[own], path)


def _opened(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except zipfile.BadZipFile as error:
        raise UsageError(f"{path.name} is not a .npz file: {error}", where=str(path)) from error


def _ndim(members: Any, name: str) -> int:
    with members.zip.open(name + ".npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return len(read(file)[0])


def _names(array: NDArray[Any], path: Path) -> list[str]:
    if array.ndim != 1 or array.dtype.kind not in "iuUS":
        raise UsageError(f"{path.name} holds ids as {array.dtype} of shape {array.shape}", where=str(path),
                         hint="a list of texts or whole numbers is needed")  # fmt: skip
    return [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in array.tolist()]


def read_ids(file: str, column: str | None) -> list[str]:
    """Read ids, in the order of the vectors: a `.npy`, a text file with one a line, or a column of a `.csv`.

    Raises:
        UsageError: it cannot be read as one.
        UnknownName: a csv without that column.
    """
    path = Path(file).expanduser()
    with unreadable(path):
        if path.suffix == ".npy":
            return _names(np.load(path, allow_pickle=False), path)
        if path.suffix != ".csv":
            return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        header = pa.csv.open_csv(path).schema.names
        name = column or ("id" if "id" in header else header[0])
        if name not in header:
            raise UnknownName.of("column", name, header, where=str(path), hint=f"columns: {', '.join(header)}")
        options = pa.csv.ConvertOptions(include_columns=[name], column_types={name: pa.string()})
        return [str(value) for value in pa.csv.read_csv(path, convert_options=options)[name].to_pylist()]


Lists = Callable[[], Iterator[list[dict[str, Any]]]]


def _empty(rows: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, rows, BATCH_ROWS):
        yield [{} for _ in range(min(BATCH_ROWS, rows - start))]


def _blocks(matrices: Sequence[NDArray[Any]], metadata: Lists) -> Callable[[], Iterator[Block]]:
    """Join rows of metadata with rows of the matrices, whose files may end elsewhere."""

    def blocks() -> Iterator[Block]:
        which, at = 0, 0
        for rows in metadata():
            start = 0
            while start < len(rows):
                while at == len(matrices[which]):
                    which, at = which + 1, 0
                size = min(len(rows) - start, len(matrices[which]) - at)
                yield rows[start : start + size], list(matrices[which][at : at + size])
                start, at = start + size, at + size

    return blocks


def _with_ids(
    columns: dict[str, str], blocks: Callable[[], Iterator[Block]], ids: Sequence[str], rows: int
) -> tuple[dict[str, str], Callable[[], Iterator[Block]]]:
    if len(ids) != rows:
        raise UsageError(
            f"there are {len(ids)} ids for {rows} vectors", where="--ids", hint="one id a vector is needed"
        )

    def named() -> Iterator[Block]:
        at = 0
        for part, vectors in blocks():
            yield [{**row, "id": id} for row, id in zip(part, ids[at : at + len(part)], strict=True)], vectors
            at += len(part)

    return {**columns, "id": "string"}, named
