"""Planted cases of what random numbers may change: seeds of untrained weights, and the seed of the report itself."""

from __future__ import annotations

from functools import partial

import numpy as np

from embedder.records import FloatMatrix
from heads.folds import Ints
from heads.report.candidates import Candidate
from heads.report.probes import plan
from heads.report.transfer import transfer
from plants import Case
from plants.making import DIMS, INFORMED, quick, shifted, two_classes

REPORT_SEEDS, DRAWS = 5, 3
GAINS = (0.0, 0.15, 0.25, 0.3, 0.35, 0.45)


def against_twins(n: int, spread: float, seed: int, *, draws: int = DRAWS, ours: float | None = None) -> str:
    """The verdict on an encoder against untrained weights whose draws are worth 0.3 in the mean, and so much apart.

    By default the encoder is as accurate as a draw is in the mean: Φ(√k·shift) of k dimensions, a mean over shifts.
    """
    equal = 0.3 / np.sqrt(1 + INFORMED * spread**2)
    on = two_classes(n, seed)
    worth = 0.3 + spread * np.random.default_rng([seed, 11]).normal(size=DRAWS)
    twins = [
        quick(shifted(on, worth[k], 100 * seed + k + 1, name=f"twin {k}", kind="random"), on) for k in range(draws)
    ]
    encoder = quick(shifted(on, equal if ours is None else ours, 100 * seed), on)
    return transfer([encoder], twins, on, twins={twin.name: "encoder" for twin in twins}).verdict.value


def wrong(n: int, spread: float, seed: int, draws: int = DRAWS) -> bool:
    return against_twins(n, spread, seed, draws=draws) in ("helps", "hurts")


def finds(spread: float, ours: float, value: str, seed: int) -> bool:
    return against_twins(300, spread, seed, ours=ours) == value


def alike(n: int, seed: int) -> tuple[Ints, FloatMatrix, FloatMatrix]:
    """Labels, and two encoders that share most of what they know; from one data set to the next their gap is nothing,
    within the margin, about it, or beyond."""
    rng = np.random.default_rng([seed, n])
    y = rng.permutation(np.arange(n) % 2)
    sign = 2 * y[:, None] - 1
    shared = rng.normal(size=(n, DIMS))
    shared[:, :INFORMED] += 0.35 * sign
    ours, theirs = rng.normal(size=(2, n, 4))
    ours[:, :1] += GAINS[seed % len(GAINS)] * sign
    a, b = (np.concatenate([shared, own], axis=1).astype(np.float32) for own in (ours, theirs))
    return y, a, b


def apart(n: int, seed: int) -> tuple[Ints, FloatMatrix, FloatMatrix]:
    """Labels, and two encoders of their own that are two points apart in the mean: at the edge of every verdict."""
    on = two_classes(n, seed)
    a, b = (shifted(on, shift, 2 * seed + k).X for k, shift in enumerate((0.33, 0.30)))
    assert isinstance(a, np.ndarray)
    assert isinstance(b, np.ndarray)
    return on.y, a, b


def flips(n: int, seed: int, *, far: bool = False) -> bool:
    """Whether another seed of the report turns a verdict that was given with confidence into another such."""
    y, ours, theirs = apart(n, seed) if far else alike(n, seed)
    said = set()
    for k in range(REPORT_SEEDS):
        on = plan(y, [f"u{i}" for i in range(n)], seed=k)
        encoder, control = (quick(Candidate(name, name, X), on) for name, X in (("encoder", ours), ("pixels", theirs)))
        said.add(transfer([encoder], [control], on).verdict.value)
    return len(said - {"undecided"}) > 1


CASES = [
    Case("transfer, 3 untrained draws, equal: either", partial(wrong, 300, 0.0), 0, 0.05),
    Case("transfer, 3 draws ±.08 apart, equal in the mean, n=300", partial(wrong, 300, 0.08), 0, 0.05),
    Case("  the same of one draw (must fail)", partial(wrong, 300, 0.08, draws=1), 0.15, 1),
    Case("transfer, ±.50 against 3 draws ±.03 apart: helps", partial(finds, 0.03, 0.50, "helps"), 0.95, 1),
    Case("transfer, 0 against 3 draws ±.03 apart: hurts", partial(finds, 0.03, 0.0, "hurts"), 0.95, 1),
    Case("report's seed, 5 seeds, n=150: verdict flips", partial(flips, 150), 0, 0, seeds=30),
    Case("report's seed, 5 seeds, n=600: verdict flips", partial(flips, 600), 0, 0, seeds=30),
]  # fmt: skip
SLOW = [
    Case("transfer, 3 draws ±.08 apart, equal in the mean, n=1000", partial(wrong, 1000, 0.08), 0, 0.05),
    Case("report's seed, 5 seeds, n=1500: verdict flips", partial(flips, 1500), 0, 0, seeds=30),
    Case("report's seed, 5 seeds, n=3000: verdict flips", partial(flips, 3000), 0, 0, seeds=30),
    Case("report's seed, 5 seeds, n=2500, two of their own: flips", partial(flips, 2500, far=True), 0, 0, seeds=30),
]  # fmt: skip
