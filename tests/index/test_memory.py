"""What the garbage collector passes over: what was there before a stretch of work, and what a service keeps."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from index import memory
from index.memory import settle, settled


class Ring:
    """Refers to itself, so that only the collector can free it."""

    def __init__(self) -> None:
        self.self = self


@pytest.fixture(autouse=True)
def as_at_first(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A service in this process may have settled."""
    monkeypatch.setattr(memory, "_kept", False)
    gc.unfreeze()
    yield
    gc.unfreeze()


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


def test_what_a_service_keeps_is_passed_over_for_good_and_what_it_let_go_is_collected_first() -> None:
    kept, gone = Ring(), weakref.ref(Ring())
    settle()
    assert gone() is None
    assert not any(one is kept for one in gc.get_objects()), "it is not gone through any more"
    later = weakref.ref(Ring())
    with settled():
        settle()
        assert later() is not None, "the work that goes on is not held up"
    assert later() is None
    assert not any(one is kept for one in gc.get_objects())
    unloaded = weakref.ref(kept)
    del kept
    settle()
    assert unloaded() is None
