"""Tables: which column is the content and which the id, what becomes of cells that are empty, and pictures by path."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedder.errors import NothingToDo, UnknownName, UsageError
from embedder.records import Failure, Item
from tests.embedder.sources import failures, items, not_root, one_failure, opened, png

ARROW = (".parquet", ".arrow", ".feather")
Rows = list[dict[str, Any]]


def write(path: Path, rows: Rows) -> Path:
    """Write rows as the suffix says; a csv holds an empty cell for None."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in names}) if path.suffix in ARROW else None
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif table is not None:
        form = pa.ipc.new_stream if path.suffix == ".arrow" else pa.ipc.new_file
        with form(path, table.schema) as out:
            out.write_table(table, max_chunksize=3)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def facts(word: str) -> dict[str, Any]:
    number = ord(word[0])
    return {"year": 1900 + number, "score": number / 4, "seen": number % 2 == 0, "note": None, "place": f"«{word}»"}


def texts(name: str, *, with_id: bool, broken_line: str | None) -> Callable[[Path, Sequence[str], bool], str]:
    """A table of texts, with columns of every type; the broken row stands last."""

    def build(folder: Path, words: Sequence[str], broken: bool) -> str:
        rows = [{**({"id": f"id-{word}"} if with_id else {}), "text": word, **facts(word)} for word in words]
        if broken and broken_line is None:
            rows.append({**rows[0], "id": "broken", "text": None})
        path = write(folder / name, rows)
        if broken and broken_line is not None:
            with path.open("a") as out:
                out.write(broken_line)
        return str(path)

    return build


def pictures(name: str, cell: Callable[[Path, str], Any], gone: Any) -> Callable[[Path, Sequence[str], bool], str]:
    """A table of pictures; `cell` makes what stands for one, `gone` stands for one that is not there."""

    def build(folder: Path, words: Sequence[str], broken: bool) -> str:
        rows = [{"image": cell(folder, word), "label": word} for word in words]
        return str(write(folder / name, [*rows, *([{"image": gone, "label": "gone"}] if broken else [])]))

    return build


def by_path(folder: Path, word: str) -> str:
    (folder / f"{word}.png").write_bytes(png(word))
    return f"{word}.png"


EXAMPLES = {
    "csv": texts("t.csv", with_id=True, broken_line="only one cell\n"),
    "tsv without ids": texts("t.tsv", with_id=False, broken_line="a\tb\n"),
    "jsonl without ids": texts("t.jsonl", with_id=False, broken_line="{\n"),
    "parquet": texts("t.parquet", with_id=True, broken_line=None),
    "arrow, a stream": texts("t.arrow", with_id=True, broken_line=None),
    "feather of bytes": pictures("t.feather", lambda _, word: png(word), None),
    "csv of paths": pictures("t.csv", by_path, "gone.png"),
    "jsonl of paths": pictures("t.jsonl", by_path, "gone.png"),
    "parquet of bytes": pictures("t.parquet", lambda _, word: png(word), None),
    "parquet as the hub writes it": pictures(
        "t.parquet", lambda _, word: {"bytes": png(word), "path": f"{word}.png"}, {"bytes": None, "path": None}
    ),
}


def jsonl(folder: Path, *rows: dict[str, Any]) -> Path:
    return write(folder / "t.jsonl", list(rows))


def test_what_an_item_says(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [{"id": "007", "text": "frost", "group": "g1", "year": 1999, "note": None}])
    source = opened(path)
    assert (source.root, source.medium, len(source)) == (str(path), "text", 1)
    assert source.columns == {"year": "int", "note": "string"}
    columns = {"year": 1999, "note": None}
    assert items(source) == [Item("007", "text", f"{path}#007", text="frost", group="g1", columns=columns)]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet", "t.CSV", "t.ndjson"])
def test_every_format_says_the_same(tmp_path: Path, name: str) -> None:
    rows = [{"id": "a", "text": 'x, "y"\t1\nz', "n": 1, "f": 0.5, "b": True}, {"id": "b", "text": "é", "n": None}]
    rows[1] |= {"f": 2.0, "b": False}
    write(tmp_path / name.lower().replace("ndjson", "jsonl"), rows).rename(tmp_path / name)
    source = opened(tmp_path / name)
    assert source.columns == {"n": "int", "f": "float", "b": "bool"}
    found = [(item.id, item.text, dict(item.columns)) for item in items(source)]
    assert found == [
        ("a", 'x, "y"\t1\nz', {"n": 1, "f": 0.5, "b": True}),
        ("b", "é", {"n": None, "f": 2.0, "b": False}),
    ]


