"""Rows of a task that are too many to be held: what a kind is fitted to, and what it is asked about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedder.records import FloatMatrix
from heads.controls import sample
from heads.folds import Ints
from heads.stream import Chosen
from index.spill import Spilled

HELD_BYTES = 256 << 20
ASKED = 4096


class Taskish(Protocol):
    """Vectors (n, dim), and the file that they are in if they are too many to be held."""

    @property
    def X(self) -> FloatMatrix:  # noqa: N802
        """The vectors, mapped where they are in a file."""

    @property
    def spilled(self) -> Spilled | None:
        """The file."""


def streams(made: Any) -> bool:
    """Say whether a kind, perhaps with some of its arguments, is fitted to rows by blocks."""
    return bool(getattr(getattr(made, "func", made), "STREAMS", False))


def learned_from(made: Any, task: Taskish, n: int, seed: int) -> Ints:
    """Return the positions of the rows, of n, that a kind is fitted to: a sample where it must hold too many."""
    if task.spilled is None or streams(made):
        return np.arange(n)
    return sample(n, HELD_BYTES // (4 * task.X.shape[1]), seed)


def rows_for(made: Any, task: Taskish, rows: Ints) -> Any:
    """Return rows, at ascending positions, in memory or (`heads.stream.Rows`) as they are gone through."""
    if task.spilled is None or not streams(made):
        return np.asarray(task.X[rows])
    mask = np.zeros(len(task.X), dtype=bool)
    mask[rows] = True
    return Chosen(task.spilled, mask)


def by_blocks(ask: Callable[[FloatMatrix], NDArray[np.float64]], task: Taskish, rows: Ints) -> NDArray[np.float64]:
    """Return what a model says of rows; of those in a file, a block at a time."""
    if task.spilled is None:
        return ask(task.X[rows])
    return np.concatenate([ask(np.asarray(task.X[rows[a : a + ASKED]])) for a in range(0, len(rows), ASKED)])
