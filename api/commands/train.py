"""`permafrost train C --label X`: a head from stored vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from api import options, show
from api.calls import Call, Result
from api.options import option

SHOWN = ("accuracy", "majority", "gain_over_majority", "balanced_accuracy", "macro_f1", "log_loss", "ece")
NAMED = 5


def run(
    call: Call,
    collection: options.Name,
    label: Annotated[str, option("The column to predict.", metavar="X")],
    head: Annotated[str, option("The kind of head.", metavar="KIND", show_default=True)] = "linear",
    space: options.Space = None,
    name: Annotated[str | None, option("The head's name; the label's, without one.", metavar="H")] = None,
    split: Annotated[str | None, option("A column that says train or test.", metavar="X")] = None,
    where: options.Where = None,
    min_class_size: Annotated[
        int, option("Leave out classes that have fewer.", metavar="N", min=1, show_default=True)
    ] = 5,
    seed: Annotated[int, option("For the split and the fit.", metavar="N", show_default=True)] = 0,
) -> Result:
    """Train a head on stored vectors.

    Nothing is embedded; the head is saved under a new version.
    """
    with call.service() as service:
        trained = service.train(
            collection, label=label, kind=head, space=space, name=name, split=split, where=where,
            min_class_size=min_class_size, seed=seed,
        )  # fmt: skip
    return Result(trained, text(collection, trained))


def text(collection: str, trained: Mapping[str, Any]) -> str:
    """Return the head's name, what it was trained on, and its metrics with their intervals."""
    metrics, split = trained["metrics"], show.safe(trained["split"])
    title = (
        f"{collection}/{trained['head']}@{trained['version']}: {trained['kind']} in {show.duration(trained['seconds'])}"
    )
    facts = [
        ("label", f"{show.safe(trained['label'])}, {show.count(len(trained['classes']))} classes"),
        ("items", f"{show.count(trained['n_train'])} trained on, {show.count(trained['n_test'])} held out ({split})"),
        ("left out", _left_out(trained["left_out"])),
        *((name, _metric(name, metrics)) for name in SHOWN if metrics.get(name) is not None),
        ("space", trained["space"][:12]),
    ]
    return show.block(title, facts)


def _left_out(classes: Mapping[str, int]) -> str:
    if not classes:
        return ""
    largest = sorted(classes.items(), key=lambda pair: -pair[1])[:NAMED]
    names = ", ".join(f"{show.safe(name)} ({n})" for name, n in largest) + (", …" if len(classes) > NAMED else "")
    return f"{len(classes)} classes too small, {show.count(sum(classes.values()))} items: {names}"


def _metric(name: str, metrics: Mapping[str, Any]) -> str:
    interval = metrics.get(f"{name}_interval")
    return f"{metrics[name]:.3f}" + (f"  [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
