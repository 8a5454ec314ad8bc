"""WebDataset shards: ids that survive, archives that are cut or damaged, and members that are not what they seem."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from embedder.errors import NothingToDo, UnknownName, UsageError
from embedder.records import Failure, Item
from embedder.sources._shards import shards
from embedder.sources._tar import Incomplete, members
from embedder.sourcing import open_source
from tests.embedder.sources import failures, items, one_failure, opened, png

Members = Sequence[tuple[str, bytes]]


def tar(path: Path, found: Members, form: int = tarfile.PAX_FORMAT) -> Path:
    """An archive as Python's own `tarfile` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w", format=form) as archive:
        for name, data in found:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def picture(word: str, **facts: Any) -> list[tuple[str, bytes]]:
    more = [(f"{word}.json", json.dumps(facts).encode())] if facts else []
    return [(f"{word}.png", png(word)), (f"{word}.cls", str(len(word)).encode()), *more]


def example(
    name: str, sample: Callable[[str], list[tuple[str, bytes]]], bad: list[tuple[str, bytes]]
) -> Callable[[Path, Sequence[str], bool], str]:
    """Shards of two samples each, and what is broken after the last."""

    def build(folder: Path, words: Sequence[str], broken: bool) -> str:
        if "{" not in name:
            return str(tar(folder / name, [m for word in words for m in sample(word)] + (bad if broken else [])))
        for word in words:
            tar(folder / f"{word}.tar", sample(word))
        return str(folder / ("{" + ",".join([*words, *(["gone"] if broken else [])]) + "}.tar"))

    return build


def folder_of_shards(folder: Path, words: Sequence[str], broken: bool) -> str:
    for word in words:
        tar(folder / f"{word}.tar", picture(word, year=1999))
    if broken:
        (folder / "cc.tar").write_bytes(b"\0" * 512 + b"not an archive")
    return str(folder)


EXAMPLES = {
    "pictures, one a shard without content": example("a.tar", lambda w: picture(w, n=len(w)), [("x.json", b"{}")]),
    "pictures, a bad json": example("a.tar", picture, [("x.png", png("x")), ("x.json", b"{")]),
    "texts, gzip": example("a.tar.gz", lambda w: [(f"d/{w}.txt", w.encode())], [("d/x.json", b"{}")]),
    "a pattern, a shard gone": example("{}.tar", picture, []),
    "a folder, a shard damaged": folder_of_shards,
}


def ids(uri: Path | str) -> list[str]:
    return [item.id for item in items(open_source(str(uri)))]


def test_json_cls_and_captions_become_columns(tmp_path: Path) -> None:
    json_bytes = b'{"key": "a", "year": 7, "code": "007", "tags": ["x"]}'
    found = [("a.jpg", b"J"), ("a.json", json_bytes), ("a.txt", b"a boat"), ("a.cls", b"3")]
    source = opened(tar(tmp_path / "s.tar", [*found, ("b.jpg", b"K")]))
    assert source.columns == {"year": "int", "code": "string", "tags": "string", "label": "int", "caption": "string"}
    a, b = items(source)
    assert a.columns == {"year": 7, "code": "007", "tags": '["x"]', "label": 3, "caption": "a boat"}
    assert set(b.columns.values()) == {None}
    assert (a.id, a.data, a.source) == ("s/a", b"J", f"{tmp_path}/s.tar#a")


def test_texts_are_the_content_where_they_are_asked_for_or_there_are_no_pictures(tmp_path: Path) -> None:
    path = tar(tmp_path / "s.tar", [*picture("a"), ("a.txt", "caf\u00e9".encode()), *picture("b")])
    source = opened(path, media="text")
    (item,) = items(source)
    assert (item.text, item.columns, one_failure(source).reason) == ("caf\u00e9", {"label": 1}, "no_text")
    assert opened(path).medium == "image"
    assert opened(tar(tmp_path / "t.tar", [("a.txt", b"x")])).medium == "text"


def test_ids_stay_when_shards_and_samples_come_in_front(tmp_path: Path) -> None:
    tar(tmp_path / "d/s1.tar", picture("b"))
    before = ids(tmp_path / "d")
    tar(tmp_path / "d/s0.tar", picture("a"))
    tar(tmp_path / "d/s1.tar", [*picture("a"), *picture("b")])
    assert before == ["s1/b"]
    assert ids(tmp_path / "d") == ["s0/a", "s1/a", "s1/b"]
    (tmp_path / "d").rename(tmp_path / "moved")
    assert ids(tmp_path / "moved/{s1,s0}.tar") == ["s1/a", "s1/b", "s0/a"]


