"""What a head knows of its own limits: calibration, prediction sets, the domain, and when it abstains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.records import FloatMatrix
from heads.calibration import Calibration
from heads.conformal import Sets
from heads.domain import FOREIGN, Domain
from heads.kind import Arrays, Estimator
from heads.prediction import Prediction, ranked

Floats = NDArray[np.float64]
DOMAIN_ARRAYS = ("mean", "reference", "calibration")


@dataclass(frozen=True)
class Decided:
    """Of n rows: calibrated probabilities and set masks (n, C), domain percentiles (n,) and why it abstains, if so."""

    probabilities: Floats
    sets: NDArray[np.bool_]
    domain: list[float | None]
    why: list[str | None]


@dataclass(frozen=True)
class Guard:
    """Applied to every prediction. Sets and `least` read the head's own probabilities, before calibration.

    It abstains where the top probability is below `least` (the threshold that keeps `max_risk`; infinity where none
    does), or the domain percentile is at most 0.05.
    """

    calibration: Calibration
    sets: Sets
    domain: Domain | None = None
    max_risk: float | None = None
    least: float = 0.0

    def decide(self, probabilities: Floats, X: FloatMatrix) -> Decided:
        """Judge the head's own probabilities (n, C) of the vectors X (n, dim)."""
        domain, foreign = far(self.domain, X)
        unsure = probabilities.max(axis=1) < self.least if len(X) else np.empty(0, dtype=bool)
        why = [one or ("unsure" if low else None) for low, one in zip(unsure.tolist(), foreign, strict=True)]
        return Decided(self.calibration(probabilities), self.sets.mask(probabilities), domain, why)

    def answer(self, model: Estimator, X: FloatMatrix, classes: Sequence[str], top_k: int | None) -> list[Prediction]:
        """Predict vectors (n, dim), n at least 1."""
        rows = model.predict_proba(X)
        found = self.decide(rows, X)
        shown = [ranked(row, classes, top_k) for row in found.probabilities]
        return [
            Prediction(
                next(iter(shown[i])), shown[i],
                [classes[c] for c in np.argsort(-rows[i], kind="stable") if found.sets[i, c]],
                found.domain[i], found.why[i],
            )
            for i in range(len(rows))
        ]  # fmt: skip

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to save, by name."""
        return domain_arrays(self.domain)

    def as_json(self) -> dict[str, Any]:
        """Return the rest as plain values; a threshold that is never reached is null."""
        least = self.least if np.isfinite(self.least) else None
        return {
            "calibration": self.calibration.as_json(), "sets": self.sets.as_json(),
            "domain": self.domain is not None, "max_risk": self.max_risk, "least": least,
        }  # fmt: skip

    @classmethod
    def restore(cls, arrays: Arrays, facts: Mapping[str, Any]) -> Guard:
        """Make one from what `arrays` and `as_json` returned. Raises `KeyError` where something is missing."""
        domain = domain_of(arrays) if facts["domain"] else None
        least = float("inf") if facts["least"] is None else float(facts["least"])
        calibration, sets = Calibration.from_json(facts["calibration"]), Sets.from_json(facts["sets"])
        return cls(calibration, sets, domain, facts["max_risk"], least)


def far(domain: Domain | None, X: FloatMatrix) -> tuple[list[float | None], list[str | None]]:
    """Return the domain percentiles of vectors (n, dim), None without a domain, and foreign where one is small."""
    found: list[float | None] = [None] * len(X) if domain is None else domain.percentile(X).tolist()
    return found, ["foreign" if p is not None and p <= FOREIGN else None for p in found]


def domain_arrays(domain: Domain | None) -> dict[str, NDArray[Any]]:
    """Return the arrays of a domain to save, by name."""
    return {} if domain is None else {name: getattr(domain, name) for name in DOMAIN_ARRAYS}


def domain_of(arrays: Arrays) -> Domain:
    """Return the domain of such arrays. Raises `KeyError` where one is missing."""
    return Domain(*(arrays[name] for name in DOMAIN_ARRAYS))
