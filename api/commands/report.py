"""`permafrost report C --label X`: should I transfer at all, from what, frozen or not?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from api import options, show, told
from api.calls import Call, Result
from api.options import option


def run(
    call: Call,
    collection: options.Name,
    label: Annotated[str, option("The column to predict.", metavar="X")],
    encoder: Annotated[
        list[str] | None, option("An encoder or Space to compare; may be repeated. Default: all here.", metavar="E")
    ] = None,
    reference: Annotated[str | None, option("A collection to compare the domain with.", metavar="C2")] = None,
    target: Annotated[float | None, option("The accuracy that you want, 0 to 1.", metavar="P")] = None,
    human: Annotated[float | None, option("The share of items that people label differently.", metavar="P")] = None,
    delta: Annotated[float, option("The smallest gain worth paying for.", metavar="P", show_default=True)] = 0.02,
    layers: Annotated[bool, option("Also read earlier layers and another pooling.", "--layers/--no-layers")] = True,
    controls: Annotated[
        bool, option("Also compare untrained weights, pixels or words.", "--controls/--no-controls")
    ] = True,
    group_column: options.Group = None,
    where: options.Where = None,
    min_class_size: options.SmallestClass = 5,
    html: Annotated[str | None, option("Also write the page to this file.", metavar="F")] = None,
    device: options.Device = None,
    seed: Annotated[int, option("For folds and draws.", metavar="N", min=0, show_default=True)] = 0,
) -> Result:
    """Make the transfer report.

    Five questions: which encoder, does pretraining help, does the domain fit, does the task fit, what next. Spaces that
    are missing are embedded first.
    """
    from api.progress import Progress, plain_line

    with call.service(device=device) as service, Progress() as progress:
        made: dict[str, Any] = service.report(
            collection, label=label, encoders=encoder or (), reference=reference, target=target, human=human,
            delta=delta, layers=layers, controls=controls, group=group_column, where=where,
            min_class_size=min_class_size, seed=seed, watch=progress.watch, say=lambda step: plain_line(str(step)),
        )  # fmt: skip
    if html is not None:
        from index.files import write_bytes

        write_bytes(Path(html).expanduser().absolute(), Path(made["path"]).read_bytes())
        made["path"] = html
    return Result(made, told.text(made), f"page: {show.safe(made['path'])}")