def test_names_and_members_of_every_sort(tmp_path: Path) -> None:
    """Long names in every format of tar; links and folders are passed over; a key is the name to its first dot."""
    long = "d" * 90 + "/" + "e" * 120
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path = tar(tmp_path / f"{form}.tar", [(f"{long}.png", png("l")), ("./x.seg.png", png("x"))], form)
        assert ids(path) == [f"{form}/{long}", f"{form}/x"]
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            link = tarfile.TarInfo(f"link{kind.decode()}.png")
            link.type, link.linkname = kind, "/etc/passwd"
            archive.addfile(link)
        evil = tarfile.TarInfo("../../up/x\n.png")
        evil.size = 3
        archive.addfile(evil, io.BytesIO(b"abc"))
    assert ids(path)[2:] == [f"{tarfile.GNU_FORMAT}/../../up/x%0A"]
    assert not (tmp_path.parent.parent / "up").exists()


@pytest.mark.parametrize("at", [0, 512, 700, 1024 * 3, 1024 * 4 + 100])
def test_a_damaged_header_or_a_cut_is_named_and_what_stands_before_is_kept(tmp_path: Path, at: int) -> None:
    """Every place of an archive of ten samples, with a good shard behind it."""
    found = [(f"k{n}.png", png(f"k{n}")) for n in range(10)]
    whole = tar(tmp_path / "a.tar", found).read_bytes()
    tar(tmp_path / "b.tar", picture("z"))
    starts = {m.offset: m.size for m in members(io.BytesIO(whole), packed=False)}
    for damage in ("cut", "header"):
        start = max(o for o in starts if o <= at)
        data = whole[:at] if damage == "cut" else whole[:start] + b"\xff" * 512 + whole[start + 512 :]
        (tmp_path / "a.tar").write_bytes(data)
        source = opened(tmp_path)
        kept = [item.id for item in items(source)]
        failure = one_failure(source)
        end = at if damage == "cut" else start
        complete = [f"a/k{n}" for n, (o, size) in enumerate(starts.items()) if o + 512 + size <= end]
        assert kept == [*complete, "b/z"]
        assert (failure.stage, failure.reason) == ("read", "shard_incomplete")
        assert f"{tmp_path}/a.tar" in failure.message
        assert f"byte {failure.id.rpartition('@')[2]}" in failure.message.replace(",", "")
        assert len(source) == len(list(source)) == len(complete) + 2


def test_tarfile_itself_does_not_notice(tmp_path: Path) -> None:
    """Why there is a loop of our own: the library gives fewer members and no error."""
    found = [(f"k{n}.png", png(f"k{n}")) for n in range(10)]
    path = tar(tmp_path / "a.tar", found)
    data = bytearray(path.read_bytes())
    data[4096:4608] = b"\xff" * 512
    path.write_bytes(data)
    with tarfile.open(path) as archive:
        assert len(archive.getnames()) == 4
    assert [len(items(opened(path))), one_failure(opened(path)).id] == [4, "a@4096"]


@pytest.mark.parametrize("missing", [1024, 512])
def test_an_archive_without_its_two_zero_blocks_is_incomplete_though_every_member_is_there(
    tmp_path: Path, missing: int
) -> None:
    path = tar(tmp_path / "a.tar", picture("a"))
    path.write_bytes(path.read_bytes()[: 4 * 512 + 1024 - missing])
    source = opened(path)
    assert [i.id for i in items(source)] == ["a/a"]
    assert one_failure(source).reason == "shard_incomplete"


