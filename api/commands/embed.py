"""`permafrost embed SOURCE --into C`: every item to a vector, exactly once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from api import show
from api.calls import Call, Result
from api.pairs import pairs
from embedder.errors import TooManyFailures, UsageError

if TYPE_CHECKING:
    from index.ingest import IngestOptions

ADVICE = {
    "decode": "reading and decoding is the bottleneck: more --workers help, where there are cores for them",
    "encode": "the forward pass is the bottleneck: a GPU (--device cuda) or a smaller encoder helps most",
    "write": "writing is the bottleneck: a faster disk for the store helps most",
}


def run(
    call: Call,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A folder, a csv, jsonl or parquet file, or a collection itself.")],
    into: Annotated[str, typer.Option(metavar="C", help="The collection; it is made where there is none.")],
    encoder: Annotated[list[str] | None, typer.Option(metavar="E", help="KIND:NAME, may be repeated; see permafrost encoders.", show_default=False)] = None,
    media: Annotated[Literal["image", "text"] | None, typer.Option(help="What to take of a source that has both.")] = None,
    content_column: Annotated[str | None, typer.Option(metavar="X", help="The column of a table that holds the content.")] = None,
    id_column: Annotated[str | None, typer.Option(metavar="X", help="The column that holds the ids.")] = None,
    where: Annotated[str | None, typer.Option(metavar="SQL", help="Only rows of the source that pass.")] = None,
    batch_size: Annotated[str, typer.Option(metavar="N", help="Items in a forward pass, or auto.")] = "auto",
    workers: Annotated[int | None, typer.Option(metavar="N", min=1, max=256, help="Processes that decode pictures.")] = None,
    device: Annotated[str | None, typer.Option(metavar="D", help="auto, cpu, cuda or cuda:N.")] = None,
    max_failure_rate: Annotated[float, typer.Option(min=0.0, max=1.0, help="The largest share of failed items that passes.")] = 0.01,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Stop after so many items.")] = None,
    prefix: Annotated[str, typer.Option(metavar="P", help="Goes before each id; keeps a second source apart.", show_default=False)] = "",
    prune: Annotated[bool, typer.Option("--prune", help="Remove the items that the source no longer has.")] = False,
    relocate: Annotated[bool, typer.Option("--relocate", help="The source was moved here; its items are the same.")] = False,
    rename: Annotated[list[str] | None, typer.Option(metavar="A=B", help="Store column A as B; may be repeated.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be done, and write nothing.")] = False,
    engine: Annotated[Literal["local"], typer.Option(help="Where the work runs.")] = "local",
) -> Result:
    """Embed a folder or a table into a collection; what is there and unchanged is not embedded again.

    Running the same command again takes up what is new or changed, also after an interruption.
    """
    from api.progress import Progress
    from index.ingest import IngestOptions

    options = IngestOptions(
        where=where, prefix=prefix, rename=pairs(rename, "--rename A=B"), limit=limit, prune=prune, relocate=relocate,
        batch_size=_batch_size(batch_size), dry_run=dry_run,
    )  # fmt: skip
    chosen = {
        "encoders": encoder or (), "media": media, "content_column": content_column, "id_column": id_column,
        "max_failure_rate": max_failure_rate,
    }  # fmt: skip
    with call.service(workers=workers, device=device) as service, Progress(limit=limit) as progress:
        try:
            found = service.embed(source, into, **chosen, options=options, watch=progress.watch)
        except TooManyFailures as error:
            return Result(error.result, summary(into, error.result, options), error=error)
    return Result(found, summary(into, found, options))


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 65_536:
        raise UsageError(f"{text!r} is not a batch size", where="--batch-size", hint="write auto, or a whole number from 1 to 65536")
    return int(text)


def summary(into: str, found: Mapping[str, Any], options: IngestOptions) -> str:
    """Return what became of the items, and what would make it faster, for each encoder."""
    return "\n".join(_one(into, run, options) for run in found.get("runs", [found]))


def _one(into: str, run: Mapping[str, Any], options: IngestOptions) -> str:
    if options.dry_run:
        title = f"dry run: {show.count(run['skipped'], 'item')} of {show.count(run['found'])} would be embedded into {into}"
    elif run["embedded"]:
        title = f"embedded {show.count(run['embedded'], 'item')} into {into} in {show.duration(run['seconds'])}"
    else:
        title = f"nothing new for {into}: {show.count(run['unchanged'], 'item')} unchanged, {show.duration(run['seconds'])}"
    facts = [
        ("space", f"{run['space'][:12]}  {run['dim']}-d  {show.safe(run['encoder'])}"),
        ("found", f"{show.count(run['found'])}: " + ", ".join(_counts(run))),
        *(("failed", f"{show.count(n)} {show.safe(reason)}") for reason, n in run["reasons"].items()),
        ("see", show.safe(run["failures"]) if run["failures"] else ""),
        *(_speed(run) if run["embedded"] else ()),
    ]
    return show.block(title, facts)


def _counts(run: Mapping[str, Any]) -> list[str]:
    names = ("embedded", "unchanged", "skipped", "failed", "pruned", "truncated")
    return [f"{show.count(run[name])} {name}" for name in names if run[name]] or ["nothing to do"]


def _speed(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    shares = show.percent(show.shares(run["stages"]))
    return [("speed", f"{run['items_per_second']:,.1f} items/s: {shares}"), ("faster", ADVICE[run["bottleneck"]])]
