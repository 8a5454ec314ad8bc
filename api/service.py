"""Acts that cross rooms. The command line, the routes and the Python door call these, and return these shapes.

Nothing here prints, parses a command line or knows of HTTP. Results are plain dictionaries with the contract's keys.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, cast

import numpy as np

from api import doctor
from api.settings import Settings
from api.shapes import Query, answer_json, as_vector, input_of, one_of, run_json, runs_json, shown, with_columns
from embedder import golden
from embedder.chunking import with_chunk
from embedder.encoder import Encoder, ImageTower, plan_encoder
from embedder.errors import UnknownName, UsageError
from embedder.given import Given, Values
from embedder.pool import DecodePool
from embedder.records import FloatMatrix, Item, Medium
from embedder.sourcing import Source, SourceOptions, open_source
from embedder.space import Space
from embedder.together import load_encoders
from heads import saved
from heads.train import train as train_head
from index import build, commit, derived, filters, inspect, schema
from index.ingest import Run, ingest_all
from index.itself import Itself
from index.search import search
from index.selection import IngestOptions
from index.store import Collection, Store
from index.view import View, matching_keys

REFRESH_SHARE, REFRESH_ROWS = 0.2, 10_000
Watch = Callable[[str, Run], None]


def _unwatched(encoder: str, run: Run) -> None:
    """Show nothing."""


class Service:
    """One store, and the encoders, decoders and views that were opened for it. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = Lock()
        self._encoders: dict[str, Encoder] = {}
        self._checked: set[tuple[str, str]] = set()
        self._views: dict[tuple[str, str], View] = {}
        self._pool: DecodePool | None = None

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def store(self, *, create: bool = False) -> Store:
        """Open the store. Raises `UnknownName` where there is none."""
        return Store.open(self.settings.store, create=create)

    def collection(self, name: str) -> Collection:
        """Open a collection. Raises `UnknownName` with the nearest names."""
        return self.store().collection(name)

    def encoder(self, name: str) -> Encoder:
        """Load an encoder once."""
        return self.encoders([name])[0]

    def encoders(self, names: Sequence[str]) -> list[Encoder]:
        """Load encoders once; those of one model that are loaded here share it."""
        with self._lock:
            new = [name for name in dict.fromkeys(names) if name not in self._encoders]
            found = load_encoders(new, device=self.settings.device, endpoint=self.settings.endpoint)
            self._encoders |= zip(new, found, strict=True)
            return [self._encoders[name] for name in names]

    def _planned(self, name: str, target: Collection) -> Encoder:
        """Return an encoder for a dry run."""
        known = target.spaces().values()
        return plan_encoder(name, known, device=self.settings.device, endpoint=self.settings.endpoint)

    def encoder_of(self, collection: Collection, space: Space) -> Encoder:
        """Load the encoder of a Space and make sure that it still makes the vectors that are stored.

        Raises:
            SpaceMismatch: it does not; both Spaces, or the golden cosine, are named.
        """
        encoder = self.encoder(space.encoder)
        stamp = (str(collection.path), space.fingerprint)
        if stamp not in self._checked:
            space.require(encoder.space, what=f"encoder {encoder.name}")
            golden.check(encoder, collection.golden(space))
            self._checked.add(stamp)
        return encoder

    def embed(
        self,
        source: str | Values,
        into: str,
        *,
        encoders: Sequence[str] = (),
        media: Medium | None = None,
        content_column: str | None = None,
        id_column: str | None = None,
        label_levels: int | None = None,
        chunk: str | None = None,
        max_failure_rate: float = 0.01,
        options: IngestOptions | None = None,
        watch: Watch = _unwatched,
    ) -> dict[str, Any]:
        """Embed a source (an address or path, or values as `embedder.given` reads them) into a collection.

        Encoders with the same inputs share one pass over it; `chunk` is put into the encoders' names.

        Returns:
            `run space found embedded unchanged failed failures seconds items_per_second stages bottleneck` and more;
            with several encoders, those of the last one, and all of them under `runs`.

        Raises:
            TooManyFailures: done, but a larger share of items failed than `max_failure_rate`; `.result` has the run.
            UsageError, NothingToDo, Locked, SpaceMismatch, OutOfResource: see `index.ingest`.
        """
        options = options or IngestOptions()
        opened = self._source(source, into, SourceOptions(media, content_column, id_column, label_levels), options)
        chosen = list(encoders) or [self._default_encoder(into, opened.medium)]
        names = [with_chunk(name, chunk) if chunk else name for name in chosen]
        # before the collection is made: an encoder that cannot be had leaves no empty one behind
        loaded = [] if options.dry_run else self.encoders(names)
        with self._target(into, dry_run=options.dry_run) as target:
            loaded = loaded or [self._planned(name, target) for name in names]
            made = ingest_all(target, opened, loaded, options, lambda encoder, run: watch(str(encoder.name), run))
            for encoder in () if options.dry_run else loaded:
                self._refresh_matrix(target, encoder.space)
            runs = [run_json(run, encoder.space) for run, encoder in zip(made, loaded, strict=True)]
        return runs_json(runs, max_failure_rate)

    @contextmanager
    def _target(self, into: str, *, dry_run: bool) -> Iterator[Collection]:
        """The collection to embed into; a dry run of one that does not exist yet is counted against an empty one."""
        if not dry_run:
            yield self.store(create=True).collection(into, create=True)
            return
        with TemporaryDirectory(prefix="permafrost-") as empty:
            try:
                target = self.collection(into)
            except UnknownName:
                target = Store.open(empty, create=True).collection(into, create=True)
            yield target

    def _source(self, source: str | Values, into: str, chosen: SourceOptions, options: IngestOptions) -> Source:
        if not isinstance(source, str):
            return Given(source, chosen)
        if not os.path.exists(source) and source == into:
            if options.prune or options.prefix:
                raise UsageError("--prune and --prefix are for a source outside the collection")
            return Itself(self.collection(into), chosen.media)
        return open_source(source, chosen)

    def _default_encoder(self, into: str, medium: Medium) -> str:
        with suppress(UnknownName):
            space = self.collection(into).space()
            if medium in space.media:
                return space.encoder
        return self.settings.image_encoder if medium == "image" else self.settings.text_encoder

    def _refresh_matrix(self, collection: Collection, space: Space) -> None:
        """Write the memory-mapped matrix again where too many rows are outside it; graphs are left to `index`."""
        manifest = derived.manifest_of(collection, space)
        if manifest and manifest["kind"] != "flat":
            return
        moment = View(collection, space).now()
        fresh = len(moment.fresh_keys)
        if fresh > REFRESH_ROWS or fresh > REFRESH_SHARE * max(1, moment.rows):
            build.build(collection, space, kind="flat")

    def search(
        self,
        name: str,
        query: Query,
        *,
        k: int = 10,
        where: str | Mapping[str, Any] | None = None,
        space: str | None = None,
        exact: bool = False,
        columns: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Find the nearest items.

        Args:
            query: one of `text`, `image` (a path, or bytes), `vector` (a list or array), `id`.
            where: a filter, as SQL text or as JSON.
            space: an alias, fingerprint or encoder name; none means the collection's default.
            columns: the columns of each hit's `item`; None means all that are not null.

        Returns:
            `collection space exact index took_ms hits:[{id score item}]`, the metric, and how many were searched.
        """
        kind, value = one_of(query)
        collection = self.collection(name)
        view = self._view(collection, collection.space(space))
        without = (str(value),) if kind == "id" else ()
        found = view.vector_of(*without) if without else self._query_vector(collection, view.space, kind, value)
        answer = search(view, found, k=k, where=where, exact=exact, without=without)[0]
        return with_columns(answer_json(collection, view.space, answer), columns, collection.items.schema.names)

    def warm(self, name: str) -> None:
        """Open a collection and read what a query in its default Space reads, so that the first one does not wait."""
        collection = self.collection(name)
        if collection.spaces():
            self._view(collection, collection.space()).now()

    def _view(self, collection: Collection, space: Space) -> View:
        with self._lock:
            stamp = (str(collection.path), space.fingerprint)
            if stamp not in self._views:
                self._views[stamp] = View(collection, space)
            return self._views[stamp]

    def _query_vector(self, collection: Collection, space: Space, kind: str, value: Any) -> FloatMatrix:
        if kind == "vector":
            return as_vector(value)
        encoder = self.encoder_of(collection, space)
        if kind == "text":
            return encoder.encode([str(value)], role="query")
        return self.encode_image(encoder, value)

    def encode_image(self, encoder: Encoder, value: str | bytes | os.PathLike[str]) -> FloatMatrix:
        """Decode a picture (a path, or a file's bytes) in a worker process and encode it: (1, dim) float32.

        Raises:
            Undecodable: it is missing, damaged, or not a picture that is read here.
        """
        transform = cast(ImageTower, encoder.tower("image")).transform
        with self._lock:
            if self._pool is None:
                self._pool = DecodePool(1)
            pool = self._pool
        if isinstance(value, bytes):
            item = Item(id="query", medium="image", source="the query's picture", data=value)
        else:
            item = Item(id="query", medium="image", source=os.fspath(value), path=os.fspath(value))
        pixels = pool.decode(item, transform).value
        vectors, good = encoder.forward("image", [pixels])
        if not good.all():
            raise UsageError("the picture's vector is not finite or has zero norm", where=item.source)
        return vectors

    def index(self, name: str, *, space: str | None = None, **targets: Any) -> dict[str, Any]:
        """Build an index: `index kind recall_at_10 p50_ms bytes build_seconds considered`; targets as `index.build`."""
        collection = self.collection(name)
        built = build.build(collection, collection.space(space), **targets)
        return vars(built).copy()

    def train(self, name: str, /, *, label: str, space: str | None = None, **choices: Any) -> dict[str, Any]:
        """Train a head from stored vectors: `head version kind space label classes n_train n_test metrics seconds`."""
        collection = self.collection(name)
        trained = train_head(collection, label=label, space=collection.space(space), **choices)
        return trained.as_json()

    def classify(
        self, name: str, head: str, inputs: Sequence[Query], *, top_k: int | None = None, space: str | None = None
    ) -> dict[str, Any]:
        """Predict with a head.

        Args:
            head: `NAME[@VERSION]`; the newest version without one.
            inputs: each one of `text`, `image`, `vector`, `id`.
            space: the Space that the vectors are said to be of; a head of another one is refused, and both are named.

        Returns:
            `head version space results:[{input label probabilities}]`, in the order of the inputs.
        """
        if not inputs:
            raise UsageError("nothing to classify", hint="give texts, paths of pictures, or --id")
        collection = self.collection(name)
        loaded = saved.load_head(collection, head)
        if space is not None:
            loaded.require_space(collection.space(space))
        rows = np.concatenate([self._input_vector(collection, loaded.space, one) for one in inputs])
        predictions = loaded.predict(rows, top_k=top_k)
        results = [
            {"input": shown(one), "id": one.get("id"), "label": p.label, "probabilities": p.probabilities}
            for one, p in zip(inputs, predictions, strict=True)
        ]
        facts = {"head": loaded.name, "version": loaded.version, "label": loaded.label}
        facts |= {"space": loaded.space.fingerprint, "stale": loaded.stale(collection)}
        return {"collection": name, **facts, "results": results}

    def inputs(self, name: str, head: str, values: Sequence[str]) -> list[Query]:
        """Say what each value is for a head: the path of a picture or of a text file, or a text."""
        media = saved.load_head(self.collection(name), head).space.media if values else ()
        return [input_of(value, media) for value in values]

    def _input_vector(self, collection: Collection, space: Space, one: Query) -> FloatMatrix:
        kind, value = one_of(one)
        if kind == "id":
            return self._view(collection, space).vector_of(str(value))
        found = self._query_vector(collection, space, kind, value)
        if found.shape[1] != space.dim:
            raise UsageError(f"a vector of {found.shape[1]} dimensions does not fit Space {space}")
        return found

    def ls(self) -> dict[str, Any]:
        """Return every collection with its items, Spaces and heads."""
        store = self.store()
        rows = []
        for name in store.names():
            collection = store.collection(name)
            spaces = [
                {"fingerprint": s.fingerprint, "encoder": s.encoder, "dim": s.dim} for s in collection.spaces().values()
            ]
            rows.append(
                {"name": name, "items": collection.count(), "spaces": spaces, "heads": saved.list_heads(collection)}
            )
        return {"store": str(store.path), "collections": rows}

    def columns(self, name: str) -> dict[str, str]:
        """Return the names and types of a collection's own columns."""
        return {
            f.name: schema.type_name(f.type)
            for f in self.collection(name).items.schema
            if f.name not in schema.RESERVED
        }

    def heads(self, name: str) -> dict[str, Any]:
        """Return the heads of a collection, with every version."""
        return {"collection": name, "heads": saved.list_heads(self.collection(name))}

    def doctor(self) -> dict[str, Any]:
        """Check the installation, the machine and the store: `ok checks:[{name ok detail do}]`."""
        return doctor.examine(self.settings.store)

    def info(self, name: str) -> dict[str, Any]:
        """Return the whole truth about one collection."""
        collection = self.collection(name)
        return {**inspect.describe(collection), "heads": saved.list_heads(collection)}

    def verify(self, name: str, *, mend: bool = False) -> dict[str, Any]:
        """Check every row and file: `ok checked problems`, and `mended`, the number of damaged vectors removed."""
        collection = self.collection(name)
        verdict = inspect.verify(collection)
        mended = inspect.mend(collection, verdict) if mend else 0
        return {"collection": name, **verdict.as_json(), "mended": mended}

    def delete(
        self,
        name: str,
        *,
        ids: Sequence[str] = (),
        where: str | Mapping[str, Any] | None = None,
        everything: bool = False,
    ) -> dict[str, Any]:
        """Delete items by id or by filter, or with `everything` the whole collection: `deleted` counts the items."""
        if everything:
            count = self.collection(name).count()
            self.store().delete(name)
            with self._lock:
                self._views = {k: v for k, v in self._views.items() if v.collection.name != name}
            return {"collection": name, "deleted": count, "removed": True}
        collection = self.collection(name)
        chosen = list(ids) or self._ids_where(collection, where)
        deleted = commit.delete_ids(collection, chosen)
        if not deleted:
            raise UnknownName(
                f"no item of {name!r} was deleted: none has this id or passes this filter",
                hint=f"permafrost info {name}",
            )
        return {"collection": name, "deleted": deleted, "removed": False}

    def _ids_where(self, collection: Collection, where: str | Mapping[str, Any] | None) -> list[str]:
        if where is None:
            raise UsageError("say what to delete", hint="--id I, --where FILTER, or --all for the whole collection")
        items = collection.items
        keys = set(matching_keys(items, filters.read(where)).tolist())
        return [row["id"] for row in items.search().select(["id", "key"]).to_arrow().to_pylist() if row["key"] in keys]

    def item(self, name: str, id: str) -> dict[str, Any]:
        """Return one item's columns. Raises `UnknownName` where there is none."""
        from lancedb import col, lit

        from index.search import visible

        rows = self.collection(name).items.search().where(col("id") == lit(id)).to_arrow().to_pylist()
        if not rows:
            raise UnknownName(f"no item has the id {id!r}", where=f"collection {name}")
        return {"collection": name, "id": id, "item": visible(rows[0])}

    def label(self, name: str, id: str, values: Mapping[str, Any], *, by: str) -> dict[str, Any]:
        """Set labels or metadata of one item by hand; no re-run reverts them."""
        commit.edit(self.collection(name), id, values, by=by)
        return {"collection": name, "id": id, "set": dict(values)}
