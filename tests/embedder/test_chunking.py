"""Long texts in parts: where they are cut, that nothing is lost or too long, and that short ones are left alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.chunking import Chunking, Splitter, with_chunk
from embedder.encoder import Encoder, load_encoder
from embedder.errors import UsageError
from embedder.extract import extract
from embedder.naming import EncoderName
from embedder.records import Failure, FloatMatrix, Item, Vectors
from embedder.stages import Stages

TEXTS = st.text(st.sampled_from("ab,.é漢 \n\t\u3000"), min_size=1, max_size=300).filter(lambda t: not t.isspace())
PAIRS = st.tuples(st.integers(5, 30), st.integers(0, 15)).filter(lambda pair: 2 * pair[1] <= pair[0])


def pieces_count(text: str) -> int:
    """A tokenizer of two special tokens, and one token for three characters of a word, begun ones included."""
    return 2 + sum(-(-len(word) // 3) for word in text.split())


def limited(count: Callable[[str], int], most: int) -> Callable[[str], int]:
    return lambda text: min(most, count(text))


@cache
def encoder(name: str) -> Encoder:
    return load_encoder(name)


def found(name: str, *texts: str, batch_size: int | None = None) -> list[Vectors | Failure]:
    items = [Item(id=f"i{n}", medium="text", source="s", text=text) for n, text in enumerate(texts)]
    return list(extract(items, encoder(name), "text", pool=None, batch_size=batch_size, stages=Stages()))


def vectors(name: str, *texts: str, batch_size: int | None = None) -> dict[str, FloatMatrix]:
    made: dict[str, FloatMatrix] = {}
    for batch in found(name, *texts, batch_size=batch_size):
        assert isinstance(batch, Vectors)
        parts = batch.parts or (1,) * len(batch.decoded)
        assert sum(parts) == len(batch.array)
        rows = np.split(batch.array, np.cumsum(parts)[:-1])
        made |= {d.item.id: r for d, r in zip(batch.decoded, rows, strict=True)}
    return made


@settings(max_examples=300, deadline=None)
@given(TEXTS, PAIRS, st.sampled_from([pieces_count, limited(pieces_count, 31)]))
def test_parts_cover_the_text_and_none_is_too_long(
    text: str, pair: tuple[int, int], count: Callable[[str], int]
) -> None:
    tokens, overlap = pair
    spans = Splitter(Chunking(tokens, overlap), count, "here")(text)
    covered = set().union(*(range(*span) for span in spans))
    assert {i for i, c in enumerate(text) if not c.isspace()} <= covered
    assert all(count(text[a:b]) <= tokens and not text[a:b].isspace() for a, b in spans)
    assert all(a < c and b < d for (a, b), (c, d) in pairwise(spans))
    if pieces_count(text) <= tokens:
        assert spans == [(0, len(text))]
    shared = [text[c:b] for (_, b), (c, _) in pairwise(spans) if c < b]
    assert all(pieces_count(piece) - 2 <= overlap for piece in shared)


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(5, 30))
def test_each_part_takes_every_word_that_fits(text: str, tokens: int) -> None:
    spans = Splitter(Chunking(tokens), pieces_count, "here")(text)
    for (a, _), (c, d) in pairwise(spans):
        next_word_end = c + len(text[c:d].split()[0])
        assert pieces_count(text[a:next_word_end]) > tokens


def test_an_overlap_is_there_where_words_allow_it() -> None:
    text = " ".join(f"w{n}" for n in range(100))
    spans = Splitter(Chunking(12, 4), pieces_count, "here")(text)
    assert len(spans) > 10
    assert [len(text[c:b].split()) for (_, b), (c, _) in pairwise(spans)] == [4] * (len(spans) - 1)


@pytest.mark.parametrize("chunk", ["0", "3", "8:5", "a", "8:", ":2", "-8", "8:-1", "8.5", "99999999"])
def test_other_spellings_are_refused(chunk: str) -> None:
    with pytest.raises(UsageError, match="chunk"):
        Chunking.of(EncoderName("hashing", "64", options={"chunk": chunk}))


def test_more_tokens_than_the_tower_reads_are_refused() -> None:
    with pytest.raises(UsageError, match="reads at most 20 tokens"):
        Splitter(Chunking(21), limited(pieces_count, 20), "here")
    spans = Splitter(Chunking(20), limited(pieces_count, 20), "here")("ab " * 100)
    assert all(pieces_count(("ab " * 100)[a:b]) <= 20 for a, b in spans)


def test_a_picture_encoder_has_no_texts_to_cut() -> None:
    with pytest.raises(UsageError, match="does not read texts"):
        load_encoder("pixels:64?chunk=8")


def test_the_option_is_put_into_a_name_once() -> None:
    assert with_chunk("hashing:64?normalize=false", "64:8") == "hashing:64?chunk=64:8&normalize=false"
    assert with_chunk("hashing:64?chunk=64", "64") == "hashing:64?chunk=64"
    with pytest.raises(UsageError, match="chunk is 32"):
        with_chunk("hashing:64?chunk=32", "64")


def test_cutting_is_part_of_the_space() -> None:
    names = ["hashing:64", "hashing:64?chunk=64", "hashing:64?chunk=65", "hashing:64?chunk=64:8"]
    assert len({encoder(name).space.fingerprint for name in names}) == len(names)
    assert encoder(names[3]).space.identity["text"]["chunk"]["overlap"] == 8
    assert encoder(names[3]).space.encoder == names[3]


def test_a_short_text_has_exactly_the_vector_that_it_has_without() -> None:
    plain, cut = vectors("hashing:64", "a short text"), vectors("hashing:64?chunk=64:8", "a short text")
    assert np.array_equal(plain["i0"], cut["i0"])
    assert np.array_equal(encoder("hashing:64").encode(["a b"]), encoder("hashing:64?chunk=64").encode(["a b"]))


def test_a_long_text_has_the_vectors_of_its_parts_in_order() -> None:
    name, text = "hashing:64?chunk=40:10", "The quick brown fox jumps over the lazy dog. " * 8
    chosen = encoder(name)
    assert chosen.text is not None
    assert chosen.text.split is not None
    parts = [text[a:b] for a, b in chosen.text.split(text)]
    assert len(parts) > 5
    expected = encoder("hashing:64").encode(parts)
    made = vectors(name, "first", text, "last", text + "more", batch_size=3)
    assert np.array_equal(made["i1"], expected)
    assert [len(rows) for rows in made.values() if len(rows) == 1] == [1, 1]
    assert np.allclose(chosen.encode(["x", text])[1], expected.mean(axis=0), atol=1e-6)


def test_real_parts_are_no_longer_than_asked_and_short_texts_are_the_same() -> None:
    """MiniLM's own tokenizer, over a text with long words, other scripts and marks."""
    text = "Unbelievable! Donaudampfschifffahrtsgesellschaft 漢字かな交じり文 " * 12 + "x" * 900 + " end."
    minilm, name = encoder("bundled:minilm"), "bundled:minilm?chunk=32:8"
    chosen = encoder(name)
    assert chosen.text is not None
    assert chosen.text.split is not None
    spans = chosen.text.split(text)
    lengths = [chosen.text.length(chosen.text.tokenize(text[a:b], "document")) for a, b in spans]
    assert max(lengths) <= 32
    assert np.mean(lengths) > 20
    assert {i for i, c in enumerate(text) if not c.isspace()} <= set().union(*(range(*s) for s in spans))
    made = vectors(name, text, "a photograph of two dogs")
    assert np.allclose(made["i0"], minilm.encode([text[a:b] for a, b in spans]), atol=1e-5)
    assert np.allclose(made["i1"], minilm.encode(["a photograph of two dogs"]), atol=1e-5)


def test_a_part_that_cannot_be_encoded_costs_its_text_alone() -> None:
    from dataclasses import replace

    chosen = encoder("hashing:64?chunk=40")
    assert chosen.text is not None
    inner = chosen.text.forward

    def forward(rows: list[list[str]]) -> np.ndarray:
        made = inner(rows)
        made[[any("bad" in term for term in row) for row in rows]] = np.nan
        return made

    broken = replace(chosen, text=replace(chosen.text, forward=forward))
    texts = ["good words " * 30, "good words " * 20 + "bad " + "good words " * 20, "fine"]
    items = [Item(id=f"i{n}", medium="text", source="s", text=text) for n, text in enumerate(texts)]
    results = list(extract(items, broken, "text", pool=None, batch_size=2, stages=Stages()))
    (failure,) = [one for one in results if isinstance(one, Failure)]
    assert (failure.id, failure.reason) == ("i1", "non_finite")
    assert failure.message.startswith("part ")
    assert sorted(d.item.id for one in results if isinstance(one, Vectors) for d in one.decoded) == ["i0", "i2"]
