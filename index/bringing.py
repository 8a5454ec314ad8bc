"""Vectors from outside, whatever their format: which column is what, and rows that become arrivals or failures."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder import addresses
from embedder.errors import UnknownName, UsageError
from embedder.records import Failure, Item, Medium
from embedder.sources._types import as_text, convert
from embedder.sources.folder import encoded
from embedder.space import Space
from index.arriving import Arrival
from index.itself import local_path

ID_NAMES = ("id", "ids", "image_path")
VECTOR_NAMES = ("vector", "vectors", "embedding", "embeddings", "X")
CONTENT_NAMES: Mapping[Medium, tuple[str, ...]] = {
    "image": ("image_path", "path", "image", "file", "file_name"),
    "text": ("text", "caption", "content"),
}
OURS = frozenset({"id", "source", "content_hash", "size", "mtime_ns", "media_type", "text", "group", "part"})

Rows = Sequence[Mapping[str, Any]]
Block = tuple[Rows, Sequence[NDArray[Any] | None]]
"""Rows without their vectors, and a vector (dim,) for each row, or None where it is missing."""


@dataclass(frozen=True)
class Asked:
    """How a source of vectors is read. `ids` is a file of ids; `table` a table's name; `rename` is for columns."""

    id_column: str | None = None
    vector_column: str | None = None
    content_column: str | None = None
    ids: str | None = None
    table: str | None = None
    prefix: str = ""
    media: Medium | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    allow_lossy: bool = False


