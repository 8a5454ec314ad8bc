"""How much of the label is in the features: bits beyond the class shares, code length, and two controls by labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.folds import Ints
from heads.report.candidates import Candidate, control_task, permuted
from heads.report.probes import Plan, Probe, linear_head, rows_of
from heads.report.ridge import FoldRidge
from heads.report.terms import TermCounts
from heads.report.verdict import plain

PERMUTATIONS, CONTROL_TASKS = 199, 5
BLOCKS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.25, 12.5, 25.0, 50.0, 100.0)
LEAST_ROWS, SMOOTHING, ROUNDING = 10, 0.01, 1e-6


@dataclass(frozen=True)
class Permutation:
    """The real labels against labels that swapped units, held out.

    p = (1 + #at least as good)/(B + 1), by squared error: accuracy takes few values on few items, and on a rare class
    only one, and found a planted difference in 81 % of runs where squared error finds it in 96 %.
    """

    accuracy: float
    permuted_accuracy: float
    p: float
    draws: int

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {name: plain(value) for name, value in vars(self).items()}


def permutation_test(candidate: Candidate, on: Plan, *, draws: int = PERMUTATIONS) -> Permutation:
    """Ask whether anything at all can be read from the features, by ridge on the folds of the first repeat."""
    labels = [on.y, *(permuted(on.y, on.units, on.fold[0], on.seed + k) for k in range(draws))]
    found = _ridge(candidate, on).fits(labels, on.n_classes)
    # equal labels differ by rounding, which must not count as worse
    reached = int((found.error <= found.error[0] * (1 + ROUNDING)).sum())
    return Permutation(float(found.accuracy[0]), float(found.accuracy[1:].mean()), reached / (draws + 1), draws)


def selectivity(candidate: Candidate, on: Plan, types: NDArray[np.intp]) -> dict[str, float]:
    """Compare accuracy on the task and on Hewitt and Liang's control task (EMNLP 2019), by ridge, mean of 5 controls.

    Args:
        types: (n,) codes that recur between units, such as clusters of the best control's features.
    """
    tasks = [on.y, *(control_task(types, on.y, on.seed + k) for k in range(CONTROL_TASKS))]
    real, *control = _ridge(candidate, on).fits(tasks, on.n_classes).accuracy.tolist()
    mean = float(np.mean(control))
    return {"accuracy": real, "control_accuracy": mean, "selectivity": real - mean}


def _ridge(candidate: Candidate, on: Plan) -> FoldRidge:
    if isinstance(candidate.X, TermCounts):
        raise TypeError(f"{candidate.name} holds counts, not features")
    return FoldRidge(candidate.X, on.fold[0])


def v_information(probe: Probe, on: Plan) -> float:
    """Return bits an item that the probe knows beyond the shares of the classes, held out (Xu et al. 2020, ICLR).

    mean log2 p(y|x) - mean log2 p(y), the shares from the training rows, both mixed with 1 % uniform. Below zero the
    probe knows less than the shares.
    """
    prior = np.zeros(len(on))
    for fold in on.fold:
        for k in np.unique(fold):
            share = np.bincount(on.y[fold != k], minlength=on.n_classes) / (fold != k).sum()
            own = share[on.y[fold == k]]
            prior[fold == k] += np.log2((1 - SMOOTHING) * own + SMOOTHING / on.n_classes) / len(on.fold)
    return float((probe.log2 - prior).mean())


def online_code(candidate: Candidate, on: Plan, C: float | None = None) -> dict[str, float]:
    """Return the length of the labels sent block by block, each by a probe of those before (Voita and Titov 2020).

    Returns:
        `bits`, and `compression`: how many times shorter than the uniform code. Units are shuffled by seed and whole;
        probabilities are mixed with 1 % uniform. Rows before the first fit (10 of 2 classes) cost log2 C each.
    """
    shuffled = np.random.default_rng(on.seed).permutation(len(on.resampler.sizes))
    order = np.argsort(shuffled[on.units], kind="stable")
    ends = [_unit_end(on.units[order], round(share * len(on) / 100)) for share in BLOCKS]
    starts = [end for end in ends[:-1] if end >= LEAST_ROWS and len(np.unique(on.y[order[:end]])) > 1]
    steps = sorted({*starts, len(on)})
    bits = [_block(candidate, on, order[:a], order[a:b], C) for a, b in pairwise(steps)]
    return code_length(steps[0], bits, len(on), on.n_classes)


def code_length(first: int, bits: Sequence[float], n: int, n_classes: int) -> dict[str, float]:
    """Add up blocks after a first one of so many rows, which is sent uniformly."""
    total = first * np.log2(n_classes) + sum(bits)
    return {"bits": float(total), "compression": float(n * np.log2(n_classes) / total)}


def _unit_end(units: Ints, at: int) -> int:
    """Return the first place from `at` on where no unit is cut in two."""
    while 0 < at < len(units) and units[at] == units[at - 1]:
        at += 1
    return at


def _block(candidate: Candidate, on: Plan, train: Ints, rows: Ints, C: float | None) -> float:
    model = linear_head(candidate, C)
    fitted, scored = rows_of(candidate, train)
    model.fit(fitted, on.y[train], groups=on.units[train])
    odds = np.zeros((len(rows), on.n_classes))
    odds[:, model.classes_.astype(np.intp)] = model.predict_proba(scored(rows))
    own = odds[np.arange(len(rows)), on.y[rows]]
    return float(-np.log2((1 - SMOOTHING) * own + SMOOTHING / on.n_classes).sum())
