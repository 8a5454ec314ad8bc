"""`permafrost train C --label X`: a head from stored vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from api import show
from api.calls import Call, Result

SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece", "majority")


def run(
    call: Call,
    collection: Annotated[str, typer.Argument(metavar="C", help="The collection.")],
    label: Annotated[str, typer.Option(metavar="X", help="The column to predict.")],
    head: Annotated[str, typer.Option(metavar="KIND", help="The kind of head.")] = "linear",
    space: Annotated[str | None, typer.Option(metavar="S", help="The Space: an alias, a fingerprint, or an encoder's name.")] = None,
    name: Annotated[str | None, typer.Option(metavar="H", help="The head's name; the label's, without one.")] = None,
    split: Annotated[str | None, typer.Option(metavar="X", help="A column that says train or test.")] = None,
    where: Annotated[str | None, typer.Option(metavar="SQL", help="Only items that pass.")] = None,
    min_class_size: Annotated[int, typer.Option(min=1, help="Leave out classes that have fewer items.")] = 2,
    seed: Annotated[int, typer.Option(help="For the split and the fit.")] = 0,
) -> Result:
    """Train a head on stored vectors and save it under a new version; nothing is embedded."""
    with call.service() as service:
        trained = service.train(
            collection, label=label, kind=head, space=space, name=name, split=split, where=where,
            min_class_size=min_class_size, seed=seed,
        )  # fmt: skip
    return Result(trained, text(collection, trained))


def text(collection: str, trained: Mapping[str, Any]) -> str:
    """Return the head's name, what it was trained on, and its metrics with their intervals."""
    metrics = trained["metrics"]
    title = f"{collection}/{trained['head']}@{trained['version']}: {trained['kind']} in {show.duration(trained['seconds'])}"
    facts = [
        ("label", f"{show.safe(trained['label'])}, {show.count(len(trained['classes']))} classes"),
        ("items", f"{show.count(trained['n_train'])} to train on, {show.count(trained['n_test'])} to test on"),
        *((name, _metric(name, metrics)) for name in SHOWN if metrics.get(name) is not None),
        ("space", trained["space"][:12]),
    ]
    return show.block(title, facts)


def _metric(name: str, metrics: Mapping[str, Any]) -> str:
    interval = metrics.get(f"{name}_interval")
    return f"{metrics[name]:.3f}" + (f"  [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
