"""What a kind of head is: a file in `heads/kinds/` with a model for each task, after scikit-learn's contract.

A task is what a column is to its items: one of several `classes`, a number (`regression`), any number of classes
(`multilabel`), or one of classes in an order (`ordinal`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedder import kinds
from embedder.errors import UsageError

FOLDER = "heads.kinds"
CLASSES, REGRESSION, MULTILABEL, ORDINAL = "classes", "regression", "multilabel", "ordinal"
OFFERS = {
    CLASSES: ("ESTIMATOR",), REGRESSION: ("REGRESSOR",), MULTILABEL: ("MULTILABEL",), ORDINAL: ("ORDINAL", "ESTIMATOR"),
}  # fmt: skip
PREDICTS = {
    CLASSES: "classes", REGRESSION: "numbers", MULTILABEL: "several classes an item", ORDINAL: "classes in an order",
}  # fmt: skip
Arrays = Mapping[str, NDArray[Any]]


class Estimator(Protocol):
    """A classifier. All that it learns, preprocessing included, comes from the rows given to `fit`.

    The order of the rows does not change what is learned. Where a row may have several classes, y is (n, C) of 0 and 1,
    `classes_` are the columns, and probabilities do not sum to one.
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
    """What makes an `Estimator`; any other argument has a default.

    One that reads texts says `TEXTS`, and takes `names` (C,) of classes with their text vectors `texts` (C, d).

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
    """What makes a `Regressor`."""

    def __call__(self, *, seed: int = 0) -> Regressor:
        """Make one that has learned nothing yet."""

    def restore(self, arrays: Arrays, params: Mapping[str, Any]) -> Regressor:
        """Make one from what `arrays` and `params` returned, as for `EstimatorClass`."""


def tasks(kind: str) -> list[str]:
    """Return the tasks that a kind does, the one that it is for first. Raises `UnknownName` with the nearest kinds."""
    return [task for task in OFFERS if _offered(kind, task) is not None]


def _offered(kind: str, task: str) -> Any:
    found = kinds.load(FOLDER, kind, "head kind")
    return next((getattr(found, name) for name in OFFERS[task] if hasattr(found, name)), None)


def maker(kind: str, task: str) -> Any:
    """Return the class of a kind's model for a task: a `RegressorClass` for numbers, else an `EstimatorClass`.

    Raises:
        UnknownName: no such kind.
        UsageError: it does not do that; the kinds that do are named.
    """
    found = _offered(kind, task)
    if found is None:
        others = [name for name in kinds.names(FOLDER) if task in tasks(name)]
        predicts = " and ".join(PREDICTS[one] for one in tasks(kind))
        hint = f"--head {' or '.join(others)} predicts {PREDICTS[task]}"
        raise UsageError(f"heads of kind {kind} predict {predicts}, not {PREDICTS[task]}", hint=hint)
    return found


def reads_texts(kind: str) -> bool:
    """Say whether a kind learns from the names of the classes, too. Raises `UnknownName` with the nearest kinds."""
    return bool(getattr(_offered(kind, CLASSES), "TEXTS", False))


def estimator(kind: str) -> EstimatorClass:
    """Return the class of a kind that predicts one of several classes. Raises as `maker`."""
    return cast(EstimatorClass, maker(kind, CLASSES))
