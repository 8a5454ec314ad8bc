"""Batches: the vectors of one encoder whoever asked, in what order, and beside whom; and what is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from api import batching
from api.batching import Batcher
from api.metering import Meter
from api.recent import OVERHEAD, Recent
from embedder import lanes
from embedder.encoder import Encoder, load_encoder
from embedder.errors import DeadlineExceeded, Overloaded, Undecodable

HASHING = load_encoder("hashing:64")
TEXTS = st.text("abc ", min_size=1).filter(str.strip)
WAIT_S = 30


def no_pictures(data: bytes, tower: Any) -> Any:
    raise AssertionError("no picture was sent")


@contextmanager
def batcher(encoder: Encoder = HASHING, **more: Any) -> Iterator[Batcher]:
    made = Batcher(encoder, decode=no_pictures, recent=Recent(), meter=Meter(), **more)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def held() -> Iterator[tuple[Encoder, threading.Event, list[int]]]:
    """An encoder whose passes wait for an event, and the sizes of the passes."""
    go, sizes = threading.Event(), list[int]()
    text = HASHING.text
    assert text is not None

    def forward(prepared: Any) -> Any:
        sizes.append(len(prepared))
        assert go.wait(WAIT_S)
        return text.forward(prepared)

    try:
        yield replace(HASHING, text=replace(text, forward=forward)), go, sizes
    finally:
        go.set()


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.lists(st.text("abc ", min_size=1).filter(str.strip), min_size=1, max_size=9), min_size=1, max_size=9)
)
def test_vectors_are_those_of_the_encoder_whoever_asks_beside(requests: list[list[str]]) -> None:
    with batcher() as made, ThreadPoolExecutor(8) as pool:
        futures = list(pool.map(lambda texts: made.submit(texts, "text", "query"), requests))
        for texts, future in zip(requests, futures, strict=True):
            expected = HASHING.encode(texts, role="query")
            np.testing.assert_allclose(future.result(WAIT_S).vectors, expected, atol=1e-6)
        assert made.waiting == 0


def test_what_waits_goes_together_and_large_requests_take_turns_with_small_ones() -> None:
    with held() as (encoder, go, sizes), batcher(encoder) as made:
        first = made.submit(["first"], "text", "query")
        while not sizes:
            pass
        large = made.submit([f"large {i}" for i in range(500)], "text", "query")
        small = [made.submit([f"small {i}"], "text", "query") for i in range(5)]
        done: list[str] = []
        large.add_done_callback(lambda _: done.append("large"))
        for future in small:
            future.add_done_callback(lambda _: done.append("small"))
        made._texts.submit(lambda: None).result(WAIT_S)
        go.set()
        for future in [first, large, *small]:
            future.result(WAIT_S)
        assert sizes[0] == 1
        assert max(sizes) > 8
        assert len(sizes) < 500 / 8
        assert done == ["small"] * 5 + ["large"]


def test_a_pass_takes_the_oldest_text_and_others_of_its_length() -> None:
    with held() as (encoder, go, sizes), batcher(encoder) as made:
        first = made.submit(["first"], "text", "query")
        while not sizes:
            pass
        done: list[str] = []
        asked = [first]
        for name, words, number in (("oldest", 1, 1), ("long", 9, 10), ("short", 1, 10), ("longer", 90, 1)):
            for n in range(number):
                asked.append(made.submit([" ".join([f"w{n}{name}"] * words)], "text", "query"))
                asked[-1].add_done_callback(lambda _, name=name: done.append(name))
        made._texts.submit(lambda: None).result(WAIT_S)
        go.set()
        for future in asked:
            future.result(WAIT_S)
        assert sizes == [1, 11, 10, 1]
        assert sorted(done[:11]) == ["oldest", *["short"] * 10]
        assert done[11:] == ["long"] * 10 + ["longer"]


def test_two_passes_go_on_at_once_on_a_processor_and_nobody_notices() -> None:
    minilm = load_encoder("bundled:minilm")
    text, before = minilm.text, torch.get_num_threads()
    assert text is not None
    texts = [" ".join(["word"] * (1 + n % 50)) + f" {n}" for n in range(64)]
    expected = minilm.encode(texts)
    both, under_way, used = threading.Event(), [0], list[int]()

    def forward(prepared: Any) -> Any:
        used.append(torch.get_num_threads())
        under_way[0] += 1
        if under_way[0] == 2:
            both.set()
        assert both.wait(WAIT_S)
        return text.forward(prepared)

    try:
        torch.set_num_threads(2)
        assert lanes.count(minilm) == 2
        assert lanes.count(HASHING) == lanes.count(replace(minilm, runtime="openvino")) == 1
        with batcher(replace(minilm, text=replace(text, forward=forward))) as made:
            asked = [made.submit([one], "text", "document") for one in texts]
            found = np.concatenate([one.result(WAIT_S).vectors for one in asked])
        np.testing.assert_allclose(found, expected, atol=2e-6)
        assert 1 in used
        assert torch.get_num_threads() == 2, "what a pass may use is told to no other thread"
    finally:
        torch.set_num_threads(before)


def test_a_request_that_two_passes_share_ends_once_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading how many pieces are left and writing it there is time enough for the other pass."""

    def left(request: Any) -> int:
        found: int = request.__dict__["_left"]
        time.sleep(0.001)
        return found

    def leave(request: Any, count: int) -> None:
        request.__dict__["_left"] = count

    monkeypatch.setattr(batching._Request, "left", property(left, leave), raising=False)
    monkeypatch.setattr(lanes, "count", lambda encoder: 2)
    monkeypatch.setattr(batching, "MOST_ROWS", 4)
    with batcher() as made:
        texts = [f"text {n}" for n in range(200)]
        found = made.submit(texts, "text", "query").result(WAIT_S).vectors
    np.testing.assert_allclose(found, HASHING.encode(texts, role="query"), atol=1e-6)


