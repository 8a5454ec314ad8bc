"""One Space's part of a run: its counts, its vectors on their way into the store, its log and its failures."""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from embedder.encoder import Encoder
from embedder.errors import NothingToDo
from embedder.leaving import Leaving
from embedder.records import Decoded, Failure, FloatMatrix, Vectors
from embedder.sourcing import Source
from embedder.stages import Stages
from index import commit, files
from index.known import Known
from index.selection import IngestOptions
from index.store import Collection


@dataclass
class Run:
    """One extraction, as it goes and when it is done. found = embedded + unchanged + skipped + failed.

    `pending` counts vectors that were made and wait for the next commit. `sends` is what a dry run found to send to an
    encoder that is elsewhere. Runs of one pass share its `stages` and its `seconds`.
    """

    verb: ClassVar[str] = "embed"
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


def new_run(source: Source, stages: Stages | None = None) -> Run:
    """Return a run that begins now."""
    return Run(new_name(), total=_length(source), stages=stages or Stages())


def new_name() -> str:
    """Return the name of a run that begins now; names are in the order of time."""
    return time.strftime("%Y%m%dt%H%M%S-", time.gmtime()) + secrets.token_hex(3)


def _length(source: Source) -> int | None:
    try:
        return len(source)
    except TypeError:
        # an iterator of a Python program: it says how many there were when it has ended
        return None


class Lane:
    """What one Space does with the results of a pass.

    `settled` are the items that this Space has, and that are in the pass for another Space.
    """

    def __init__(self, collection: Collection, source: Source, encoder: Encoder, run: Run, known: Known) -> None:
        self.collection, self.source, self.encoder, self.run, self.known = collection, source, encoder, run, known
        self.folder = collection.path / "runs" / run.id
        self.settled: set[str] = set()
        self.failures: list[Failure] = []
        self.batch: list[Decoded] = []
        self.arrays: list[FloatMatrix] = []
        self.counts: list[int] = []

    @property
    def rows(self) -> int:
        """How many vectors wait for the next commit."""
        return sum(self.counts)

    def take(self, result: Vectors | Failure) -> None:
        """Take what the encoder made; the failure of an item that is stored already is none of this Space."""
        if isinstance(result, Failure):
            if result.id in self.settled:
                self.run.unchanged += 1
            else:
                self.fail(result)
            return
        self.batch += result.decoded
        self.arrays.append(result.array)
        self.counts += result.parts or (1,) * len(result.decoded)
        self.run.truncated += sum(d.truncated for d in result.decoded if d.item.id not in self.settled)
        self.run.pending = len(self.batch)

    def fail(self, failure: Failure) -> None:
        """Count a failure and name it."""
        self.run.failed += 1
        self.run.reasons[f"{failure.stage}: {failure.reason}"] += 1
        self.failures.append(failure)

    def commit(self) -> None:
        """Store what waits."""
        # taken out first: a commit that is interrupted must not be tried again with what it may have stored
        batch, arrays, counts = self.batch, self.arrays, self.counts
        self.batch, self.arrays, self.counts = [], [], []
        self.run.pending = 0
        if batch:
            array = np.concatenate(arrays)
            new = int(commit.commit(self.collection, self.encoder.space, self.known, batch, array, counts).sum())
            self.run.embedded += new
            self.run.unchanged += len(batch) - new

    def write_failures(self) -> None:
        """Append the failures since the last call to the run's file."""
        if not self.failures:
            return
        self.run.failures = self.folder / "failures.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        files.checkpoint("failures")
        with self.run.failures.open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(f.as_json()) + "\n" for f in self.failures)
        self.failures = []

    def check_kept(self, options: IngestOptions) -> None:
        """Raise `NothingToDo` where nothing was found, or all of it failed."""
        run = self.run
        if run.found == 0:
            why = f"none of {run.total} passed the filter" if options.where and run.total else "the source is empty"
            raise NothingToDo(
                f"0 items were found: {why}", where=self.source.root, hint="check the path, --media and --where"
            )
        if run.embedded + run.unchanged == 0:
            reasons = ", ".join(f"{n} {reason}" for reason, n in run.reasons.most_common(3))
            raise NothingToDo(
                f"0 of {run.found} items were kept: {reasons}", where=str(run.failures), hint="read failures.jsonl"
            )

    def log(self, state: str) -> None:
        """Write the run's record."""
        run = self.run
        record = {
            "run": run.id, "state": state, "space": self.encoder.space.fingerprint, "encoder": str(self.encoder.name),
            "source": self.source.root, "found": run.found, "embedded": run.embedded, "unchanged": run.unchanged,
            "failed": run.failed, "pruned": run.pruned, "reasons": dict(run.reasons), "seconds": round(run.seconds, 3),
            "stages": run.stages.as_json(), "medium": self.source.medium, "device": self.encoder.device,
            "runtime": self.encoder.runtime,
            "batch_size": run.stages.batch_size, "measured": run.stages.measured,
        }  # fmt: skip
        files.write_json(self.folder / "run.json", record)
