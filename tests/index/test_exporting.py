"""Out and in again: every format gives back every value, and other programs read what was written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from embedder.errors import Damaged, NothingToDo, Refused, UnknownName, UsageError
from embedder.records import Item
from embedder.space import Space
from index import bringing, commit, files, importing
from index.arriving import Arrival, upsert
from index.bringing import Asked
from index.commit import Known
from index.exporting import MANIFEST, ExportOptions, export
from index.store import Collection, Store
from index.taking import Taking
from tests.index.tools import DIM, Rows, contents, filled, fresh, planted, planted_vector, run

FORMATS = ("parquet", "npy", "arrow", "jsonl")
TYPES = {"label": "string", "year": "int", "score": "float", "seen": "bool"}


def out(collection: Collection, to: Path, format: Any = "parquet", **options: Any) -> dict[str, Any]:
    return export(collection, collection.space(), str(to), ExportOptions(format=format, **options))


def back(source: Path, into: Collection, **asked: Any) -> importing.Imported:
    opened = importing.open_vectors(str(source), Asked(**asked))
    assert opened.space is not None
    plan = bringing.plan(opened, Asked(**asked), opened.space)
    return importing.store(into, opened.space, opened.golden, plan)


def items(collection: Collection) -> dict[str, dict[str, Any]]:
    """All that is known of each item, but for what is ours to give: the key and the checksum."""
    rows = collection.items.search().to_arrow().to_pylist()
    return {row["id"]: {n: v for n, v in row.items() if n not in ("key", "row_crc")} for row in rows}


def in_order(collection: Collection) -> list[str]:
    """The ids by ascending key."""
    rows = collection.items.search().select(["id", "key"]).to_list()
    return [row["id"] for row in sorted(rows, key=lambda row: row["key"])]


def by_id(collection: Collection) -> dict[str, list[float]]:
    found = contents(collection, collection.space())
    return {id: np.frombuffer(raw, "<f4").tolist() for id, (_, raw) in found.items()}


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
row = st.fixed_dictionaries(
    {
        "label": st.none() | text,
        "year": st.none() | st.integers(-(2**63), 2**63 - 1),
        "score": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "seen": st.none() | st.booleans(),
    }
)
numbers = st.floats(-1e6, 1e6, width=32).map(lambda v: v or 1.0)
vector = st.lists(numbers, min_size=DIM, max_size=DIM)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.dictionaries(text, st.tuples(row, st.none() | text, st.none() | text, vector), min_size=1, max_size=6),
    per_file=st.none() | st.integers(1, 4),
)
def test_every_format_gives_back_every_value(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, Any], per_file: int | None
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    store = Store.open(folder / "s", create=True)
    collection, space = store.collection("c", create=True), planted().space
    space = Space(space.encoder, DIM, ("text",), {**space.identity, "normalize": False})
    collection.add_space(space, {"text": "AAAA"})
    commit.ensure_columns(collection, TYPES)
    batch = [
        Arrival(Item(id=id, medium="text", source=f"s#{id}", text=t, group=g, columns=c), np.array([v], np.float32))
        for id, (c, t, g, v) in rows.items()
    ]
    assert {o.status for o in upsert(collection, space, Known.read(collection, space), batch)} == {"inserted"}
    for format in FORMATS:
        export(collection, space, str(folder / format), ExportOptions(format=format, rows=per_file))  # type: ignore[arg-type]
        again = store.collection(f"c-{format}", create=True)
        assert back(folder / format, again).embedded == len(rows)
        assert items(again) == items(collection)
        assert contents(again, again.space()) == contents(collection, space)
        assert again.golden(space) == {"text": "AAAA"}
        assert back(folder / format, again).unchanged == len(rows)


@pytest.mark.parametrize("format", FORMATS)
def test_items_in_parts_come_back_in_parts(tmp_path: Path, format: str) -> None:
    collection, space = fresh(tmp_path), planted().space
    collection.add_space(space, {})
    parts = [np.stack([planted_vector(f"{i}/{j}") for j in range(i % 3 + 1)]) for i in range(7)]
    batch = [Arrival(Item(id=str(i), medium="text", source=f"#{i}"), p) for i, p in enumerate(parts)]
    upsert(collection, space, Known.read(collection, space), batch)
    said = out(collection, tmp_path / "x", format, rows=2)
    assert (said["items"], said["rows"]) == (7, sum(map(len, parts)))
    again = fresh(tmp_path, "again")
    # a part of the export may end within an item
    assert back(tmp_path / "x", again).embedded == 7
    stored = again.vectors(space).search().to_arrow().to_pylist()
    found = {(r["id"], r["part"]): r["vector"] for r in stored}
    assert found == {(str(i), j): v.tolist() for i, p in enumerate(parts) for j, v in enumerate(p)}


def test_a_parquet_export_is_read_by_pyarrow_alone(tmp_path: Path) -> None:
    collection = filled(tmp_path, 25)
    said = out(collection, tmp_path / "x", rows=10)
    assert [one["rows"] for one in said["files"]] == [10, 10, 5]
    table = pq.read_table(tmp_path / "x" / "data")
    assert table["id"].to_pylist() == in_order(collection)
    assert sorted(table["id"].to_pylist()) == [f"i{n:04d}" for n in range(25)]
    stored = by_id(collection)
    assert dict(zip(table["id"].to_pylist(), table["vector"].to_pylist(), strict=True)) == stored
    space = Space.from_json(json.loads(table.schema.metadata[b"permafrost.space"]))
    assert space.fingerprint == collection.space().fingerprint
    out(collection, tmp_path / "y", "arrow")
    with ipc.open_file(tmp_path / "y" / "data" / "data_0.arrow") as file:
        assert file.read_all().equals(table)


def test_plain_lancedb_opens_and_queries_our_tables(tmp_path: Path) -> None:
    collection = filled(tmp_path, 40, columns={"i0003": {"year": 3}}, types={"year": "int"})
    space = collection.space()
    db = lancedb.connect(str(collection.path))
    names = set(db.list_tables().tables)
    assert {"items", "edits", f"vectors_{space.fingerprint}"} <= names
    hits = db.open_table(f"vectors_{space.fingerprint}").search(planted_vector("text 7")).metric("cosine").limit(3)
    found = hits.to_list()
    assert found[0]["id"] == "i0007"
    assert found[0]["_distance"] == pytest.approx(0, abs=1e-6)
    assert [r["id"] for r in db.open_table("items").search().where("year = 3").to_list()] == ["i0003"]


def test_rows_follow_filters_columns_and_deletes(tmp_path: Path) -> None:
    years = {f"i{n:04d}": {"year": n, "label": "a"} for n in range(20)}
    collection = filled(tmp_path, 20, columns=years, types={"year": "int", "label": "string"})
    commit.delete_ids(collection, ["i0011"])
    out(collection, tmp_path / "x", where="year >= 10", columns=["year"])
    table = pq.read_table(tmp_path / "x" / "data")
    assert table.column_names == ["id", "year", "vector"]
    assert table["year"].to_pylist() == [10, *range(12, 20)]
    bare = out(collection, tmp_path / "y", vectors=False)
    assert (bare["space"], bare["items"]) == (None, 19)
    assert "vector" not in pq.read_table(tmp_path / "y" / "data").column_names
    with pytest.raises(UsageError, match="without vectors"):
        importing.open_vectors(str(tmp_path / "y"), Asked())
    with pytest.raises(UnknownName, match="yaer"):
        out(collection, tmp_path / "z", columns=["yaer"])
    with pytest.raises(NothingToDo, match="passes the filter"):
        out(collection, tmp_path / "z", where="year > 100")
    assert not (tmp_path / "z").exists()


def test_an_item_without_a_vector_is_counted_and_left_out(tmp_path: Path) -> None:
    collection = filled(tmp_path, 5)
    other = planted(salt="b")
    run(collection, Rows({"i0001": "text 1", "new": "only here"}), other)
    said = export(collection, other.space, str(tmp_path / "x"), ExportOptions())
    assert (said["items"], said["without_vector"]) == (2, 4)


def test_an_export_is_of_one_moment(tmp_path: Path) -> None:
    collection = filled(tmp_path, 30)
    taking, before = Taking(collection, collection.space()), in_order(collection)
    stored = by_id(collection)
    commit.delete_ids(collection, [f"i{n:04d}" for n in range(20)])
    run(collection, Rows({"i0025": "changed", "later": "later"}))
    tables = pa.concat_tables(taking.tables([11, 19]))
    assert tables["id"].to_pylist() == before
    assert tables["vector"].to_pylist() == [stored[id] for id in before]


def test_a_destination_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = filled(tmp_path, 5)

    def die(point: str) -> None:
        if point == "export":
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "fault", die)
    with pytest.raises(KeyboardInterrupt):
        out(collection, tmp_path / "x")
    monkeypatch.undo()
    assert {p.name for p in tmp_path.iterdir()} == {"store"}
    out(collection, tmp_path / "x")
    with pytest.raises(Refused, match="exists"):
        out(collection, tmp_path / "x")
    run(collection, Rows({"new": "new"}))
    assert out(collection, tmp_path / "x", overwrite=True)["items"] == 6
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(Refused, match="no export"):
        out(collection, tmp_path / "mine", overwrite=True)
    with pytest.raises(UsageError, match="name of a file"):
        out(collection, tmp_path / "x.parquet")
    assert {p.name for p in tmp_path.iterdir()} == {"store", "x", "mine"}


@pytest.mark.parametrize("format", FORMATS)
def test_a_flipped_bit_in_an_export_is_found(tmp_path: Path, format: str) -> None:
    collection = filled(tmp_path, 5)
    said = out(collection, tmp_path / "x", format)
    for one in said["files"]:
        path = tmp_path / "x" / one["path"]
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        whole = path.read_bytes()
        path.write_bytes(bytes(data))
        with pytest.raises(Damaged, match="checksum"):
            importing.open_vectors(str(tmp_path / "x"), Asked())
        path.write_bytes(whole)
    manifest = tmp_path / "x" / MANIFEST
    record = json.loads(manifest.read_text())
    record["space"]["dim"] = 9
    manifest.write_text(json.dumps(record))
    with pytest.raises(Damaged, match="fields make"):
        importing.open_vectors(str(tmp_path / "x"), Asked())


def clip_rows(folder: Path, columns: Sequence[str]) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Read as clip-retrieval and autofaiss do: sorted names, metadata concatenated, rows by one numbering."""
    import pandas as pd

    name = "img_emb" if (folder / "img_emb").exists() else "text_emb"
    matrix = np.concatenate([np.load(path) for path in sorted((folder / name).glob("*.npy"))])
    frame = pd.concat(pd.read_parquet(path) for path in sorted((folder / "metadata").glob("*.parquet")))
    assert len(frame) == len(matrix)
    wanted = [c for c in frame.columns if c in columns]
    return [(frame[i : i + 1][wanted].to_dict(orient="records")[0], matrix[i]) for i in range(len(frame))]


