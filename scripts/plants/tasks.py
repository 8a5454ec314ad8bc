"""Planted cases of question 4: no information, linear, exclusive or, one good layer, wrong labels, overlap, copies."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from heads.report.candidates import Candidate
from heads.report.curve import fit, measure
from heads.report.leakage import leakage
from heads.report.noise import Noise, noise
from heads.report.probes import Plan, linear, linear_head, plan
from heads.report.signs import Signs, contrasts
from heads.report.task import Task, task
from plants import Case
from plants.making import quick
from plants.seeds import REPORT_SEEDS

N, D = 600, 10
LAYERS = (0.10, 0.14, 0.20, 0.30, 0.24, 0.15)

Drawn = tuple[NDArray[np.float64], NDArray[np.intp]]


class Mlp:
    """A small network: the planted non-linear truth needs no tuning."""

    classes_: NDArray[Any]

    def fit(self, X: Any, y: Any, groups: Any) -> Self:
        del groups
        self.model = MLPClassifier((32,), alpha=1.0, max_iter=60, random_state=0)
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
            self.model.fit(X, y)
        self.classes_ = self.model.classes_
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        return np.asarray(self.model.predict_proba(X))


def nothing(rng: np.random.Generator) -> Drawn:
    return rng.normal(size=(N, D)), rng.integers(2, size=N)


def straight(rng: np.random.Generator) -> Drawn:
    X, y = nothing(rng)
    X[:, :5] += 0.4 * (2 * y[:, None] - 1)
    return X, y


def exclusive(rng: np.random.Generator) -> Drawn:
    X = 0.3 * rng.normal(size=(N, D))
    corner = rng.choice([-1.0, 1.0], size=(N, 2))
    X[:, :2] += corner
    return X, (corner.prod(axis=1) > 0).astype(np.intp)


def overlapping(bayes: float, rng: np.random.Generator) -> Drawn:
    """Clean labels of two classes that overlap so much."""
    X, y = nothing(rng)
    X[:, 0] += (2 * y - 1) * -norm.ppf(bayes)
    return X, y


def mislabelled(share: float, rng: np.random.Generator) -> tuple[Drawn, NDArray[np.bool_]]:
    """Three separable classes, of which a share of the labels is wrong."""
    X, true = rng.normal(size=(N, D)), rng.integers(3, size=N)
    X[np.arange(N), true] += 6
    wrong = rng.random(N) < share
    return (X, np.where(wrong, (true + rng.integers(1, 3, size=N)) % 3, true)), wrong


def wrong_labels(share: float, rng: np.random.Generator) -> Drawn:
    return mislabelled(share, rng)[0]


DRAW = {
    "nothing": nothing, "linear": straight, "xor": exclusive, "overlap": partial(overlapping, 0.24),
    "noise 10 %": partial(wrong_labels, 0.1), "noise 20 %": partial(wrong_labels, 0.2),
}  # fmt: skip


def planned(y: NDArray[np.intp], seed: int) -> Plan:
    return plan(y, [f"{i:04}" for i in range(len(y))], repeats=1, seed=seed)


@lru_cache(maxsize=1000)
def answer(kind: str, seed: int, mlp: bool = False) -> Task:
    X, y = DRAW[kind](np.random.default_rng(seed))
    on = planned(y, seed)
    candidate = Candidate("encoder", "encoder", X.astype(np.float32))
    base, others = linear(candidate, on), contrasts(candidate, on, Mlp if mlp else None)
    return task(Signs(base, others, noise=noise(base, on.resampler)), on)


def says(kind: str, value: str, seed: int, mlp: bool = False) -> bool:
    return answer(kind, seed, mlp).verdict.value == value


@lru_cache(maxsize=1000)
def layered(seed: int) -> Task:
    """Six layers of which the fourth holds most; the default is the last."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=N)
    on = planned(y, seed)
    probes = []
    for k, strength in enumerate(LAYERS):
        X = rng.normal(size=(N, D)) + strength * (2 * y[:, None] - 1)
        probes.append(linear(Candidate(f"layer {k}", "layer", X.astype(np.float32)), on))
    return task(Signs(probes[-1], (), probes[:-1]), on)


def best_layer(seed: int) -> bool:
    """Whether the best layer's accuracy is highest and it is the one named."""
    found = layered(seed)
    top = max(found.layers, key=lambda layer: layer.accuracy)
    return found.verdict.value == "other_layer" and top.name == "layer 3" and "layer 3" in found.verdict.sentence


