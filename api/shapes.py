"""The contract's shapes: queries as they come in, documents as they go out; the same ones at every door."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from embedder.errors import TooManyFailures, UnknownName, UsageError
from embedder.records import FloatMatrix, Medium
from embedder.sourcing import IMAGE_SUFFIXES
from embedder.space import Space
from index.hybrid import Ranks
from index.ingest import Run
from index.search import Answer
from index.store import Collection

QUERY_KINDS = ("text", "image", "vector", "id")
TEXT_SUFFIXES = frozenset({".txt", ".md"})
MOST_TEXT_BYTES = 16 << 20
Query = Mapping[str, Any]


def as_vector(value: Any) -> FloatMatrix:
    """Return one query vector as (1, dim) float32. Raises `UsageError` where it is not a flat list of numbers."""
    try:
        array = np.asarray(value, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise UsageError(f"the vector is not a list of numbers: {error}") from error
    flat = array[0] if array.ndim == 2 and len(array) == 1 else array
    if flat.ndim != 1 or not flat.size:
        raise UsageError(f"one vector is needed, not an array of shape {array.shape}")
    if not np.isfinite(flat).all():
        raise UsageError("the vector is not finite")
    return flat[None]


def load_vector(path: str) -> FloatMatrix:
    """Read a query vector from a `.npy` file; nothing is unpickled. Raises `UsageError` where it cannot be read."""
    try:
        return as_vector(np.load(Path(path), allow_pickle=False))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not a .npy file of one vector: {error}") from error


def one_of(query: Query) -> tuple[str, Any]:
    """Return the one kind of a query and its value. Raises `UsageError` where there is none, or more than one."""
    given = [(k, query[k]) for k in QUERY_KINDS if query.get(k) is not None]
    if len(given) != 1:
        said = ", ".join(k for k, _ in given) or "nothing"
        raise UsageError(f"a query is one of {', '.join(QUERY_KINDS)}; {said} was given")
    return given[0]


def search_of(query: Query) -> tuple[str, Any]:
    """Return the kind of a search and its value; for `like` the ids on both sides.

    Raises:
        UsageError: it is not one of text, image, vector, id, or like with unlike.
    """
    like, unlike = (list(query.get(side) or ()) for side in ("like", "unlike"))
    others = [k for k in QUERY_KINDS if query.get(k) is not None]
    if not like and not unlike:
        if not others:
            raise UsageError(f"a query is one of {', '.join(QUERY_KINDS)} or like; nothing was given")
        return one_of(query)
    if others:
        raise UsageError(
            f"a query is one of {', '.join(QUERY_KINDS)} or like; {others[0]} and examples were given",
            hint="like and unlike take ids of stored items and stand alone",
        )
    if not all(isinstance(id, str) for id in [*like, *unlike]):
        raise UsageError("examples are ids of stored items")
    return "like", (like, unlike)


def own_ids(kind: str, value: Any) -> tuple[str, ...]:
    """Return the ids of the items that a query is made of, which are not answered."""
    if kind == "like":
        return (*value[0], *value[1])
    return (str(value),) if kind == "id" else ()


def shown(one: Query) -> str:
    """Return a query as a short text that names it."""
    kind, value = one_of(one)
    return f"<{kind}>" if kind == "vector" or isinstance(value, bytes) else str(value)


def run_json(run: Run, space: Space) -> dict[str, Any]:
    """Return one extraction with the keys of `embed`.

    `sends` says what a dry run would send to an encoder that is elsewhere: texts, and about how many tokens. `space`
    and `dim` are null where only that encoder's first answer tells them. `batch_size` counts `batch_of`: pictures, or
    tokens with their padding; it was `measured`, or is the default or the user's.
    """
    return {
        "run": run.id, "space": space.fingerprint if space.dim else None, "encoder": space.encoder,
        "dim": space.dim or None, "found": run.found,
        "sends": asdict(run.sends) if run.sends.texts else None,
        "embedded": run.embedded,
        "unchanged": run.unchanged, "skipped": run.skipped, "failed": run.failed, "pruned": run.pruned,
        "truncated": run.truncated, "reasons": dict(run.reasons),
        "failures": str(run.failures) if run.failures else None,
        "seconds": round(run.seconds, 3), "items_per_second": round(run.items_per_second, 2),
        "stages": run.stages.as_json(), "workers": run.stages.workers,
        "batch_size": run.stages.batch_size if run.embedded else None,
        "batch_of": run.stages.batch_of() if run.embedded else None, "measured": run.stages.measured,
        "bottleneck": run.stages.bottleneck() if run.embedded else None,
        "advice": run.stages.advice() if run.embedded else None,
    }  # fmt: skip


def runs_json(runs: Sequence[dict[str, Any]], max_failure_rate: float) -> dict[str, Any]:
    """Return the last of several runs, with all of them under `runs` where there are more than one.

    Raises:
        TooManyFailures: a larger share of a run's items failed; `.result` is what would have been returned.
    """
    result = {**runs[-1], **({"runs": runs} if len(runs) > 1 else {})}
    for found in runs:
        check_failures(found, result, max_failure_rate)
    return result


def check_failures(run: Mapping[str, Any], result: Mapping[str, Any], max_failure_rate: float) -> None:
    """Raise `TooManyFailures`, with `result`, where a larger share of a run's items failed than is allowed."""
    if run["found"] and run["failed"] > max_failure_rate * run["found"]:
        raise TooManyFailures(
            f"{run['failed']} of {run['found']} items failed, {max_failure_rate:.2%} are allowed",
            where=str(run["failures"]), hint="read failures.jsonl; what was good is stored", result=result,
        )  # fmt: skip