def test_a_cut_or_damaged_gzip_is_incomplete(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", [(f"k{n}.png", os.urandom(5000)) for n in range(20)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert 5 < len(items(opened(path))) < 15
    assert one_failure(opened(path)).reason == "shard_incomplete"


def test_a_gzip_bomb_is_stopped(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", [("a.png", png("a")), ("b.png", bytes(60 << 20))])
    assert path.stat().st_size < 100_000
    source = opened(path)
    assert [i.id for i in items(source)] == ["a/a"]
    assert "more than 100 times" in one_failure(source).message


def test_a_member_of_more_than_64_mib_is_one_failure(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [*picture("a"), ("b.png", bytes((64 << 20) + 1)), *picture("c")])
    source = opened(path)
    assert [i.id for i in items(source)] == ["a/a", "a/c"]
    assert (one_failure(source).id, one_failure(source).reason) == ("a/b", "too_large")


def test_a_key_that_comes_again_is_one_failure_and_its_first_sample_stays(tmp_path: Path) -> None:
    found = [("a.png", b"1"), ("b.png", b"2"), ("a.cls", b"7"), ("c.png", b"3"), ("d.png", b"4"), ("d.PNG", b"5")]
    source = opened(tar(tmp_path / "s.tar", found))
    assert [(i.id, i.data) for i in items(source)] == [("s/a", b"1"), ("s/b", b"2"), ("s/c", b"3")]
    assert [f.reason for f in failures(source)] == ["duplicate_key", "duplicate_key"]
    assert len({one.id for one in source}) == 5


@pytest.mark.parametrize(("media", "what"), [("image", "0 of 3 samples have an image"), ("text", "0 of 3 .* a .txt")])
def test_nothing_to_embed_says_what_the_samples_have(tmp_path: Path, media: str, what: str) -> None:
    path = tar(tmp_path / "a.tar", [(f"{n}.{e}", b"{}") for n in range(3) for e in ("json", "bin")])
    with pytest.raises(NothingToDo, match=what) as error:
        opened(path, media=media)
    assert ".json" in error.value.hint
    assert ".bin" in error.value.hint


def test_columns_by_name(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [("a.small.png", b"1"), ("a.large.png", b"2"), ("a.json", b'{"uid": 5}')])
    (item,) = items(opened(path, content_column="large.png", id_column="uid"))
    assert (item.id, item.data, item.columns) == ("5", b"2", {})
    with pytest.raises(UnknownName, match="udi"):
        opened(path, id_column="udi")


def test_patterns(tmp_path: Path) -> None:
    assert shards("a/{08..11}.tar") == ["a/08.tar", "a/09.tar", "a/10.tar", "a/11.tar"]
    assert shards("{a,b}-{0..1}.tar") == ["a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar"]
    for name in ("s2.tar", "s1.tar", "t.tar", "s3.txt"):
        tar(tmp_path / name, picture("a"))
    assert ids(tmp_path / "s*.tar") == ["s1/a", "s2/a"]
    for bad in ("{5..1}.tar", "{0..999999999}.tar", "{0..999}{0..999}.tar"):
        with pytest.raises(UsageError, match=r"range|more than"):
            shards(bad)
    with pytest.raises(UsageError, match="two shards are called x"):
        shards("{a,b}/x.tar")


def test_no_shell_is_ever_run(tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    with pytest.raises(UsageError):
        open_source(f"pipe:touch {flag}; cat {tmp_path}/a.tar")
    tar(tmp_path / "a.tar", [("a.png", png("a")), ("a.pyd", b"cos\nsystem\n(S'touch " + bytes(flag) + b"'\ntR.")])
    assert ids(tmp_path / "a.tar") == ["a/a"]
    assert not flag.exists()


@pytest.mark.parametrize("packed", [True, False])
def test_members_are_those_that_tarfile_reads(tmp_path: Path, packed: bool) -> None:
    found = [(f"d{n}/{'n' * n}.bin", os.urandom(n * 37 % 2000)) for n in range(1, 150)]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        path = tar(tmp_path / "a.tar", found[:90] if form == tarfile.USTAR_FORMAT else found, form)
        data = path.read_bytes()
        read = list(members(io.BytesIO(gzip.compress(data) if packed else data), packed=packed))
        with tarfile.open(path) as archive:
            expected = [(m.name, archive.extractfile(m).read()) for m in archive]  # type: ignore[union-attr]
        assert [(m.name, m.data) for m in read] == expected


def test_mutated_archives_never_raise_anything_else(tmp_path: Path) -> None:
    import random

    whole = tar(tmp_path / "a.tar", [(f"{'k' * 120}{n}.png", b"x" * 700) for n in range(4)]).read_bytes()
    draw = random.Random(3)
    outcomes = set()
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            outcomes.add(len(list(members(io.BytesIO(data), packed=False))) >= 0)
        except Incomplete:
            outcomes.add(False)
    assert outcomes == {True, False}


def test_items_and_failures_have_the_shapes_of_the_contract(tmp_path: Path) -> None:
    source = opened(tar(tmp_path / "a.tar", [*picture("a"), ("b.json", b"{}")]))
    assert [type(one) for one in source] == [Item, Failure]
    assert source.root == str(tmp_path / "a.tar")