def in_the_set(seed: int) -> bool:
    return next(layer.best for layer in layered(seed).layers if layer.name == "layer 3")


@lru_cache(maxsize=1000)
def estimated(share: float, seed: int) -> tuple[Noise, NDArray[np.bool_]]:
    (X, y), wrong = mislabelled(share, np.random.default_rng(seed))
    on = planned(y, seed)
    return noise(linear(Candidate("encoder", "encoder", X.astype(np.float32)), on), on.resampler), wrong


def rate(share: float, seed: int) -> float:
    return estimated(share, seed)[0].rate


def precision(seed: int) -> float:
    found, wrong = estimated(0.1, seed)
    return float(wrong[found.order].mean())


def leak(marked: bool, seed: int) -> tuple[float, float]:
    """Naive and honest accuracy on 60 clusters of 5 near-copies with labels drawn by cluster."""
    rng = np.random.default_rng(seed)
    X = np.repeat(rng.normal(size=(60, 32)), 5, axis=0) + 0.05 * rng.normal(size=(300, 32))
    y = np.repeat(rng.integers(2, size=60), 5)
    units = np.repeat(np.arange(60), 5) if marked else np.arange(300)
    found = leakage(X.astype(np.float32), y, units, seed=seed)
    return found.naive, found.honest


def honest(marked: bool, seed: int) -> float:
    return leak(marked, seed)[1]


def naive(seed: int) -> float:
    return leak(False, seed)[0]


