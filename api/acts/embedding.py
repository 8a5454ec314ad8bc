"""The act of embedding: a source into a collection."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory
from typing import Any

from api.acts.held import Held
from api.shapes import run_json, runs_json
from embedder.chunking import with_chunk
from embedder.encoder import Encoder, plan_encoder
from embedder.errors import UnknownName, UsageError
from embedder.given import Given, Values
from embedder.records import Medium
from embedder.sourcing import Source, SourceOptions, open_source
from embedder.space import Space
from index import build, derived
from index.ingest import Run, ingest_all
from index.itself import Itself
from index.readers import reading
from index.selection import IngestOptions
from index.store import Collection, Store
from index.view import View

REFRESH_SHARE, REFRESH_ROWS = 0.2, 10_000
Watch = Callable[[str, Run], None]


def unwatched(encoder: str, run: Run) -> None:
    """Show nothing."""


class Embedding(Held):
    """From items to stored vectors."""

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
        watch: Watch = unwatched,
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

    def _planned(self, name: str, target: Collection) -> Encoder:
        """Return an encoder for a dry run."""
        known = target.spaces().values()
        return plan_encoder(self.located(name), known, device=self.settings.device, endpoint=self.settings.endpoint)

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
        with reading(collection):
            moment = View(collection, space).now()
        fresh = len(moment.fresh_keys)
        if fresh > REFRESH_ROWS or fresh > REFRESH_SHARE * max(1, moment.rows):
            build.build(collection, space, kind="flat")