def test_clip_retrievals_tools_read_an_export(tmp_path: Path) -> None:
    collection = filled(tmp_path, 12)
    out(collection, tmp_path / "x", "npy", rows=1, dtype="float16")
    # twelve parts: by name, 10 must not come before 2
    rows = clip_rows(tmp_path / "x", ["caption", "id"])
    assert [r["id"] for r, _ in rows] == in_order(collection)
    for facts, row in rows:
        assert row.dtype == np.float16
        assert facts["caption"] == f"text {int(facts['id'][1:])}"
        assert np.allclose(row, planted_vector(facts["caption"]), atol=1e-3)
    assert {p.parent.name for p in (tmp_path / "x").rglob("*.npy")} == {"text_emb"}
    # what was made for other readers is no column of the user's, also where the manifest was left behind
    (tmp_path / "x" / MANIFEST).unlink()
    again = fresh(tmp_path, "again")
    assert back(tmp_path / "x", again).embedded == 12
    assert items(again) == items(collection)


def test_the_layout_holds_one_medium(tmp_path: Path) -> None:
    collection, space = fresh(tmp_path), planted().space
    space = Space("both", DIM, ("image", "text"), space.identity)
    collection.add_space(space, {})
    made: list[Any] = [("a", "text", None), ("b", "image", "/pics/b c.png")]
    batch = [
        Arrival(Item(id=i, medium=m, source=p or "#", path=p), planted_vector(i)[None], i * 64) for i, m, p in made
    ]
    upsert(collection, space, Known.read(collection, space), batch)
    with pytest.raises(UsageError, match="one medium"):
        out(collection, tmp_path / "x", "npy")
    assert not (tmp_path / "x").exists()
    out(collection, tmp_path / "x", "npy", where="media_type LIKE 'image%'")
    ((facts, row),) = clip_rows(tmp_path / "x", ["image_path", "id"])
    assert facts == {"id": "b", "image_path": "/pics/b c.png"}
    assert np.array_equal(row, planted_vector("b"))


def test_half_precision_that_cannot_hold_a_value_is_refused(tmp_path: Path) -> None:
    collection, space = fresh(tmp_path), planted().space
    space = Space("long", DIM, ("text",), {**space.identity, "normalize": False})
    collection.add_space(space, {})
    long = Arrival(Item(id="a", medium="text", source="#"), np.full((1, DIM), 1e6))
    upsert(collection, space, Known.read(collection, space), [long])
    with pytest.raises(UsageError, match="does not fit"):
        out(collection, tmp_path / "x", "npy", dtype="float16")
    with pytest.raises(UsageError, match="for --format npy"):
        out(collection, tmp_path / "x", "arrow", dtype="float16")
