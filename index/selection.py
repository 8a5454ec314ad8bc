"""What a run reads of a source: its items renamed, prefixed, filtered and limited."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import pyarrow as pa

from embedder.records import Failure, Item
from embedder.sourcing import Source
from index import filters
from index.schema import TYPES


@dataclass(frozen=True)
class IngestOptions:
    """How one run goes. `where` filters by the source's columns, `id` and `source`; `prefix` goes before each id."""

    where: str | None = None
    prefix: str = ""
    rename: dict[str, str] = field(default_factory=dict)
    limit: int | None = None
    prune: bool = False
    relocate: bool = False
    batch_size: int | None = None
    workers: int = 1
    dry_run: bool = False


def selected(source: Source, options: IngestOptions) -> Iterator[Item | Failure]:
    """Yield what a run reads of a source: renamed, prefixed, filtered and limited."""
    entries = _filtered((_named(entry, options) for entry in source), source, options)
    for n, entry in enumerate(entries):
        if options.limit is not None and n >= options.limit:
            return
        yield entry


def _named(entry: Item | Failure, options: IngestOptions) -> Item | Failure:
    if options.prefix:
        entry = replace(entry, id=options.prefix + entry.id)
    if isinstance(entry, Item) and options.rename:
        entry = replace(entry, columns={options.rename.get(n, n): v for n, v in entry.columns.items()})
    return entry


def _filtered(entries: Iterator[Item | Failure], source: Source, options: IngestOptions) -> Iterator[Item | Failure]:
    if options.where is None:
        yield from entries
        return
    tree = filters.read(options.where)
    names = {options.rename.get(n, n): kind for n, kind in source.columns.items()}
    while window := _window(entries):
        keep = _passing([e for e in window if isinstance(e, Item)], tree, names)
        yield from (e for e in window if isinstance(e, Failure) or e.id in keep)


def _window(entries: Iterator[Item | Failure]) -> list[Item | Failure]:
    return list(islice(entries, 4096))


def _passing(items: Sequence[Item], tree: filters.Filter, columns: dict[str, str]) -> set[str]:
    schema = pa.schema(
        [(n, TYPES[k]) for n, k in columns.items()] + [(n, pa.string()) for n in ("id", "source", "group", "text")]
    )
    rows = [{**i.columns, "id": i.id, "source": i.source, "group": i.group, "text": i.text} for i in items]
    table = pa.Table.from_pylist(rows, schema=schema)
    return set(table.filter(filters.expression(tree, schema))["id"].to_pylist())
