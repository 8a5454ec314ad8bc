"""Every row and every file of ours against its checksum: `verify` says what is damaged, `mend` removes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedder.errors import PermafrostError
from embedder.space import Space
from index import derived, files, ledger, schema
from index.known import Facts
from index.store import Collection

AGAIN = "verify --mend, then embed again"
SAMPLE, SHARE, MOST_IDS = 2000, 0.01, 5000
# by name: neither class can be imported
PANICS = ("PanicException", "RustPanic")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and what to do; `id` is of an item and `row` of a row of a table, where known."""

    what: str
    where: str
    do: str
    id: str | None = None
    row: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the problem as plain values."""
        return {"what": self.what, "where": self.where, "do": self.do, "id": self.id}


@dataclass
class Verdict:
    """What was checked, by count, and what is wrong."""

    checked: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def count(self, what: str, n: int) -> None:
        """Add to what was checked."""
        self.checked[what] = self.checked.get(what, 0) + n

    def report(self, what: str, where: str, do: str, id: str | None = None, row: int | None = None) -> None:
        """Add a problem."""
        self.problems.append(Problem(what, where, do, id, row))

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as plain values; `ok` says that nothing is wrong."""
        return {"ok": not self.problems, "checked": self.checked, "problems": [p.as_json() for p in self.problems]}


def verify(collection: Collection) -> Verdict:
    """Check every row of every table against its checksum, counts against each other, and every file of ours.

    A damaged row is named by its item; `mend` removes it, and the next `embed` makes it again.
    """
    verdict = Verdict()
    for fault in ledger.faults(collection):
        verdict.report(fault.what, str(fault.path.relative_to(collection.path)), ledger.REMEDY)
    spaces = _guarded(collection.spaces, "the tables", verdict) or {}
    _verify_files(collection, spaces, verdict)
    facts = _guarded(lambda: _verify_items(collection, verdict), schema.ITEMS, verdict)
    _guarded(lambda: _verify_edits(collection, verdict), schema.EDITS, verdict)
    for space in spaces.values():
        name = schema.VECTORS + space.fingerprint
        _guarded(partial(_verify_vectors, collection, space, facts, verdict), name, verdict)
        _verify_index(collection, space, verdict)
    return verdict


def mend(collection: Collection, verdict: Verdict) -> int:
    """Remove the damaged rows, so that the next `embed` makes them again; return how many."""
    removed = 0
    with ledger.committing(collection):
        for name in sorted({p.where for p in verdict.problems if p.row is not None}):
            rows = sorted({p.row for p in verdict.problems if p.where == name and p.row is not None})
            table = collection.table(name)
            before = table.count_rows()
            for start in range(0, len(rows), MOST_IDS):
                files.checkpoint("mend")
                table.delete(f"_rowid IN ({', '.join(map(str, rows[start : start + MOST_IDS]))})")
            removed += before - table.count_rows()
    return removed


def sample(collection: Collection, space: Space) -> int:
    """Check 1 % of the vectors of a Space, at most 2,000 rows, drawn anew each time; return how many are damaged."""
    table = collection.vectors(space)
    total = int(table.count_rows())
    wanted = min(SAMPLE, max(1, int(total * SHARE)))
    if not total:
        return 0
    drawn = np.sort(np.random.default_rng().choice(total, size=min(wanted, total), replace=False)).tolist()
    read = partial(_take, table, drawn)
    rows = _guarded(read, "vectors", Verdict())
    return len(drawn) if rows is None else int((~schema.sound(rows)).sum())


def _take(table: Any, offsets: list[int]) -> Any:
    return table.take_offsets(offsets).select(list(schema.CHECKED)).to_arrow()


def _verify_files(collection: Collection, spaces: dict[str, Space], verdict: Verdict) -> None:
    backup = "restore it from a backup"
    for path, do in (
        (collection.path.parent / "permafrost.json", backup), (collection.path / "collection.json", backup),
        (collection.path / "keys.json", "permafrost doctor"),
    ):  # fmt: skip
        found = _guarded(partial(files.read_json, path), path.name, verdict, do)
        if found is None:
            continue
        verdict.count("files", 1)
        if path.name == "collection.json":
            for alias, fingerprint in found["aliases"].items():
                if fingerprint not in spaces:
                    verdict.report(f"alias {alias!r} names a Space that is not here: {fingerprint}", path.name, backup)


def _verify_items(collection: Collection, verdict: Verdict) -> Facts:
    keys = []
    for rows in _batches(collection.items, None):
        verdict.count("items", rows.num_rows)
        sound = schema.sound(rows.drop_columns(["_rowid"]))
        for id, row in _named(rows, ~sound):
            verdict.report("an item's row fails its checksum", schema.ITEMS, AGAIN, id, row)
        keys.append(rows["key"].to_numpy())
    facts = Facts.read(collection)
    for name, values in (("id", facts.said["id"]), ("key", pa.array(facts.keys))):
        counts = pc.value_counts(values)
        for twice in counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist():
            verdict.report(f"{name} {twice!r} is stored twice", schema.ITEMS, "delete it, then embed again")
    highest = max((int(part.max()) for part in keys if len(part)), default=0)
    counter = _guarded(lambda: files.read_json(collection.path / "keys.json")["next"], "keys.json", Verdict())
    if counter is not None and highest >= counter:
        verdict.report("the counter of keys is behind the keys in use", "keys.json", "permafrost doctor")
    return facts