@dataclass(frozen=True)
class VectorSource:
    """Rows with vectors. `blocks` starts from the first row each time it is called.

    `columns` are the types of all columns but the vectors; `dim` is the usual length of a vector, None
    where it is not known yet; `space` and `golden`
    are what the source says of itself. `numbered` says that its only ids are positions. Of a source that is `ours`,
    the columns of an item are known; `added` were made for other readers. `facts` are kept with the run.
    """

    root: str
    folder: Path
    columns: Mapping[str, str]
    total: int
    dim: int | None
    blocks: Callable[[], Iterator[Block]]
    space: Space | None = None
    golden: Mapping[str, str] = field(default_factory=dict)
    numbered: bool = False
    ours: bool = False
    added: frozenset[str] = frozenset()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Which column is what; `columns` are those that become metadata, by their names here, with their types."""

    source: VectorSource
    asked: Asked
    medium: Medium
    id_column: str | None
    content_column: str | None
    columns: Mapping[str, str]


def plan(source: VectorSource, asked: Asked, space: Space) -> Plan:
    """Settle which column is what.

    Raises:
        UnknownName: a column that the source has not.
        UsageError: it has no ids and no prefix is given, or the medium of its items is not known.
    """
    medium = asked.media or _medium(source, space)
    for name in (asked.id_column, asked.content_column, *asked.rename):
        if name is not None and name not in source.columns:
            raise UnknownName.of(
                "column", name, source.columns, where=source.root, hint=f"columns: {', '.join(source.columns)}"
            )
    ids = asked.id_column or next((name for name in ID_NAMES if name in source.columns), None)
    if (ids is None or source.numbered) and not asked.prefix:
        raise UsageError(
            "these vectors have no ids but their positions", where=source.root,
            hint="--ids FILE or --id-column X names them; --prefix P makes P0, P1, … of the positions",
        )  # fmt: skip
    content = asked.content_column
    if content is None and not source.ours:
        content = next((name for name in CONTENT_NAMES[medium] if name in source.columns), None)
    used = (OURS | source.added) if source.ours else {ids, content, "group"}
    columns = {asked.rename.get(n, n): kind for n, kind in source.columns.items() if n not in used or n in asked.rename}
    return Plan(source, asked, medium, ids, content, columns)


def medium_of(source: VectorSource) -> Medium:
    """Return what the columns of a source say that its vectors are of; an image where they say nothing."""
    found = [medium for medium, names in CONTENT_NAMES.items() if set(names) & set(source.columns)]
    return "text" if found == ["text"] else "image"


def _medium(source: VectorSource, space: Space) -> Medium:
    if len(space.media) == 1 or source.ours:
        return space.media[0]
    if not any(set(names) & set(source.columns) for names in CONTENT_NAMES.values()):
        raise UsageError(
            f"Space {space} is of {' and '.join(space.media)}, and nothing says which of them these vectors are of",
            where=source.root, hint="--media image, or --media text",
        )  # fmt: skip
    return medium_of(source)


def arrivals(plan: Plan) -> Iterator[Arrival | Failure]:
    """Yield each item with its vectors; what cannot be one is a failure that names it."""
    seen: set[str] = set()
    waiting: list[Arrival] = []
    number = 0
    for rows, vectors in plan.source.blocks():
        for row, vector in zip(rows, vectors, strict=True):
            made = _arrival(plan, number, row, vector)
            number += 1
            if waiting and isinstance(made, Arrival) and _continues(plan, row, made, waiting):
                waiting.append(made)
                continue
            yield from _whole(waiting)
            waiting = []
            if isinstance(made, Failure):
                yield made
            elif made.item.id in seen:
                yield _failure(plan, number - 1, made.item.id, "duplicate_id", "this id came before in the same source")
            else:
                seen.add(made.item.id)
                waiting = [made]
    yield from _whole(waiting)


def _continues(plan: Plan, row: Mapping[str, Any], made: Arrival, waiting: Sequence[Arrival]) -> bool:
    return plan.source.ours and row.get("part") == len(waiting) and made.item.id == waiting[0].item.id


def _whole(waiting: Sequence[Arrival]) -> Iterator[Arrival]:
    if waiting:
        first = waiting[0]
        whole = first.vectors if len(waiting) == 1 else np.concatenate([one.vectors for one in waiting])
        yield Arrival(first.item, whole, first.content_hash)


def _arrival(plan: Plan, number: int, row: Mapping[str, Any], vector: NDArray[Any] | None) -> Arrival | Failure:
    id = _id(plan, number, row)
    if id is None:
        return _failure(plan, number, f"row {number}", "no_id", f"column {plan.id_column!r} is empty")
    if vector is None:
        return _failure(plan, number, id, "no_vector", "the vector is missing, or is not a list of numbers")
    group = row.get("group")
    back = {here: there for there, here in plan.asked.rename.items()}
    facts: dict[str, Any] = {
        "id": id, "group": None if group is None else as_text(group),
        "columns": {name: convert(row.get(back.get(name, name)), kind) for name, kind in plan.columns.items()},
    }  # fmt: skip
    if plan.source.ours and row.get("content_hash") and row.get("media_type"):
        return Arrival(_own(row, facts), vector[None], row["content_hash"])
    return Arrival(*_foreign(plan, row, facts, vector))


def _id(plan: Plan, number: int, row: Mapping[str, Any]) -> str | None:
    if plan.id_column is None:
        return f"{plan.asked.prefix}{number}"
    value = row.get(plan.id_column)
    text = "" if value is None or value != value else as_text(value)
    return plan.asked.prefix + text if text else None


def _own(row: Mapping[str, Any], facts: Mapping[str, Any]) -> Item:
    """Return an item as an export of ours describes it."""
    medium: Medium = "text" if row["media_type"].startswith("text") else "image"
    source, text = str(row.get("source") or ""), row.get("text")
    path = local_path(source) if medium == "image" and source else None
    return Item(
        medium=medium, source=source, path=path, text=text, size=row.get("size"), mtime_ns=row.get("mtime_ns"), **facts
    )


def _foreign(
    plan: Plan, row: Mapping[str, Any], facts: Mapping[str, Any], vector: NDArray[Any]
) -> tuple[Item, NDArray[Any], str | None]:
    content = row.get(plan.content_column) if plan.content_column else None
    source = f"{plan.source.root}#{encoded(facts['id'])}"
    if not isinstance(content, str) or not content:
        return Item(medium=plan.medium, source=source, **facts), vector[None], None
    if plan.medium == "text":
        item = Item(medium="text", source=source, text=content, size=len(content.encode()), **facts)
        return item, vector[None], hashlib.sha256(content.encode()).hexdigest()
    if addresses.is_address(content):
        return Item(medium="image", source=content, **facts), vector[None], None
    path = os.path.join(plan.source.folder, content)
    # a name that is no file is kept too: it says where the picture was
    return Item(medium="image", source=encoded(path), path=path, **facts), vector[None], None


def _failure(plan: Plan, number: int, id: str, reason: str, message: str) -> Failure:
    stage: Any = "list" if reason in ("no_id", "duplicate_id") else "read"
    return Failure(id, f"{plan.source.root}#{number}", stage, reason, "ValueError", f"row {number}: {message}")