def answer_json(
    collection: Collection, space: Space, answer: Answer, ranks: Sequence[Ranks] | None = None
) -> dict[str, Any]:
    """Return the neighbours of one query with the keys of `search`; with `ranks`, those of a hybrid one."""
    hits = [{"id": h.id, "score": h.score, "item": h.item} for h in answer.hits]
    if ranks is not None:
        hits = [{**hit, "ranks": asdict(one)} for hit, one in zip(hits, ranks, strict=True)]
    return {
        "collection": collection.name, "space": space.fingerprint, "encoder": space.encoder,
        "metric": space.metric if ranks is None else "reciprocal rank fusion",
        "exact": answer.exact, "index": answer.index, "searched": answer.searched, "rows": answer.rows,
        "selectivity": answer.selectivity, "fallback": answer.fallback, "index_damage": answer.index_damage,
        "more": answer.more, "took_ms": answer.took_ms, "filter_ms": answer.filter_ms, "hits": hits,
    }  # fmt: skip


def input_of(value: str, media: Sequence[Medium]) -> Query:
    """Say what a word on a command line is, for a head or Space that reads `media`: a picture's path, or a text.

    A file is read as what its suffix says; a text that is plainly the path of a picture must exist.

    Raises:
        UsageError: a path where nothing is, or a file that these media do not read.
    """
    suffix = os.path.splitext(value)[1].lower()
    if "image" in media and (suffix in IMAGE_SUFFIXES or "text" not in media):
        if not os.path.isfile(value):
            raise UsageError(f"there is no file {value!r}", hint="give a picture's path, or --id for a stored item")
        return {"image": value}
    if suffix in TEXT_SUFFIXES and os.path.isfile(value):
        return {"text": _text_of(value)}
    if os.path.isfile(value):
        raise UsageError(
            f"{value!r} is not a text file", hint=f"this reads {' and '.join(media)}; text files end in .txt or .md"
        )
    return {"text": value}


def _text_of(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(MOST_TEXT_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path!r} as text: {error}", hint="save it as UTF-8") from error


def with_columns(document: dict[str, Any], columns: Sequence[str] | None, known: Sequence[str]) -> dict[str, Any]:
    """Return a search's document whose items hold only some columns; all of them where none are named.

    Raises:
        UnknownName: a column that the collection has not; the nearest ones are in the hint.
    """
    if columns is None:
        return document
    for name in columns:
        if name not in known:
            raise UnknownName.of("column", name, known, hint=f"columns: {', '.join(known)}")
    hits = [{**hit, "item": {n: v for n, v in hit["item"].items() if n in columns}} for hit in document["hits"]]
    return {**document, "hits": hits}
