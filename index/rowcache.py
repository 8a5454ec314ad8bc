"""Rows of `items` in memory, at one version: those that were answered, and all of them once that is cheaper.

The rule is that of renting or buying skis (Karlin et al. 1988): rows are taken from Lance one answer at a time until
what that has cost would have read the whole table, which is then held in columns. Neither grows past `MOST_BYTES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from index import schema
from index.live import Live
from index.store import Collection

MOST_BYTES = 256 << 20
MOST_ROWS = 100_000
ROWS_A_TAKE = 20_000
HIDDEN = frozenset({"id", "key", "row_crc", "content_hash", "size", "mtime_ns"}) & set(schema.OWN)


class Row(NamedTuple):
    """An item as it is answered: its id, and the columns that people are shown."""

    id: str
    item: dict[str, Any]


def visible(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of an item that people and programs are shown: no nulls, no bookkeeping."""
    return {name: value for name, value in row.items() if value is not None and name not in HIDDEN}


class RowCache:
    """The rows of one collection's items; safe to share between threads."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self._lock = Lock()
        self._forget(None)

    def _forget(self, live: Live | None) -> None:
        self._live, self._takes, self._bytes = live, 0, 0
        self._rows: dict[int, Row] = {}
        self._keys: dict[str, int] = {}
        self._table: Any = None
        self._order: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def rows(self, live: Live, wanted: Sequence[int]) -> dict[int, Row]:
        """Return rows by key; a key that was deleted meanwhile is left out."""
        with self._lock:
            if live is not self._live:
                self._forget(live)
            if missing := [key for key in wanted if key not in self._rows]:
                self._read(live, missing)
            return {key: self._rows[key] for key in wanted if key in self._rows}

    def key(self, live: Live, id: str) -> int | None:
        """Return the key of an item that is held; None says nothing of whether there is one."""
        with self._lock:
            if live is not self._live:
                return None
            if id in self._keys or self._table is None:
                return self._keys.get(id)
            at = pc.index(self._table["id"], id).as_py()
            return int(self._table["key"][at].as_py()) if at >= 0 else None

    def table(self, live: Live, columns: Sequence[str]) -> Any:
        """Return columns of all items as Arrow, or None where they are not held."""
        with self._lock:
            held = self._table if live is self._live else None
            return held.select(columns) if held is not None and set(columns) <= set(held.column_names) else None

    def _read(self, live: Live, missing: list[int]) -> None:
        if self._table is None and self._takes > len(live.keys) / ROWS_A_TAKE and self._takes >= 0:
            self._hold(live)
        at = np.searchsorted(live.keys, np.asarray(missing, dtype=np.int64))
        at = at[at < len(live.keys)]
        if not len(at):
            return
        if self._table is not None:
            taken = self._table.take(pa.array(self._order[at]))
        else:
            taken = self.collection.items.take_row_ids(live.row_ids[at].tolist()).to_arrow()
            self._takes += 1 if self._takes >= 0 else 0
        self._keep(taken.to_pylist())

    def _keep(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            self._bytes += sum(len(v) if isinstance(v, str) else 16 for v in row.values())
            self._rows[row["key"]] = Row(row["id"], visible(row))
            self._keys[row["id"]] = row["key"]
        if len(self._rows) > MOST_ROWS or self._bytes > MOST_BYTES:
            # the oldest half goes, but never what is being answered
            kept = list(self._rows.items())[min(len(self._rows) // 2, len(self._rows) - len(rows)) :]
            self._bytes = self._bytes * len(kept) // len(self._rows)
            self._rows = dict(kept)
            self._keys = {row.id: key for key, row in kept}

    def _hold(self, live: Live) -> None:
        """Read the whole table, unless it is too large or was written to meanwhile; then do not try again here."""
        self._takes = -1
        items = self.collection.items
        if int(items.version) != live.version:
            return
        batches, size = [], 0
        for batch in items.search().to_batches():
            size += batch.nbytes
            if size > MOST_BYTES:
                return
            batches.append(batch)
        table = pa.Table.from_batches(batches) if batches else None
        if table is not None and len(table) == len(live.keys):
            self._table, self._order = table, np.argsort(table["key"].to_numpy(), kind="stable")
