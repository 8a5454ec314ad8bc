"""`permafrost classify C/HEAD ITEM…`: predictions of a head, or of nothing but the names of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from api import options, show
from api.calls import Call, Result
from api.options import argument, head_name, option
from embedder.errors import UsageError

RUNNERS_UP, MOST_IN_SET = 2, 3


def run(
    call: Call,
    head: Annotated[str, argument("C/HEAD[@VERSION]", "The collection and the head; with --labels the collection.")],
    items: Annotated[list[str] | None, argument("ITEM...", "Paths of pictures or text files, or texts.")] = None,
    id: options.Ids = None,
    k: Annotated[
        int | None, option("Only the k most probable classes of each.", "-k", "--top", metavar="N", min=1)
    ] = None,
    labels: Annotated[str | None, option("Names of classes, with commas; no head is needed.", metavar="A,B,C")] = None,
    template: Annotated[
        list[str] | None, option("A text with {} where a label goes; may be repeated.", metavar="TEXT")
    ] = None,
    space: options.Space = None,
    device: options.Device = None,
    runtime: options.Runtime = None,
) -> Result:
    """Predict labels with a head.

    Items are paths of pictures or text files, or texts; --id takes stored items, which are not encoded again. A label
    is followed by the set of classes that holds the true one as often as was promised, where it is not one class alone.
    With --labels, each item is given the label that it is most like by an encoder that reads texts too (zero-shot).
    """
    if labels is not None:
        return _by_name(call, head, items or (), id or (), labels.split(","), template or (), k, space, device)
    if template:
        raise UsageError("--template needs --labels", where="permafrost classify", hint="--labels cat,dog")
    collection, name = head_name(head, "permafrost classify")
    with call.service(device=device, runtime=runtime) as service:
        inputs = [*service.inputs(collection, name, items or ()), *({"id": one} for one in id or ())]
        found = service.classify(collection, name, inputs, top_k=k, space=space)
    return Result(found, text(found), note(found))


def _by_name(
    call: Call, collection: str, items: Sequence[str], ids: Sequence[str], labels: Sequence[str],
    templates: Sequence[str], k: int | None, space: str | None, device: str | None,
) -> Result:  # fmt: skip
    if "/" in collection:
        raise UsageError(
            f"{collection!r} names a head, and --labels needs none",
            where="permafrost classify",
            hint="write C --labels",
        )
    with call.service(device=device) as service:
        inputs = [*service.inputs_of(collection, items, space), *({"id": one} for one in ids)]
        found = service.classify_by_name(
            inputs, labels, collection=collection, templates=templates, space=space, top_k=k
        )
    used = ", ".join(f"{show.safe(t)!r}" for t in found["templates"])
    return Result(found, text(found), f"by name, {used}, {found['model']}, space {found['space'][:12]}")


def text(found: Mapping[str, Any]) -> str:
    """Return one line an input: its label, the probability, the runners-up, and whether it should be believed."""
    rows = []
    for one in found["results"]:
        if one.get("value") is not None:
            rows.append([show.safe(one["input"]), show.safe(one["label"]), _interval(one) + _doubt(one)])
            continue
        if one["labels"] is not None:
            rows.append([show.safe(one["input"]), _several(one) + _doubt(one)])
            continue
        ranked = sorted(one["probabilities"].items(), key=lambda pair: -pair[1])
        others = ", ".join(f"{show.safe(name)} {p:.3f}" for name, p in ranked[1 : 1 + RUNNERS_UP])
        sure = f"{ranked[0][1]:.3f}" + (f"  ({others})" if others else "")
        rows.append([show.safe(one["input"]), show.safe(one["label"]), sure + _doubt(one)])
    room = show.columns()
    return "\n".join(show.cut(line, room) for line in show.aligned(rows))


def _several(one: Mapping[str, Any]) -> str:
    """Return the labels that are given with their probabilities; without one, the likeliest that is not."""
    chances = one["probabilities"]
    given = [f"{show.safe(name)} {chances[name]:.3f}" for name in one["labels"] if name in chances]
    first = next(iter(chances))
    return ", ".join(given) if one["labels"] else f"none  (likeliest: {show.safe(first)} {chances[first]:.3f})"


def _interval(one: Mapping[str, Any]) -> str:
    low, high = one["interval"]
    return f"[{low:.4g}, {high:.4g}]" if low is not None else "(no interval: too few rows)"


def _doubt(one: Mapping[str, Any]) -> str:
    """Return what a reader must know before believing a label."""
    said = []
    if one["why"] == "foreign":
        said.append(f"abstained: unlike the training items (domain {one['domain']:.2f})")
    if one["why"] == "unsure":
        said.append("abstained: unsure")
    if one["prediction_set"] is not None and len(one["prediction_set"]) != 1 and one["labels"] is None:
        names = ", ".join(map(show.safe, one["prediction_set"][:MOST_IN_SET]))
        more = f", … {len(one['prediction_set'])}" if len(one["prediction_set"]) > MOST_IN_SET else ""
        said.append(f"set {{{names}{more}}}")
    return "".join(f"  {text}" for text in said)


def note(found: Mapping[str, Any]) -> str:
    """Return which head answered, and whether it is out of date."""
    stale = f"\nstale: {show.safe(found['stale'])}" if found["stale"] else ""
    return f"{found['collection']}/{found['head']}@{found['version']}, space {found['space'][:12]}{stale}"