def test_too_much_is_refused_before_it_is_taken_and_room_comes_back() -> None:
    with held() as (encoder, go, _), batcher(encoder, most_waiting=4) as made:
        taken = [made.submit([f"t{i}"], "text", "query") for i in range(4)]
        with pytest.raises(Overloaded) as refused:
            made.submit(["one more"], "text", "query")
        assert refused.value.status == 429
        assert refused.value.retry_after >= 1
        go.set()
        for future in taken:
            future.result(WAIT_S)
        assert made.submit(["one more"], "text", "query").result(WAIT_S).vectors.shape == (1, 64)


def test_a_cancelled_request_is_never_encoded() -> None:
    with held() as (encoder, go, sizes), batcher(encoder) as made:
        first = made.submit(["first"], "text", "query")
        while not sizes:
            pass
        gone = made.submit([f"gone {i}" for i in range(50)], "text", "query")
        assert gone.cancel()
        assert made.waiting == 1
        go.set()
        first.result(WAIT_S)
        made.submit(["last"], "text", "query").result(WAIT_S)
        assert sum(sizes) == 2


def test_what_is_late_is_told_so_and_dropped() -> None:
    with held() as (encoder, go, sizes), batcher(encoder) as made:
        first = made.submit(["first"], "text", "query")
        while not sizes:
            pass
        late = made.submit(["late"], "text", "query", deadline_s=0.0)
        go.set()
        first.result(WAIT_S)
        with pytest.raises(DeadlineExceeded):
            late.result(WAIT_S)
        assert sum(sizes) == 1


def test_one_bad_text_costs_its_own_request_only() -> None:
    with batcher() as made:
        good, bad = made.submit(["good"], "text", "query"), made.submit(["fine", "  "], "text", "query")
        with pytest.raises(Undecodable):
            bad.result(WAIT_S)
        assert good.result(WAIT_S).vectors.shape == (1, 64)


def test_a_text_that_was_asked_before_is_not_encoded_again_and_roles_are_apart() -> None:
    with held() as (encoder, go, sizes), batcher(encoder) as made:
        go.set()
        once = made.submit(["again"], "text", "query").result(WAIT_S)
        twice = made.submit(["again"], "text", "query").result(WAIT_S)
        assert len(sizes) == 1
        np.testing.assert_array_equal(once.vectors, twice.vectors)
        assert once.tokens == twice.tokens > 0
        made.submit(["again"], "text", "document").result(WAIT_S)
        assert len(sizes) == 2


def test_a_text_in_parts_is_their_mean() -> None:
    parted = load_encoder("hashing:64?chunk=8")
    text = " ".join(f"word{i}." for i in range(60))
    with batcher(parted) as made:
        found = made.submit([text], "text", "document").result(WAIT_S).vectors
    np.testing.assert_allclose(found, parted.encode([text]), atol=1e-6)


def test_the_cache_stays_within_its_bytes() -> None:
    room = Recent(3 * (256 + OVERHEAD))
    for i in range(10):
        room.put(("s", "text", "query", str(i)), np.full(64, i, dtype=np.float32), i)
    kept = [i for i in range(10) if room.get(("s", "text", "query", str(i)))]
    assert kept == [7, 8, 9]
