"""Folders: labels and splits from the layout, ids that survive any file name, and what cannot be read is named."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedder.errors import UsageError
from embedder.records import Item
from embedder.sources.folder import encoded
from embedder.sourcing import SourceOptions, open_source
from index.itself import local_path
from tests.embedder.sources import failures, items, not_root, one_failure, opened, png

NAMES = [
    b"plain.png", b"with space.png", b"new\nline.png", b"esc\x1b[31m.png", "rtl\u202egnp.png".encode(), b"100%.png",
    b"%41.png", b"A.png", b"latin\xff.png", "e\u0301.png".encode(), "\u00e9.png".encode(), b"<img>.png", b"-x.png",
    b"tab\t.png", "\u2028.png".encode(), "\U0001fae8.png".encode(), b"a" * 251 + b".png", b"\xed\xa0\x80.png",
    b"quote'\".png", b"back\\slash.png", b"semi;$(x).png", b"a..png",
]  # fmt: skip


def write(folder: Path, *names: str, data: bytes | None = None) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(name) if data is None else data)
    return folder


def example(suffix: str, *, classes: bool) -> Callable[[Path, Sequence[str], bool], str]:
    """A folder whose files are called by the words, and hold them."""

    def build(folder: Path, words: Sequence[str], broken: bool) -> str:
        for word in words:
            name = f"{word[0]}/{word}{suffix}" if classes else f"{word}{suffix}"
            write(folder, name, data=png(word) if suffix == ".png" else word.encode())
        if broken:
            (folder / f"cc{suffix}").symlink_to(folder / "gone")
        return str(folder)

    return build


EXAMPLES = {
    "pictures": example(".png", classes=False),
    "classes of pictures": example(".png", classes=True),
    "texts": example(".txt", classes=False),
}


def ids(folder: Path) -> list[str]:
    return [item.id for item in items(opened(folder))]


def test_a_class_per_folder_gives_the_label(tmp_path: Path) -> None:
    source = opened(write(tmp_path, "cat/1.png", "dog/2.JPG", "dog/big/3.png", "4.png", "100%/5.png"))
    assert source.columns == {"label": "string"}
    labels = {item.id: item.columns["label"] for item in items(source)}
    assert labels == {
        "cat/1.png": "cat", "dog/2.JPG": "dog", "dog/big/3.png": "dog/big", "4.png": None, "100%25/5.png": "100%",
    }  # fmt: skip


@pytest.mark.parametrize("splits", [("train", "test"), ("Training", "Testing"), ("val",)])
def test_folders_of_splits_give_the_split(tmp_path: Path, splits: tuple[str, ...]) -> None:
    write(tmp_path, *(f"{split}/cat/1.png" for split in splits), f"{splits[0]}/2.png", "cover.png")
    write(tmp_path, "README.md", ".cache/x.png", data=b"")
    source = opened(tmp_path)
    assert source.columns == {"label": "string", "split": "string"}
    found = {item.id: (item.columns["split"], item.columns["label"]) for item in items(source)}
    assert found == {
        "cover.png": (None, None), f"{splits[0]}/2.png": (splits[0], None),
        **{f"{split}/cat/1.png": (split, "cat") for split in splits},
    }  # fmt: skip


def test_a_class_beside_splits_makes_them_classes(tmp_path: Path) -> None:
    source = opened(write(tmp_path, "train/1.png", "plane/2.png"))
    assert [item.columns for item in items(source)] == [{"label": "plane"}, {"label": "train"}]


def test_what_an_item_says(tmp_path: Path) -> None:
    (item,) = items(opened(write(tmp_path, "cat/1.png")))
    path = tmp_path / "cat/1.png"
    stat = path.stat()
    assert item == Item(
        "cat/1.png", "image", str(path), path=str(path), size=stat.st_size, mtime_ns=stat.st_mtime_ns,
        columns={"label": "cat"},
    )  # fmt: skip
    assert opened(tmp_path).root == str(tmp_path)


def test_paths_are_absolute_wherever_it_is_opened_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "f/cat/1.png")
    monkeypatch.chdir(tmp_path)
    for spelling in ("f", "./f/", "f/cat/..", str(tmp_path / "f")):
        source = open_source(spelling)
        assert source.root == str(tmp_path / "f")
        assert [(i.id, i.path) for i in items(source)] == [("cat/1.png", str(tmp_path / "f/cat/1.png"))]


def test_hidden_files_and_other_suffixes_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "a.png", ".b.png", ".thumbs/c.png", "__MACOSX/._d.png")
    write(tmp_path, "notes.md", "e.png.bak", "no_suffix", "f.txt", data=b"x")
    assert ids(tmp_path) == ["a.png"]
    assert len(opened(tmp_path)) == 1


def test_pictures_that_need_an_extra_are_found_so_that_they_are_named(tmp_path: Path) -> None:
    assert ids(write(tmp_path, "a.heic", "b.JXL", "c.HEIF")) == ["a.heic", "b.JXL", "c.HEIF"]


@pytest.mark.parametrize(
    ("names", "media", "medium", "count"),
    [
        (["a.txt", "b.txt"], None, "text", 2),
        (["a.txt", "b.png"], None, "image", 1),
        (["a.txt", "b.png"], "text", "text", 1),
        (["a.txt"], "image", "image", 0),
        (["notes.md"], None, "image", 0),
        ([], None, "image", 0),
    ],
)
def test_the_medium(tmp_path: Path, names: list[str], media: str | None, medium: str, count: int) -> None:
    source = opened(write(tmp_path, *names), media=media)
    assert (source.medium, len(source)) == (medium, count)
    assert {item.medium for item in items(source)} <= {medium}


def test_the_order_is_that_of_the_bytes_of_the_path(tmp_path: Path) -> None:
    names = ["b/1.png", "a.png", "a/2.png", "a-b.png", "B.png", "é.png", "z.png", "a/10.png", "a/b/c.png"]
    write(tmp_path, *names)
    assert ids(tmp_path) == sorted(names, key=lambda name: [part.encode() for part in name.split("/")])


def test_links(tmp_path: Path) -> None:
    write(tmp_path, "real/a.png", "outside.png")
    root = tmp_path / "real"
    (root / "to_folder").symlink_to(root)
    (root / "folder.png").symlink_to(tmp_path)
    (root / "to_file.png").symlink_to(tmp_path / "outside.png")
    (root / "dangling.png").symlink_to("nowhere")
    (root / "loop.png").symlink_to("loop.png")
    (root / "dangling_note").symlink_to("nowhere")
    source = opened(root)
    assert [item.id for item in items(source)] == ["a.png", "to_file.png"]
    found = {f.id: (f.stage, f.reason, f.source) for f in failures(source)}
    assert found == {
        "dangling.png": ("read", "missing", str(root / "dangling.png")),
        "loop.png": ("read", "not_a_file", str(root / "loop.png")),
    }
    assert len(source) == 4


def test_what_is_not_a_file_is_listed_without_being_opened(tmp_path: Path) -> None:
    write(tmp_path, "folder.png/a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    assert ids(tmp_path) == ["folder.png/a.png", "pipe.png", "zero.png"]


def test_any_name_gives_an_id_that_can_be_stored_and_a_source_that_leads_back(tmp_path: Path) -> None:
    for name in NAMES:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(name)
    found = items(opened(tmp_path))
    assert len({item.id for item in found}) == len(NAMES)
    for item in found:
        assert Path(local_path(item.source)).read_bytes() == Path(item.path or "").read_bytes()
        assert os.fsencode(local_path(item.id)) == Path(item.path or "").read_bytes()
    by_name = {os.fsencode(local_path(item.id)): item.id for item in found}
    assert by_name[b"plain.png"] == "plain.png"
    assert by_name[b"new\nline.png"] == "new%0Aline.png"
    assert by_name[b"latin\xff.png"] == "latin%FF.png"
    assert by_name[b"%41.png"] == "%2541.png"
    assert by_name["\U0001fae8.png".encode()] == "\U0001fae8.png"


@given(st.binary(min_size=1, max_size=60).filter(lambda b: b"\0" not in b) | st.text(min_size=1).map(str.encode))
def test_encoding_a_path_can_be_undone(raw: bytes) -> None:
    path = os.fsdecode(raw)
    text = encoded(path)
    assert os.fsencode(local_path(text)) == raw
    assert text.encode().decode() == text
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u202e\u2028\u200f\ufeff" for c in text)


@given(st.text(st.characters(codec="ascii", exclude_categories=("Cc",), exclude_characters="%")) | st.just("日本 é🐈"))
def test_what_can_be_seen_stays_as_it_is(text: str) -> None:
    assert encoded(text) == text


def test_a_folder_that_may_not_be_listed_is_one_failure() -> None:
    with not_root() as folder:
        write(folder, "a/1.png", "b/2.png", "b/c/3.png", "d/4.png")
        (folder / "b").chmod(0)
        source = opened(folder)
        failure = one_failure(source)
        assert [item.id for item in items(source)] == ["a/1.png", "d/4.png"]
        assert len(source) == 3
        (folder / "b").chmod(0o755)
    assert (failure.id, failure.stage, failure.reason) == ("b", "list", "unreadable_folder")
    assert failure.source == str(folder / "b")
    assert failure.message == "the folder cannot be listed: Permission denied"


def test_files_that_may_be_listed_but_not_seen_are_failures() -> None:
    with not_root() as folder:
        write(folder, "a/1.png")
        (folder / "a").chmod(0o444)
        failure = one_failure(opened(folder))
        (folder / "a").chmod(0o755)
    assert (failure.id, failure.stage, failure.reason) == ("a/1.png", "read", "permission")


def test_a_source_that_may_not_be_listed_is_refused() -> None:
    with not_root() as folder:
        (folder / "locked").mkdir(mode=0)
        with pytest.raises(UsageError, match="the folder cannot be listed: Permission denied") as caught:
            opened(folder / "locked")
    assert caught.value.where == str(folder / "locked")


def test_a_file_that_goes_while_it_is_listed_is_one_failure(tmp_path: Path) -> None:
    source = opened(write(tmp_path, "a.png", "b.png", "c.png"))
    stream = iter(source)
    first = next(stream)
    (tmp_path / "b.png").unlink()
    rest = list(stream)
    assert isinstance(first, Item)
    assert [type(one).__name__ for one in rest] == ["Failure", "Item"]
    assert rest[0].id == "b.png"


def test_depth_has_no_limit_of_ours(tmp_path: Path) -> None:
    inside = "d/" * 200
    write(tmp_path, f"{inside}a.png")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        found = ids(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert found == [f"{inside}a.png"]


def test_a_folder_has_no_columns(tmp_path: Path) -> None:
    for option in ("content_column", "id_column"):
        with pytest.raises(UsageError, match="a folder has no columns"):
            opened(tmp_path, **{option: "x"})


@pytest.mark.parametrize("strange", [(), ("é", "z\U0001f600", "\uffee"), (os.fsdecode(b"\xff"), "é")])
def test_every_file_comes_once_in_the_order_of_bytes_among_folders(tmp_path: Path, strange: tuple[str, ...]) -> None:
    """`a`, `a-b/` and `a.txt` are neighbours: files come before, between and behind the folders that they sort with."""
    for name in ("a", "b", "b/a", "b/c", "b/c/a", "empty", *strange):
        (tmp_path / name).mkdir()
        for file in ("0.txt", "b.txt", "c.TXT", "zz.txt", *(f"{s}.txt" for s in strange)):
            (tmp_path / name / file).write_text("x")
    for file in ("0.txt", "a.txt", "bb.txt", "no"):
        (tmp_path / file).write_text("x")
    source = open_source(str(tmp_path), SourceOptions(media="text"))
    found = [item.path for item in source if isinstance(item, Item)]
    below = [os.path.join(at, name) for at, _, names in os.walk(tmp_path) for name in names]
    parts = {path: os.fsencode(path).split(b"/") for path in below if path.lower().endswith(".txt")}
    assert found == sorted(parts, key=lambda path: parts[path])
    assert len(source) == len(found)
