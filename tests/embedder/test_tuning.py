"""The batch size: the fastest of a planted machine is found, noise and drift do not mislead, and memory is a limit."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from embedder.tuning import GAIN, PICTURES, SETTLE_BATCHES, SETTLE_S, Bounds, Tuner

BOUNDS = Bounds(8, 1, 64)


def machine(best: int) -> Callable[[int], float]:
    """Seconds an item at each batch size: least at `best`, a third more for each doubling away from it."""
    return lambda size: 0.02 * 1.33 ** abs((size / best - 1) if size > best else (best / size - 1))


def driven(tuner: Tuner, seconds_each: Callable[[int], float], batches: int = 300) -> list[int]:
    """The sizes of the batches that a run makes."""
    sizes = []
    for _ in range(batches):
        sizes.append(tuner.next())
        tuner.saw(sizes[-1], sizes[-1], sizes[-1] * seconds_each(sizes[-1]))
    return sizes


@pytest.mark.parametrize("best", [1, 2, 4, 8, 16, 32, 64])
def test_the_fastest_size_is_found(best: int) -> None:
    tuner = Tuner(BOUNDS)
    sizes = driven(tuner, machine(best))
    assert (tuner.best, tuner.settled) == (best, True)
    assert set(sizes[-100:]) == {best}


@pytest.mark.parametrize(("flat", "edge"), [(lambda size: 1 / size, 64), (lambda size: 1.0 * size, 1)])
def test_nothing_outside_the_bounds_is_tried(flat: Callable[[int], float], edge: int) -> None:
    tuner = Tuner(BOUNDS)
    sizes = driven(tuner, flat)
    assert tuner.best == edge
    assert max(sizes) <= BOUNDS.most
    assert min(sizes) >= BOUNDS.least


def test_a_short_run_tries_nothing() -> None:
    assert set(driven(Tuner(BOUNDS), lambda size: SETTLE_S / 8 / SETTLE_BATCHES / 2, batches=SETTLE_BATCHES)) == {8}
    assert set(driven(Tuner(BOUNDS), lambda size: 1e-6, batches=10_000)) == {8}


def test_a_gain_that_is_none_keeps_the_size() -> None:
    tuner = Tuner(BOUNDS)
    sizes = driven(tuner, lambda size: 0.1 / (1 + (GAIN - 1) * 0.9 * (size != 8)))
    assert (tuner.best, tuner.settled) == (8, True)
    assert sorted(set(sizes)) == [4, 8, 16]


@pytest.mark.parametrize("best", [4, 8, 16])
@pytest.mark.parametrize("drift", [0.5, 1.0, 2.0])
def test_what_else_the_machine_does_falls_on_both(best: int, drift: float) -> None:
    """A machine whose speed changes by `drift` each 100 batches, and that stalls in one of twenty."""
    right = 0
    for seed in range(100):
        chance, tuner, slow = random.Random(seed), Tuner(BOUNDS), [1.0]

        def seconds(size: int, chance: random.Random = chance, slow: list[float] = slow) -> float:
            slow[0] *= drift ** (1 / 100)
            return machine(best)(size) * slow[0] * (3.0 if chance.random() < 0.05 else 1.0)

        driven(tuner, seconds, batches=200)
        right += tuner.best == best
    assert right >= 97


def test_the_first_batch_of_a_new_size_is_not_counted() -> None:
    seen: set[int] = set()

    def seconds(size: int) -> float:
        warm = size in seen
        seen.add(size)
        return machine(16)(size) * (1 if warm else 50)

    tuner = Tuner(BOUNDS)
    driven(tuner, seconds)
    assert tuner.best == 16


def test_what_does_not_fit_is_never_tried_again() -> None:
    tuner = Tuner(BOUNDS)
    for _ in range(300):
        size = tuner.next()
        if size > 16:
            tuner.cap(16)
        else:
            tuner.saw(size, size, 0.5)
    assert (tuner.best, tuner.settled, tuner.next()) == (16, True, 16)
    tuner.cap(0)
    assert tuner.next() == 1


def test_a_size_that_was_given_or_found_before_is_not_questioned() -> None:
    assert set(driven(Tuner(BOUNDS, 5, settled=True), machine(32))) == {5}


def test_gpus_begin_larger_and_go_further() -> None:
    tuner = Tuner(PICTURES["cuda"])
    driven(tuner, machine(1024))
    assert tuner.best == 1024
