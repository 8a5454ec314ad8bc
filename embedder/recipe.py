"""How an encoder is tuned, and how far it is. No torch here: every door reads this."""

from __future__ import annotations

import math
from dataclasses import dataclass

from embedder.errors import UsageError

METHODS = ("lp_ft", "lora")
RATES = {"lp_ft": 1e-4, "lora": 5e-4}


@dataclass(frozen=True)
class Recipe:
    """How an encoder is tuned.

    Attributes:
        lr: the largest learning rate, of the head; None: 1e-4 for `lp_ft`, 5e-4 for `lora`. It grows from zero over the
            share `warmup` of all steps and falls to zero along a cosine.
        layer_decay: what the rate is multiplied by from each layer to the one below it.
        patience: epochs without a lower validation loss after which it ends.
        minutes: after which it ends with what it has.
        rank, alpha: of `lora`.
        interpolate: where on the line from frozen (0) to tuned (1) weights the result lies.
    """

    method: str = "lp_ft"
    epochs: int = 10
    lr: float | None = None
    layer_decay: float = 0.75
    weight_decay: float = 0.01
    warmup: float = 0.1
    batch_size: int = 32
    patience: int = 3
    minutes: float | None = None
    rank: int = 8
    alpha: float = 16.0
    interpolate: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"a method is one of {', '.join(METHODS)}, not {self.method!r}")
        positive = ("epochs", "batch_size", "patience", "rank", "alpha")
        wrong = [name for name in positive if not getattr(self, name) > 0]
        wrong += [name for name in ("lr", "minutes") if (value := getattr(self, name)) is not None and not value > 0]
        wrong += [name for name in ("layer_decay",) if not 0 < getattr(self, name) <= 1]
        wrong += [name for name in ("interpolate", "warmup", "weight_decay") if not 0 <= getattr(self, name) <= 1]
        if wrong:
            raise UsageError(f"{wrong[0]} cannot be {getattr(self, wrong[0])}", hint="permafrost finetune --help")

    @property
    def rate(self) -> float:
        """The largest learning rate."""
        return RATES[self.method] if self.lr is None else self.lr

    def factor(self, step: int, steps: int) -> float:
        """Return what the rate is multiplied by at a step, counted from 0 of `steps`."""
        rising = max(1, round(self.warmup * steps))
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


@dataclass(frozen=True)
class Step:
    """How far it is. `loss` is the mean of this epoch; `validation` and `accuracy` are set where an epoch ends."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    seconds: float
    validation: float | None = None
    accuracy: float | None = None
