"""The verb: extract to store. Exactly once, resumable, idempotent.

What is already stored is asked of the store, never of a counter: an item is unchanged when its id is stored with the
same content and its key has a vector in this Space. So a run that was killed is resumed by running it again.

Several encoders that read the same inputs go through the source together: it is read and decoded once, and each batch
is stored in one Space after the other. A run that was killed between two of them lacks the later ones' vectors only.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa

from embedder import golden
from embedder.encoder import Encoder
from embedder.errors import OutOfResource, Refused, UsageError
from embedder.extract import extract_all
from embedder.fetching import fetched
from embedder.pool import DecodePool
from embedder.records import Failure, Item, Medium
from embedder.sourcing import Source
from embedder.stages import Stages
from embedder.together import same_inputs
from index import commit, earlier, files, memory
from index.changes import unchanged
from index.known import Known, Mask, Rows, Seen
from index.lane import Lane, Run, new_run
from index.selection import IngestOptions, selected, windows
from index.store import Collection

__all__ = ["Progress", "Run", "ingest", "ingest_all"]

COMMIT_ROWS = 4096
COMMIT_SECONDS = 15.0
SPARE_BYTES = 256 << 20
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
    return ingest_all(collection, source, [encoder], options, lambda encoder, run: progress(run))[0]


def ingest_all(
    collection: Collection,
    source: Source,
    encoders: Sequence[Encoder],
    options: IngestOptions,
    progress: Callable[[Encoder, Run], None],
) -> list[Run]:
    """Embed as `ingest` does, into the Space of each encoder; those with the same inputs go in one pass.

    Args:
        progress: called after each batch with the first encoder of the pass, and its run so far.

    Returns:
        a run for each encoder, in their order.
    """
    if options.prune and (options.where is not None or options.limit is not None):
        raise UsageError(
            "--prune needs the whole source", hint="leave out --where and --limit: what they skip is not gone"
        )
    for encoder in encoders:
        encoder.tower(source.medium)
    runs: dict[int, Run] = {}
    for places in passes(encoders, source.medium):
        together = [encoders[place] for place in places]
        if options.dry_run:
            made = [_dry_run(collection, source, encoder, options) for encoder in together]
        else:
            made = _run(collection, source, together, options, progress)
        runs |= zip(places, made, strict=True)
    return [runs[place] for place in range(len(encoders))]


def passes(encoders: Sequence[Encoder], medium: Medium) -> list[list[int]]:
    """Return the positions of the encoders that go together: the same inputs, and each a Space of its own."""
    found: list[list[int]] = []
    for place, encoder in enumerate(encoders):
        for group in found:
            spaces = {encoders[member].space.fingerprint for member in group}
            if encoder.space.fingerprint not in spaces and same_inputs(encoders[group[0]], encoder, medium):
                group.append(place)
                break
        else:
            found.append([place])
    return found


def _run(
    collection: Collection,
    source: Source,
    encoders: Sequence[Encoder],
    options: IngestOptions,
    progress: Callable[[Encoder, Run], None],
) -> list[Run]:
    stages = Stages()
    runs = [new_run(source, stages) for _ in encoders]
    with ExitStack() as leases:
        # every process takes them in the same order
        for space in sorted((encoder.space for encoder in encoders), key=lambda space: space.fingerprint):
            what = f"Space {space.short} of {collection.name}"
            leases.enter_context(files.lease(collection.lock_path(space.fingerprint), what=what))
        _check_root(collection, source, options)
        renamed = {options.rename.get(name, name): kind for name, kind in source.columns.items()}
        commit.ensure_columns(collection, renamed)
        for encoder in encoders:
            _settle_space(collection, encoder)
        pictures = Known.read_all(collection, [encoder.space for encoder in encoders])
        lanes = [
            Lane(collection, source, encoder, run, known)
            for encoder, run, known in zip(encoders, runs, pictures, strict=True)
        ]
        with memory.settled():
            _Ingest(collection, source, lanes, options, stages, progress).go()
    return runs


class _Ingest:
    """The state of one pass."""

    def __init__(
        self,
        collection: Collection,
        source: Source,
        lanes: Sequence[Lane],
        options: IngestOptions,
        stages: Stages,
        progress: Callable[[Encoder, Run], None],
    ) -> None:
        self.collection, self.source, self.lanes = collection, source, lanes
        self.options, self.stages, self.progress = options, stages, progress
        self.picture = lanes[0].known.picture
        self.seen = Seen(self.picture.facts)
        self.failed: set[str] = set()
        self.unlisted = False
        self.relabelled: list[Item] = []
        self.committed_at = time.monotonic()

    def go(self) -> None:
        """Extract, prune, and leave a record of each Space's run."""
        self._log("running")
        outcome = "interrupted"
        try:
            self._extract()
            self._prune()
            outcome = "finished"
        finally:
            for lane in self.lanes:
                lane.run.seconds = time.monotonic() - lane.run.started
                lane.write_failures()
            self._log(outcome)
        for lane in self.lanes:
            lane.check_kept(self.options)
        for lane in self.lanes:
            commit.compact(self.collection, lane.encoder.space)

    def _log(self, state: str) -> None:
        for lane in self.lanes:
            lane.log(state)

    def _extract(self) -> None:
        pool = DecodePool(self.options.workers) if self.source.medium == "image" else None
        self.stages.workers = self.options.workers if pool else 0
        try:
            found = extract_all(
                self._fetched(), [lane.encoder for lane in self.lanes], self.source.medium, pool=pool,
                batch_size=self.options.batch_size, stages=self.stages, found=self._measured(),
            )  # fmt: skip
            for place, result in found:
                self.lanes[place].take(result)
                if place == len(self.lanes) - 1:
                    self._commit_when_full()
                self._show()
        finally:
            # what was encoded is kept, also when the run is interrupted between two commits
            self._commit()
            if pool is not None:
                pool.close()

    def _measured(self) -> int | None:
        return earlier.batch_size(self.collection, self.lanes[0].encoder, self.source.medium)

    def _show(self) -> None:
        self.progress(self.lanes[0].encoder, self.lanes[0].run)

    def _pending(self) -> Iterator[Item]:
        """Yield the items that a Space lacks; decide all others here, unopened."""
        for window in windows(selected(self.source, self.options)):
            for lane in self.lanes:
                lane.run.found += len(window)
            items = [entry for entry in window if isinstance(entry, Item)]
            for failure in (entry for entry in window if isinstance(entry, Failure)):
                # it is there, if not readable: no reason to prune what is stored of it
                self.failed.add(failure.id)
                self.unlisted = self.unlisted or failure.stage == "list"
                self._fail(failure)
            yield from self._lacking(items)
            self._show()

    def _lacking(self, items: Sequence[Item]) -> Iterator[Item]:
        facts = self.picture.facts
        ids = [item.id for item in items]
        rows = facts.find(ids)
        first = self.seen.admit(ids, rows)
        if not first.all():
            for item in _chosen(items, ~first):
                self._fail(_twice(item))
            items, rows = _chosen(items, first), rows[first]
        same, items, hashed = unchanged(facts, items, rows, rehash=self.options.rehash)
        having = [same & lane.known.have(rows) for lane in self.lanes]
        whole, some = np.logical_and.reduce(having), np.logical_or.reduce(having)
        for lane in self.lanes:
            lane.run.unchanged += int(whole.sum())
        for item in _chosen(items, some & ~self._settled(items, rows, some, hashed)):
            self.relabelled.append(item)
            self._commit_when_full()
        for i in np.flatnonzero(~whole).tolist():
            for lane, has in zip(self.lanes, having, strict=True):
                if has[i]:
                    lane.settled.add(items[i].id)
            yield items[i]

    def _settled(self, items: Sequence[Item], rows: Rows, some: Mask, hashed: Sequence[int]) -> Mask:
        """Return a mask (n,) of the items, of `some`, whose stored metadata, size and time are as the source says."""
        facts, settled = self.picture.facts, np.zeros(len(items), dtype=bool)
        settled[some] = facts.describe(rows[some], _chosen(items, some), self.picture.edits)
        touched = [i for i in hashed if settled[i]]
        read = [items[i] for i in touched]
        settled[touched] = facts.same_files(rows[touched], [i.size for i in read], [i.mtime_ns for i in read])
        return settled

    def _fetched(self) -> Iterator[Item]:
        """Fetch what is remote; bytes that are stored already, under another time or none, are not encoded again."""
        for found in fetched(self._pending()):
            if isinstance(found, Failure):
                for lane in self.lanes:
                    lane.take(found)
                continue
            having = [lane for lane in self.lanes if found.data is not None and lane.known.holds(found)]
            if self._lacked(found, having):
                yield found
            else:
                self.relabelled.append(found)
                self._commit_when_full()

    def _lacked(self, item: Item, having: Sequence[Lane]) -> bool:
        """Say whether a Space lacks an item; where none does it is unchanged in all, else settled in those `having`."""
        whole = len(having) == len(self.lanes)
        for lane in having:
            if whole:
                lane.run.unchanged += 1
            else:
                lane.settled.add(item.id)
        return not whole

    def _fail(self, failure: Failure) -> None:
        for lane in self.lanes:
            lane.fail(failure)

    def _commit_when_full(self) -> None:
        rows = max(lane.rows for lane in self.lanes) + len(self.relabelled)
        if rows >= COMMIT_ROWS or (rows and time.monotonic() - self.committed_at > COMMIT_SECONDS):
            self._commit()

    def _commit(self) -> None:
        started = time.perf_counter()
        self._check_disk()
        relabelled, self.relabelled = self.relabelled, []
        for lane in self.lanes:
            lane.commit()
        if relabelled:
            commit.commit_metadata(self.collection, self.lanes[0].known, relabelled)
        for lane in self.lanes:
            lane.write_failures()
        self.committed_at = time.monotonic()
        self.stages.write += time.perf_counter() - started

    def _prune(self) -> None:
        if not self.options.prune:
            return
        if self.unlisted:
            raise Refused(
                "nothing was pruned: a part of the source could not be listed, so nobody knows what is gone",
                where=self.source.root, hint="read failures.jsonl, mend the source, then run this again",
            )  # fmt: skip
        prefix, facts = self.options.prefix, self.picture.facts
        roots = [p for p in self.collection.settings["roots"] if p and p != prefix]
        unseen = facts.said["id"].filter(pa.array(~self.seen.rows)).to_pylist()
        ours = [id for id in unseen if id.startswith(prefix) and id not in self.failed]
        gone = [id for id in ours if prefix or not any(id.startswith(other) for other in roots)]
        pruned = commit.delete_ids(self.collection, gone)
        for lane in self.lanes:
            lane.run.pruned = pruned

    def _check_disk(self) -> None:
        free = shutil.disk_usage(self.collection.path).free
        needed = SPARE_BYTES + int(1.5 * sum(a.nbytes for lane in self.lanes for a in lane.arrays))
        if free < needed:
            raise OutOfResource(
                f"{free >> 20} MiB are free, {needed >> 20} MiB are needed for the next commit",
                where=str(self.collection.path),
                hint="free some space, then run the same command again: it goes on where it stopped",
            )  # fmt: skip


