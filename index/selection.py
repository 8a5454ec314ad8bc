"""What a run reads of a source: its items renamed, prefixed, filtered and limited."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import pyarrow as pa

from embedder.records import Failure, Item
from embedder.sourcing import Source
from index import filters
from index.schema import TYPES

WINDOW, WINDOW_BYTES, WINDOW_SECONDS = 4096, 8 << 20, 0.05


@dataclass(frozen=True)
class IngestOptions:
    """How one run goes. `where` filters by the source's columns, `id` and `source`; `prefix` goes before each id.

    `rehash` hashes every file, also where its size and time are those that are stored.
    """

    where: str | None = None
    prefix: str = ""
    rename: dict[str, str] = field(default_factory=dict)
    limit: int | None = None
    prune: bool = False
    relocate: bool = False
    batch_size: int | None = None
    workers: int = 1
    dry_run: bool = False
    rehash: bool = False


def selected(source: Source, options: IngestOptions) -> Iterator[Item | Failure]:
    """Yield what a run reads of a source: renamed, prefixed, filtered and limited."""
    entries = iter(source)
    if options.prefix or options.rename:
        entries = (_named(entry, options) for entry in entries)
    if options.where is not None:
        entries = _filtered(entries, source, options.where, options.rename)
    return entries if options.limit is None else islice(entries, options.limit)


def _named(entry: Item | Failure, options: IngestOptions) -> Item | Failure:
    if options.prefix:
        entry = replace(entry, id=options.prefix + entry.id)
    if isinstance(entry, Item) and options.rename:
        entry = replace(entry, columns={options.rename.get(n, n): v for n, v in entry.columns.items()})
    return entry


def _filtered(
    entries: Iterator[Item | Failure], source: Source, where: str, rename: dict[str, str]
) -> Iterator[Item | Failure]:
    tree = filters.read(where)
    names = {rename.get(n, n): kind for n, kind in source.columns.items()}
    for window in windows(entries):
        keep = _passing([e for e in window if isinstance(e, Item)], tree, names)
        yield from (e for e in window if isinstance(e, Failure) or e.id in keep)


def windows(entries: Iterator[Item | Failure]) -> Iterator[list[Item | Failure]]:
    """Yield what comes in lists: of 4,096 entries, or 8 MiB of content, or what came in a twentieth of a second.

    What the source raises is raised behind the entries that came before it.
    """
    window: list[Item | Failure] = []
    held, deadline, now = 0, time.monotonic() + WINDOW_SECONDS, time.monotonic
    broken: Exception | None = None
    while broken is None:
        try:
            for entry in entries:
                window.append(entry)
                if type(entry) is Item and entry.path is None:
                    held += len(entry.data or entry.text or "")
                if len(window) >= WINDOW or held >= WINDOW_BYTES or now() >= deadline:
                    break
            else:
                break
        except Exception as error:  # noqa: BLE001  raised below, behind the entries before
            broken = error
        yield window
        window, held, deadline = [], 0, now() + WINDOW_SECONDS
    yield window
    if broken is not None:
        raise broken


def _passing(items: Sequence[Item], tree: filters.Filter, columns: dict[str, str]) -> set[str]:
    schema = pa.schema(
        [(n, TYPES[k]) for n, k in columns.items()] + [(n, pa.string()) for n in ("id", "source", "group", "text")]
    )
    rows = [{**i.columns, "id": i.id, "source": i.source, "group": i.group, "text": i.text} for i in items]
    table = pa.Table.from_pylist(rows, schema=schema)
    return set(table.filter(filters.expression(tree, schema))["id"].to_pylist())
