"""`permafrost import SOURCE --into C`: ready vectors, with the Space that they are of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from api import options, show
from api.calls import Call, Result
from api.options import argument, option
from api.pairs import pairs
from embedder.errors import TooManyFailures


def run(
    call: Call,
    source: Annotated[
        str, argument("SOURCE", "An export, a table, .npy/.npz, FOLDER#TABLE of LanceDB, or a FAISS index.")
    ],
    into: Annotated[str, option("The collection; it is made where there is none.", metavar="C")],
    encoder: Annotated[
        str | None, option("What made the vectors; a sample is made again and compared.", metavar="E")
    ] = None,
    space: Annotated[
        str | None, option("A Space: the JSON of an export, or a fingerprint of this store.", metavar="S")
    ] = None,
    declare: Annotated[str | None, option("A name for what made them, if it is not at hand.", metavar="NAME")] = None,
    dim: Annotated[int | None, option("With --declare: the length of a vector.", metavar="D", min=1)] = None,
    metric: Annotated[Literal["cosine"], option("How scores are made.", show_default=True)] = "cosine",
    normalize: Annotated[bool, option("Scale vectors to unit length.", "--normalize")] = False,
    unverified: Annotated[bool, option("Do not compare with --encoder.", "--unverified")] = False,
    ids: Annotated[str | None, option("Ids in a .npy, .txt (one a line) or .csv.", metavar="FILE")] = None,
    id_column: Annotated[str | None, option("The column, or member, that holds the ids.", metavar="X")] = None,
    vector_column: Annotated[str | None, option("The column, or member, that holds the vectors.", metavar="X")] = None,
    content_column: Annotated[str | None, option("The column of texts, or of pictures' paths.", metavar="X")] = None,
    table: Annotated[str | None, option("A table of a LanceDB folder.", metavar="NAME")] = None,
    media: Annotated[Literal["image", "text"] | None, option("What the vectors are of.")] = None,
    prefix: Annotated[str, option("Goes before each id; makes ids of positions.", metavar="P")] = "",
    rename: Annotated[list[str] | None, option("Store column A as B; may be repeated.", metavar="A=B")] = None,
    allow_lossy: Annotated[bool, option("Also a compressed FAISS index.", "--allow-lossy")] = False,
    max_failure_rate: options.FailureRate = 0.01,
    device: options.Device = None,
) -> Result:
    """Store vectors that were made elsewhere.

    One of --encoder, --space and --declare says what they are, but for an export, which says it itself.
    """
    from api.acts.moving import Declared
    from api.progress import Progress
    from index.bringing import Asked

    asked = Asked(
        id_column=id_column, vector_column=vector_column, content_column=content_column, ids=ids, table=table,
        prefix=prefix, media=media, rename=pairs(rename, "--rename A=B"), allow_lossy=allow_lossy,
    )  # fmt: skip
    said = Declared(encoder=encoder, space=space, declare=declare, dim=dim, unverified=unverified, normalize=normalize)
    with call.service(device=device) as service, Progress() as progress:
        try:
            done = service.import_(
                source, into, asked=asked, said=said, max_failure_rate=max_failure_rate, watch=progress.watch
            )
        except TooManyFailures as error:
            return Result(error.result, text(error.result), error=error)
    return Result(done, text(done))


def text(done: Mapping[str, Any]) -> str:
    """Return what became of the items."""
    counts = [
        f"{show.count(done[name])} {name}" for name in ("inserted", "updated", "unchanged", "failed") if done[name]
    ]
    seen = done["verified"]
    facts = [
        ("space", f"{done['space'][:12]}  {show.safe(done['encoder'])}, {done['dim']}-d"),
        ("beside", ", ".join(map(show.safe, done["beside"]))),
        ("found", f"{show.count(done['found'])}: {', '.join(counts)}"),
        (
            "verified",
            f"{show.count(seen['sampled'], 'item')} embedded again, least cosine {seen['cosine']}" if seen else "",
        ),
        *(("failed", f"{show.count(n)} {show.safe(reason)}") for reason, n in done["reasons"].items()),
        ("see", show.safe(done["failures"]) if done["failures"] else ""),
    ]
    stored = done["inserted"] + done["updated"]
    title = f"imported {show.count(stored, 'item')}" if stored else "nothing new"
    return show.block(f"{title} into {done['collection']} in {show.duration(done['seconds'])}", facts)