def _verify_edits(collection: Collection, verdict: Verdict) -> None:
    for rows in _batches(collection.table(schema.EDITS), None):
        verdict.count("edits", rows.num_rows)
        sound = schema.sound(rows.drop_columns(["_rowid"]))
        for id, row in _named(rows, ~sound):
            verdict.report("an edit fails its checksum", schema.EDITS, "verify --mend, then label it again", id, row)


def _verify_vectors(collection: Collection, space: Space, facts: Facts | None, verdict: Verdict) -> None:
    name = schema.VECTORS + space.fingerprint
    at, parts, rows_of, ids = [], [], [], []
    for rows in _batches(collection.vectors(space), list(schema.CHECKED)):
        verdict.count("vectors", rows.num_rows)
        vectors = schema.vectors_of(rows)
        sound = schema.sound(rows.drop_columns(["_rowid"]))
        for id, row in _named(rows, ~sound):
            verdict.report("a vector fails its checksum", name, AGAIN, id, row)
        norms = np.linalg.norm(vectors, axis=1)
        for id, row in _named(rows, sound & ~(np.isfinite(norms) & (norms > 0))):
            verdict.report("a vector is not finite or has zero norm", name, AGAIN, id, row)
        if facts is not None:
            for id, row in _named(rows, sound & ~facts.agrees(rows)):
                verdict.report("a vector is of another content than its item", name, AGAIN, id, row)
        at.append(rows["key"].to_numpy()[sound])
        parts.append(rows["part"].to_numpy()[sound])
        rows_of.append(rows["_rowid"].to_numpy()[sound])
        ids.append(rows["id"].filter(pa.array(sound)))
    if at:
        _verify_parts(np.concatenate(at), np.concatenate(parts), np.concatenate(rows_of), ids, name, verdict)


def _verify_parts(keys: Any, parts: Any, rows: Any, ids: list[Any], name: str, verdict: Verdict) -> None:
    """An item's parts are 0, 1, … without a gap: what is missing would never be found, and never be made again."""
    order = np.lexsort((parts, keys))
    first = np.flatnonzero(np.diff(keys[order], prepend=keys[order][:1] - 1))
    expected = np.arange(len(keys)) - np.repeat(first, np.diff(first, append=len(keys)))
    wrong = order[np.flatnonzero(parts[order] != expected)]
    names = pa.chunked_array([chunk for part in ids for chunk in part.chunks], pa.string())
    broken = set(keys[wrong].tolist())
    for i in wrong.tolist():
        what = "a part of an item is missing or is there twice"
        verdict.report(what, name, AGAIN, names[i].as_py(), int(rows[i]))
    # the parts that are there must go too: a key that has one vector counts as embedded
    for i in np.flatnonzero(np.isin(keys, list(broken))).tolist() if broken else ():
        if i not in wrong:
            verdict.report("a part of an item is missing beside this one", name, AGAIN, names[i].as_py(), int(rows[i]))


def _verify_index(collection: Collection, space: Space, verdict: Verdict) -> None:
    where = f"indexes/{space.fingerprint}"
    files.forget_checksums()
    try:
        loaded = derived.load(collection, space)
    except PermafrostError as error:
        verdict.report(error.what, where, f"permafrost index {collection.name}")
        return
    if loaded:
        verdict.count("index files", len(loaded.manifest["files"]))


def _batches(table: Any, columns: list[str] | None) -> Iterator[Any]:
    query = table.search().with_row_id(True)
    for batch in (query.select(columns) if columns else query).to_batches():
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def _named(rows: Any, bad: Any) -> Iterator[tuple[str, int]]:
    """Yield the id and the row id of the bad rows; an id with broken letters as far as it can be read."""
    chosen = rows.filter(pa.array(bad))
    ids = chosen["id"].cast(pa.binary()).to_pylist()
    yield from zip((id.decode("utf-8", "replace") for id in ids), chosen["_rowid"].to_pylist(), strict=True)


def _guarded(reader: Callable[[], Any], name: str, verdict: Verdict, do: str = "restore it from a backup") -> Any:
    """Read, or report that it cannot be read: on damaged bytes Lance raises, and panics, in many ways."""
    try:
        return reader()
    except PermafrostError as error:
        verdict.report(error.what, name, error.hint or do)
    except (RuntimeError, OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        verdict.report(f"it cannot be read: {type(error).__name__}", name, do)
    except BaseException as error:
        if type(error).__name__ not in PANICS:
            raise
        verdict.report("it cannot be read: Lance panics", name, do)
    return None
