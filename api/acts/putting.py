"""The act of putting: a few items with their content, or with ready vectors, each with a status of its own."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from api.acts.held import Held
from embedder import golden
from embedder.declared import declare
from embedder.errors import Locked, NothingToDo, PermafrostError, Undecodable, UsageError
from embedder.records import FloatMatrix, Item, Medium
from embedder.sources._types import Types, convert, wider
from embedder.sources.folder import encoded as encoded_path
from embedder.space import Space
from index import commit, content, files, schema
from index.arriving import Arrival, upsert
from index.known import Known
from index.store import Collection

SOURCE = "put"
LEASE_WAIT_S, PAUSE_S = 10.0, 0.02


@dataclass(frozen=True)
class Into:
    """Which Space items go into: one that is here (`space`), an `encoder`'s, or one that is `declared` by a name."""

    space: str | None = None
    encoder: str | None = None
    declared: str | None = None


class Putting(Held):
    """From the content of a request to stored vectors; what is acknowledged is on the disk."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._turns: dict[str, Lock] = {}

    def documents(self, encoder: str, values: Sequence[str | bytes]) -> list[FloatMatrix | PermafrostError]:
        """Return the vectors (parts, dim) of each text or picture, or why it has none."""
        loaded = self.encoder(encoder)
        made: list[FloatMatrix | PermafrostError] = []
        for value in values:
            try:
                if isinstance(value, bytes):
                    made.append(self.encode_image(loaded, value))
                else:
                    made.append(np.concatenate([loaded.encode([part]) for part in loaded.pieces(value)]))
            except (Undecodable, UsageError) as error:
                made.append(error)
        return made

    def put(self, name: str, items: Sequence[Mapping[str, Any]], into: Into | None = None) -> dict[str, Any]:
        """Store items that are new or changed, with their vectors.

        Args:
            items: each an `id`, one of `text`, `image` (a file's bytes) and `vector` (dim, or parts of it), `columns`
                and `group`.
            into: the Space; without one the collection's default, or that of the settings' encoder in a new collection.

        Returns:
            `collection space encoder counts results:[{id status reason message}]`, in the order of the items; a status
            is inserted, updated, unchanged, superseded or failed.

        Raises:
            UsageError: a column that cannot be stored, or vectors without a Space; nothing is stored then.
            Locked: a run of this Space goes on.
        """
        if not items:
            raise NothingToDo("no items were given")
        collection = self.store(create=True).collection(name, create=True)
        space, stored = self._space_into(collection, items, into or Into())
        kinds = _columns(collection, items)
        rows = self._arrivals(collection, space, items, kinds)
        good = [row for row in rows if isinstance(row, Arrival)]
        with self._turn(collection, space):
            commit.ensure_columns(collection, kinds)
            if not collection.has_space(space):
                collection.add_space(space, stored)
            known = Known.read_some(collection, space, [row.item.id for row in good])
            outcomes = iter(upsert(collection, space, known, good) if good else [])
            if good:
                commit.compact(collection, space)
                for one in items:
                    if one.get("image") is not None:
                        # a purge may have come between the file and the row that names it
                        content.keep(collection, one["image"])
        results = [vars(next(outcomes)).copy() if isinstance(row, Arrival) else row for row in rows]
        counts = Counter(str(one["status"]) for one in results)
        facts = {"collection": name, "space": space.fingerprint, "encoder": space.encoder}
        return {**facts, "counts": dict(counts), "results": results}

    def _space_into(
        self, collection: Collection, items: Sequence[Mapping[str, Any]], into: Into
    ) -> tuple[Space, Mapping[str, str]]:
        """Return the Space and, where an encoder makes it anew, its golden vectors."""
        ready = [one["vector"] for one in items if one.get("vector") is not None]
        said = [way for way in (into.space, into.encoder, into.declared) if way is not None]
        if len(said) > 1 or (ready and not said):
            raise UsageError(
                "the Space of vectors must be said, once: equal dimension is not equal Space",
                hint="space: one that is here; encoder: what made them; declare: a name for what made them",
            )
        if into.declared is not None:
            if len(ready) != len(items):
                raise UsageError("items of a declared Space come with their vectors")
            return declare(into.declared, int(np.asarray(ready[0]).shape[-1]), [_medium(items[0])]), {}
        if into.space is not None or (into.encoder is None and collection.spaces()):
            return collection.space(into.space), {}
        default = self.settings.image_encoder if _medium(items[0]) == "image" else self.settings.text_encoder
        encoder = self.encoder(into.encoder or default)
        if collection.has_space(encoder.space):
            return encoder.space, {}
        return encoder.space, golden.pack(golden.vectors(encoder))

    def _arrivals(
        self, collection: Collection, space: Space, items: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]
    ) -> list[Arrival | dict[str, Any]]:
        raw = [one for one in items if one.get("vector") is None]
        if raw and collection.has_space(space):
            # it is compared with the golden vectors of the Space before anything is added to it
            self.encoder_of(collection, space)
        made = iter(self.documents(space.encoder, [_content(one) for one in raw]) if raw else [])
        rows: list[Arrival | dict[str, Any]] = []
        for one in items:
            vectors = next(made) if one.get("vector") is None else np.atleast_2d(np.asarray(one["vector"], np.float32))
            try:
                if isinstance(vectors, PermafrostError):
                    raise vectors
                rows.append(_arrival(collection, one, vectors, kinds))
            except PermafrostError as error:
                reason = getattr(error, "reason", error.type)
                rows.append({"id": one["id"], "status": "failed", "reason": reason, "message": error.what})
        return rows

    @contextmanager
    def _turn(self, collection: Collection, space: Space) -> Iterator[None]:
        """Hold the Space's lease; requests of this process take turns, and wait a while for another process."""
        stamp = f"{collection.path}/{space.fingerprint}"
        with self._lock:
            turn = self._turns.setdefault(stamp, Lock())
        with turn:
            until = time.monotonic() + LEASE_WAIT_S
            while True:
                lease = files.lease(
                    collection.lock_path(space.fingerprint), what=f"Space {space.short} of {collection.name}"
                )
                try:
                    lease.__enter__()
                    break
                except Locked:
                    if time.monotonic() > until:
                        raise
                    time.sleep(PAUSE_S)
            try:
                yield
            finally:
                lease.__exit__(None, None, None)


def _medium(one: Mapping[str, Any]) -> Medium:
    return "image" if one.get("image") is not None else "text"


def _content(one: Mapping[str, Any]) -> str | bytes:
    value: str | bytes = one["image"] if one.get("image") is not None else one["text"]
    return value


def _columns(collection: Collection, items: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the type of each column that the items bring; whole numbers fit into a column of numbers."""
    types = Types(text_cells=False)
    for one in items:
        types.see(one.get("columns") or {})
    here = {field.name: schema.type_name(field.type) for field in collection.items.schema}
    found = types.columns()
    return {
        name: here[name]
        if here.get(name) and (types.found[name] in ("", here[name]) or wider(here[name], kind) == here[name])
        else kind
        for name, kind in found.items()
    }


def _arrival(collection: Collection, one: Mapping[str, Any], vectors: FloatMatrix, kinds: Mapping[str, str]) -> Arrival:
    """Return an item with its vectors; a picture's bytes are written beside the tables first."""
    given = one.get("columns") or {}
    columns = {name: convert(given[name], kinds[name]) for name in given}
    facts: dict[str, Any] = {"id": one["id"], "medium": _medium(one), "group": one.get("group"), "columns": columns}
    if one.get("image") is not None:
        data = one["image"]
        content.keep(collection, data)
        item = Item(source=content.source_of(data), size=len(data), mtime_ns=time.time_ns(), **facts)
        return Arrival(item, vectors, hashlib.sha256(data).hexdigest())
    source = f"{SOURCE}#{encoded_path(one['id'])}"
    text = one.get("text")
    digest = hashlib.sha256(text.encode()).hexdigest() if text is not None else None
    return Arrival(Item(source=source, text=text, **facts), vectors, digest)
