"""What a head knows of its own limits: calibration, prediction sets, the domain, and when it abstains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.records import FloatMatrix
from heads.calibration import Calibration
from heads.conformal import Sets
from heads.domain import FOREIGN, Domain
from heads.kind import Arrays

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
        domain = [None] * len(X) if self.domain is None else self.domain.percentile(X).tolist()
        unsure = probabilities.max(axis=1) < self.least if len(X) else np.empty(0, dtype=bool)
        why = [
            "foreign" if far is not None and far <= FOREIGN else "unsure" if low else None
            for low, far in zip(unsure.tolist(), domain, strict=True)
        ]
        return Decided(self.calibration(probabilities), self.sets.mask(probabilities), domain, why)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to save, by name."""
        return {} if self.domain is None else {name: getattr(self.domain, name) for name in DOMAIN_ARRAYS}

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
        domain = Domain(*(arrays[name] for name in DOMAIN_ARRAYS)) if facts["domain"] else None
        least = float("inf") if facts["least"] is None else float(facts["least"])
        calibration, sets = Calibration.from_json(facts["calibration"]), Sets.from_json(facts["sets"])
        return cls(calibration, sets, domain, facts["max_risk"], least)