def test_without_an_id_column_the_id_is_hash_and_occurrence(tmp_path: Path) -> None:
    source = opened(jsonl(tmp_path, *({"text": text} for text in ("a", "b", "a", "", "a", "None", None))))
    head = {text: hashlib.sha256(text.encode()).hexdigest()[:16] for text in ("a", "b", "None")}
    assert [i.id for i in items(source)] == [
        head["a"], head["b"], f"{head['a']}-2", f"{head['a']}-3", head["None"],
    ]  # fmt: skip
    assert [(f.id, f.reason, f.message) for f in failures(source)] == [
        ("row 4", "empty_text", "row 4: column 'text' is empty"),
        ("row 7", "empty_text", "row 7: column 'text' is empty"),
    ]


@pytest.mark.parametrize("value", [None, ""])
def test_an_empty_id_is_a_failure_that_names_the_row(tmp_path: Path, value: Any) -> None:
    source = opened(jsonl(tmp_path, {"id": "a", "text": "x"}, {"id": value, "text": "y"}, {"text": "z"}))
    assert [i.id for i in items(source)] == ["a"]
    assert [(f.id, f.stage, f.reason, f.message) for f in failures(source)] == [
        ("row 2", "list", "no_id", "row 2: column 'id' is empty"),
        ("row 3", "list", "no_id", "row 3: column 'id' is empty"),
    ]


def test_ids_that_are_given_twice_pass_through(tmp_path: Path) -> None:
    source = opened(jsonl(tmp_path, {"id": "a", "text": "x"}, {"id": "a", "text": "y"}))
    assert [i.id for i in items(source)] == ["a", "a"]


def test_ids_are_text(tmp_path: Path) -> None:
    whole = opened(jsonl(tmp_path, *({"key": key, "text": "x"} for key in (7, "7 ", True, 1.5))), id_column="key")
    assert [i.id for i in items(whole)] == ["7", "7 ", "true", "1.5"]
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"id": [1.0, float("nan")], "text": ["x", "y"]}), path)
    assert [type(one) for one in opened(path)] == [Item, Failure]


def test_a_failure_keeps_the_id_that_the_row_has(tmp_path: Path) -> None:
    failure = one_failure(opened(jsonl(tmp_path, {"id": "a", "text": "x"}, {"id": "b", "text": None})))
    assert (failure.id, failure.stage, failure.reason) == ("b", "read", "empty_text")
    assert failure.source == f"{tmp_path}/t.jsonl#2"


@pytest.mark.parametrize(
    ("row", "options", "content", "medium"),
    [
        ({"id": 1, "text": "x", "title": "y"}, {}, "text", "text"),
        ({"title": "y", "body": "x"}, {}, "body", "text"),
        ({"Review": "y", "Text": "x"}, {}, "Text", "text"),
        ({"path": "a.png"}, {}, "path", "image"),
        ({"label": "cat", "photo": "a.JPG"}, {}, "photo", "image"),
        ({"text": "x", "path": "notes/a.md"}, {}, "text", "text"),
        ({"text": "x", "image": "a.png"}, {"media": "image"}, "image", "image"),
        ({"text": "x", "image": "a.png"}, {"media": "text"}, "text", "text"),
        ({"file": "scan1"}, {"media": "image"}, "file", "image"),
        ({"q": "x", "a": "y"}, {"content_column": "q"}, "q", "text"),
        ({"q": "x.png", "text": "y"}, {"content_column": "q"}, "q", "image"),
        ({"q": "x.png", "text": "y"}, {"content_column": "q", "media": "text"}, "q", "text"),
        ({"q": "x", "text": "y"}, {"content_column": "q", "media": "image"}, "q", "image"),
    ],
)  # fmt: skip
def test_the_content_column(
    tmp_path: Path, row: dict[str, Any], options: dict[str, Any], content: str, medium: str
) -> None:
    source: Any = opened(jsonl(tmp_path, row), **options)
    assert (source.content, source.medium) == (content, medium)
    assert set(source.columns) == set(row) - {content, "id"}


