"""What the task question reads: is there information, where is it, and which head can get at it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.folds import Ints
from heads.report.candidates import Candidate
from heads.report.compare import Comparison, holm, paired
from heads.report.curve import Curve
from heads.report.leakage import Leakage
from heads.report.noise import Noise
from heads.report.probes import Head, Plan, Probe, cross_validated, neighbours
from heads.report.verdict import FAR, LEVEL, Interval, plain

PERMUTATIONS = 999


@dataclass(frozen=True)
class Signs:
    """Probes of one encoder on one plan, and what else was measured; None where it was not.

    Attributes:
        linear: of the encoder as it is read by default.
        contrasts: other heads on the same features and folds: neighbours, MLP.
        layers: linear probes of other layers and poolings.
        control: linear probe of the control task, whose labels are drawn by type of item (Hewitt and Liang 2019).
    """

    linear: Probe
    contrasts: Sequence[Probe] = ()
    layers: Sequence[Probe] = ()
    control: Probe | None = None
    curve: Curve | None = None
    noise: Noise | None = None
    leakage: Leakage | None = None


def contrasts(candidate: Candidate, on: Plan, mlp: Callable[[], Head] | None = None) -> list[Probe]:
    """Return probes by neighbours and (where one is handed in) by an MLP, on the folds of the linear one."""
    others = [neighbours(candidate, on, leave="fold")]
    if mlp is not None:
        others.append(cross_validated(candidate, on, mlp, head="mlp"))
    return others


def information(probes: Sequence[Probe], on: Plan, *, permutations: int = PERMUTATIONS) -> list[float]:
    """Return Holm's p for each probe: do its held-out probabilities know the labels better than permuted ones?

    The statistic is the mean log probability of the label. Labels of whole units change places; the predictions stay,
    which is conservative, for a held-out prediction leans away from its own label.
    """
    tables = [_log_table(probe) for probe in probes]
    rows = np.arange(len(on))
    seen = [float(table[rows, on.y].mean()) for table in tables]
    reached = np.ones(len(probes))
    for y in _relabelled(on, permutations):
        reached += [float(t[rows, y].mean()) >= s - 1e-12 for t, s in zip(tables, seen, strict=True)]
    return holm((reached / (permutations + 1)).tolist())


def _log_table(probe: Probe) -> NDArray[np.float64]:
    p = probe.probabilities.astype(np.float64)
    return np.asarray(np.log(0.99 * p + 0.01 / p.shape[2]).mean(axis=0))


def _relabelled(on: Plan, times: int) -> Iterator[Ints]:
    """Yield labels in which units have swapped places; a unit gets another's labels, repeated or cut to its size."""
    rng = np.random.default_rng(on.seed)
    order = np.argsort(on.units, kind="stable")
    sizes = np.bincount(on.units)
    starts = np.cumsum(sizes) - sizes
    place = np.arange(len(on)) - np.repeat(starts, sizes)
    for _ in range(times):
        other = np.repeat(rng.permutation(len(sizes)), sizes)
        out = np.empty_like(on.y)
        out[order] = on.y[order[starts[other] + place % sizes[other]]]
        yield out


def over_majority(probe: Probe, on: Plan) -> Comparison:
    """Compare a probe with always saying the commonest class."""
    common = np.broadcast_to(on.y == np.bincount(on.y).argmax(), on.fold.shape)
    return paired(probe.correct, common, on.fold, on.resampler, names=(probe.name, "commonest class"))


@dataclass(frozen=True)
class Gap:
    """A probe against the linear one on the default features; `p` is Holm's among the probes of its sort."""

    name: str
    compared: Comparison
    p: float

    @property
    def sure(self) -> bool:
        """Whether it is better, at 5 %."""
        return self.p <= LEVEL and self.compared.sure[0] > 0

    @property
    def far(self) -> bool:
        """Whether the difference is so far from zero that other folds of the same items would show it too."""
        low, high = self.compared.sure
        return self.compared.direction() == "above" and self.compared.difference >= FAR * (high - low) / 2

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {name: plain(value) for name, value in vars(self).items()}


def gaps(probes: Sequence[Probe], names: Sequence[str], base: Probe, on: Plan) -> list[Gap]:
    """Compare each with `base`."""
    found = [on.compare(probe, base) for probe in probes]
    return [Gap(*each) for each in zip(names, found, holm([c.p for c in found]), strict=True)]


@dataclass(frozen=True)
class Layer:
    """A line of the layer profile; `best` says whether it is in the confidence set of the best one."""

    name: str
    accuracy: float
    interval: Interval
    best: bool


def profile(probes: Sequence[Probe], on: Plan) -> list[Layer]:
    """Return layers in the order given. The set holds what Holm does not reject against the top at 5 %."""
    top = max(probes, key=lambda probe: probe.accuracy)
    behind = [on.compare(top, probe) for probe in probes]
    kept = [p > LEVEL or probe is top for p, probe in zip(holm([c.p for c in behind]), probes, strict=True)]
    interval = (on.resampler.interval(probe.correct.mean(axis=0)) for probe in probes)
    return [Layer(p.name, p.accuracy, i, b) for p, i, b in zip(probes, interval, kept, strict=True)]
