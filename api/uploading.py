"""Embedding into a store behind a service: the source is read here, and its contents are sent in small requests."""

from __future__ import annotations

import base64
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.awaited import Awaited
from embedder.chunking import with_chunk
from embedder.errors import NothingToDo, PermafrostError, TooManyFailures, Undecodable, UsageError
from embedder.given import Given, Values
from embedder.reading import read_file
from embedder.records import Failure, Item, Medium
from embedder.sourcing import SourceOptions, open_source
from index.selection import IngestOptions, selected

MOST_ITEMS = {"image": 16, "text": 64}
MOST_BYTES = 2_000_000
MOST_TOLD = 1000
TOO_SLOW, TOO_LARGE = "deadline_exceeded", "too_large"
EMBEDDED = ("inserted", "updated")
NOT_SENT = {"prune": "--prune", "relocate": "--relocate", "dry_run": "--dry-run"}


@dataclass
class Tally:
    """What became of the items of one upload, for one encoder."""

    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    failed: list[dict[str, str]] = field(default_factory=list)
    space: str = ""
    encoder: str = ""

    def fail(self, id: str, reason: str, message: str) -> None:
        """Count one item that failed."""
        self.counts["failed"] += 1
        self.reasons[reason] += 1
        if len(self.failed) < MOST_TOLD:
            self.failed.append({"id": id, "reason": reason, "message": message})

    def add(self, answer: dict[str, Any]) -> None:
        """Count one answer."""
        self.space, self.encoder = answer["space"], answer.get("encoder", "")
        for one in answer["results"]:
            if one["status"] == "failed":
                self.fail(one["id"], one["reason"], one["message"])
            else:
                self.counts[one["status"]] += 1

    def as_json(self, seconds: float) -> dict[str, Any]:
        """Return the run with the keys of `embed`; `failed_items` has the first thousand of those that failed."""
        embedded = sum(self.counts[status] for status in EMBEDDED)
        unchanged = self.counts["unchanged"] + self.counts["superseded"]
        return {
            "run": None, "space": self.space, "encoder": self.encoder, "found": self.counts.total(),
            "embedded": embedded, "unchanged": unchanged, "skipped": 0, "failed": self.counts["failed"],
            "reasons": dict(self.reasons), "failures": None, "failed_items": self.failed,
            "seconds": round(seconds, 3), "items_per_second": round(self.counts.total() / max(seconds, 1e-9), 2),
        }  # fmt: skip


class Uploading(Awaited):
    """The act of embedding what is here, or what is stored there already, into what is there."""

    def embed(
        self, source: str | Values, into: str, *, encoders: Sequence[str] = (), media: Medium | None = None,
        content_column: str | None = None, id_column: str | None = None, label_levels: int | None = None,
        chunk: str | None = None, max_failure_rate: float = 0.01, options: IngestOptions | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Embed a source of this machine; arguments and errors as `Embedding.embed`.

        Raises:
            UsageError: an option for which the service would have to know the whole source.
        """
        options = options or IngestOptions()
        if wrong := [flag for name, flag in NOT_SENT.items() if getattr(options, name)]:
            raise UsageError(f"a service does not offer {wrong[0]}", hint="run it where the store is")
        if isinstance(source, str) and source == into and not os.path.exists(source):
            more = {"media": media, "chunk": chunk, "max_failure_rate": max_failure_rate, "limit": options.limit}
            return self._job(into, "runs", {"encoders": list(encoders), "where": options.where, **more})
        chosen = SourceOptions(media, content_column, id_column, label_levels)
        opened = open_source(source, chosen) if isinstance(source, str) else Given(source, chosen)
        names: list[str | None] = [with_chunk(name, chunk) if chunk else name for name in encoders]
        names = names or [None]
        tallies, start = [Tally() for _ in names], time.monotonic()
        for batch in _batches(selected(opened, options)):
            for name, tally in zip(names, tallies, strict=True):
                for failure in (one for one in batch if isinstance(one, Failure)):
                    tally.fail(failure.id, failure.reason, failure.message)
                self._put(into, [one for one in batch if isinstance(one, dict)], name, tally)
        runs = [tally.as_json(time.monotonic() - start) for tally in tallies]
        if not runs[-1]["found"]:
            raise NothingToDo("the source holds no items", where=str(opened.root))
        return _judged(runs, max_failure_rate)

    def _put(self, into: str, items: list[dict[str, Any]], encoder: str | None, tally: Tally) -> None:
        """Send items; those that are too slow or too large together are sent in halves."""
        if not items:
            return
        body = {"items": items, **({"encoder": encoder} if encoder else {})}
        try:
            tally.add(self._http.json("PUT", "v1", "collections", into, "items", body=body))
        except PermafrostError as error:
            if error.type not in (TOO_SLOW, TOO_LARGE):
                raise
            if len(items) == 1:
                tally.fail(items[0]["id"], error.type, error.what)
                return
            for half in (items[: len(items) // 2], items[len(items) // 2 :]):
                self._put(into, half, encoder, tally)


def _judged(runs: list[dict[str, Any]], max_failure_rate: float) -> dict[str, Any]:
    result = {**runs[-1], **({"runs": runs} if len(runs) > 1 else {})}
    for run in runs:
        if run["failed"] > max_failure_rate * run["found"]:
            raise TooManyFailures(
                f"{run['failed']} of {run['found']} items failed, {max_failure_rate:.2%} are allowed",
                hint="failed_items of the result names them; what was good is stored", result=result,
            )  # fmt: skip
    return result


def _batches(entries: Iterator[Item | Failure]) -> Iterator[list[dict[str, Any] | Failure]]:
    batch: list[dict[str, Any] | Failure] = []
    size = 0
    for entry in entries:
        sent = entry if isinstance(entry, Failure) else _sendable(entry)
        weight = 0 if isinstance(sent, Failure) else len(sent.get("image") or sent.get("text") or "")
        most = MOST_ITEMS["image" if isinstance(entry, Item) and entry.medium == "image" else "text"]
        if batch and (size + weight > MOST_BYTES or len(batch) >= most):
            yield batch
            batch, size = [], 0
        batch.append(sent)
        size += weight
    if batch:
        yield batch


def _sendable(item: Item) -> dict[str, Any] | Failure:
    """Return an item as the body of a request; an item that cannot be read is a failure."""
    facts: dict[str, Any] = {"id": item.id, "columns": dict(item.columns), "group": item.group}
    try:
        if item.medium == "text":
            facts["text"] = _data(item).decode("utf-8") if item.text is None else item.text
        else:
            facts["image"] = base64.b64encode(_data(item)).decode("ascii")
    except (Undecodable, UnicodeDecodeError) as error:
        reason = error.reason if isinstance(error, Undecodable) else "not_utf8"
        return Failure(item.id, item.source, "read", reason, type(error).__name__, str(error)[:200])
    if not (facts.get("text") or facts.get("image")):
        return Failure(item.id, item.source, "read", "empty", "ValueError", "the item is empty")
    return {name: value for name, value in facts.items() if value is not None}


def _data(item: Item) -> bytes:
    if item.data is not None:
        return item.data
    return item.remote() if item.remote is not None else read_file(os.fspath(item.path or ""))[0]
