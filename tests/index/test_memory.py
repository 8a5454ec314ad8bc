"""The stretch of work in which the garbage collector passes over what was there."""

from __future__ import annotations

import gc
import weakref

from index.memory import settled


class Ring:
    """Refers to itself, so that only the collector can free it."""

    def __init__(self) -> None:
        self.self = self


def test_what_is_made_within_is_collected_and_what_was_there_is_handed_back() -> None:
    before = weakref.ref(Ring())
    with settled():
        within = weakref.ref(Ring())
        gc.collect()
        assert within() is None
        assert before() is not None
        with settled():
            pass
        assert gc.get_freeze_count() > 0, "the one around it still goes on"
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert before() is None
