"""`permafrost finetune C --label X --encoder E`: a new encoder, compared with the frozen one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from api import options, show
from api.calls import Call, Result
from api.options import option

if TYPE_CHECKING:
    from embedder.recipe import Step

SAY_EVERY_S = 30.0
Method = Annotated[
    Literal["lp_ft", "lora"], option("All weights after a linear head, or low-rank additions.", show_default=True)
]
Share = Annotated[
    float, option("How far from frozen (0) to tuned (1) weights.", metavar="A", min=0, max=1, show_default=True)
]
Patience = Annotated[
    int, option("End after so many epochs without a lower validation loss.", metavar="N", min=1, show_default=True)
]
Rate = Annotated[float | None, option("The largest learning rate. Default: 1e-4, or 5e-4 for lora.", metavar="R")]
Decay = Annotated[float, option("What the rate is multiplied by from layer to layer.", metavar="D", show_default=True)]


def run(
    call: Call,
    collection: options.Name,
    label: Annotated[str, option("The column to predict.", metavar="X")],
    encoder: Annotated[str, option("The frozen encoder to tune, by name or by its Space here.", metavar="E")],
    method: Method = "lp_ft",
    interpolate: Share = 1.0,
    epochs: Annotated[int, option("Passes over the items, at most.", metavar="N", min=1, show_default=True)] = 10,
    patience: Patience = 3,
    max_minutes: Annotated[float | None, option("End the tuning after this long.", metavar="M")] = None,
    lr: Rate = None,
    layer_decay: Decay = 0.75,
    batch_size: Annotated[int, option("Items in a step.", metavar="N", min=1, show_default=True)] = 32,
    rank: Annotated[int, option("Of the additions of lora.", metavar="N", min=1, show_default=True)] = 8,
    alpha: Annotated[float, option("Their scale is alpha over rank.", metavar="X", show_default=True)] = 16.0,
    split: options.Split = None,
    group_column: options.Group = None,
    where: options.Where = None,
    min_class_size: options.SmallestClass = 5,
    limit: Annotated[int | None, option("Tune on so many labelled items.", metavar="N", min=1)] = None,
    out: Annotated[str | None, option("Keep the weights in this new folder.", metavar="FOLDER")] = None,
    workers: Annotated[int | None, option("Processes that decode pictures.", metavar="N", min=1, max=256)] = None,
    device: options.Device = None,
    seed: Annotated[int, option("For the split, the order and the draws.", metavar="N", min=0, show_default=True)] = 0,
) -> Result:
    """Tune an encoder on labelled items.

    The items are read again. What comes of it is a new encoder and a new Space, filled beside the frozen one, with what
    was gained on items that it did not see.
    """
    from api.progress import Progress, plain_line

    with call.service(workers=workers, device=device) as service, Progress() as progress:
        done = service.finetune(
            collection, label=label, encoder=encoder, method=method, interpolate=interpolate, epochs=epochs,
            patience=patience, minutes=max_minutes, lr=lr, layer_decay=layer_decay, batch_size=batch_size, rank=rank,
            alpha=alpha, split=split, group=group_column, where=where, min_class_size=min_class_size, limit=limit,
            out=out, seed=seed, watch=progress.watch, step=steps(plain_line), say=plain_line,
        )  # fmt: skip
    return Result(done, text(done))


def steps(say: Callable[[str], None]) -> Callable[[Step], None]:
    """Return what tells every epoch, and within a long one now and then how far it is."""
    told = time.monotonic()

    def step(now: Step) -> None:
        nonlocal told
        if now.validation is None and time.monotonic() - told < SAY_EVERY_S:
            return
        told = time.monotonic()
        say(line(now))

    return step


def line(now: Step) -> str:
    """Return one line: `epoch 2/10: loss 0.431, validation 0.512, 84.0 % right, 31s, at most 2m05s more`."""
    left = (now.steps - now.step) * now.seconds / max(1, now.step)
    ended = (
        "" if now.validation is None else f", validation {now.validation:.3f}, {100 * (now.accuracy or 0):.1f} % right"
    )
    more = f", at most {show.duration(left)} more" if now.step < now.steps else ""
    return f"epoch {now.epoch}/{now.epochs}: loss {now.loss:.3f}{ended}, {show.duration(now.seconds)}{more}"


def text(done: Mapping[str, Any]) -> str:
    """Return what was gained, beside what it was compared with, what it cost, and what can be done next."""
    metrics, name = done["metrics"], show.safe(done["collection"])
    low, high = metrics["gain_interval"]
    facts = [
        ("verdict", done["sentence"]),
        ("gain", f"{metrics['gain']:+.3f}  [{low:+.3f}, {high:+.3f}]"),
        ("tuned", f"{metrics['accuracy']:.3f} by a linear probe, {metrics['end_to_end_accuracy']:.3f} by its own head"),
        ("frozen", f"{metrics['frozen_accuracy']:.3f}  {show.safe(done['compared_with']['encoder'])}"),
        ("majority", f"{metrics['majority']:.3f}"),
        ("items", _items(done)),
        ("epochs", f"{len(done['history']) - 1}, the weights of epoch {done['best_epoch']} were kept"),
        ("took", f"{show.duration(metrics['tuning_seconds'])} of tuning, {show.duration(done['seconds'])} in all"),
        ("encoder", show.safe(done["encoder"])),
        ("space", done["space"][:12]),
        ("weights", show.safe(done["path"])),
        ("next", f"permafrost report {name} --label {show.safe(done['label'])}"),
    ]
    return show.block(f"{name}: {done['method']} of {show.safe(done['compared_with']['encoder'])}", facts)


def _items(done: Mapping[str, Any]) -> str:
    metrics = done["metrics"]
    counts = f"{show.count(metrics['n_fit'])} learned from, {show.count(metrics['n_validation'])} to stop, "
    gone = f"; {show.count(done['unreadable'])} could not be read again" if done["unreadable"] else ""
    small = f"; {len(done['left_out'])} classes too small" if done["left_out"] else ""
    return f"{counts}{show.count(metrics['n_test'])} held out{small}{gone}"
