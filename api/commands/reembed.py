"""`permafrost reembed C --encoder E`: every item into a second Space, compared, then swapped in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from api import options, show
from api.calls import Call, Result
from api.options import option
from embedder.errors import Refused, UsageError


def run(
    call: Call,
    collection: options.Name,
    encoder: Annotated[str | None, option("The new encoder: KIND:NAME.", metavar="E")] = None,
    alias: Annotated[str, option("The alias to swap.", metavar="NAME", show_default=True)] = "default",
    keep: Annotated[bool, option("Embed and compare; leave the alias where it is.", "--keep")] = False,
    min_overlap: Annotated[
        float | None, option("The least overlap@10 that is swapped in.", metavar="X", min=0, max=1)
    ] = None,
    allow_missing: Annotated[
        bool, option("Swap also where items could not be embedded again.", "--allow-missing")
    ] = False,
    rollback: Annotated[bool, option("Swap the alias back to the Space before.", "--rollback")] = False,
    seed: Annotated[int, option("Draws the items that are compared.", metavar="N", show_default=True, min=0)] = 0,
    workers: Annotated[int | None, option("Processes that decode pictures.", metavar="N", min=1, max=256)] = None,
    device: options.Device = None,
    dry_run: Annotated[bool, option("Count what would be done, and write nothing.", "--dry-run")] = False,
) -> Result:
    """Move a collection to another encoder while it answers.

    The new Space is filled beside the old one; then the alias is swapped, at once, and --rollback swaps it back.
    """
    from api.progress import Progress
    from index.selection import IngestOptions

    if rollback == (encoder is not None):
        raise UsageError("one of --encoder and --rollback is needed", where="permafrost reembed")
    with call.service(workers=workers, device=device) as service, Progress() as progress:
        if encoder is None:
            back = service.rollback(collection, alias=alias)
            return Result(back, f"{alias} of {collection} is {back['to'][:12]} again")
        asked = IngestOptions(dry_run=dry_run, workers=service.settings.decode_workers)
        try:
            done = service.reembed(
                collection, encoder, alias=alias, keep=keep, min_overlap=min_overlap, allow_missing=allow_missing,
                seed=seed, options=asked, watch=progress.watch,
            )  # fmt: skip
        except Refused as error:
            if not error.result:
                raise
            return Result(error.result, text(error.result), error=error)
    return Result(done, text(done))


def text(done: Mapping[str, Any]) -> str:
    """Return what was embedded, how far the neighbours agree, and what the alias names now."""
    runs, measured = done["runs"], done["overlap"]
    counts = [f"{show.count(run['embedded'])} {run['media']}s embedded, {show.count(run['unchanged'])} unchanged, "
              f"{show.count(run['skipped'] or run['failed'])} {'to embed' if run['skipped'] else 'failed'}"
              for run in runs]  # fmt: skip
    low, high = measured["interval"] if measured else (0, 0)
    facts = [
        ("from", done["from"][:12]),
        ("to", done["to"][:12] if done["to"] else ""),
        *(("items", line) for line in counts),
        ("agree", f"overlap@{measured['k']} {measured['mean']:.3f} [{low:.3f}, {high:.3f}] over "
                  f"{show.count(measured['queries'], 'stored item')}" if measured else ""),
        *(("missing", f"{show.safe(one['id'])}: {show.safe(one['reason'])}") for one in done["missing_items"]),
        ("missing", f"and {show.count(more)} more" if (more := done["missing"] - len(done["missing_items"])) else ""),
        ("undo", f"permafrost reembed {done['collection']} --rollback" if done["swapped"] else ""),
    ]  # fmt: skip
    state = "swapped to the new Space" if done["swapped"] else f"not swapped: {done['why_not']}"
    return show.block(f"{done['collection']}: {done['alias']} {state}", facts)
