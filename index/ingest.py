"""The verb: extract to store. Exactly once, resumable, idempotent.

What is already stored is asked of the store, never of a counter: an item is unchanged when its id is stored with the
same content and its key has a vector in this Space. So a run that was killed is resumed by running it again.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedder import golden
from embedder.encoder import Encoder
from embedder.errors import NothingToDo, OutOfResource, UsageError
from embedder.extract import Stages, extract
from embedder.fetching import fetched
from embedder.leaving import Leaving
from embedder.pool import DecodePool
from embedder.records import Decoded, Failure, FloatMatrix, Item, Vectors
from embedder.sourcing import Source
from index import commit, files
from index.commit import Known
from index.selection import IngestOptions, selected
from index.store import Collection

COMMIT_ROWS = 4096
COMMIT_SECONDS = 15.0
SPARE_BYTES = 256 << 20


@dataclass
class Run:
    """One extraction, as it goes and when it is done. found = embedded + unchanged + skipped + failed.

    `pending` counts vectors that were made and wait for the next commit. `sends` is what a dry run found to send to an
    encoder that is elsewhere.
    """

    id: str
    found: int = 0
    embedded: int = 0
    unchanged: int = 0
    skipped: int = 0
    failed: int = 0
    pruned: int = 0
    truncated: int = 0
    pending: int = 0
    sends: Leaving = field(default_factory=Leaving)
    total: int | None = None
    reasons: Counter[str] = field(default_factory=Counter)
    stages: Stages = field(default_factory=Stages)
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    failures: Path | None = None

    @property
    def done(self) -> int:
        """How many items have been decided."""
        return self.embedded + self.unchanged + self.skipped + self.failed

    @property
    def items_per_second(self) -> float:
        """Newly embedded items a second, over the whole run."""
        return self.embedded / self.seconds if self.seconds else 0.0


Progress = Callable[[Run], None]


def ingest(collection: Collection, source: Source, encoder: Encoder, options: IngestOptions, progress: Progress) -> Run:
    """Embed what is new or changed in a source into one Space of a collection.

    Args:
        progress: called after each batch with the run so far.

    Raises:
        Locked: another run of this Space holds the lease.
        SpaceMismatch: the encoder no longer makes the vectors that it made when the Space was first used here.
        UsageError: a column that cannot be stored, or another root without a prefix.
        NothingToDo: nothing was found, or all that was found failed.
        OutOfResource: not enough disk.
    """
    encoder.tower(source.medium)
    run = Run(id=time.strftime("%Y%m%dt%H%M%S-", time.gmtime()) + secrets.token_hex(3), total=_length(source))
    with files.lease(
        collection.lock_path(encoder.space.fingerprint), what=f"Space {encoder.space.short} of {collection.name}"
    ):
        if options.dry_run:
            return _DryRun(collection, source, encoder, options, run).go()
        _check_root(collection, source, options)
        renamed = {options.rename.get(name, name): kind for name, kind in source.columns.items()}
        commit.ensure_columns(collection, renamed)
        if collection.has_space(encoder.space):
            golden.check(encoder, collection.golden(encoder.space))
        else:
            collection.add_space(encoder.space, golden.pack(golden.vectors(encoder)))
        return _Ingest(collection, source, encoder, options, run, progress).go()


class _Ingest:
    """The state of one run."""

    def __init__(
        self,
        collection: Collection,
        source: Source,
        encoder: Encoder,
        options: IngestOptions,
        run: Run,
        progress: Progress,
    ) -> None:
        self.collection, self.source, self.encoder = collection, source, encoder
        self.options, self.run, self.progress = options, run, progress
        self.known = Known.read(collection, encoder.space)
        self.folder = collection.path / "runs" / run.id
        self.failures: list[Failure] = []
        self.seen: set[str] = set()
        self.relabelled: list[Item] = []
        self.batch: list[Decoded] = []
        self.arrays: list[FloatMatrix] = []
        self.counts: list[int] = []
        self.committed_at = time.monotonic()

    def go(self) -> Run:
        self._log("running")
        outcome = "interrupted"
        try:
            self._extract()
            self._prune()
            outcome = "finished"
        finally:
            self.run.seconds = time.monotonic() - self.run.started
            self._write_failures()
            self._log(outcome)
        self._check_kept()
        commit.compact(self.collection, self.encoder.space)
        return self.run

    def _extract(self) -> None:
        pool = DecodePool(self.options.workers) if self.source.medium == "image" else None
        self.run.stages.workers = self.options.workers if pool else 0
        try:
            found = extract(
                self._fetched(), self.encoder, self.source.medium, pool=pool,
                batch_size=self.options.batch_size, stages=self.run.stages,
            )  # fmt: skip
            for result in found:
                self._take(result)
                self.progress(self.run)
        finally:
            # what was encoded is kept, also when the run is interrupted between two commits
            self._commit()
            if pool is not None:
                pool.close()

    def _pending(self) -> Iterator[Item]:
        """Yield the items that must be embedded; decide all others here, unopened."""
        for entry in selected(self.source, self.options):
            self.run.found += 1
            if isinstance(entry, Failure):
                self._fail(entry)
            elif entry.id in self.seen:
                self._fail(_twice(entry))
            else:
                self.seen.add(entry.id)
                if not self.known.unchanged(entry):
                    yield entry
                    continue
                self.run.unchanged += 1
                if not self.known.describes(entry):
                    self.relabelled.append(entry)
                    self._commit_when_full()
                elif self.run.unchanged % 10_000 == 0:
                    self.progress(self.run)

    def _fetched(self) -> Iterator[Item]:
        """Fetch what is remote; bytes that are stored already, under another time or none, are not encoded again."""
        for found in fetched(self._pending()):
            if isinstance(found, Failure):
                self._fail(found)
            elif self.known.holds(found):
                self.run.unchanged += 1
                self.relabelled.append(found)
                self._commit_when_full()
            else:
                yield found

    def _take(self, result: Vectors | Failure) -> None:
        if isinstance(result, Failure):
            self._fail(result)
            return
        self.batch += result.decoded
        self.arrays.append(result.array)
        self.counts += result.parts or (1,) * len(result.decoded)
        self.run.truncated += sum(d.truncated for d in result.decoded)
        self.run.pending = len(self.batch)
        self._commit_when_full()

    def _commit_when_full(self) -> None:
        rows = sum(self.counts) + len(self.relabelled)
        if rows >= COMMIT_ROWS or (rows and time.monotonic() - self.committed_at > COMMIT_SECONDS):
            self._commit()

    def _commit(self) -> None:
        started = time.perf_counter()
        self._check_disk()
        # taken out first: a commit that is interrupted must not be tried again with what it may have stored
        batch, arrays, counts, relabelled = self.batch, self.arrays, self.counts, self.relabelled
        self.batch, self.arrays, self.counts, self.relabelled = [], [], [], []
        self.run.pending = 0
        if batch:
            before = len(self.known.embedded)
            commit.commit(self.collection, self.encoder.space, self.known, batch, np.concatenate(arrays), counts)
            new = len(self.known.embedded) - before
            self.run.embedded += new
            self.run.unchanged += len(batch) - new
        if relabelled:
            commit.commit_metadata(self.collection, self.known, relabelled)
        self._write_failures()
        self.committed_at = time.monotonic()
        self.run.stages.write += time.perf_counter() - started

    def _fail(self, failure: Failure) -> None:
        self.run.failed += 1
        self.run.reasons[f"{failure.stage}: {failure.reason}"] += 1
        self.failures.append(failure)

    def _write_failures(self) -> None:
        if not self.failures:
            return
        self.run.failures = self.folder / "failures.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        files.checkpoint("failures")
        with self.run.failures.open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(f.as_json()) + "\n" for f in self.failures)
        self.failures = []

    def _prune(self) -> None:
        if not self.options.prune or self.options.limit is not None:
            return
        prefix = self.options.prefix
        roots = [p for p in self.collection.settings["roots"] if p and p != prefix]
        gone = [
            id for id in self.known.rows
            if id not in self.seen and id.startswith(prefix) and (prefix or not any(id.startswith(p) for p in roots))
        ]  # fmt: skip
        self.run.pruned = commit.delete_ids(self.collection, gone)

    def _check_kept(self) -> None:
        run = self.run
        if run.found == 0:
            why = (
                f"none of {run.total} passed the filter" if self.options.where and run.total else "the source is empty"
            )
            raise NothingToDo(
                f"0 items were found: {why}", where=self.source.root, hint="check the path, --media and --where"
            )
        if run.embedded + run.unchanged == 0:
            reasons = ", ".join(f"{n} {reason}" for reason, n in run.reasons.most_common(3))
            raise NothingToDo(
                f"0 of {run.found} items were kept: {reasons}", where=str(run.failures), hint="read failures.jsonl"
            )

    def _check_disk(self) -> None:
        free = shutil.disk_usage(self.collection.path).free
        needed = SPARE_BYTES + int(1.5 * sum(a.nbytes for a in self.arrays))
        if free < needed:
            raise OutOfResource(
                f"{free >> 20} MiB are free, {needed >> 20} MiB are needed for the next commit",
                where=str(self.collection.path),
                hint="free some space, then run the same command again: it goes on where it stopped",
            )  # fmt: skip

    def _log(self, state: str) -> None:
        run = self.run
        record = {
            "run": run.id, "state": state, "space": self.encoder.space.fingerprint, "encoder": str(self.encoder.name),
            "source": self.source.root, "found": run.found, "embedded": run.embedded, "unchanged": run.unchanged,
            "failed": run.failed, "pruned": run.pruned, "reasons": dict(run.reasons), "seconds": round(run.seconds, 3),
            "stages": run.stages.as_json(),
        }  # fmt: skip
        files.write_json(self.folder / "run.json", record)


class _DryRun:
    """Counts what a run would do, and writes nothing."""

    def __init__(
        self, collection: Collection, source: Source, encoder: Encoder, options: IngestOptions, run: Run
    ) -> None:
        self.known = Known.read(collection, encoder.space)
        self.source, self.encoder, self.options, self.run = source, encoder, options, run

    def go(self) -> Run:
        for entry in selected(self.source, self.options):
            self.run.found += 1
            if isinstance(entry, Failure):
                self.run.failed += 1
                self.run.reasons[f"{entry.stage}: {entry.reason}"] += 1
            elif self.known.unchanged(entry):
                self.run.unchanged += 1
            else:
                self.run.skipped += 1
                self.run.sends.add(entry, self.encoder)
        self.run.seconds = time.monotonic() - self.run.started
        return self.run


def _length(source: Source) -> int | None:
    try:
        return len(source)
    except TypeError:
        # an iterator of a Python program: it says how many there were when it has ended
        return None


def _twice(item: Item) -> Failure:
    return Failure(item.id, item.source, "list", "duplicate_id", "ValueError", "this id came before in the same source")


def _check_root(collection: Collection, source: Source, options: IngestOptions) -> None:
    if source.root.startswith("permafrost:"):
        return
    roots: dict[str, Any] = collection.settings["roots"]
    known = roots.get(options.prefix)
    if known not in (None, source.root) and not options.relocate:
        raise UsageError(
            f"collection {collection.name!r} was made from {known}, this is {source.root}",
            hint="--prefix P keeps a second source apart; --relocate says that the first one was moved here",
        )
    if known != source.root:
        collection.change_settings("roots", options.prefix, source.root)