def copied(marked: bool, seed: int) -> bool:
    """Whether clusters of near-copies, with one label each, are called a leak; of a straight truth otherwise."""
    rng = np.random.default_rng(seed)
    X, y = straight(rng)
    X = np.repeat(X[: N // 5], 5, axis=0) + 0.05 * rng.normal(size=(N, D))
    y = np.repeat(y[: N // 5], 5)
    units = np.repeat(np.arange(N // 5), 5) if marked else np.arange(N)
    on = plan(y, [f"{u:04}" for u in units], repeats=1, seed=seed)
    rows = X.astype(np.float32)
    signs = Signs(linear(Candidate("encoder", "encoder", rows), on), leakage=leakage(rows, y, on.units, seed=seed))
    return task(signs, on).verdict.value == "leaking"


def tight(seed: int) -> bool:
    """Whether classes that lie close together, without a copy, are called a leak."""
    rng = np.random.default_rng(seed)
    y = rng.integers(20, size=N)
    X = (8 * rng.normal(size=(20, D))[y] + rng.normal(size=(N, D))).astype(np.float32)
    on = planned(y, seed)
    signs = Signs(linear(Candidate("encoder", "encoder", X), on), leakage=leakage(X, y, on.units, seed=seed))
    return task(signs, on).verdict.value == "leaking"


@lru_cache(maxsize=1000)
def with_curve(strength: float, classes: int, n: int, dims: int, seed: int, report_seed: int | None = None) -> str:
    """The verdict on classes around means that far apart, with the learning curve of the same probe."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % classes)
    X = (strength * rng.normal(size=(classes, dims))[y] + rng.normal(size=(n, dims))).astype(np.float32)
    on = planned(y, seed if report_seed is None else report_seed)
    candidate = Candidate("encoder", "encoder", X)
    base = linear(candidate, on)
    curve = fit(measure(candidate, on, partial(linear_head, candidate, base.C)), seed=on.seed)
    return task(Signs(base, contrasts(candidate, on), curve=curve, noise=noise(base, on.resampler)), on).verdict.value


def starved(seed: int) -> bool:
    """Twenty classes in 256 dimensions, ten labels each: fitted by heart, and far from what more labels would give."""
    return with_curve(0.25, 20, 200, 256, seed) == "too_few_labels"


def fed(seed: int) -> bool:
    """Three classes in ten dimensions, 200 labels each: nothing is missing."""
    return with_curve(1.0, 3, N, D, seed) == "too_few_labels"


def flips(kind: str, seed: int) -> bool:
    """Whether another seed of the report turns a verdict that was given with confidence into another such."""
    X, y = DRAW[kind](np.random.default_rng(seed))
    candidate = Candidate("encoder", "encoder", X.astype(np.float32))

    def said(on: Plan) -> str:
        base = linear(candidate, on)
        return task(Signs(base, contrasts(candidate, on), noise=noise(base, on.resampler)), on).verdict.value

    return turned(y, said)


def layers_flip(n: int, gain: float, seed: int) -> bool:
    """The same where another layer shares most with the default and knows a little more: at the edge of the verdict."""
    rng = np.random.default_rng([seed, n])
    y = rng.permutation(np.arange(n) % 2)
    sign = 2 * y[:, None] - 1
    shared = rng.normal(size=(n, 8)) + 0.35 * sign
    ours, theirs = (
        Candidate(name, "encoder", np.hstack([shared, rng.normal(size=(n, 4)) + more * sign]).astype(np.float32))
        for name, more in (("default", 0.1), ("layer 3", 0.1 + gain))
    )

    def said(on: Plan) -> str:
        return task(Signs(quick(ours, on), contrasts(ours, on), [quick(theirs, on)]), on).verdict.value

    return turned(y, said)


def starved_flips(strength: float, seed: int) -> bool:
    """The same where labels are few and more may gain what is asked."""
    return len({with_curve(strength, 20, 200, 256, seed, k) for k in range(REPORT_SEEDS)} - {"undecided"}) > 1


def turned(y: NDArray[np.intp], said: Callable[[Plan], str]) -> bool:
    return len({said(planned(y, k)) for k in range(REPORT_SEEDS)} - {"undecided"}) > 1


CASES = [
    *(Case(f"task: nothing is called {v}", partial(says, "nothing", v), 0, 0.05) for v in ("linear", "nonlinear")),
    Case("task: nothing is called absent", partial(says, "nothing", "absent"), 0.85, 1),
    Case("task: linear is called linear", partial(says, "linear", "linear"), 0.95, 1),
    Case("task: exclusive or is called nonlinear", partial(says, "xor", "nonlinear"), 0.98, 1),
    Case("task: overlap of 24 % is called noise", partial(says, "overlap", "noisy_labels"), 0, 0.05),
    Case("task: 10 % wrong labels are called noise", partial(says, "noise 10 %", "noisy_labels"), 0.9, 1),
    Case("task: 20 % wrong labels are called noise", partial(says, "noise 20 %", "noisy_labels"), 0.9, 1),
    Case("task: rate of 10 % wrong labels", partial(rate, 0.1), 0.07, 0.13, share=False, seeds=50),
    Case("task: rate of 20 % wrong labels", partial(rate, 0.2), 0.17, 0.23, share=False, seeds=50),
    Case("task: precision of the review list at 10 %", precision, 0.9, 1, share=False, seeds=50),
    Case("task: unmarked copies, naive accuracy", naive, 0.95, 1, share=False, seeds=50),
    Case("task: unmarked copies, accuracy without them", partial(honest, False), 0.45, 0.55, share=False, seeds=50),
    Case("task: marked copies, accuracy", partial(honest, True), 0.45, 0.55, share=False, seeds=50),
    Case("task: unmarked copies are called a leak", partial(copied, False), 0.95, 1, seeds=100),
    Case("task: marked copies are called a leak", partial(copied, True), 0, 0.05, seeds=100),
    Case("task: tight classes are called a leak", tight, 0, 0.05, seeds=100),
    Case("task: ten labels a class are called too few", starved, 0.8, 1, seeds=50),
    Case("task: 200 labels a class are called too few", fed, 0, 0.05, seeds=50),
]
SLOW = [
    Case(
        "task: nothing is called nonlinear, MLP too", partial(says, "nothing", "nonlinear", mlp=True), 0, 0.05, seeds=50
    ),
    Case("task: linear is called linear, MLP too", partial(says, "linear", "linear", mlp=True), 0.9, 1, seeds=50),
    Case(
        "task: exclusive or is called nonlinear, MLP too",
        partial(says, "xor", "nonlinear", mlp=True),
        0.98,
        1,
        seeds=50,
    ),
    *(Case(f"task: report's seed, 5 seeds, {k}: verdict flips", partial(flips, k), 0, 0, seeds=30) for k in DRAW),
    *(
        Case(f"task: report's seed, another layer, n={n}: verdict flips", partial(layers_flip, n, 0.1), 0, 0, seeds=30)
        for n in (600, 2500)
    ),
    Case("task: report's seed, another layer, far, n=600: flips", partial(layers_flip, 600, 0.2), 0, 0, seeds=30),
    *(
        Case(f"task: report's seed, few labels, {s}: verdict flips", partial(starved_flips, s), 0, 0, seeds=20)
        for s in (0.25, 0.3)
    ),
    Case("task: the best of six layers is named", best_layer, 0.85, 1, seeds=100),
    Case("task: the best of six layers is in the set", in_the_set, 0.95, 1, seeds=100),
]
