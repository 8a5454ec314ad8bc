"""Tables, folders and shards at an address: the same items as on disk, fetched when needed, and only what changed."""

from __future__ import annotations

import functools
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from embedder import addresses
from embedder.encoder import load_encoder
from embedder.errors import NothingToDo, Undecodable, UsageError
from embedder.extract import extract
from embedder.fetching import fetched
from embedder.pool import DecodePool
from embedder.reading import MAX_BYTES
from embedder.records import Failure, Item, Vectors
from embedder.sourcing import open_source
from embedder.stages import Stages
from tests.embedder.sources import items, one_failure, png
from tests.embedder.test_sources_table import write
from tests.embedder.test_sources_webdataset import picture, tar

Build = Callable[[Path, Sequence[str], bool], str]


def memory(folder: Path, name: str, data: bytes) -> str:
    """A file in fsspec's memory, under the name of a test's own folder."""
    path = f"{folder}/{name}"
    fsspec.filesystem("memory").pipe_file(path, data)
    return f"memory://{path}"


def table(name: str) -> Build:
    def build(folder: Path, words: Sequence[str], broken: bool) -> str:
        rows = [{"image": f"pics/{word}.png", "year": len(word)} for word in words]
        for word in words:
            memory(folder, f"pics/{word}.png", png(word))
        rows += [{"image": "https://elsewhere.example/x.png", "year": 0}] if broken else []
        return memory(folder, name, write(folder / name, rows).read_bytes())

    return build


def zipped(folder: Path, words: Sequence[str], broken: bool) -> str:
    with zipfile.ZipFile(folder / "a.zip", "w") as out:
        for name in (*words, *(["broken"] if broken else [])):
            out.writestr(f"t/{name}.csv", f"text\n{name}\n")
        lines = [*words, *(["one,too many"] if broken else [])]
        out.writestr("all.csv", "".join(f"{line}\n" for line in ["text", *lines]))
    return f"zip://all.csv::{folder}/a.zip"


EXAMPLES = {
    "csv of paths in memory": table("t.csv"),
    "parquet of paths in memory": table("t.parquet"),
    "csv of texts in a zip": zipped,
}


@pytest.fixture
def photos(tmp_path: Path) -> str:
    for name in ("cat/1.png", "cat/2.png", "dog/3.png", ".hidden/4.png", "notes.md"):
        memory(tmp_path, name, png(name))
    return f"memory://{tmp_path}"


def ready(uri: str) -> list[Item | Failure]:
    return list(fetched(items(open_source(uri))))


def test_a_folder_has_the_ids_and_labels_of_a_local_one(photos: str) -> None:
    source = open_source(photos)
    assert [(i.id, i.columns["label"]) for i in items(source)] == [
        ("cat/1.png", "cat"), ("cat/2.png", "cat"), ("dog/3.png", "dog"),
    ]  # fmt: skip
    assert len(source) == 3
    assert [i.data for i in ready(photos) if isinstance(i, Item)] == [png(i.id) for i in items(source)]
    assert all(i.size == len(png(i.id)) and i.mtime_ns and i.remote for i in items(source))


def test_a_file_that_was_written_again_has_another_stamp(photos: str, tmp_path: Path) -> None:
    before = {i.id: i.mtime_ns for i in items(open_source(photos))}
    memory(tmp_path, "cat/1.png", png("other"))
    after = {i.id: i.mtime_ns for i in items(open_source(photos))}
    assert {id for id in before if before[id] != after[id]} == {"cat/1.png"}


def test_a_folder_in_a_zip_is_told_apart_by_its_checksums(tmp_path: Path) -> None:
    def stamps(word: str) -> dict[str, int | None]:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
            for name in ("p/a.png", "p/b.png", "q/c.png"):
                out.writestr(zipfile.ZipInfo(name), png(word if name == "p/a.png" else name))
        uri = f"zip://p::{tmp_path}/a.zip"
        assert [i.data for i in ready(uri) if isinstance(i, Item)] == [png(word), png("p/b.png")]
        return {i.id: i.mtime_ns for i in items(open_source(uri))}

    first, second = stamps("x"), stamps("y")
    assert list(first) == ["a.png", "b.png"]
    assert first["a.png"] != second["a.png"]
    assert first["b.png"] == second["b.png"]


