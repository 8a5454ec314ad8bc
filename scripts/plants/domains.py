"""Planted cases of question 3: samples drawn alike, shifted, stretched, grouped, and single strange items."""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np

from heads.report.domain import Domain, Reference, domain
from heads.report.strange import against
from heads.report.twosample import Sample, frechet, kid
from plants import Case

D = 64


@lru_cache(maxsize=1000)
def found(shift: float, scale: float, n: int, seed: int, copies: int = 1) -> Domain:
    """The answer for n items, moved by `shift` along one axis and stretched, in groups of near-copies."""
    rng = np.random.default_rng(seed)
    groups = n // copies
    samples = [np.repeat(rng.normal(size=(groups, D)), copies, axis=0) for _ in range(2)]
    if copies > 1:
        samples = [s + 0.1 * rng.normal(size=s.shape) for s in samples]
    items, reference = (s.astype(np.float32) for s in samples)
    items *= scale
    items[:, 0] += shift
    units = np.repeat(np.arange(groups, dtype=np.intp), copies)
    return domain(items, units, Reference("reference", reference, units), seed=seed)


def rejects(test: str, shift: float, scale: float, seed: int, copies: int = 1) -> bool:
    """Whether one test, by itself, rejects at 5 %."""
    tests = found(shift, scale, 100 * copies, seed, copies).tests
    return tests is not None and getattr(tests, test).p <= 0.05


def says(value: str, shift: float, scale: float, n: int, seed: int, copies: int = 1) -> bool:
    return found(shift, scale, n, seed, copies).verdict.value == value


def outside(seed: int) -> float:
    """The share of ordinary items beyond the reference's 5 %."""
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(400, D)).astype(np.float32)
    reference = Sample.of(rng.normal(size=(1000, D)), np.arange(1000))
    return against(items, np.arange(400, dtype=np.intp), reference, rng).outside


def strangest_first(seed: int) -> bool:
    """Whether five items that were moved by 12 are the five strangest of 200."""
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(200, D))
    items[::40, 0] += 12
    order = against(items.astype(np.float32), np.arange(200), Sample.of(rng.normal(size=(400, D)), np.arange(400)), rng)
    return set(order.order[:5].tolist()) == set(range(0, 200, 40))


def unbiased_kid(seed: int) -> float:
    rng = np.random.default_rng(seed)
    return kid(rng.normal(size=(200, D)), rng.normal(size=(200, D)))


def biased_frechet(seed: int, n: int = 200) -> float:
    rng = np.random.default_rng(seed)
    return frechet(rng.normal(size=(n, D)), rng.normal(size=(n, D)))


TESTS = ("mmd", "energy", "classifier")
CASES = [
    *(Case(f"domain: {t} rejects samples drawn alike", partial(rejects, t, 0, 1), 0, 0.055) for t in TESTS),
    *(
        Case(f"domain: {t} rejects groups of 3 drawn alike", partial(rejects, t, 0, 1, copies=3), 0, 0.055)
        for t in TESTS
    ),
    *(Case(f"domain: {t} finds a mean shift of 1.5", partial(rejects, t, 1.5, 1), 0.98, 1) for t in TESTS),
    Case("domain: mmd finds a scale of 1.15", partial(rejects, "mmd", 0, 1.15), 0.98, 1),
    Case("domain: energy finds a scale of 1.15", partial(rejects, "energy", 0, 1.15), 0.75, 1),
    Case("domain: shifted, of samples drawn alike", partial(says, "shifted", 0, 1, 100), 0, 0.05),
    Case("domain: fits, 600 drawn alike", partial(says, "fits", 0, 1, 600), 0.6, 1, seeds=50),
    Case("domain: shifted, a mean shift of 1.5", partial(says, "shifted", 1.5, 1, 100), 0.95, 1),
    Case("domain: shifted, a scale of 1.15", partial(says, "shifted", 0, 1.15, 100), 0.95, 1),
    Case("domain: fits, a mean shift of 1.5", partial(says, "fits", 1.5, 1, 100), 0, 0.01),
    Case("domain: share beyond the 5 % level", outside, 0.035, 0.065, share=False),
    Case("domain: five far items are the five strangest", strangest_first, 0.95, 1),
    Case("domain: KID of samples drawn alike", unbiased_kid, -0.002, 0.002, share=False),
    Case("domain: Fréchet distance of 200 drawn alike", biased_frechet, 10.5, 11.5, share=False, seeds=20),
]
