"""The batch size, found by measurement: other sizes are tried on the run's own batches, so that no pass is wasted.

A size and its challenger take turns, so that what else the machine does, and how long the texts are just now, falls on
both alike. Short runs end before anything is tried.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

SETTLE_S, SETTLE_BATCHES = 2.0, 4
PAIRS = 7
GAIN = 1.03


@dataclass(frozen=True)
class Bounds:
    """The size to begin with, and the least and the most to try: in pictures, or in tokens for texts."""

    start: int
    least: int
    most: int


PICTURES = {"cpu": Bounds(8, 1, 64), "cuda": Bounds(128, 16, 2048)}
TOKENS = {"cpu": Bounds(2048, 256, 16_384), "cuda": Bounds(32_768, 4096, 524_288)}


class Tuner:
    """Tries twice the size while that gains 3 %, else half of it while that does.

    `best` is the best size so far; it is `settled` once there is nothing more to try.

    Args:
        start: the size to begin with where it is known: what an earlier run found, or what the user said.
        settled: the size is not to be questioned; only a lack of memory makes it smaller.
    """

    def __init__(self, bounds: Bounds, start: int | None = None, *, settled: bool = False) -> None:
        self._bounds = bounds
        self.best = start or bounds.start
        self.settled = settled
        self._spent, self._batches = 0.0, 0
        self._factor, self._won = 2.0, False
        self._challenger: int | None = None
        self._turn = False
        self._rates: dict[int, list[float]] = {}

    def next(self) -> int:
        """Return the size of the next batch."""
        self._turn = not self._turn
        return self._challenger if self._challenger and self._turn else self.best

    def saw(self, size: int, cost: float, seconds: float) -> None:
        """Learn that a full batch of this size took `seconds` for `cost` pictures or tokens."""
        if self.settled or seconds <= 0:
            return
        if self._challenger is None:
            self._spent, self._batches = self._spent + seconds, self._batches + 1
            if self._spent >= SETTLE_S and self._batches >= SETTLE_BATCHES:
                self._challenge()
        elif size in self._rates:
            self._rates[size].append(cost / seconds)
            # the first of each is not counted: a new shape pays once for what it sets up
            if all(len(rates) > PAIRS for rates in self._rates.values()):
                self._judge(self._challenger)

    def _challenge(self) -> None:
        size = int(self.best * self._factor)
        if self._bounds.least <= size <= self._bounds.most:
            self._challenger, self._rates = size, {self.best: [], size: []}
        else:
            self._turn_round()

    def _judge(self, challenger: int) -> None:
        new, old = self._rates[challenger][1:], self._rates[self.best][1:]
        gain = statistics.median(a / b for a, b in zip(new, old, strict=False))
        if gain > GAIN:
            self.best, self._won = challenger, True
            self._challenge()
        else:
            self._turn_round()

    def _turn_round(self) -> None:
        """Try smaller sizes, where no larger one was better and none was tried."""
        if self._factor > 1 and not self._won:
            self._factor = 0.5
            self._challenge()
        else:
            self._challenger, self.settled = None, True

    def cap(self, size: int) -> None:
        """Learn that more than `size` does not fit into memory: nothing is tried any more."""
        self.best = max(1, min(self.best, size))
        self._challenger, self.settled = None, True