def test_the_first_value_that_is_there_says_what_a_column_holds(tmp_path: Path) -> None:
    source = opened(jsonl(tmp_path, {"q": None}, {"q": "a.png"}), content_column="q")
    assert source.medium == "image"


def test_two_columns_that_could_be_the_content_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="may be the pictures in 'image' or the texts in 'caption'") as caught:
        opened(jsonl(tmp_path, {"image": "a.png", "caption": "a boat"}))
    assert caught.value.hint == "say which: --media image or --media text"


@pytest.mark.parametrize(
    ("row", "options", "content", "medium"),
    [
        ({"text": "x", "digest": b"\xff\0"}, {}, "text", "text"),
        ({"label": "x", "photo": png("a"), "digest": b"\xff\0"}, {}, "photo", "image"),
        ({"label": "x", "image": b"\xff\0", "digest": b"\xff\0"}, {}, "image", "image"),
        ({"blob": b"\xff\0"}, {"content_column": "blob"}, "blob", "image"),
        ({"blob": b"a few words"}, {"content_column": "blob"}, "blob", "text"),
    ],
)
def test_the_content_column_of_bytes(
    tmp_path: Path, row: dict[str, Any], options: dict[str, Any], content: str, medium: str
) -> None:
    source: Any = opened(write(tmp_path / "t.parquet", [row]), **options)
    assert (source.content, source.medium) == (content, medium)


@pytest.mark.parametrize("row", [{"a": "x", "b": "y"}, {"file": "notes.md"}, {"x": "1.png", "y": "2.png"}])
def test_no_column_that_is_plainly_the_content(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no column is plainly the content") as caught:
        opened(jsonl(tmp_path, row))
    assert caught.value.where.endswith(f"columns: {', '.join(row)}")
    assert "--content-column" in caught.value.hint


def test_columns_that_do_not_exist(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"text": "x", "key": "k"})
    for option in ("content_column", "id_column"):
        with pytest.raises(UnknownName, match="no column is called 'keys'") as caught:
            opened(path, **{option: "keys"})
        assert caught.value.hint == "did you mean key?"
    with pytest.raises(UsageError, match="cannot be both the id and the content"):
        opened(path, id_column="text")


def test_the_id_column_may_be_the_content_where_nobody_says_otherwise(tmp_path: Path) -> None:
    by_path(tmp_path, "a")
    (item,) = items(opened(write(tmp_path / "t.csv", [{"id": "a.png", "n": 1}]), content_column="id"))
    assert (item.id, item.medium, dict(item.columns)) == ("a.png", "image", {"n": 1})


def test_texts_that_are_not_texts(tmp_path: Path) -> None:
    values = [42, True, 1.5, {"a": [1, "é"]}, ["x"]]
    source = opened(jsonl(tmp_path, *({"text": value} for value in values)))
    assert [i.text for i in items(source)] == ["42", "true", "1.5", '{"a": [1, "é"]}', '["x"]']


def test_texts_as_bytes_are_read_as_files_are(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [{"text": "é".encode()}, {"text": b"\xff"}])
    found = items(opened(path, content_column="text", media="text"))
    assert [(i.data, i.text, i.medium) for i in found] == [("é".encode(), None, "text"), (b"\xff", None, "text")]


