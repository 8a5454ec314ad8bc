"""Extraction: each item comes out once, as the vector that it should have or as a failure that says why it has none."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder import extract
from embedder.encoder import Encoder, TextTower
from embedder.errors import UsageError
from embedder.pool import DecodePool
from embedder.records import Item, Vectors
from embedder.space import Space
from embedder.stages import Stages
from tests.embedder.spy import (
    DIM,
    TRANSFORM,
    Ready,
    Spy,
    of_texts,
    picture_items,
    split,
    text_items,
    troubled,
    vector,
)  # fmt: skip

REASONS = {
    "raise": "encode_failed", "nan": "non_finite", "inf": "non_finite", "zero": "non_finite", " \n": "empty_text",
    "\ud800": "bad_unicode",
}  # fmt: skip
TEXTS = st.sampled_from([*REASONS, "raise more"]) | st.text("ab ", min_size=1, max_size=6).map(
    lambda t: f"x{t}".strip()
)


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=30), st.none() | st.integers(1, 7), st.integers(1, 9), st.booleans())
def test_each_item_comes_out_once(texts: list[str], size: int | None, window: int, normalize: bool) -> None:
    spy = Spy(troubled, normalize=normalize)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "WINDOW", window)
        vectors, failures = split(spy.run(text_items(*texts), batch_size=size))
    wanted = {
        str(n): REASONS.get(text, "encode_failed" if text == "raise more" else "") for n, text in enumerate(texts)
    }
    assert {id: failure.reason for id, failure in failures.items()} == {id: r for id, r in wanted.items() if r}
    assert vectors.keys() == {id for id, reason in wanted.items() if not reason}
    for id, row in vectors.items():
        np.testing.assert_allclose(row, vector(" ".join(texts[int(id)].split()).encode()), rtol=1e-6)


def test_texts_keep_their_text_and_say_what_was_cut() -> None:
    found = Spy().run([Item("a", "text", "t", text="x\0 " * 8000), Item("b", "text", "t", text="short")])
    by_id = {d.item.id: d for one in found if isinstance(one, Vectors) for d in one.decoded}
    assert by_id["b"].value == "short"
    assert by_id["a"].value == ("x " * 8000)[:10_000]
    assert [by_id[id].truncated for id in "ab"] == [True, False]
    assert by_id["b"].content_hash == hashlib.sha256(b"short").hexdigest()


def test_the_longest_texts_of_a_window_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "WINDOW", 4)
    spy = Spy()
    spy.run(text_items("a a", "b", "c c c", "d", "e", "f f f f f", "g g"), batch_size=2)
    assert [[len(words) for words in call] for call in spy.calls] == [[3, 2], [1, 1], [5], [2, 1]]


def test_a_text_that_the_tokenizer_refuses_is_one_failure() -> None:
    spy = Spy()

    def tokenize(text: str, role: str) -> list[str]:
        if text == "bad":
            raise TypeError("TextInputSequence must be str")
        return text.split()

    tower = TextTower(tokenize, len, spy.forward, 100)
    encoder = Encoder(spy.encoder.name, spy.encoder.space, "cpu", text=tower)
    found = extract.extract(text_items("a", "bad", "b"), encoder, "text", pool=None, batch_size=None, stages=Stages())
    vectors, failures = split(found)
    assert set(vectors) == {"0", "2"}
    assert (failures["1"].stage, failures["1"].exception) == ("encode", "TypeError")


def long_tailed(n: int) -> list[Item]:
    """Texts of 33 words in the median and 512 at most; no two alike."""
    lengths = np.clip(np.random.default_rng(0).lognormal(3.5, 1.0, n).astype(int) + 1, 1, 512)
    return text_items(*(f"w{n} " + "w " * (length - 1) for n, length in enumerate(lengths)))


@pytest.mark.parametrize(("device", "budget", "n"), [("cpu", 2048, 5000), ("cuda:0", 32_768, 17_000)])
def test_little_padding_and_never_more_tokens_than_the_budget(device: str, budget: int, n: int) -> None:
    spy = Spy(lambda prepared: np.ones((len(prepared), DIM)), device=device)
    spy.run(long_tailed(n))
    computed = [len(call) * max(len(words) for words in call) for call in spy.calls]
    true = sum(len(words) for call in spy.calls for words in call)
    assert sum(spy.sizes) == n
    assert max(computed) <= budget
    assert sum(computed) / true <= {"cpu": 1.006, "cuda:0": 1.06}[device]


def test_a_text_over_the_budget_goes_alone_and_a_batch_size_is_kept() -> None:
    spy = Spy()
    spy.run(text_items("x " * 3000, "y " * 3000, "z", "w"))
    assert sorted(spy.sizes) == [1, 1, 2]
    spy = Spy()
    spy.run(text_items(*(f"w{n}" for n in range(10))), batch_size=4)
    assert spy.sizes == [4, 4, 2]


def counted(items: Iterable[Item], seen: list[int]) -> Iterator[Item]:
    for item in items:
        seen[0] += 1
        yield item


def test_two_windows_are_as_far_as_texts_are_read_ahead() -> None:
    n, seen, out = 100_000, [0], 0
    spy = Spy(lambda prepared: np.ones((len(prepared), DIM)))
    items = (Item(str(i), "text", "t", text=f"w{i}") for i in range(n))
    for found in extract.extract(
        counted(items, seen), spy.encoder, "text", pool=None, batch_size=None, stages=Stages()
    ):
        assert isinstance(found, Vectors)
        assert seen[0] - out <= 2 * extract.WINDOW
        out += len(found.decoded)
        spy.calls.clear()
    assert out == seen[0] == n


def test_nothing_is_read_before_it_is_asked_for_nor_after() -> None:
    seen = [0]
    stream = extract.extract(
        counted(text_items(*"abc" * 10_000), seen), Spy().encoder, "text", pool=None, batch_size=None, stages=Stages()
    )
    assert seen == [0]
    next(stream)
    stream.close()
    assert seen == [2 * extract.WINDOW]


def test_long_texts_make_the_window_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "WINDOW_CHARS", 10_000)
    seen = [0]
    items = counted(text_items(*(f"{n} " + "x " * 500 for n in range(100))), seen)
    stream = extract.extract(items, Spy().encoder, "text", pool=None, batch_size=None, stages=Stages())
    first = next(stream)
    assert seen == [20]
    assert len(split([first, *stream])[0]) == 100


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(1) as shared:
        yield shared


def of_pixels(prepared: Sequence[Any]) -> np.ndarray:
    return np.stack([vector(pixels.tobytes()) for pixels in prepared])


def test_pictures_keep_their_order_and_bad_ones_cost_no_other(pool: DecodePool) -> None:
    items = picture_items(*"abcdefgha")
    broken = Item("bad", "image", "bad.png", data=b"not a picture")
    missing = Item("gone", "image", "gone.png", path="/nowhere/gone.png")
    spy, stages = Spy(of_pixels), Stages()
    found = spy.run([*items[:3], broken, *items[3:], missing], pool=pool, batch_size=4, stages=stages)
    vectors, failures = split(found)
    assert list(vectors) == [item.id for item in items]
    assert {id: failure.stage for id, failure in failures.items()} == {"bad": "decode", "gone": "read"}
    assert spy.sizes == [4, 4]
    assert np.array_equal(vectors["0"], vectors["8"])
    for item, word in zip(items, "abcdefgha", strict=True):
        pixels = np.asarray(pool.decode(item, TRANSFORM).value)
        np.testing.assert_allclose(vectors[item.id], vector(pixels.tobytes()), rtol=1e-6)
        assert pixels.shape == (4, 4, 3), word
    assert all(d.value is None for one in found if isinstance(one, Vectors) for d in one.decoded)
    assert min(stages.read, stages.decode, stages.wait, stages.encode) > 0


@pytest.mark.parametrize(("device", "size"), [("cpu", 8), ("cuda", 128)])
def test_batches_of_pictures(device: str, size: int) -> None:
    spy, pool, stages = Spy(lambda prepared: np.ones((len(prepared), DIM)), device=device), Ready(), Stages()
    items = [Item(str(n), "image", f"{n}.png", data=b"") for n in range(300)]
    assert len(split(spy.run(items, pool=pool, stages=stages))[0]) == 300
    assert spy.sizes == [size] * (300 // size) + [300 % size]
    assert pool.ahead >= 4 * size
    assert stages.decode == pytest.approx(0.6)


def test_a_medium_that_cannot_be_encoded_is_refused_before_an_item_is_read() -> None:
    spy = Spy()
    only_text = Encoder(
        spy.encoder.name, Space("spy:6", DIM, ("text",), {"normalize": True}), "cpu", text=spy.encoder.text
    )
    seen = [0]
    with pytest.raises(UsageError, match="does not read images, only texts"):
        next(extract.extract(counted([], seen), only_text, "image", pool=None, batch_size=None, stages=Stages()))
    with pytest.raises(ValueError, match="pictures need a pool"):
        next(
            extract.extract(
                counted(picture_items("a"), seen), spy.encoder, "image", pool=None, batch_size=None, stages=Stages()
            )
        )
    assert seen == [0]


def slow(items: Iterable[Item], seconds: float) -> Iterator[Item]:
    for item in items:
        time.sleep(seconds)
        yield item


@pytest.mark.parametrize(("read", "encode", "name"), [(0.03, 0.005, "decode"), (0.001, 0.2, "encode")])
def test_stages_add_up(read: float, encode: float, name: str) -> None:
    def forward(prepared: Sequence[Any]) -> np.ndarray:
        time.sleep(encode)
        return of_texts(prepared)

    shares = []
    for _ in range(3):  # a thread that starts late on a busy machine is in no stage
        stages, started = Stages(), time.perf_counter()
        Spy(forward).run(slow(text_items(*(f"w{n}" for n in range(10))), read), batch_size=5, stages=stages)
        shares.append((stages.wait + stages.encode) / (time.perf_counter() - started))
        assert stages.read >= 10 * read
        assert stages.encode >= 2 * encode
        assert stages.wait >= stages.read
    assert max(shares) <= 1
    assert max(shares) >= 0.7
    assert stages.bottleneck() == name


def test_tokenising_counts_as_decoding() -> None:
    spy, stages = Spy(), Stages()

    def tokenize(text: str, role: str) -> list[str]:
        time.sleep(0.01)
        return text.split()

    encoder = Encoder(spy.encoder.name, spy.encoder.space, "cpu", text=TextTower(tokenize, len, spy.forward, 100))
    list(extract.extract(text_items(*"abcde"), encoder, "text", pool=None, batch_size=None, stages=stages))
    assert stages.decode >= 0.05
    assert stages.wait >= stages.decode
    assert stages.read < stages.decode


def test_the_bottleneck_is_the_stage_with_most_of_the_runs_own_time() -> None:
    assert Stages(read=9, decode=9, wait=1, encode=2).bottleneck() == "encode"
    assert Stages(read=9, decode=1, wait=3, encode=2, write=2).bottleneck() == "decode"
    assert Stages(wait=1, encode=2, write=3).bottleneck() == "write"
    assert Stages(read=1.23456).as_json() == {"read": 1.235, "decode": 0, "wait": 0, "encode": 0, "write": 0}
