"""What every question of the report answers with, and the rules by which an interval becomes words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, Literal

import numpy as np

MARGIN = 0.03
LEVEL = 0.05
FAR, FAR_ONCE = 2.0, 3.0
Interval = tuple[float, float]
Direction = Literal["above", "below", "tie", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """One answer.

    Attributes:
        value: one of the words that the question allows; for the encoder question, a name.
        sentence: the answer in plain words, made from the figures by a written rule.
        interval: 95 % interval of the figure that decided, None where no figure could.
        evidence: every figure that the rule read, by name.
        tied_with: for the encoder question, the rest of the confidence set; None for the others.
    """

    value: str
    sentence: str
    interval: Interval | None
    evidence: Mapping[str, Any]
    tied_with: tuple[str, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain values; `tied_with` only where it has a sense."""
        found = {"value": self.value, "sentence": self.sentence, "interval": self.interval, "evidence": self.evidence}
        more = {} if self.tied_with is None else {"tied_with": self.tied_with}
        return {name: plain(value) for name, value in (found | more).items()}


def plain(value: Any) -> Any:
    """Return dataclasses, numpy's values and tuples as JSON has them; NaN and infinity become None."""
    if hasattr(value, "as_json"):
        return value.as_json()
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and not np.isfinite(value) else value


def direction(
    difference: float, interval: Interval, tie_interval: Interval, margin: float = MARGIN, *, far: float = FAR
) -> Direction:
    """Read a difference: its 95 % interval excludes zero, or its 90 % interval lies inside ±margin (TOST), or neither.

    A difference smaller than the margin is given its direction only where zero is `far` times as far off as the
    interval reaches; one that is nearer is neither a tie nor more. Otherwise other folds of the same items would turn
    `above` into a tie and back: the difference moves by up to the interval's half-width with the seed of the folds.
    """
    low, high = interval
    if low <= 0 <= high:
        return "tie" if -margin < tie_interval[0] and tie_interval[1] < margin else "undecided"
    if abs(difference) < margin and abs(difference) < far * (high - low) / 2:
        return "undecided"
    return "above" if low > 0 else "below"


def percent(share: float) -> str:
    """Return 0.8123 as `81.2 %`."""
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """Return 0.0312 as `3.1`: percentage points, unsigned."""
    return f"{100 * abs(difference):.1f}"


def span(interval: Interval, *, signed: bool = False) -> str:
    """Return an interval of shares as `78.1 to 84.0`; of differences, with the sign of each end."""
    low, high = (f"{100 * end:{'+' if signed else ''}.1f}" for end in interval)
    return f"{low} to {high}"


def not_enough(delta: float, needed: float, n: int) -> str:
    """Return the sentence of an undecided comparison: how many items a difference of `delta` would need."""
    return (
        f"Not enough data to say: a {points(delta)}-point difference needs about {rounded(needed)} items; you have {n}."
    )


def rounded(count: float) -> str:
    """Return a count to two digits, as an estimate deserves: `1,960` is `2,000`."""
    if not np.isfinite(count):
        return "more than a million"
    size = 10 ** max(0, int(np.floor(np.log10(max(count, 1)))) - 1)
    up = int(np.ceil(count / size) * size)
    return f"{up:,}" if up <= 1_000_000 else "more than a million"
