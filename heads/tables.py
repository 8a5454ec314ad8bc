"""Which classes are told apart: a row for each class, and the pairs that are most often confused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.metrics import Codes, wilson

MATRIX_UP_TO, MOST_PAIRS = 30, 20


def per_class(y: Codes, said: Codes, classes: Sequence[str], units: NDArray[Any]) -> list[dict[str, Any]]:
    """Return `class n precision recall f1` of each class, each score with Wilson's 95 % interval over units.

    A score without a row to count is null. F1 = 2J/(1+J), J = TP/(TP+FP+FN): a share, whose interval is carried over.
    """
    unit = np.unique(units, return_inverse=True)[1]
    return [class_row(name, y == code, said == code, unit) for code, name in enumerate(classes)]


def class_row(name: str, true: NDArray[np.bool_], named: NDArray[np.bool_], unit: Codes) -> dict[str, Any]:
    """Return a row of `per_class` of a class that rows have (`true`, (n,)) or are said to have (`named`)."""
    hit, either = true & named, true | named
    row: dict[str, Any] = {"class": name, "n": int(true.sum())}
    row |= _share("precision", hit, named, unit) | _share("recall", hit, true, unit)
    overlap = _share("f1", hit, either, unit)
    if overlap["f1"] is not None:
        overlap = {"f1": _f1(overlap["f1"]), "f1_interval": [_f1(end) for end in overlap["f1_interval"]]}
    return row | overlap


def _share(name: str, hit: NDArray[np.bool_], among: NDArray[np.bool_], unit: Codes) -> dict[str, Any]:
    n = int(among.sum())
    if not n:
        return {name: None, f"{name}_interval": None}
    value = float(hit.sum() / n)
    return {name: value, f"{name}_interval": wilson(value, len(np.unique(unit[among])))}


def _f1(overlap: float) -> float:
    return 2 * overlap / (1 + overlap)


def confusion(y: Codes, said: Codes, classes: Sequence[str], units: NDArray[Any]) -> dict[str, Any]:
    """Return `matrix` (row: true, column: predicted; null above 30 classes) and `pairs`, the 20 most frequent errors.

    A pair is `true predicted n share`, the share being of the rows of the true class, with its interval.
    """
    C, unit = len(classes), np.unique(units, return_inverse=True)[1]
    counts = np.bincount(y * C + said, minlength=C * C).reshape(C, C) if C <= MATRIX_UP_TO else None
    wrong = y != said
    cells, sizes = np.unique(y[wrong] * C + said[wrong], return_counts=True)
    pairs = []
    for at in np.argsort(-sizes, kind="stable")[:MOST_PAIRS]:
        true, other = divmod(int(cells[at]), C)
        share = _share("share", (y == true) & (said == other), y == true, unit)
        pairs.append({"true": classes[true], "predicted": classes[other], "n": int(sizes[at]), **share})
    return {"matrix": counts.tolist() if counts is not None else None, "pairs": pairs}
