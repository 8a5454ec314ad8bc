"""What a kind of head is: a file in `heads/kinds/` whose `ESTIMATOR` is a classifier after scikit-learn's contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedder import kinds
from embedder.errors import UsageError

FOLDER = "heads.kinds"
Arrays = Mapping[str, NDArray[Any]]


class Estimator(Protocol):
    """A classifier. All that it learns, preprocessing included, comes from the rows given to `fit`.

    The order of the rows does not change what is learned.
    """

    classes_: NDArray[Any]

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Estimator:
        """Learn from X (n, d) and labels y (n,); rows of one group are kept together when it holds some out."""

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return (m, C) probabilities, in the order of `classes_`; each row sums to one."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what was learned, as numeric arrays by name."""

    def params(self) -> dict[str, Any]:
        """Return the rest of it as JSON values."""


class EstimatorClass(Protocol):
    """What `ESTIMATOR` is; any other argument has a default.

    `CHOSEN`, where it has one, maps arguments to the attributes that `fit` chooses for them, such as C to `C_`.
    """

    def __call__(self, *, seed: int = 0) -> Estimator:
        """Make one that has learned nothing yet."""

    def restore(self, arrays: Arrays, params: Mapping[str, Any]) -> Estimator:
        """Make one from what `arrays` and `params` returned; its probabilities are the same to the bit.

        Raises `KeyError`, `TypeError` or `ValueError` where they do not fit together.
        """


class Regressor(Protocol):
    """Predicts numbers; what else it does is as for `Estimator`."""

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Regressor:
        """Learn from X (n, d) and numbers y (n,)."""

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return a number for each row, (m,)."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what was learned, as numeric arrays by name."""

    def params(self) -> dict[str, Any]:
        """Return the rest of it as JSON values."""


class RegressorClass(Protocol):
    """What `REGRESSOR` is."""

    def __call__(self, *, seed: int = 0) -> Regressor:
        """Make one that has learned nothing yet."""

    def restore(self, arrays: Arrays, params: Mapping[str, Any]) -> Regressor:
        """Make one from what `arrays` and `params` returned, as for `EstimatorClass`."""


class HeadKind(Protocol):
    """What a file in `heads/kinds/` offers; one that predicts numbers as well has `REGRESSOR`."""

    ESTIMATOR: EstimatorClass


def estimator(kind: str) -> EstimatorClass:
    """Return the class of a kind by name. Raises `UnknownName` with the nearest ones."""
    return cast(HeadKind, kinds.load(FOLDER, kind, "head kind")).ESTIMATOR


def regressor(kind: str) -> RegressorClass:
    """Return the class of a kind that predicts numbers. Raises `UnknownName`, or `UsageError` where it does not."""
    found = getattr(kinds.load(FOLDER, kind, "head kind"), "REGRESSOR", None)
    if found is None:
        raise UsageError(f"heads of kind {kind} predict classes, not numbers", hint="--head ridge predicts numbers")
    return cast(RegressorClass, found)


def predicts_numbers(kind: str) -> bool:
    """Say whether a kind can."""
    return hasattr(kinds.load(FOLDER, kind, "head kind"), "REGRESSOR")
