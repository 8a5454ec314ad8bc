"""Texts beside the encoder: tokenised once, in another thread, which an interrupt does not have to wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from embedder import extract, texts
from embedder.encoder import TextTower
from embedder.records import Item
from embedder.stages import Stages
from embedder.texts import Readying, taken
from tests.embedder.spy import Spy, of_texts, split, text_items


class Tokenizer:
    """Counts what it is asked for, and by which thread."""

    def __init__(self, bad: str = "") -> None:
        self.bad = bad
        self.texts: list[str] = []
        self.calls: list[int] = []
        self.threads: set[int] = set()

    def one(self, text: str, role: str) -> list[str]:
        return self.many([text], role)[0]

    def many(self, given: Sequence[str], role: str) -> list[list[str]]:
        self.threads.add(threading.get_ident())
        self.calls.append(len(given))
        if self.bad in given:
            raise TypeError("TextInputSequence must be str")
        self.texts += given
        return [text.split() for text in given]


def run(spy: Spy, tokenizer: Tokenizer, items: Sequence[Item]) -> tuple[dict[str, Any], dict[str, Any]]:
    tower = TextTower(tokenizer.one, len, spy.forward, 100, tokenize_all=tokenizer.many)
    encoder = replace(spy.encoder, text=tower)
    return split(extract.extract(items, encoder, "text", pool=None, batch_size=None, stages=Stages()))


def test_each_text_is_tokenised_once_many_at_a_time_beside_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "WINDOW", 1000)
    tokenizer = Tokenizer(bad="none")
    vectors, _ = run(Spy(), tokenizer, text_items(*(f"w{n}" for n in range(2500))))
    assert len(vectors) == 2500
    assert sorted(tokenizer.texts) == sorted(f"w{n}" for n in range(2500))
    assert len(tokenizer.calls) <= 3 * 4
    assert threading.get_ident() not in tokenizer.threads


def test_a_text_that_is_refused_costs_no_other() -> None:
    tokenizer = Tokenizer(bad="bad")
    vectors, failures = run(Spy(), tokenizer, text_items("a", "bad", "b"))
    assert set(vectors) == {"0", "2"}
    assert (failures["1"].reason, failures["1"].exception) == ("encode_failed", "TypeError")


def test_the_next_window_is_tokenised_while_one_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "WINDOW", 4)
    waiting = threading.Event()
    tokenizer = Tokenizer(bad="none")

    def many(given: Sequence[str], role: str) -> list[list[str]]:
        if "second" in given:
            waiting.set()
        return tokenizer.many(given, role)

    def forward(prepared: Sequence[Any]) -> Any:
        # without the other thread this would never come true
        assert waiting.wait(20)
        return of_texts(prepared)

    spy = Spy(forward)
    encoder = replace(spy.encoder, text=TextTower(tokenizer.one, len, spy.forward, 100, tokenize_all=many))
    items = text_items(*"abcd", "second", "f")
    assert len(split(extract.extract(items, encoder, "text", pool=None, batch_size=None, stages=Stages()))[0]) == 6


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), OSError(28, "No space left on device")])
def test_an_interrupt_ends_the_thread_at_once(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "WINDOW", 4000)
    monkeypatch.setattr(texts, "AT_ONCE", 10)

    def slow(given: Sequence[str], role: str) -> list[list[str]]:
        if any(text.startswith("x") for text in given):
            time.sleep(0.05)
        return [text.split() for text in given]

    def forward(prepared: Sequence[Any]) -> Any:
        raise error

    spy = Spy(forward)
    encoder = replace(spy.encoder, text=TextTower(lambda t, r: [t], len, spy.forward, 100, tokenize_all=slow))
    # the second window would take 20 s
    items = text_items(*(f"{'x' * (n >= 4000)}{n}" for n in range(8000)))
    before = threading.active_count()
    with pytest.raises(type(error)):
        list(extract.extract(items, encoder, "text", pool=None, batch_size=None, stages=Stages()))
    assert threading.active_count() == before


def test_what_the_thread_raises_reaches_the_caller() -> None:
    def broken(given: Sequence[str], role: str) -> list[Any]:
        raise AssertionError("a bug")

    spy = Spy()
    encoder = replace(spy.encoder, text=TextTower(lambda t, r: [t], len, spy.forward, 100, tokenize_all=broken))
    with pytest.raises(AssertionError, match="a bug"):
        list(extract.extract(text_items("a", "b"), encoder, "text", pool=None, batch_size=None, stages=Stages()))


def test_items_are_listed_by_the_callers_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "WINDOW", 10)
    seen: set[int] = set()

    def listed() -> Iterator[Item]:
        for item in text_items(*(f"w{n}" for n in range(100))):
            seen.add(threading.get_ident())
            yield item

    run_items = extract.extract(listed(), Spy().encoder, "text", pool=None, batch_size=None, stages=Stages())
    assert len(split(run_items)[0]) == 100
    assert seen == {threading.get_ident()}


def test_a_slow_source_makes_the_window_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def slow() -> Iterator[Item]:
        for item in text_items(*(f"w{n}" for n in range(100))):
            now[0] += 1.0
            yield item

    monkeypatch.setattr(texts.time, "monotonic", lambda: now[0])
    assert len(taken(slow(), 100, 10**6)) == texts.PATIENCE_S + 1


def test_leaving_drops_what_waits() -> None:
    started = threading.Event()

    def slow(given: Sequence[str], role: str) -> list[list[str]]:
        started.set()
        time.sleep(0.2)
        return [text.split() for text in given]

    tower = TextTower(lambda t, r: [t], len, of_texts, 100, tokenize_all=slow)
    with Readying(tower) as readying:
        first, second = (readying.begin(text_items("a", "b")) for _ in range(2))
        started.wait(20)
    assert first.done()
    assert second.cancelled()
