"""Planted cases of questions 1 and 2: comparisons, ranking, transfer, and the information in labels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import stats

from heads.report.candidates import Candidate
from heads.report.information import online_code, permutation_test
from heads.report.labels_saved import LabelsSaved, labels_saved
from heads.report.probes import Plan, Probe, linear, neighbours, plan
from heads.report.ranking import Ranking, rank
from heads.report.selection import bias_corrected, nested
from heads.report.transfer import transfer
from plants import Case
from plants.making import flips, quick, shifted, two_classes

TRUTH = 8.0


def permuted(shift: float, seed: int) -> bool:
    on = two_classes(100, seed, repeats=1)
    return permutation_test(shifted(on, shift, seed), on, draws=99).p <= 0.05


def different(seed: int, *, naive: bool = False) -> bool:
    """Whether two equally good encoders are called different."""
    on = two_classes(200, seed, repeats=5)
    a, b = (quick(shifted(on, 0.25, 2 * seed + k), on) for k in range(2))
    if naive:
        gaps = a.correct.astype(float) - b.correct
        folds = [row[at == k].mean() for row, at in zip(gaps, on.fold, strict=True) for k in range(5)]
        return bool(stats.ttest_1samp(folds, 0).pvalue <= 0.05)
    return on.compare(a, b).direction(margin=0.0) in ("above", "below")


def verdict(ours: float, theirs: float, n: int, seed: int, *, honest: bool = False, controls: int = 1) -> str:
    """The verdict on an encoder and controls of planted strength; `honest`: by logistic regression."""
    on = two_classes(n, seed)
    probe = linear if honest else quick
    encoder = probe(shifted(on, ours, 100 * seed), on)
    bars = [probe(shifted(on, theirs, 100 * seed + k, kind="random"), on) for k in range(1, 1 + controls)]
    return transfer([encoder], bars, on).verdict.value


def wrong(value: str) -> bool:
    return value in ("helps", "hurts")


def turned(seed: int) -> bool:
    """Whether other folds turn a verdict into its opposite: data of one seed, three plans."""
    base = two_classes(200, seed)
    a, b = shifted(base, 0.30, 2 * seed), shifted(base, 0.20, 2 * seed + 1, kind="random")
    plans = [plan(base.y, [f"u{i}" for i in range(len(base))], seed=k) for k in range(3)]
    values = {transfer([quick(a, on)], [quick(b, on)], on).verdict.value for on in plans}
    return {"helps", "hurts"} <= values


def ranking(strengths: list[float], n: int, seed: int) -> Ranking:
    on = two_classes(n, seed, repeats=2)
    made = [shifted(on, s, 1000 * seed + k, name=f"e{k}") for k, s in enumerate(strengths)]
    return rank([quick(c, on) for c in made], {c.name: c for c in made}, on)


def rejects(seed: int) -> bool:
    """Whether any of 20 useless encoders is called worse than another."""
    return any(line.standing == "behind" for line in ranking([0.0] * 20, 200, seed).ranked)


def keeps_best(seed: int) -> bool:
    found = ranking([0.25, 0.25, 0.3, 0.35, 0.4], 300, seed).verdict
    return "e4" in (found.value, *(found.tied_with or ()))


def names_best(seed: int) -> bool:
    found = ranking([0.2, 0.2, 0.2, 0.6], 300, seed).verdict
    return found.value == "e3" and found.tied_with == ()


@lru_cache(maxsize=256)
def useless(seed: int) -> tuple[Plan, list[Probe]]:
    """Twenty encoders that know nothing of 200 labels."""
    on = two_classes(200, seed, repeats=1)
    return on, [quick(shifted(on, 0.0, 1000 * seed + k, name=f"e{k}"), on) for k in range(20)]


def winner(seed: int, how: str) -> float:
    """Accuracy reported for the best of 20 useless encoders."""
    on, probes = useless(seed)
    if how == "apparent":
        return max(p.accuracy for p in probes)
    return bias_corrected(probes, on.resampler) if how == "bbc" else nested(probes, on).accuracy


def tie(n: int, discordance: float, difference: float, seed: int) -> bool:
    on, a, b = flips(n, discordance, difference, seed)
    low, high = on.compare(a, b).tie_interval
    return max(-low, high) < 0.03


def copies(seed: int, *, grouped: bool) -> float:
    """Accuracy of neighbours on 60 clusters of 5 near copies with random labels."""
    rng = np.random.default_rng([seed, 4])
    X = np.repeat(rng.normal(size=(60, 16)), 5, axis=0) + 0.01 * rng.normal(size=(300, 16))
    y = np.repeat(rng.permutation(np.arange(60) % 2), 5)
    units = [f"u{i // 5 if grouped else i}" for i in range(300)]
    on = plan(y, units, repeats=1, seed=seed)
    return neighbours(Candidate("copies", "encoder", X.astype(np.float32)), on, leave="fold").accuracy


def saved(seed: int) -> LabelsSaved:
    """Curves of which one needs 8 times as many labels, ten draws, each error on 500 items."""
    rng = np.random.default_rng([seed, 5])
    sizes = 1600.0 / 2.0 ** np.arange(5, -1, -1)

    def errors(n: np.ndarray) -> np.ndarray:
        return rng.binomial(500, np.broadcast_to(1.2 * n**-0.4 + 0.05, (10, len(n)))) / 500

    return labels_saved(sizes, errors(TRUTH * sizes), errors(sizes), seed=seed)


def covered(seed: int) -> bool:
    low, high = saved(seed).interval
    return low <= TRUTH <= high


def compression(shift: float, seed: int) -> float:
    on = two_classes(200, seed, repeats=1)
    return online_code(shifted(on, shift, seed), on)["compression"]


CASES = [
    Case("permutation test, no signal: p <= .05", lambda s: permuted(0.0, s), 0, 0.05),
    Case("permutation test, ±.2 in 10 of 20: p <= .05", lambda s: permuted(0.2, s), 0.85, 1),
    Case("two equal encoders, n=200: called different", different, 0, 0.05),
    Case("  the same by a naive t test (must fail)", lambda s: different(s, naive=True), 0.2, 1),
    Case("transfer, equal, n=300: helps or hurts", lambda s: wrong(verdict(0.3, 0.3, 300, s)), 0, 0.05),
    Case("transfer, equal, n=60: helps or hurts", lambda s: wrong(verdict(0.3, 0.3, 60, s)), 0, 0.05),
    Case("transfer, equal to 3 controls: either", lambda s: wrong(verdict(0.3, 0.3, 300, s, controls=3)), 0, 0.05),
    Case("transfer, ±.42 against ±.20, n=300: helps", lambda s: verdict(0.42, 0.2, 300, s) == "helps", 0.95, 1),
    Case("transfer, 0 against ±.30, n=300: hurts", lambda s: verdict(0.0, 0.3, 300, s) == "hurts", 0.95, 1),
    Case("transfer, other folds: helps turned to hurts", turned, 0, 0, seeds=100),
    Case("20 useless encoders, n=200: one called worse", rejects, 0, 0.05),
    Case("5 encoders: the best is in the set", keeps_best, 0.95, 1),
    Case("one encoder far ahead, n=300: named alone", names_best, 0.85, 1),
    Case("best of 20 useless: nested accuracy", lambda s: winner(s, "nested"), 0.47, 0.53, share=False),
    Case("  by BBC", lambda s: winner(s, "bbc"), 0.48, 0.55, share=False),
    Case("  apparent (must be wrong)", lambda s: winner(s, "apparent"), 0.56, 0.65, share=False),
    Case("difference of 3 points, n=400: called a tie", lambda s: tie(400, 0.06, 0.03, s), 0, 0.05),
    Case("no difference, n=400, 6 % discordant: a tie", lambda s: tie(400, 0.06, 0.0, s), 0.4, 0.8),
    Case("clusters of copies, grouped: accuracy", lambda s: copies(s, grouped=True), 0.45, 0.55, share=False),
    Case("  not grouped (must leak)", lambda s: copies(s, grouped=False), 0.95, 1, share=False),
    Case("labels saved, truth 8", lambda s: saved(s).times, 6.5, 10, share=False),
    Case("  90 % interval holds 8", covered, 0.8, 1),
]  # fmt: skip
SLOW = [
    Case("compression of noise", lambda s: compression(0.0, s), 0.5, 1.0, share=False, seeds=20),
    Case("compression of ±.6", lambda s: compression(0.6, s), 1.5, 10, share=False, seeds=20),
    Case("transfer by logistic regression, equal, n=300", lambda s: wrong(verdict(0.3, 0.3, 300, s, honest=True)),
         0, 0.05, seeds=50),
    Case("  ±.42 against ±.20: helps", lambda s: verdict(0.42, 0.2, 300, s, honest=True) == "helps", 0.95, 1, seeds=50),
]  # fmt: skip
