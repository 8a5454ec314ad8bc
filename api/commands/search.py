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
    like: Annotated[list[str] | None, option("Near to this stored item; may be repeated.", metavar="ID")] = None,
    unlike: Annotated[
        list[str] | None, option("Away from this stored item, with --like; may be repeated.", metavar="ID")
    ] = None,
    where: options.Where = None,
    k: Annotated[
        int | None, option("How many neighbours. Default: 10.", "-k", "--k", metavar="N", min=1, max=10_000)
    ] = None,
    group_by: Annotated[str | None, option("Only the best item of each value of a column.", metavar="X")] = None,
    diversity: Annotated[float | None, option("From 0, the nearest, to 1, unlike each other.", metavar="D")] = None,
    unique: Annotated[
        float | None, option("Leave out what is this near to a better hit, such as 0.98.", metavar="COSINE")
    ] = None,
    min_score: Annotated[
        float | None,
        option("Every item that scores at least this, exactly.", "--min-score", "--radius", metavar="R"),
    ] = None,
    hybrid: Annotated[bool, option("Join the nearest with a full-text search of TEXT.", "--hybrid")] = False,
    space: options.Space = None,
    exact: Annotated[bool, option("Score every vector, whatever index there is.", "--exact")] = False,
    device: options.Device = None,
    runtime: options.Runtime = None,
) -> Result:
    """Find the items nearest to a text, a picture or an item.

    Hits come nearest first; higher scores are nearer. With --diversity they come in the order of their choice.
    """
    with call.service(device=device, runtime=runtime) as service:
        query: dict[str, Any] = {"text": text, "image": image, "id": id, "like": like, "unlike": unlike}
        if vector is not None:
            from api.shapes import load_vector

            query["vector"] = load_vector(vector)
        found = service.search(
            collection, query, k=k, where=where, space=space, exact=exact, hybrid=hybrid,
            group_by=group_by, diversity=diversity, unique=unique, min_score=min_score,
        )  # fmt: skip
    return Result(found, lines(found), note(found))


def lines(found: Mapping[str, Any]) -> str:
    """Return one line a hit: score, id, and the columns that are not null, cut to the terminal."""
    rows = [
        [f"{hit['score']:.4f}{_ranks(hit)}", show.safe(hit["id"]), show.fields(hit["item"], without=WITHOUT)]
        for hit in found["hits"]
    ]
    room = show.columns()
    return "\n".join(show.cut(line, room) for line in show.aligned(rows))


def _ranks(hit: Mapping[str, Any]) -> str:
    """Return where a hit of hybrid search stands among the vectors and among the words."""
    if "ranks" not in hit:
        return ""
    named = [f"{name} {rank}" for name, rank in hit["ranks"].items() if rank is not None]
    return f"  ({', '.join(named)})"


def note(found: Mapping[str, Any]) -> str:
    """Return how the hits were found."""
    how = "exact" if found["exact"] else found["index"]
    searched = show.count(found["searched"]) + (
        f" of {show.count(found['rows'])}" if found["searched"] != found["rows"] else ""
    )
    facts = [
        f"{show.count(len(found['hits']), 'hit')} in {searched} by {found['metric']}",
        how,
        f"{found['took_ms']:.3g} ms",
    ]
    if found["filter_ms"]:
        facts[-1] += f" of which {found['filter_ms']:.3g} for the filter"
    if found["more"]:
        facts.append("more items are within the score: raise -k")
    if found["fallback"]:
        facts.append(f"the index was not trusted ({found['fallback']})")
    damage = f"\nthe index was not used: {show.safe(found['index_damage'])}" if found["index_damage"] else ""
    return f"{', '.join(facts)}, space {found['space'][:12]}{damage}"