def test_pictures_by_path(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    by_path(folder, "a")
    by_path(tmp_path, "b")
    paths = ["a.png", "../b.png", str(tmp_path / "b.png"), "./a.png", "a.png"]
    source = opened(jsonl(folder, *({"image": path} for path in paths)))
    found = items(source)
    assert [i.id for i in found] == ["a.png", "../b.png", str(tmp_path / "b.png"), "./a.png", "a.png-2"]
    for item, path in zip(found, paths, strict=True):
        assert (folder / path).samefile(item.path or "")
        assert (item.size, item.mtime_ns) == ((folder / path).stat().st_size, (folder / path).stat().st_mtime_ns)
        assert (item.text, item.data, item.columns) == (None, None, {})


@pytest.mark.parametrize(
    ("path", "reason", "message"),
    [
        ("gone.png", "missing", "No such file or directory: {folder}/gone.png"),
        ("a.png/b.png", "missing", "Not a directory: {folder}/a.png/b.png"),
        ("nul\0.png", "missing", "embedded null byte: {folder}/nul%00.png"),
        ("x" * 300 + ".png", "missing", "File name too long"),
        ("https://host/a.png", "remote", "it is not on this machine; download it first: https://host/a.png"),
    ],
)
def test_a_picture_that_is_not_there_is_one_failure(tmp_path: Path, path: str, reason: str, message: str) -> None:
    by_path(tmp_path, "a")
    source = opened(jsonl(tmp_path, {"image": "a.png"}, {"image": path}), content_column="image")
    failure = one_failure(source)
    assert [i.id for i in items(source)] == ["a.png"]
    assert (failure.stage, failure.reason) == ("read", reason)
    assert failure.message.startswith(message.format(folder=tmp_path))
    assert failure.source.isprintable()


def test_pictures_as_bytes(tmp_path: Path) -> None:
    rows = [{"image": png("a")}, {"image": png("b")}, {"image": png("a")}, {"image": None}, {"image": b""}]
    source = opened(write(tmp_path / "t.parquet", rows))
    head = {word: hashlib.sha256(png(word)).hexdigest()[:16] for word in "ab"}
    assert [(i.id, i.data, i.size) for i in items(source)] == [
        (head["a"], png("a"), len(png("a"))), (head["b"], png("b"), len(png("b"))),
        (f"{head['a']}-2", png("a"), len(png("a"))),
    ]  # fmt: skip
    assert [(f.id, f.reason) for f in failures(source)] == [("row 4", "no_content"), ("row 5", "no_content")]


def test_pictures_as_the_hub_writes_them(tmp_path: Path) -> None:
    by_path(tmp_path, "b")
    rows = [
        {"image": {"bytes": png("a"), "path": "00001.png"}, "label": 3},
        {"image": {"bytes": None, "path": "b.png"}, "label": 4},
        {"image": {"bytes": None, "path": None}, "label": 5},
        {"image": None, "label": 6},
    ]
    source = opened(write(tmp_path / "t.parquet", rows))
    first, second = items(source)
    assert (source.medium, source.columns) == ("image", {"label": "int"})
    assert (first.data, first.path, first.columns["label"]) == (png("a"), None, 3)
    assert (second.id, second.path) == ("b.png", str(tmp_path / "b.png"))
    assert [f.reason for f in failures(source)] == ["no_content", "no_content"]


@pytest.mark.parametrize(
    ("name", "data"), [("t.csv", b"id,text\n"), ("t.jsonl", b""), ("t.jsonl", b"\n\n"), ("t.tsv", b"a\tb\n\n")]
)
def test_a_table_without_rows(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(NothingToDo, match=f"{name} has no rows"):
        opened(tmp_path / name)


def test_a_parquet_file_without_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "t.parquet")
    with pytest.raises(NothingToDo, match=r"t\.parquet has no rows"):
        opened(tmp_path / "t.parquet")


def test_a_table_of_bad_rows_only(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,text\n1\n2\n")
    with pytest.raises(UsageError, match=r"none of the 2 rows of t\.csv can be read") as caught:
        opened(tmp_path / "t.csv")
    assert caught.value.hint == "repair row 1: 1 cells, the header has 2"


def test_a_table_that_changes_after_it_was_opened_is_not_read(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"text": "x", "n": 1})
    source = opened(path)
    with path.open("a") as out:
        out.write('{"text": "y", "n": "many"}\n')
    with pytest.raises(UsageError, match=r"t\.jsonl has changed since it was opened"):
        list(source)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_a_table_that_may_not_be_read(name: str) -> None:
    with not_root() as folder:
        write(folder / name, [{"text": "x"}]).chmod(0)
        with pytest.raises(UsageError, match="cannot be opened: Permission denied") as caught:
            opened(folder / name)
    assert caught.value.where == str(folder / name)


def test_a_name_with_a_line_break_is_encoded_in_what_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "a\n%.csv"
    path.write_text("text\nfrost\n")
    (item,) = items(opened(path))
    assert item.source == f"{tmp_path}/a%0A%25.csv#{item.id}"
