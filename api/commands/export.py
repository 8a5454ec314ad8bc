"""`permafrost export C --to DEST`: vectors and items to files that others read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from api import options, show
from api.calls import Call, Result
from api.options import option


def run(
    call: Call,
    collection: options.Name,
    to: Annotated[str, option("The folder to make.", metavar="DEST")],
    format: Annotated[
        Literal["parquet", "npy", "arrow", "jsonl"],
        option("npy: clip-retrieval's layout, img_emb/ or text_emb/ with metadata/.", show_default=True),
    ] = "parquet",
    space: options.Space = None,
    where: options.Where = None,
    columns: Annotated[str | None, option("Only these columns, beside the id: a,b,c.", metavar="NAMES")] = None,
    no_vectors: Annotated[bool, option("Items and metadata alone.", "--no-vectors")] = False,
    rows: Annotated[int | None, option("The most rows in one file; all in one without it.", metavar="N", min=1)] = None,
    dtype: Annotated[
        Literal["float32", "float16"], option("Of .npy matrices; float16 rounds.", show_default=True)
    ] = "float32",
    overwrite: Annotated[bool, option("Replace an earlier export at DEST.", "--overwrite")] = False,
) -> Result:
    """Write a collection to files that other programs read.

    The Space, counts and checksums go with them, in permafrost-export.json; permafrost import takes all of it back.
    """
    from index.exporting import ExportOptions

    chosen = [name.strip() for name in columns.split(",") if name.strip()] if columns is not None else None
    asked = ExportOptions(
        format=format, where=where, columns=chosen, vectors=not no_vectors, rows=rows, dtype=dtype, overwrite=overwrite
    )
    with call.service() as service:
        done = service.export(collection, to, space=space, options=asked)
    return Result(done, text(done))


def text(done: Mapping[str, Any]) -> str:
    """Return what was written, and what was not."""
    space = done["space"]
    lacking = done["without_vector"]
    facts = [
        ("space", f"{space['fingerprint'][:12]}  {show.safe(space['encoder'])}, {space['dim']}-d" if space else "none"),
        ("rows", f"{show.count(done['rows'])}, several for an item" if done["rows"] != done["items"] else ""),
        ("left out", f"{show.count(lacking, 'item')} without a vector in this Space" if space and lacking else ""),
        ("files", f"{show.count(len(done['files']))}, {show.size(sum(one['bytes'] for one in done['files']))}"),
    ]
    return show.block(
        f"exported {show.count(done['items'], 'item')} to {show.safe(done['to'])} as {done['format']}", facts
    )
