"""How many labels the pretrained features are worth, read off two learning curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from heads.report.verdict import Interval, plain

Floats = NDArray[np.float64]
DRAWS = 1000


@dataclass(frozen=True)
class LabelsSaved:
    """`times`: the control needs that many times as many labels; `interval` 90 %.

    `bound`: `about`, or `at least` / `at most` where the curves do not reach each other within the sizes that were run.
    """

    times: float
    interval: Interval
    bound: str

    @property
    def sentence(self) -> str:
        """What it says in words."""
        size = f"{self.times:.1f}"
        if self.bound == "at least":
            return f"The pretrained encoder is worth at least {size} times your labels."
        if self.bound == "at most":
            return f"With the pretrained encoder a label is worth at most {size} of one with the best control."
        low, high = self.interval
        if self.times < 1:
            span = f"({low:.1f} to {high:.1f})"
            return f"With the pretrained encoder a label is worth {size} {span} of one with the best control."
        return f"The pretrained encoder is worth about {size} times your labels ({low:.1f} to {high:.1f})."

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {name: plain(value) for name, value in vars(self).items()} | {"sentence": self.sentence}


def labels_saved(sizes: Floats, encoder: Floats, control: Floats, *, seed: int = 0) -> LabelsSaved:
    """Compare two learning curves on the same draws.

    With n the largest size: n over the size at which the encoder has the control's error at n. Where the encoder is the
    worse one, the size at which the control has the encoder's error at n, over n. Curves are made monotone, and read
    between sizes by their logarithm.

    Args:
        sizes: (S,) ascending training sizes.
        encoder, control: (draws, S) errors.
    """
    rng = np.random.default_rng(seed)
    times, bound = _times(sizes, encoder.mean(axis=0), control.mean(axis=0))
    picks = (rng.integers(len(encoder), size=len(encoder)) for _ in range(DRAWS))
    drawn = [_times(sizes, encoder[at].mean(axis=0), control[at].mean(axis=0))[0] for at in picks]
    low, high = np.quantile(drawn, [0.05, 0.95]).tolist()
    return LabelsSaved(times, (low, high), bound)


def _times(sizes: Floats, encoder: Floats, control: Floats) -> tuple[float, str]:
    ours, theirs, n = _falling(encoder), _falling(control), float(sizes[-1])
    if ours[-1] <= theirs[-1]:
        size, reached = _size_at(sizes, ours, theirs[-1])
        return n / size, "about" if reached else "at least"
    size, reached = _size_at(sizes, theirs, ours[-1])
    return size / n, "about" if reached else "at most"


def _falling(errors: Floats) -> Floats:
    return np.asarray(isotonic_regression(errors, increasing=False).x)


def _size_at(sizes: Floats, errors: Floats, target: float) -> tuple[float, bool]:
    """Return the size at which a falling curve has the target error, and whether it is within the sizes."""
    if target > errors[0]:
        return float(sizes[0]), False
    return float(np.exp(np.interp(-target, -errors, np.log(sizes)))), True
