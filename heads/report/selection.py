"""The price of choosing: what the winner of a comparison gets when the choice, too, is made on other rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heads.report.compare import Resampler
from heads.report.probes import Plan, Probe


@dataclass(frozen=True)
class Nested:
    """Predictions of whichever candidate looked best inside the training rows of each fold.

    `correct` (R, n); `picked` says how often each candidate was chosen, the commonest first; of several draws of one
    candidate the first names it.
    """

    correct: NDArray[np.bool_]
    picked: dict[str, int]

    @property
    def accuracy(self) -> float:
        """Accuracy that the whole procedure, choosing included, has on new items."""
        return float(self.correct.mean())

    @property
    def name(self) -> str:
        """The candidate that was chosen most often."""
        return next(iter(self.picked))


def nested(probes: Sequence[Probe], on: Plan) -> Nested:
    """Choose in each fold by the probes' inner scores; the first of equals."""
    return drawn([[probe] for probe in probes], on)[0]


def drawn(families: Sequence[Sequence[Probe]], on: Plan) -> list[Nested]:
    """Choose in each fold by the mean inner score of a family, and read one draw of it.

    Args:
        families: probes of one candidate drawn several times, such as untrained weights of several seeds.

    Returns:
        one a draw, as many as the largest family has; a smaller one starts over.
    """
    scores = np.stack([np.mean([p.inner for p in family], axis=0) for family in families])
    best = np.argmax(np.nan_to_num(scores, nan=-np.inf), axis=0)
    chosen = np.take_along_axis(best, on.fold, axis=1)[None]
    counts = Counter(families[k][0].name for k in best.ravel().tolist())
    picked = dict(counts.most_common())
    found = []
    for draw in range(max(map(len, families))):
        right = np.stack([family[draw % len(family)].correct for family in families])
        found.append(Nested(np.take_along_axis(right, chosen, axis=0)[0], picked))
    return found


def bias_corrected(probes: Sequence[Probe], resampler: Resampler) -> float:
    """Return the winner's accuracy by BBC-CV: best of the rows drawn, scored on the rest (Tsamardinos et al. 2018).

    It removes about 70 % of the optimism, `nested` all of it; shown beside it as a check.
    """
    right = np.stack([p.correct.mean(axis=0) for p in probes], axis=1)
    inside, outside = resampler.means(right), resampler.means(right, out_of_bag=True)
    return float(np.nanmean(outside[np.arange(len(inside)), inside.argmax(axis=1)]))