def _settle_space(collection: Collection, encoder: Encoder) -> None:
    """Make the Space's table, or see that the encoder still makes its vectors."""
    space = encoder.space
    if not collection.has_space(space):
        collection.add_space(space, golden.pack(golden.vectors(encoder)))
        return
    stored = collection.golden(space)
    golden.check(encoder, stored)
    if not stored:
        # the Space came with ready vectors: from now on its encoder is held to what it makes today
        commit.set_golden(collection, space, golden.pack(golden.vectors(encoder)))
    if "default" not in collection.settings["aliases"]:
        # a writer ended between making the table and naming it
        collection.add_space(space, stored)


def _dry_run(collection: Collection, source: Source, encoder: Encoder, options: IngestOptions) -> Run:
    """Count what a run would do, and write nothing of it."""
    run = new_run(source)
    space = encoder.space
    with files.lease(collection.lock_path(space.fingerprint), what=f"Space {space.short} of {collection.name}"):
        known = Known.read(collection, space)
        facts = known.picture.facts
        for window in windows(selected(source, options)):
            run.found += len(window)
            items = [entry for entry in window if isinstance(entry, Item)]
            rows = facts.find([item.id for item in items])
            same = unchanged(facts, items, rows, rehash=options.rehash)[0] & known.have(rows)
            run.unchanged += int(same.sum())
            run.skipped += int((~same).sum())
            for item in _chosen(items, ~same):
                run.sends.add(item, encoder)
            for failure in (entry for entry in window if isinstance(entry, Failure)):
                run.failed += 1
                run.reasons[f"{failure.stage}: {failure.reason}"] += 1
        run.seconds = time.monotonic() - run.started
    return run


def _chosen(items: Sequence[Item], mask: Mask) -> Sequence[Item]:
    return items if mask.all() else list(compress(items, mask.tolist()))


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
