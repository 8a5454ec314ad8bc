"""Labels that a head contradicts with confidence: each is hard or mislabelled, and only a person can say which.

Confident learning (Northcutt et al. 2021, arXiv:1911.00068) on probabilities of rows that the head did not see. Where
classes overlap it calls the overlap noise, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heads.folds import Ints

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Suspects:
    """`rows` (m,) positions, the least likely given label first, and the class that each looks like instead.

    `joint` (C, C) counts rows of class i that are confidently j; `noise_rate` is the share off the diagonal once its
    rows are scaled to the sizes of the classes; `thresholds` (C,) is NaN for a class without a row.
    """

    rows: Ints
    suggested: Ints
    noise_rate: float
    thresholds: Floats
    joint: NDArray[np.int64]


def suspects(probabilities: Floats, y: Ints) -> Suspects:
    """Find the rows of P (n, C) whose label y (n,) is not the class that they confidently are.

    A row is confidently j where p_j is at least t_j, the mean p_j of the rows labelled j; of several, the likeliest. A
    row whose likeliest class is its label is never a suspect.
    """
    C, rows = probabilities.shape[1], np.arange(len(y))
    sizes = np.bincount(y, minlength=C)
    own = probabilities[rows, y]
    with np.errstate(invalid="ignore"):
        thresholds = np.bincount(y, own, C) / np.where(sizes > 0, sizes, np.nan)
    passed = probabilities >= np.where(np.isnan(thresholds), np.inf, thresholds) - 1e-6
    confident = passed.any(axis=1)
    said = np.where(passed, probabilities, -np.inf).argmax(axis=1)
    joint = np.zeros((C, C), dtype=np.int64)
    np.add.at(joint, (y[confident], said[confident]), 1)
    off = np.flatnonzero(confident & (said != y) & (probabilities.argmax(axis=1) != y))
    ranked = off[np.argsort(own[off], kind="stable")]
    return Suspects(ranked, said[ranked], _noise_rate(joint, sizes), thresholds, joint)


def _noise_rate(joint: NDArray[np.int64], sizes: NDArray[np.int64]) -> float:
    """Return 1 - tr(Q), Q the joint with each row scaled to its class's size; an empty row counts as clean."""
    counted = joint.sum(axis=1)
    kept = np.where(counted > 0, joint.diagonal() / np.maximum(counted, 1), 1.0)
    return float(1 - (kept * sizes).sum() / sizes.sum())
