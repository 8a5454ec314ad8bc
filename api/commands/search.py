"""`permafrost search C TEXT`: neighbours, nearest first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from api import show
from api.calls import Call, Result

WITHOUT = ("source",)


def run(
    call: Call,
    collection: Annotated[str, typer.Argument(metavar="C", help="The collection.")],
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="What to look for, in words.", show_default=False)] = None,
    image: Annotated[str | None, typer.Option(metavar="FILE", help="Look for what is like this picture.")] = None,
    id: Annotated[str | None, typer.Option(metavar="ID", help="Look for what is like this stored item.")] = None,
    vector: Annotated[str | None, typer.Option(metavar="FILE.npy", help="Look for this vector.")] = None,
    where: Annotated[str | None, typer.Option(metavar="SQL", help="Only items that pass, such as \"year >= 2020 AND label = 'cat'\".")] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, max=10_000, help="How many neighbours.")] = 10,
    space: Annotated[str | None, typer.Option(metavar="S", help="The Space: an alias, a fingerprint, or an encoder's name.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Score every vector, whatever index there is.")] = False,
    device: Annotated[str | None, typer.Option(metavar="D", help="auto, cpu, cuda or cuda:N.")] = None,
) -> Result:
    """Find the items nearest to a text, a picture, a stored item or a vector; higher scores are nearer."""
    with call.service(device=device) as service:
        query: dict[str, Any] = {"text": text, "image": image, "id": id}
        if vector is not None:
            from api.shapes import load_vector

            query["vector"] = load_vector(vector)
        found = service.search(collection, query, k=k, where=where, space=space, exact=exact)
    return Result(found, lines(found), note(found))


def lines(found: Mapping[str, Any]) -> str:
    """Return one line a hit: score, id, and the columns that are not null, cut to the terminal."""
    rows = [[f"{hit['score']:.4f}", show.safe(hit["id"]), show.fields(hit["item"], without=WITHOUT)] for hit in found["hits"]]
    room = show.columns()
    return "\n".join(show.cut(line, room) for line in show.aligned(rows))


def note(found: Mapping[str, Any]) -> str:
    """Return how the hits were found."""
    how = "exact" if found["exact"] else found["index"]
    searched = show.count(found["searched"]) + (f" of {show.count(found['rows'])}" if found["searched"] != found["rows"] else "")
    facts = [f"{show.count(len(found['hits']), 'hit')} in {searched} by {found['metric']}", how, f"{found['took_ms']:.0f} ms"]
    damage = f"\nthe index was not used: {show.safe(found['index_damage'])}" if found["index_damage"] else ""
    return f"{', '.join(facts)}, space {found['space'][:12]}{damage}"
