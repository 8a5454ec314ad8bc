"""Memory does not grow with the number of items: what is held after 2,000 of them is held after 20,000."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from embedder import batches, extract
from embedder.records import Failure, Item, Medium
from embedder.stages import Stages
from tests.embedder.spy import DIM, Ready, Spy

ITEMS = 20_000


def items(medium: Medium) -> Iterator[Item]:
    for n in range(ITEMS):
        if medium == "text":
            yield Item(str(n), "text", "t", text=f"w{n} " + "some words " * (n % 9) + "x" * 200)
        else:
            yield Item(str(n), "image", "i", data=b"")


@pytest.mark.parametrize("medium", ["text", "image"])
def test_memory_is_flat_over_any_number_of_items(medium: Medium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "WINDOW", 256)
    monkeypatch.setattr(batches, "RECENT_BYTES", 4 * DIM * 500)
    spy = Spy(lambda prepared: np.ones((len(prepared), DIM)))
    pool = Ready() if medium == "image" else None
    held: list[int] = []
    done = 0
    tracemalloc.start()
    try:
        for found in extract.extract(
            items(medium),
            spy.encoder,
            medium,
            pool=pool,
            batch_size=None,
            stages=Stages(),  # type: ignore[arg-type]
        ):
            assert not isinstance(found, Failure)
            spy.calls.clear()
            done += len(found.decoded)
            if done // 2000 > len(held):
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert done == ITEMS
    # one window of texts is about 100 KB; all of them would be ten times the bound
    assert max(held[1:]) <= 1.1 * held[0] + 200_000
