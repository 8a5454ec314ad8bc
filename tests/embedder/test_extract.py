"""Extraction: each item comes out once, as the vector that it should have or as a failure that says why it has none."""

from __future__ import annotations

import hashlib
import math
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder import batches, extract
from embedder.encoder import Encoder, ImageTower, TextTower
from embedder.errors import EncoderError, Undecodable, UsageError
from embedder.extract import Stages
from embedder.naming import EncoderName
from embedder.pool import DecodePool
from embedder.records import Decoded, Failure, Item, Medium, Vectors
from embedder.space import Space
from embedder.transform import ImageTransform
from tests.embedder.sources import png

DIM = 6
TRANSFORM = ImageTransform(4, 4, 4, (0, 0, 0), (1, 1, 1), "box", "squash")
Forward = Callable[[Sequence[Any]], Any]


def vector(key: bytes) -> np.ndarray:
    """The vector planted for a content."""
    row = np.frombuffer(hashlib.sha256(key).digest()[: 4 * DIM], dtype="<u4").astype(np.float64)
    return np.asarray(row / np.linalg.norm(row), dtype=np.float32)


def of_texts(prepared: Sequence[list[str]]) -> np.ndarray:
    return np.stack([vector(" ".join(words).encode()) for words in prepared])


class Spy:
    """An encoder of planted vectors that keeps what each forward pass was given. A token is a word."""

    def __init__(self, forward: Forward = of_texts, *, device: str = "cpu", normalize: bool = True) -> None:
        self.calls: list[list[Any]] = []
        self._forward = forward
        text = TextTower(lambda text, role: text.split(), len, self.forward, 10_000)
        space = Space("spy:6", DIM, ("image", "text"), {"normalize": normalize})
        image = ImageTower(TRANSFORM, self.forward)
        self.encoder = Encoder(EncoderName("spy", "6"), space, device, image, text)

    def forward(self, prepared: Sequence[Any]) -> Any:
        self.calls.append(list(prepared))
        return self._forward(prepared)

    def run(self, items: Iterable[Item], **options: Any) -> list[Vectors | Failure]:
        given: dict[str, Any] = {"pool": None, "batch_size": None, "stages": Stages(), **options}
        medium: Medium = "text" if given["pool"] is None else "image"
        return list(extract.extract(items, self.encoder, medium, **given))

    @property
    def sizes(self) -> list[int]:
        return [len(call) for call in self.calls]


def text_items(*texts: str) -> list[Item]:
    return [Item(str(n), "text", f"t#{n}", text=text) for n, text in enumerate(texts)]


def picture_items(*words: str) -> list[Item]:
    return [Item(str(n), "image", f"{word}.png", data=png(word)) for n, word in enumerate(words)]


def split(found: Iterable[Vectors | Failure]) -> tuple[dict[str, np.ndarray], dict[str, Failure]]:
    """Vectors and failures by id; an id that comes twice is noticed."""
    vectors: dict[str, np.ndarray] = {}
    failures: dict[str, Failure] = {}
    for one in found:
        if isinstance(one, Failure):
            assert one.id not in failures
            failures[one.id] = one
            continue
        assert one.array.dtype == np.float32
        assert one.array.flags.c_contiguous
        assert one.array.shape == (len(one.decoded), DIM)
        for decoded, row in zip(one.decoded, one.array, strict=True):
            assert decoded.item.id not in vectors
            vectors[decoded.item.id] = row
    assert not vectors.keys() & failures.keys()
    return vectors, failures


def troubled(prepared: Sequence[list[str]]) -> np.ndarray:
    """Planted vectors, and trouble for the texts that ask for it."""
    for words in prepared:
        if words[0] == "raise":
            raise RuntimeError("cannot")
    rows = of_texts(prepared)
    for row, words in zip(rows, prepared, strict=True):
        if words[0] in ("nan", "inf", "zero"):
            row[-1 if words[0] == "nan" else slice(None)] = float(words[0].replace("zero", "0"))
    return rows


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
    assert [[len(words) for words in call] for call in spy.calls] == [[3, 2], [1, 1], [5, 2], [1]]


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
    assert sum(computed) / true <= 1.1


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


def test_a_window_is_as_far_as_texts_are_read_ahead() -> None:
    n, seen, out = 100_000, [0], 0
    spy = Spy(lambda prepared: np.ones((len(prepared), DIM)))
    items = (Item(str(i), "text", "t", text=f"w{i}") for i in range(n))
    for found in extract.extract(
        counted(items, seen), spy.encoder, "text", pool=None, batch_size=None, stages=Stages()
    ):
        assert isinstance(found, Vectors)
        assert seen[0] - out <= extract.WINDOW
        out += len(found.decoded)
        spy.calls.clear()
    assert out == seen[0] == n


def test_nothing_is_read_before_it_is_asked_for_nor_after() -> None:
    seen = [0]
    stream = extract.extract(
        counted(text_items(*"abc" * 5000), seen), Spy().encoder, "text", pool=None, batch_size=None, stages=Stages()
    )
    assert seen == [0]
    next(stream)
    stream.close()
    assert seen == [extract.WINDOW]


def test_long_texts_make_the_window_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "WINDOW_CHARS", 10_000)
    seen = [0]
    items = counted(text_items(*(f"{n} " + "x " * 500 for n in range(100))), seen)
    stream = extract.extract(items, Spy().encoder, "text", pool=None, batch_size=None, stages=Stages())
    first = next(stream)
    assert seen == [10]
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


class Ready:
    """Stands in for the pool: pictures that are decoded already."""

    def map(self, items: Iterable[Item], transform: ImageTransform, ahead: int) -> Iterator[Decoded | Failure]:
        self.ahead = ahead
        for item in items:
            yield Decoded(item, item.id, np.full((4, 4, 3), int(item.id) % 251, np.uint8), 48, decode_ms=2.0)


@pytest.mark.parametrize(("device", "size"), [("cpu", 8), ("cuda", 128)])
def test_batches_of_pictures(device: str, size: int) -> None:
    spy, pool, stages = Spy(lambda prepared: np.ones((len(prepared), DIM)), device=device), Ready(), Stages()
    items = [Item(str(n), "image", f"{n}.png", data=b"") for n in range(300)]
    assert len(split(spy.run(items, pool=pool, stages=stages))[0]) == 300
    assert spy.sizes == [size] * (300 // size) + [300 % size]
    assert pool.ahead >= 4 * size
    assert stages.decode == pytest.approx(0.6)


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

    stages, started = Stages(), time.perf_counter()
    spy = Spy(forward)
    spy.run(slow(text_items(*(f"w{n}" for n in range(10))), read), batch_size=5, stages=stages)
    wall = time.perf_counter() - started
    assert stages.read >= 10 * read
    assert stages.encode >= 2 * encode
    assert stages.wait >= stages.read
    assert 0.7 * wall <= stages.wait + stages.encode <= wall
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
