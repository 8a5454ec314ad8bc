"""Forward passes: equal contents once, a batch that fails is split, one that does not fit into memory is halved."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from embedder import batches, extract
from embedder.errors import EncoderError, Undecodable
from embedder.records import Decoded, Item
from tests.embedder.spy import DIM, Ready, Spy, of_texts, split, text_items, troubled


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("window", [2, 1000])
def test_equal_contents_are_encoded_once(monkeypatch: pytest.MonkeyPatch, size: int, window: int) -> None:
    monkeypatch.setattr(extract, "WINDOW", window)
    spy = Spy()
    texts = ["same", "other", "same", "same", "third one", "other", "same"]
    vectors, _ = split(spy.run(text_items(*texts), batch_size=size))
    assert sum(spy.sizes) == 3
    assert all(np.array_equal(vectors[str(n)], vectors[str(texts.index(text))]) for n, text in enumerate(texts))
    assert len(vectors) == len(texts)


def test_only_so_many_vectors_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "RECENT_BYTES", 4 * DIM * 10)
    spy = Spy()
    found = split(spy.run(text_items(*(f"w{n}" for n in range(50)), "w49", "w0"), batch_size=1))[0]
    assert len(found) == 52
    assert sum(spy.sizes) == 51
    assert len({"w0", "w49"} & {call[0][0] for call in spy.calls[50:]}) == 1


def test_what_is_remembered_does_not_hold_on_to_its_batch() -> None:
    held: list[weakref.ref[Any]] = []

    def forward(prepared: Sequence[list[str]]) -> np.ndarray:
        rows = of_texts(prepared)
        held.append(weakref.ref(rows))
        return rows

    memory = batches.Batches(Spy(forward, normalize=False).encoder, "text")
    memory.encode([(Decoded(item, item.id, item.text, 1), ["x", item.id]) for item in text_items(*"abcd")])
    assert [ref() for ref in held] == [None]


def test_what_failed_is_not_remembered() -> None:
    spy = Spy(troubled)
    failures = split(spy.run(text_items("nan", "x", "nan"), batch_size=1))[1]
    assert set(failures) == {"0", "2"}
    assert spy.sizes == [1, 1, 1]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("no"), ValueError("no"), IndexError("no"), KeyError("no"), TypeError("no"), FloatingPointError("no")],
    ids=lambda e: type(e).__name__,
)
def test_a_batch_that_fails_is_split_until_only_the_bad_item_fails(error: Exception) -> None:
    def forward(prepared: Sequence[list[str]]) -> np.ndarray:
        if ["w11"] in prepared:
            raise error
        return of_texts(prepared)

    spy = Spy(forward)
    vectors, failures = split(spy.run(text_items(*(f"w{n}" for n in range(16)))))
    assert vectors.keys() == {str(n) for n in range(16)} - {"11"}
    (failure,) = failures.values()
    assert (failure.id, failure.source, failure.stage, failure.reason) == ("11", "t#11", "encode", "encode_failed")
    assert (failure.exception, failure.message, failure.bytes) == (type(error).__name__, str(error), 3)
    assert len(spy.calls) == 1 + 2 * math.log2(16)


def test_an_encoder_may_say_itself_why_an_item_fails() -> None:
    def forward(prepared: Sequence[list[str]]) -> np.ndarray:
        raise Undecodable("too long for the service", stage="encode", reason="refused_by_service")

    (failure,) = split(Spy(forward).run(text_items("x")))[1].values()
    assert (failure.stage, failure.reason, failure.message) == (
        "encode", "refused_by_service", "too long for the service",
    )  # fmt: skip


@pytest.mark.parametrize("error", [EncoderError("gone"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_no_item_is_to_blame_for_ends_the_run(error: BaseException) -> None:
    def forward(prepared: Sequence[list[str]]) -> np.ndarray:
        raise error

    with pytest.raises(type(error)):
        Spy(forward).run(text_items("x", "y"))
    with pytest.raises(EncoderError, match=r"gave \(2, 5\), not \(2, 6\)"):
        Spy(lambda prepared: np.ones((len(prepared), DIM - 1))).run(text_items("x", "y"))


def test_what_a_failed_pass_allocated_is_free_before_it_is_tried_again() -> None:
    held: list[weakref.ref[Any]] = []

    def forward(prepared: Sequence[list[str]]) -> np.ndarray:
        assert not [ref for ref in held if ref() is not None]
        activations = np.ones(1000)
        held.append(weakref.ref(activations))
        if len(prepared) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return of_texts(prepared) * activations[0]

    assert len(split(Spy(forward).run(text_items("a", "b", "c", "d")))[0]) == 4
    assert len(held) == 1 + 1 + 4


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")])
@pytest.mark.parametrize("size", [None, 64])
def test_a_batch_that_does_not_fit_is_halved_and_that_is_remembered(error: Exception, size: int | None) -> None:
    def forward(prepared: Sequence[list[str]]) -> np.ndarray:
        if len(prepared) > 8:
            raise error
        return of_texts(prepared)

    spy = Spy(forward)
    vectors, failures = split(spy.run(text_items(*(f"w{n} " * 32 for n in range(512))), batch_size=size))
    assert (len(vectors), len(failures)) == (512, 0)
    refused = [n for n in spy.sizes if n > 8]
    assert sum(refused) < 6 * 64
    assert set(spy.sizes[-40:]) == {8}


def test_an_item_that_does_not_fit_alone_is_one_failure() -> None:
    def forward(prepared: Sequence[list[str]]) -> np.ndarray:
        if any(len(words) > 50 for words in prepared):
            raise MemoryError("Unable to allocate 8 GiB")
        return of_texts(prepared)

    spy = Spy(forward)
    vectors, failures = split(spy.run(text_items("x " * 60, *(f"w{n}" for n in range(40)))))
    assert len(vectors) == 40
    assert {id: f.reason for id, f in failures.items()} == {"0": "out_of_memory"}


@pytest.mark.parametrize("normalize", [True, False])
def test_vectors_without_direction_are_failures(normalize: bool) -> None:
    spy = Spy(troubled, normalize=normalize)
    vectors, failures = split(spy.run(text_items("nan", "a", "inf", "zero", "b")))
    assert set(vectors) == {"1", "4"}
    for failure in failures.values():
        assert (failure.stage, failure.reason) == ("encode", "non_finite")
        assert failure.message == "the vector is not finite or has zero norm"


def test_pictures_that_do_not_fit_are_halved_and_that_is_remembered() -> None:
    def forward(prepared: Sequence[Any]) -> np.ndarray:
        if len(prepared) > 8:
            raise MemoryError
        return np.ones((len(prepared), DIM))

    spy = Spy(forward, device="cuda")
    items = [Item(str(n), "image", f"{n}.png", data=b"") for n in range(1000)]
    assert len(split(spy.run(items, pool=Ready()))[0]) == 1000
    assert [n for n in spy.sizes if n > 8] == [128, 64, 32, 16]
    assert set(spy.sizes[-40:]) == {8}