def test_pictures_are_encoded_and_one_that_is_gone_costs_itself_alone(photos: str, tmp_path: Path) -> None:
    source = open_source(photos)
    found = items(source)
    fsspec.filesystem("memory").rm(f"{tmp_path}/cat/2.png")
    with DecodePool(1) as pool:
        made = list(extract(found, load_encoder("pixels:64"), "image", pool=pool, batch_size=None, stages=Stages()))
    (failure,) = [one for one in made if isinstance(one, Failure)]
    assert (failure.id, failure.stage, failure.reason) == ("cat/2.png", "read", "missing")
    assert [d.item.id for one in made if isinstance(one, Vectors) for d in one.decoded] == ["cat/1.png", "dog/3.png"]


def test_fetching_keeps_the_order_and_stays_a_few_ahead() -> None:
    asked: list[int] = []

    def fetch(n: int) -> bytes:
        asked.append(n)
        return str(n).encode()

    stream = fetched(Item(str(n), "text", "s", remote=functools.partial(fetch, n)) for n in range(100))
    first = next(stream)
    assert isinstance(first, Item)
    assert first.data == b"0"
    assert max(asked) < 32
    assert [one.data for one in stream if isinstance(one, Item)] == [str(n).encode() for n in range(1, 100)]


def test_too_large_a_file_is_refused_before_it_is_kept(tmp_path: Path) -> None:
    uri = memory(tmp_path, "x.png", bytes(MAX_BYTES + 1))
    with pytest.raises(Undecodable) as error:
        addresses.Fetch(uri)()
    assert error.value.reason == "too_large"
    fsspec.filesystem("memory").rm(f"{tmp_path}/x.png")


def test_shards_at_an_address(tmp_path: Path) -> None:
    for name in ("s0.tar", "s1.tar"):
        memory(tmp_path, name, tar(tmp_path / name, picture(name[:2])).read_bytes())
    for pattern in ("s{0..1}.tar", "s*.tar"):
        source = open_source(f"memory://{tmp_path}/{pattern}")
        assert [(i.id, i.data) for i in items(source)] == [("s0/s0", png("s0")), ("s1/s1", png("s1"))]
    source = open_source(f"memory://{tmp_path}/s{{0..2}}.tar")
    assert (one_failure(source).id, one_failure(source).reason) == ("s2", "missing")


def test_what_cannot_be_opened_says_what_to_do(tmp_path: Path) -> None:
    for uri, what in [
        ("nosuch://x/y", "cannot be"), (f"memory://{tmp_path}/nothing", "nothing at"),
        (f"memory://{tmp_path}/t.csv", "cannot be read: FileNotFoundError"), ("gs://bucket/x.csv", "gcsfs"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=what) as error:
            open_source(uri)
        assert error.value.hint
    memory(tmp_path, "d/readme.md", b"x")
    with pytest.raises(NothingToDo, match="none of the 1 files"):
        open_source(f"memory://{tmp_path}/d")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("s3://a/t.csv", "s3://b/x.png", True), ("https://a.org/t", "https://a.org/x", True),
     ("https://a.org/t", "https://b.org/x", False), ("s3://a/t", "https://a/x", False)],
)  # fmt: skip
def test_a_table_names_files_of_its_own_site_only(one: str, other: str, same: bool) -> None:
    assert (addresses.site(one) == addresses.site(other)) is same


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()
    thread.join()


def test_over_http(server: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png("a"))
    write(tmp_path / "t.csv", [{"image": "a.png"}, {"image": "gone.png"}, {"image": f"{server}/a.png"}])
    found = ready(f"{server}/t.csv")
    assert [one.data if isinstance(one, Item) else one.reason for one in found] == [png("a"), "missing", png("a")]
