"""The verb: ready vectors into a collection, each with a Space that somebody declares. Idempotent: run it again."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from embedder import kinds
from embedder.errors import Damaged, NothingToDo, UsageError
from embedder.records import Failure
from embedder.space import Space
from index import bringing, commit, files
from index.arriving import Arrival, upsert
from index.bringing import Asked, Plan, VectorSource
from index.commit import Known
from index.exporting import MANIFEST, VERSION
from index.lane import Run, new_name
from index.store import Collection

FORMATS = "index.formats"
BATCH_ROWS = 4096
SAMPLED, CANDIDATES = 32, 512


def open_vectors(address: str, asked: Asked) -> VectorSource:
    """Open a source of vectors: an export of ours, or what a file in `index/formats/` finds there.

    Raises:
        UsageError: nothing is there, or nothing that is read here.
        Damaged: a file of an export fails its checksum.
    """
    manifest = Path(address).expanduser() / MANIFEST
    found = _exported(manifest, asked) if manifest.is_file() else _foreign(address, asked)
    return found if found.dim is not None else replace(found, dim=_usual_length(found))


def _usual_length(source: VectorSource) -> int | None:
    """Return the length that most vectors of the first block have, of a source whose columns do not say it."""
    _, vectors = next(source.blocks(), ((), ()))
    lengths = Counter(len(vector) for vector in vectors if vector is not None)
    return lengths.most_common(1)[0][0] if lengths else None


def _foreign(address: str, asked: Asked) -> VectorSource:
    for name in ("npy", *kinds.names(FORMATS)):
        module = kinds.load(FORMATS, name, "format")
        if paths := module.finds(address):
            found: VectorSource = module.read(paths, asked)
            return found
    place = Path(address.partition("#")[0]).expanduser()
    what = "holds no vectors that are read here" if place.exists() else "is not there"
    raise UsageError(
        f"{address} {what}",
        hint="an export, .parquet, .arrow, .jsonl, .npy, .npz, .index, FOLDER#TABLE, or a folder with img_emb/",
    )


def _exported(manifest: Path, asked: Asked) -> VectorSource:
    said = files.read_json(manifest)
    folder = manifest.parent
    if said.get("permafrost_export") != VERSION:
        raise UsageError(f"this export has the format {said.get('permafrost_export')!r}", where=str(manifest))
    if not said.get("space"):
        raise UsageError("this export was made without vectors", where=str(folder), hint="export again, with vectors")
    try:
        paths = [folder / one["path"] for one in said["files"]]
        for path, one in zip(paths, said["files"], strict=True):
            files.check_sha256(path, one["sha256"])
        module = kinds.load(FORMATS, said["format"], "format")
        space, golden, added = Space.from_json(said["space"]), dict(said["golden"]), frozenset(said["added"])
    except (KeyError, TypeError) as error:
        raise Damaged(f"{MANIFEST} lacks {error}", where=str(manifest), hint="export again") from error
    asked = replace(asked, vector_column="vector" if said["format"] != "npy" else None)
    found: VectorSource = module.read([folder] if said["format"] == "npy" else paths, asked)
    columns = {name: kind for name, kind in found.columns.items() if name not in said["columns"]}
    return replace(
        found, root=str(folder.absolute()), space=space, golden=golden, ours=True, added=added,
        columns={**said["columns"], **columns}, dim=space.dim,
    )  # fmt: skip


def read_space(path: Path) -> tuple[Space, dict[str, str]]:
    """Read a Space document: an export's manifest, or the JSON of one Space. Returns it with its golden vectors.

    Raises:
        UsageError: it is not one.
        Damaged: its fields and its fingerprint do not agree.
    """
    try:
        record = json.loads(path.read_bytes())
        golden = record.get("golden") or {}
        return Space.from_json(record.get("space") or record), dict(golden)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(
            f"{path} is not a Space: {error}", hint=f"give the {MANIFEST} of an export, or the JSON of one Space"
        ) from error


@dataclass
class Imported(Run):
    """One import, as it goes and when it is done; of the `embedded` items, `updated` were here before."""

    verb: ClassVar[str] = "import"
    updated: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the counts: found = inserted + updated + unchanged + failed."""
        return {
            "run": self.id, "found": self.found, "inserted": self.embedded - self.updated, "updated": self.updated,
            "unchanged": self.unchanged, "failed": self.failed, "reasons": dict(self.reasons),
            "failures": str(self.failures) if self.failures else None, "seconds": round(self.seconds, 3),
            "items_per_second": round(self.items_per_second, 2),
        }  # fmt: skip


