"""Planted cases of question 5: learning curves whose law is known, and what follows from them."""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np

from heads.report.curve import Curve, Measured, fit
from heads.report.freeze import Ceiling, Read, freeze
from plants import Case

HELD, DRAWS, N = 200, 8, 800
SIZES = np.array([N >> k for k in range(5, -1, -1)], dtype=np.intp)
LAWS = {"gentle": (1.0, 0.5, 0.05), "steep": (2.0, 0.7, 0.10), "slow": (0.8, 0.3, 0.0), "starved": (2.0, 0.3, 0.0)}


def errors(law: str, sizes: np.ndarray) -> np.ndarray:
    a, b, c = LAWS[law]
    return np.minimum(a * sizes.astype(float) ** -b + c, 0.9)


@lru_cache(maxsize=1000)
def planted(law: str, seed: int) -> Curve:
    """A curve fitted to eight binomial draws of a law."""
    rng = np.random.default_rng(seed)
    return fit(
        Measured(SIZES, rng.binomial(HELD, errors(law, SIZES), size=(DRAWS, len(SIZES))) / HELD, HELD), seed=seed
    )


def covered(law: str, times: int, seed: int) -> bool:
    """Whether the widened 95 % band holds the true error at `times` as many labels."""
    size = np.array([times * N])
    _, low, high = planted(law, seed).error(size)
    return bool(low[0] <= errors(law, size)[0] <= high[0])


def gain_covered(law: str, seed: int) -> bool:
    low, high = planted(law, seed).gain_interval
    true = errors(law, np.array([N, 2 * N]))
    return bool(low <= true[0] - true[1] <= high)


def trend(law: str, said: str, seed: int) -> bool:
    return planted(law, seed).trend() == said


def answer(law: str, said: str, delta: float, seed: int) -> bool:
    """Whether the freeze question says so of a curve with a target of 99 %."""
    curve = planted(law, seed)
    accuracy = 1 - float(errors(law, SIZES[-1:])[0])
    interval = (accuracy - 0.02, accuracy + 0.02)
    return (
        freeze(Read(accuracy, interval, N, curve, ceiling=Ceiling(0.99, "your target", True), delta=delta)).value
        == said
    )


CASES = [
    *(Case(f"curve: 95 % band at 2x holds, {law}", partial(covered, law, 2), 0.93, 1) for law in LAWS),
    *(Case(f"curve: 95 % interval of the gain holds, {law}", partial(gain_covered, law), 0.93, 1) for law in LAWS),
    Case("curve: gentle (gain 1.0) is called flat at 2 points", partial(trend, "gentle", "flat"), 0.9, 1),
    Case("curve: gentle is called falling at 2 points", partial(trend, "gentle", "falling"), 0, 0.025),
    Case("curve: slow (gain 2.0) is called falling at 2 points", partial(trend, "slow", "falling"), 0, 0.05),
    Case("curve: starved (gain 5.1) is called falling at 2 points", partial(trend, "starved", "falling"), 0.95, 1),
    Case("freeze: pilot, flat below the target", partial(answer, "gentle", "pilot", 0.02), 0.9, 1),
    Case("freeze: label_more, starved", partial(answer, "starved", "label_more", 0.02), 0.95, 1),
    Case(
        "freeze: label_more, where the gain is half of what is asked",
        partial(answer, "gentle", "label_more", 0.02),
        0,
        0.025,
    ),
]
