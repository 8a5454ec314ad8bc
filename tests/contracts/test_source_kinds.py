"""What every source kind must satisfy. A new file in `embedder/sources/` is tested here because it exists.

The kind's own tests, `tests/embedder/test_sources_KIND.py`, offer `EXAMPLES`: by name, functions
`build(folder, words, broken)` that write a source into an empty folder and return its URI. It holds one item for each
word, sorted by word, which depends on the word alone; and where `broken` is true, one more that cannot be read.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from embedder import kinds
from embedder.encoder import load_encoder
from embedder.extract import extract
from embedder.pool import DecodePool
from embedder.records import MEDIA, Failure, Item, Vectors
from embedder.sourcing import Source, open_source
from embedder.stages import Stages

Build = Callable[[Path, Sequence[str], bool], str]
PACKAGE = "embedder.sources"
PYTHON = {"string": str, "int": int, "float": float, "bool": bool}
WORDS = ("beet", "corn", "dill", "figs")


def examples(kind: str) -> dict[str, Build]:
    name = f"tests.embedder.test_sources_{kind}"
    if importlib.util.find_spec(name) is None:
        return {}
    found: dict[str, Build] = getattr(importlib.import_module(name), "EXAMPLES", {})
    return found


CASES = [(kind, name) for kind in kinds.names(PACKAGE) for name in examples(kind) or ("no example",)]
pytestmark = pytest.mark.parametrize(("kind", "name"), CASES)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(1) as shared:
        yield shared


@pytest.fixture
def build(kind: str, name: str, tmp_path: Path) -> Callable[..., Source]:
    assert name in examples(kind), f"tests/embedder/test_sources_{kind}.py offers no EXAMPLES: add one"

    @cache
    def written(words: tuple[str, ...], broken: bool) -> str:
        folder = tmp_path / f"{len(words)}{broken}"
        folder.mkdir()
        return examples(kind)[name](folder, words, broken)

    def opened(words: tuple[str, ...] = WORDS, *, broken: bool = False) -> Source:
        uri = written(words, broken)
        assert kinds.load(PACKAGE, kind).accepts(uri)
        assert [k for k in kinds.names(PACKAGE) if kinds.load(PACKAGE, k).accepts(uri)] == [kind]
        return open_source(uri)

    return opened


def items(source: Source) -> list[Item]:
    return [one for one in source if isinstance(one, Item)]


def inside(item: Item) -> Item:
    """The item without what says where it stands."""
    path = item.path and Path(item.path).name
    return replace(item, source="", path=path, mtime_ns=item.mtime_ns and 1, remote=None)


def test_one_item_a_word(build: Callable[..., Source]) -> None:
    found = list(build())
    assert [type(one) for one in found] == [Item] * len(WORDS)


def test_iterating_again_gives_the_same(build: Callable[..., Source]) -> None:
    source = build(broken=True)
    first = list(source)
    half = iter(source)
    next(half)
    assert list(source) == first
    assert list(build(broken=True)) == first


def test_ids_are_unique_text_that_can_be_stored(build: Callable[..., Source]) -> None:
    source = build(broken=True)
    ids = [one.id for one in source]
    assert len(set(ids)) == len(ids)
    for text in (source.root, *ids, *(one.source for one in source)):
        assert text
        assert text.isprintable()
        text.encode("utf-8")


def test_len_is_what_iteration_yields(build: Callable[..., Source]) -> None:
    for broken in (False, True):
        source = build(broken=broken)
        assert len(source) == len(list(source)) == len(source) == len(WORDS) + broken


def test_columns_are_as_declared(build: Callable[..., Source]) -> None:
    source = build()
    assert set(source.columns.values()) <= set(PYTHON)
    for item in items(source):
        assert set(item.columns) == set(source.columns)
        for column, value in item.columns.items():
            assert value is None or type(value) is PYTHON[source.columns[column]], (column, value)


def test_an_item_in_front_shifts_nothing(build: Callable[..., Source]) -> None:
    before, after = items(build()), items(build(("ahem", *WORDS)))
    assert [inside(item) for item in after[1:]] == [inside(item) for item in before]
    assert after[0].id not in {item.id for item in before}


def test_an_item_less_shifts_nothing(build: Callable[..., Source]) -> None:
    assert [i.id for i in items(build(WORDS[2:]))] == [i.id for i in items(build())[2:]]


def test_items_are_of_one_medium_and_have_one_content(build: Callable[..., Source]) -> None:
    source = build()
    assert source.medium in MEDIA
    for item in items(source):
        assert item.medium == source.medium
        assert sum(content is not None for content in (item.path, item.data, item.text, item.remote)) == 1
        assert item.path is None or item.mtime_ns is not None
        assert item.mtime_ns is None or item.path is not None or item.remote is not None
        if item.path is not None:
            assert (item.size, item.mtime_ns) == (Path(item.path).stat().st_size, Path(item.path).stat().st_mtime_ns)


def test_what_cannot_be_read_is_one_failure_and_costs_no_other(build: Callable[..., Source]) -> None:
    source = build(broken=True)
    (failure,) = [one for one in source if isinstance(one, Failure)]
    assert failure.stage in ("list", "read")
    assert failure.reason.isidentifier()
    assert failure.message
    assert [item.id for item in items(source)] == [item.id for item in items(build())]


def test_every_item_can_be_encoded(build: Callable[..., Source], pool: DecodePool) -> None:
    source = build()
    found = list(
        extract(
            iter(items(source)), load_encoder("hashing:64"), source.medium,
            pool=pool if source.medium == "image" else None, batch_size=None, stages=Stages(),
        )
    )  # fmt: skip
    assert [type(one) for one in found] == [Vectors]
    assert isinstance(found[0], Vectors)
    assert sorted(d.item.id for d in found[0].decoded) == sorted(i.id for i in items(source))
    assert len({d.content_hash for d in found[0].decoded}) == len(WORDS)
