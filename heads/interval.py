"""Numbers that know their limits: an interval around each prediction, and whether the item is like the training ones.

Split conformal on absolute residuals (Lei et al. 2018, arXiv:1604.04173): value ± the k-th smallest residual of rows
that the head was not fitted to, k = ⌈(n+1)·coverage⌉.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.records import FloatMatrix
from heads.domain import Domain
from heads.guard import domain_arrays, domain_of, far
from heads.kind import Arrays, Regressor
from heads.prediction import Prediction


@dataclass(frozen=True)
class Margin:
    """The guard of a head that predicts numbers: value ± `half`, infinity where too few rows promise `coverage`."""

    coverage: float
    half: float
    domain: Domain | None = None

    def around(self, value: float) -> list[float | None]:
        """Return [low, high]; None is an end that is not known."""
        return [value - self.half, value + self.half] if np.isfinite(self.half) else [None, None]

    def answer(self, model: Regressor, X: FloatMatrix, classes: Sequence[str], top_k: int | None) -> list[Prediction]:
        """Predict vectors (n, dim), n at least 1; there are no classes to show."""
        values, (domain, why) = model.predict(X).tolist(), far(self.domain, X)
        return [
            Prediction(f"{v:.6g}", {}, None, p, w, v, self.around(v))
            for v, p, w in zip(values, domain, why, strict=True)
        ]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to save, by name."""
        return domain_arrays(self.domain)

    def as_json(self) -> dict[str, Any]:
        """Return the rest as plain values; infinity is null."""
        half = self.half if np.isfinite(self.half) else None
        return {"coverage": self.coverage, "half": half, "domain": self.domain is not None}

    @classmethod
    def restore(cls, arrays: Arrays, facts: Mapping[str, Any]) -> Margin:
        """Make one from what `arrays` and `as_json` returned. Raises `KeyError` where something is missing."""
        domain = domain_of(arrays) if facts["domain"] else None
        half = float("inf") if facts["half"] is None else float(facts["half"])
        return cls(float(facts["coverage"]), half, domain)