def store(
    collection: Collection,
    space: Space,
    golden: Mapping[str, str],
    plan: Plan,
    *,
    normalize: bool = False,
    progress: Callable[[Imported], None] = lambda run: None,
) -> Imported:
    """Store what a source brings, batch after batch; a run that was killed is finished by the same command.

    Args:
        golden: the golden vectors of the Space's encoder, where they are known.
        normalize: scale vectors to unit length, where the Space says that its vectors have it.

    Raises:
        Locked: another run of this Space holds the lease.
        NothingToDo: nothing was found, or all that was found failed.
        UsageError: a column that cannot be stored.
    """
    run = Imported(new_name(), total=plan.source.total)
    folder = collection.path / "runs" / run.id
    with files.lease(collection.lock_path(space.fingerprint), what=f"Space {space.short} of {collection.name}"):
        commit.ensure_columns(collection, plan.columns)
        if not collection.has_space(space):
            collection.add_space(space, golden)
        known = Known.read(collection, space)
        outcome = "interrupted"
        try:
            entries = bringing.arrivals(plan)
            while batch := list(islice(entries, BATCH_ROWS)):
                _take(collection, space, known, batch, run, folder, normalize=normalize)
                progress(run)
            outcome = "finished"
        finally:
            run.seconds = time.monotonic() - run.started
            source = {"source": plan.source.root, **plan.source.facts}
            record = {"state": outcome, "space": space.fingerprint, "encoder": space.encoder, "import": source}
            files.write_json(folder / "run.json", {**record, **run.as_json()})
        commit.compact(collection, space)
    if run.failed == run.found:
        why = ", ".join(f"{n} {reason}" for reason, n in run.reasons.most_common(3)) or "the source is empty"
        raise NothingToDo(
            f"0 of {run.found} items were stored: {why}", where=str(run.failures or plan.source.root),
            hint="read failures.jsonl; --normalize scales vectors to unit length" if "not_unit" in why else
            "read failures.jsonl" if run.failures else "",
        )  # fmt: skip
    return run


def _take(
    collection: Collection, space: Space, known: Known, batch: Sequence[Arrival | Failure], run: Imported, folder: Path,
    *, normalize: bool,
) -> None:  # fmt: skip
    arrived = [one for one in batch if isinstance(one, Arrival)]
    failed = [one for one in batch if isinstance(one, Failure)]
    for one, outcome in zip(arrived, upsert(collection, space, known, arrived, normalize=normalize), strict=True):
        run.embedded += outcome.status in ("inserted", "updated")
        run.updated += outcome.status == "updated"
        run.unchanged += outcome.status == "unchanged"
        if outcome.status == "failed":
            failed.append(Failure(outcome.id, one.item.source, "write", outcome.reason, "ValueError", outcome.message))
    run.found += len(batch)
    run.failed += len(failed)
    run.reasons.update(one.reason for one in failed)
    if failed:
        run.failures = folder / "failures.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        with run.failures.open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(one.as_json()) + "\n" for one in failed)


def sample(plan: Plan, *, seed: int = 0) -> list[Arrival]:
    """Return up to 32 arrivals, drawn at random, whose content can be reached: a stored text, or a picture's file."""
    chance = np.random.default_rng(seed)
    drawn: list[Arrival] = []
    for number, one in enumerate(one for one in bringing.arrivals(plan) if isinstance(one, Arrival)):
        if number < CANDIDATES:
            drawn.append(one)
        elif (at := int(chance.integers(number + 1))) < CANDIDATES:
            drawn[at] = one
    chance.shuffle(drawn)
    reached = (one for one in drawn if one.item.text or (one.item.path and os.path.isfile(one.item.path)))
    return list(islice(reached, SAMPLED))
