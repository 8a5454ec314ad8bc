"""Rows of csv, jsonl and parquet files: what is damaged is named by its row, and costs no other."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedder.errors import UsageError
from embedder.sources import _parquet
from embedder.sources._rows import LIMIT, BadRow, Row
from embedder.sources.table import READERS
from tests.embedder.sources import failures, items, one_failure, opened


def read(path: Path) -> list[Row]:
    return [row for _, row in READERS[path.suffix](path)]


def csv_of(folder: Path, data: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def reasons(path: Path) -> dict[int, str]:
    return {number: row.reason for number, row in READERS[path.suffix](path) if isinstance(row, BadRow)}


def refusal(path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        opened(path)
    assert caught.value.where
    assert caught.value.hint
    return caught.value


CELLS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_any_cells_come_back(tmp_path_factory: pytest.TempPathFactory, table: list[list[str]], end: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([["a", "b", "c"], *table])
    path = csv_of(tmp_path_factory.getbasetemp(), text.getvalue())
    assert read(path) == [dict(zip("abc", (cell or None for cell in row), strict=True)) for row in table]


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "-20", "0"], "int", [1, -20, 0]),
        (["007", "8"], "string", ["007", "8"]),
        (["+49123", "1"], "string", ["+49123", "1"]),
        (["1e5", "2"], "float", [1e5, 2.0]),
        (["1.50", ".5", "3.", "-0.5E-3"], "float", [1.5, 0.5, 3.0, -0.0005]),
        (["1e999", "1"], "string", ["1e999", "1"]),
        (["nan", "1.5"], "string", ["nan", "1.5"]),
        (["NA", "1"], "string", ["NA", "1"]),
        (["null", "None"], "string", ["null", "None"]),
        (["9223372036854775807", "1"], "int", [2**63 - 1, 1]),
        (["9223372036854775808", "1"], "string", ["9223372036854775808", "1"]),
        (["1234567890123456789", "2"], "int", [1234567890123456789, 2]),
        (["1" * 400, "2"], "string", ["1" * 400, "2"]),
        (["true", "False", "TRUE"], "bool", [True, False, True]),
        (["true", "1"], "string", ["true", "1"]),
        (["", "3"], "int", [None, 3]),
        (["", ""], "string", [None, None]),
        (["1", "1.5"], "float", [1.0, 1.5]),
        (["1", "x"], "string", ["1", "x"]),
        (["٣", "1_0"], "string", ["٣", "1_0"]),
        (["1,5"], "string", ["1,5"]),
        (["2020-01-02", "x"], "string", ["2020-01-02", "x"]),
    ],
)
def test_types_of_csv_cells(tmp_path: Path, cells: list[str], kind: str, values: list[Any]) -> None:
    source = opened(csv_of(tmp_path, "text,x\n" + "".join(f't,"{cell}"\n' for cell in cells)))
    assert source.columns == {"x": kind}
    found = [item.columns["x"] for item in items(source)]
    assert found == values
    assert [type(one) for one in found] == [type(one) for one in values]


@given(st.lists(st.from_regex(r"[-+]?[0-9.eE]{1,21}|true|False|", fullmatch=True), min_size=1, max_size=4))
def test_no_digit_of_a_csv_cell_is_lost(tmp_path_factory: pytest.TempPathFactory, cells: list[str]) -> None:
    path = csv_of(tmp_path_factory.getbasetemp(), "text,x\n" + "".join(f"t,{cell}\n" for cell in cells))
    for cell, item in zip(cells, items(opened(path)), strict=True):
        value = item.columns["x"]
        if isinstance(value, float):
            assert value == float(cell)
        elif isinstance(value, int) and not isinstance(value, bool):
            assert str(value) == cell.replace("-0", "0")
        else:
            assert value == (cell or None) if not isinstance(value, bool) else str(value).lower() == cell.lower()


@pytest.mark.parametrize(
    ("values", "kind", "out"),
    [
        ([1, 2.5, None], "float", [1.0, 2.5, None]),
        ([1, None], "int", [1, None]),
        ([True, False], "bool", [True, False]),
        ([True, 1], "string", ["true", "1"]),
        ([1, "1"], "string", ["1", "1"]),
        (["1", "2"], "string", ["1", "2"]),
        ([None, None], "string", [None, None]),
        ([2**63, 1], "string", [str(2**63), "1"]),
        ([-(2**63), 1], "int", [-(2**63), 1]),
        ([10**25], "string", [str(10**25)]),
        ([[1, "é"], {"a": None}], "string", ['[1, "é"]', '{"a": null}']),
        ([[1], 2], "string", ["[1]", "2"]),
    ],
)
def test_types_of_json_values(tmp_path: Path, values: list[Any], kind: str, out: list[Any]) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"text": "t", "x": value}) + "\n" for value in values))
    source = opened(path)
    assert source.columns == {"x": kind}
    found = [item.columns["x"] for item in items(source)]
    assert found == out
    assert [type(one) for one in found] == [type(one) for one in out]


def test_a_column_that_only_some_rows_have(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b", "n": 1}\n{"n": 2, "text": "c", "m": "x"}\n')
    source = opened(path)
    assert source.columns == {"n": "int", "m": "string"}
    assert [item.columns for item in items(source)] == [
        {"n": None, "m": None}, {"n": 1, "m": None}, {"n": 2, "m": "x"},
    ]  # fmt: skip


def test_ragged_rows_are_named(tmp_path: Path) -> None:
    source = opened(csv_of(tmp_path, "id,text\na,x\nb\nc,y,z\n\nd,w\n"))
    assert [item.id for item in items(source)] == ["a", "d"]
    assert len(source) == 4
    assert [(f.id, f.stage, f.reason, f.message) for f in failures(source)] == [
        ("row 2", "list", "ragged_row", "row 2: 1 cells, the header has 2"),
        ("row 3", "list", "ragged_row", "row 3: 3 cells, the header has 2"),
    ]
    assert [item.source for item in items(source)] == [f"{tmp_path}/t.csv#a", f"{tmp_path}/t.csv#d"]


def test_a_quote_that_is_not_closed_refuses_the_file_and_names_the_row(tmp_path: Path) -> None:
    lines = ["id,text\n", *(f"{n},x\n" for n in range(1, 5)), '5,"open\n', *(f"{n},x\n" for n in range(6, 2000))]
    for tail in ("", '2000,5" wide\n', '2000,"y"\n', '2000,"y"\n2001,x\n', '2000,"y"\n2001,"y"\n'):
        error = refusal(csv_of(tmp_path, "".join(lines) + tail))
        assert error.what.startswith("t.csv cannot be read from row 5 on:")
        assert "close it" in error.hint


def test_a_stray_quote_costs_its_row_alone(tmp_path: Path) -> None:
    source = opened(csv_of(tmp_path, 'id,text\na,x\nb,"he said "hi" to me"\nc,5" wide\nd,"y\nz"\n'))
    assert [(i.id, i.text) for i in items(source)] == [("a", "x"), ("c", '5" wide'), ("d", "y\nz")]
    assert (one_failure(source).id, one_failure(source).reason) == ("row 2", "bad_csv")


def test_text_that_is_not_utf8_is_named_by_row_and_place(tmp_path: Path) -> None:
    source = opened(csv_of(tmp_path, b"id,text\na,x\nb,caf\xe9\nc,y\n"))
    assert [item.id for item in items(source)] == ["a", "c"]
    failure = one_failure(source)
    assert (failure.reason, failure.message) == ("bad_unicode", "row 2: column 'text', character 3 is not UTF-8")
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"text": "x"}\n{"text": "caf\xe9"}\n')
    assert one_failure(opened(path)).message == "row 2: byte 13 is not UTF-8"


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf16_and_utf32_are_refused_clearly(tmp_path: Path, name: str, codec: str) -> None:
    text = '{"text": "x"}\n' if name.endswith("l") else "text,b\nx,y\n"
    error = refusal(csv_of(tmp_path, text.encode(codec), name))
    assert error.what == f"{name} is not UTF-8 but looks like UTF-16 or UTF-32"
    assert "iconv -f UTF-16 -t UTF-8" in error.hint


def test_a_header_in_latin1_is_refused(tmp_path: Path) -> None:
    error = refusal(csv_of(tmp_path, "text,größe\nx,1\n".encode("latin-1")))
    assert error.what == "the header of t.csv is not UTF-8"
    assert "iconv -f LATIN1" in error.hint


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_byte_order_mark_is_dropped(tmp_path: Path, name: str) -> None:
    text = '{"text": "x"}\n' if name.endswith("l") else "text,b\nx,y\n"
    (item,) = items(opened(csv_of(tmp_path, text.encode("utf-8-sig"), name)))
    assert item.text == "x"


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("text,b", ["text", "b"]),
        (" text , b", ["text", "b"]),
        (",text", ["column_1", "text"]),
        ("text,", ["text", "column_2"]),
        ("text;b", ["text", "b"]),
        ("text\tb", ["text", "b"]),
        ('"te,xt",b', ["te,xt", "b"]),
        ("\n\ntext,b", ["text", "b"]),
    ],
)
def test_headers(tmp_path: Path, header: str, names: list[str]) -> None:
    separator = next(c for c in ",;\t" if c in header)
    (row,) = read(csv_of(tmp_path, f"{header}\nx{separator}y\n"))
    assert row == dict(zip(names, "xy", strict=True))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("text,a,text,a\nx,y,z,w\n", "the header of t.csv repeats a, text"),
        ("column_2,\nx,y\n", "the header of t.csv repeats column_2"),
        ("", "the header of t.csv is missing"),
        ("\n\n", "the header of t.csv is missing"),
        ('a"b,"c"d"\nx,y\n', "the header of t.csv cannot be read"),
    ],
)
def test_bad_headers(tmp_path: Path, data: str, message: str) -> None:
    assert refusal(csv_of(tmp_path, data)).what.startswith(message)


def test_line_ends_and_nul(tmp_path: Path) -> None:
    for end in ("\n", "\r\n", "\r"):
        assert read(csv_of(tmp_path, f"a,b{end}1,2{end}3,4")) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert read(csv_of(tmp_path, "alpha,b\nx\0y,2\n")) == [{"alpha": "x\0y", "b": "2"}]


def test_a_cell_of_ten_megabytes_is_kept(tmp_path: Path) -> None:
    big = "x" * (10 << 20)
    (item,) = items(opened(csv_of(tmp_path, f'id,text\na,"{big}"\n')))
    assert item.text == big
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"text": big}) + "\n")
    assert [i.text for i in items(opened(path))] == [big]


@pytest.mark.parametrize("cell", ["x" * (LIMIT + 9), '"' + "x" * (LIMIT + 9) + '"', ",".join(["x" * 1000] * 17000)])
def test_a_line_over_the_limit_costs_its_row_alone(tmp_path: Path, cell: str) -> None:
    source = opened(csv_of(tmp_path, f"id,text\na,x\nb,{cell}\nc,y\n"))
    assert [i.id for i in items(source)] == ["a", "c"]
    assert (one_failure(source).id, one_failure(source).reason) == ("row 2", "too_large")


def test_a_quoted_cell_over_the_limit_refuses_the_file(tmp_path: Path) -> None:
    lines = "x" * 999 + "\n"
    assert "from row 2 on" in refusal(csv_of(tmp_path, f'id,text\na,x\nb,"{lines * 17000}"\nc,y\n')).what
    assert "from row 1 on" in refusal(csv_of(tmp_path, f'id,text\nb,"{"x" * LIMIT}\ny"\nc,y\n')).what


def test_a_json_line_over_the_limit_costs_its_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a"}\n{"text": "' + "x" * (2 * LIMIT) + '"}\n{"text": "c"}')
    source = opened(path)
    assert [i.text for i in items(source)] == ["a", "c"]
    assert (one_failure(source).id, one_failure(source).reason) == ("row 2", "too_large")


@pytest.mark.parametrize(
    ("line", "reason", "message"),
    [
        ("{", "bad_json", "Expecting property name"),
        ("[1]", "bad_json", "the line is not an object but list"),
        ("null", "bad_json", "the line is not an object but NoneType"),
        ('{"text": NaN}', "bad_json", "NaN is not JSON"),
        ('{"text": "x", "n": -Infinity}', "bad_json", "-Infinity is not JSON"),
        ('{"text": "x", "n": 1e999}', "bad_json", "a number is too large"),
        ('{"text": "x", "n": ' + "9" * 5000 + "}", "bad_json", "Exceeds the limit"),
        ('{"text": "x", "text": "y"}', "bad_json", "key 'text' is given twice"),
        ('{"text": "x", "n": {"a": 1, "a": 2}}', "bad_json", "key 'a' is given twice"),
        ('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}", "bad_json", "nested more than 100 deep"),
        ('{"text": ' + "[" * 101 + "]" * 101 + "}", "bad_json", "nested more than 100 deep"),
        ("[" * 100_000, "bad_json", "nested more than 100 deep"),
        ('{"text": "\\ud800"}', "bad_unicode", "half of a surrogate pair"),
        ('{"text": "x", "n": ["\\udfff"]}', "bad_unicode", "half of a surrogate pair"),
        ('{"text": "x", "\\ud800": 1}', "bad_unicode", "half of a surrogate pair"),
        ('{"text": "x"} {"text": "y"}', "bad_json", "Extra data"),
    ],
)
def test_bad_json_lines_cost_their_row_alone(tmp_path: Path, line: str, reason: str, message: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a"}\n' + line + '\n{"text": "\\ud83d\\ude00"}\n')
    source = opened(path)
    assert [item.text for item in items(source)] == ["a", "\U0001f600"]
    failure = one_failure(source)
    assert (failure.id, failure.stage, failure.reason) == ("row 2", "list", reason)
    assert failure.message.startswith(f"row 2: {message}")


def test_nesting_within_the_limit_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    value = "[" * 98 + "]" * 98
    path.write_text('{"text": "a", "x": ' + value + "}\n")
    assert [item.columns["x"] for item in items(opened(path))] == [value]


def parquet(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / "t.parquet", write_page_checksum=True)
    return folder / "t.parquet"


@pytest.mark.parametrize(
    ("column", "kind", "values"),
    [
        (pa.array([1.5, None, math.nan]), "float", [1.5, None, None]),
        (pa.array([1, 2], pa.uint8()), "int", [1, 2]),
        (pa.array([2**64 - 1, 1], pa.uint64()), "string", [str(2**64 - 1), "1"]),
        (pa.array([0.5], pa.float16()), "float", [0.5]),
        (pa.array(["a", None]).dictionary_encode(), "string", ["a", None]),
        (pa.array([None, None], pa.null()), "string", [None, None]),
        (pa.array([b"\xff\x00"]), "string", ["/wA="]),
        (pa.array([[1.0, math.nan], None]), "string", ["[1.0, null]", None]),
        (pa.array([{"a": b"x", "b": [1]}]), "string", ['{"a": "eA==", "b": [1]}']),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), "string", ['[["k", 1]]']),
        (pa.array(["1.50", "2.25"]).cast(pa.decimal128(9, 2)), "float", [1.5, 2.25]),
        (pa.array(["3.00"]).cast(pa.decimal128(9, 2)), "int", [3]),
        (pa.array([0, 1], pa.date32()), "string", ["1970-01-01", "1970-01-02"]),
        (pa.array([1], pa.timestamp("ns")), "string", ["1970-01-01 00:00:00.000000001"]),
        (pa.array([0], pa.timestamp("s", tz="UTC")), "string", ["1970-01-01 00:00:00.000Z"]),
        (pa.array([2**40], pa.timestamp("ms")), "string", ["2004-11-03 19:53:47.776"]),
    ],
)
def test_types_of_parquet_columns(tmp_path: Path, column: Any, kind: str, values: list[Any]) -> None:
    source = opened(parquet(tmp_path, text=["t"] * len(column), x=column))
    assert source.columns == {"x": kind}
    assert [item.columns["x"] for item in items(source)] == values


def test_nested_dates_are_those_of_arrow_whatever_python_can_hold(tmp_path: Path) -> None:
    dates = pa.array([[1000], [1], None], pa.list_(pa.timestamp("ns")))
    inner = pa.array([{"at": 1}, {"at": None}, None], pa.struct([("at", pa.date32())]))
    source = opened(parquet(tmp_path, text=["a", "b", "c"], x=dates, y=inner))
    assert [item.columns["x"] for item in items(source)] == [
        '["1970-01-01 00:00:00.000001000"]', '["1970-01-01 00:00:00.000000001"]', None,
    ]  # fmt: skip
    assert [item.columns["y"] for item in items(source)] == ['{"at": "1970-01-02"}', '{"at": null}', None]


def test_parquet_text_that_is_not_utf8_costs_its_row_alone(tmp_path: Path) -> None:
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1, 3, 4)))
    column = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"a\xff\xfec"))
    source = opened(parquet(tmp_path, text=column))
    assert [item.text for item in items(source)] == ["a", "c"]
    assert (one_failure(source).id, one_failure(source).reason) == ("row 2", "bad_unicode")


@pytest.mark.parametrize("part", range(8))
def test_a_cut_parquet_file_is_refused(tmp_path: Path, part: int) -> None:
    path = parquet(tmp_path, text=[f"text {n}" for n in range(500)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * part // 8])
    assert refusal(path).what.startswith("t.parquet cannot be read as parquet after row 0:")


def test_a_flipped_bit_in_a_parquet_page_is_noticed(tmp_path: Path) -> None:
    column = pa.array([f"text {n:04}" for n in range(500)])
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": column}), path, write_page_checksum=True, compression="none", use_dictionary=False)
    data = path.read_bytes()
    assert data.count(b"text 0250") == 1
    path.write_bytes(data.replace(b"text 0250", b"text 0251"))
    assert "cannot be read as parquet" in refusal(path).what


def test_a_parquet_column_given_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "t.parquet")
    assert refusal(tmp_path / "t.parquet").what == "t.parquet repeats the column text"


def test_large_rows_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    plain = _parquet.plain
    monkeypatch.setattr(_parquet, "plain", lambda batch: sizes.append(batch.num_rows) or plain(batch))
    monkeypatch.setattr(_parquet, "BATCH_BYTES", 1 << 20)
    values = [n.to_bytes(2, "big") * 50_000 for n in range(40)]
    assert len(read(parquet(tmp_path, x=values))) == 40
    assert max(sizes) <= 11
    sizes.clear()
    assert len(read(parquet(tmp_path, x=list(range(3000))))) == 3000
    assert sizes == [1024, 1024, 952]
