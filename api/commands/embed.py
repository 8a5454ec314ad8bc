"""`permafrost embed SOURCE --into C`: every item to a vector, exactly once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from api import options, show
from api.calls import Call, Result
from api.options import argument, option
from api.pairs import pairs
from embedder.errors import TooManyFailures, UsageError

DOING = {"decode": "decoding", "tokenize": "reading and tokenising", "encode": "encoding", "write": "writing"}


def run(
    call: Call,
    source: Annotated[str, argument("SOURCE", "A folder, table, shards, hf:NAME, address, or the collection.")],
    into: Annotated[str, option("The collection; it is made where there is none.", metavar="C")],
    encoder: Annotated[
        list[str] | None, option("KIND:NAME; may be repeated; see permafrost encoders.", metavar="E")
    ] = None,
    media: Annotated[Literal["image", "text"] | None, option("What to take of a source that has both.")] = None,
    content_column: Annotated[str | None, option("The column of a table that holds the content.", metavar="X")] = None,
    id_column: Annotated[str | None, option("The column that holds the ids.", metavar="X")] = None,
    label_levels: Annotated[int | None, option("Nested folders: how many make the label.", metavar="N", min=1)] = None,
    chunk: Annotated[str | None, option("Long texts: a vector for every N tokens.", metavar="N[:OVERLAP]")] = None,
    where: options.Where = None,
    batch_size: Annotated[str, option("Items in a forward pass, or auto.", metavar="N", show_default=True)] = "auto",
    workers: Annotated[int | None, option("Processes that decode pictures.", metavar="N", min=1, max=256)] = None,
    device: options.Device = None,
    runtime: options.Runtime = None,
    max_failure_rate: options.FailureRate = 0.01,
    limit: Annotated[int | None, option("Stop after so many items.", metavar="N", min=1)] = None,
    prefix: Annotated[str, option("Goes before each id; keeps a second source apart.", metavar="P")] = "",
    prune: Annotated[bool, option("Remove the items that the source no longer has.", "--prune")] = False,
    relocate: Annotated[bool, option("The source was moved here; its items are the same.", "--relocate")] = False,
    rehash: Annotated[bool, option("Hash every file, also where size and time are as stored.", "--rehash")] = False,
    rename: Annotated[list[str] | None, option("Store column A as B; may be repeated.", metavar="A=B")] = None,
    dry_run: Annotated[bool, option("Count what would be done, and write nothing.", "--dry-run")] = False,
    engine: Annotated[Literal["local"], option("Where the work runs.", show_default=True)] = "local",
) -> Result:
    """Embed a source into a collection.

    Each item becomes a vector exactly once: the same command run again takes up what is new or changed, also after an
    interruption.
    """
    from api.progress import Progress
    from index.selection import IngestOptions

    asked = IngestOptions(
        where=where, prefix=prefix, rename=pairs(rename, "--rename A=B"), limit=limit, prune=prune, relocate=relocate,
        batch_size=_batch_size(batch_size), dry_run=dry_run, rehash=rehash,
    )  # fmt: skip
    with call.service(workers=workers, device=device, runtime=runtime) as service, Progress(limit=limit) as progress:
        try:
            found = service.embed(
                source, into, encoders=encoder or (), media=media, content_column=content_column, id_column=id_column,
                label_levels=label_levels, chunk=chunk, max_failure_rate=max_failure_rate, watch=progress.watch,
                options=replace(asked, workers=service.settings.decode_workers),
            )  # fmt: skip
        except TooManyFailures as error:
            return Result(error.result, summary(into, error.result, dry_run=dry_run), error=error)
    return Result(found, summary(into, found, dry_run=dry_run))


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 65_536:
        raise UsageError(
            f"{text!r} is not a batch size", where="--batch-size", hint="auto, or a number from 1 to 65536"
        )
    return int(text)


def summary(into: str, found: Mapping[str, Any], *, dry_run: bool) -> str:
    """Return what became of the items, and what would make it faster, for each encoder."""
    return "\n".join(_one(into, run, dry_run) for run in found.get("runs", [found]))


def _one(into: str, run: Mapping[str, Any], dry_run: bool) -> str:
    if dry_run:
        title = (
            f"dry run: {show.count(run['skipped'], 'item')} of {show.count(run['found'])} would be embedded into {into}"
        )
    elif run["embedded"]:
        title = f"embedded {show.count(run['embedded'], 'item')} into {into} in {show.duration(run['seconds'])}"
    else:
        title = (
            f"nothing new for {into}: {show.count(run['unchanged'], 'item')} unchanged, {show.duration(run['seconds'])}"
        )
    facts = [
        ("space", f"{_space(run)}  {show.safe(run['encoder'])}"),
        ("found", f"{show.count(run['found'])}: " + ", ".join(_counts(run, dry_run))),
        ("sends", _sends(run)),
        *(("failed", f"{show.count(n)} {show.safe(reason)}") for reason, n in run["reasons"].items()),
        ("see", show.safe(run["failures"]) if run["failures"] else ""),
        *(_speed(run) if run["embedded"] else ()),
    ]
    return show.block(title, facts)


def _space(run: Mapping[str, Any]) -> str:
    return f"{run['space'][:12]}  {run['dim']}-d" if run["space"] else "known at the first call"


def _sends(run: Mapping[str, Any]) -> str:
    sends = run["sends"]
    return f"{show.count(sends['texts'], 'text')}, about {show.count(sends['tokens'], 'token')}" if sends else ""


def _counts(run: Mapping[str, Any], dry_run: bool) -> list[str]:
    names = ("embedded", "unchanged", "skipped", "failed", "pruned", "truncated")
    words = {"skipped": "to embed"} if dry_run else {}
    return [f"{show.count(run[name])} {words.get(name, name)}" for name in names if run[name]] or ["nothing to do"]


def _speed(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    shares = show.percent(show.shares(run["stages"]))
    stage = "tokenize" if run["bottleneck"] == "decode" and not run["workers"] else run["bottleneck"]
    how = "found by measurement" if run["measured"] else "as it was set"
    return [
        ("speed", f"{run['items_per_second']:,.1f} items/s: {shares}"),
        ("batch", f"{show.count(run['batch_size'])} {run['batch_of']}, {how}"),
        ("slowest", f"{DOING[stage]} is the bottleneck"),
        ("faster", run["advice"] or ""),
    ]
