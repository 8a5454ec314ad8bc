"""What a head says of one item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Prediction:
    """The most probable class, and the calibrated probability of each (of the `top_k`, where asked), likeliest first.

    `prediction_set` holds the true class as often as was promised; `domain` is the percentile among items like the
    training ones, small where it is unlike them. `why` is unsure or foreign where the head abstains. A head that was
    saved before it knew any of this says None.

    Of a head that predicts numbers `value` is the number, `label` the same as text, `interval` holds the true one as
    often as was promised, and there are no probabilities. Of a head that gives several classes `labels` are those,
    likeliest first, `label` the same as text, and the set holds all true ones as often as was promised.
    """

    label: str
    probabilities: dict[str, float]
    prediction_set: list[str] | None = None
    domain: float | None = None
    why: str | None = None
    value: float | None = None
    interval: list[float | None] | None = None
    labels: list[str] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain values, with `abstained`."""
        return {
            "label": self.label, "probabilities": self.probabilities, "prediction_set": self.prediction_set,
            "abstained": self.why is not None, "why": self.why, "domain": self.domain,
            "value": self.value, "interval": self.interval, "labels": self.labels,
        }  # fmt: skip


def ranked(row: NDArray[np.float64], classes: Sequence[str], top_k: int | None) -> dict[str, float]:
    """Return the probabilities (C,) by class, likeliest first; of equal ones the first class."""
    return {classes[i]: float(row[i]) for i in np.argsort(-row, kind="stable")[:top_k]}
