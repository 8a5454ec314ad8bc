"""`permafrost search C TEXT`: neighbours, nearest first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from api import options, show
from api.calls import Call, Result
from api.options import argument, option

WITHOUT = ("source", "media_type")


def run(
    call: Call,
    collection: options.Name,
    text: Annotated[str | None, argument("TEXT", "What to look for, in words.")] = None,
    image: Annotated[str | None, option("Look for what is like this picture.", metavar="FILE")] = None,
    id: Annotated[str | None, option("Look for what is like this stored item.", metavar="ID")] = None,
    vector: Annotated[str | None, option("Look for this vector.", metavar="FILE.npy")] = None,
    where: options.Where = None,
    k: Annotated[
        int, option("How many neighbours.", "-k", "--k", metavar="N", min=1, max=10_000, show_default=True)
    ] = 10,
    space: options.Space = None,
    exact: Annotated[bool, option("Score every vector, whatever index there is.", "--exact")] = False,
    device: options.Device = None,
    runtime: options.Runtime = None,
) -> Result:
    """Find the items nearest to a text, a picture or an item.

    Hits come nearest first; higher scores are nearer.
    """
    with call.service(device=device, runtime=runtime) as service:
        query: dict[str, Any] = {"text": text, "image": image, "id": id}
        if vector is not None:
            from api.shapes import load_vector

            query["vector"] = load_vector(vector)
        found = service.search(collection, query, k=k, where=where, space=space, exact=exact)
    return Result(found, lines(found), note(found))


def lines(found: Mapping[str, Any]) -> str:
    """Return one line a hit: score, id, and the columns that are not null, cut to the terminal."""
    rows = [
        [f"{hit['score']:.4f}", show.safe(hit["id"]), show.fields(hit["item"], without=WITHOUT)]
        for hit in found["hits"]
    ]
    room = show.columns()
    return "\n".join(show.cut(line, room) for line in show.aligned(rows))


def note(found: Mapping[str, Any]) -> str:
    """Return how the hits were found."""
    how = "exact" if found["exact"] else found["index"]
    searched = show.count(found["searched"]) + (
        f" of {show.count(found['rows'])}" if found["searched"] != found["rows"] else ""
    )
    facts = [
        f"{show.count(len(found['hits']), 'hit')} in {searched} by {found['metric']}",
        how,
        f"{found['took_ms']:.0f} ms",
    ]
    damage = f"\nthe index was not used: {show.safe(found['index_damage'])}" if found["index_damage"] else ""
    return f"{', '.join(facts)}, space {found['space'][:12]}{damage}"
