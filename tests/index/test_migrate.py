from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from embedder import golden
from embedder.errors import Damaged
from index import backup, commit, files, inspect, migrate, purge, restoring, schema, tags, vacuum
from index import contents as contents_of
from index.search import search
from index.store import Collection, Store
from tests.index.tools import Rows, contents, filled, planted, planted_vector, run, view

SPACE = planted().space


def old_item_crc(row: dict[str, Any]) -> int:
    said = {name: value for name, value in row.items() if value is not None}
    return zlib.crc32(json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def old_vector_crc(row: dict[str, Any]) -> int:
    head = "\0".join(str(row[name]) for name in ("key", "part", "content_hash", "id")) + "\0"
    return zlib.crc32(np.asarray(row["vector"], dtype="<f4").tobytes(), zlib.crc32(head.encode()))


def store_of_format_1(path: Path, n: int = 6, damaged: int | None = None) -> Path:
    """A store as the code of format 1 wrote it, down to the last file: other checksums, and none of edits and JSON."""
    folder = path / "c"
    (folder / "locks").mkdir(parents=True)
    (path / "permafrost.json").write_text('{\n "format": 1,\n "created": "2026-01-01T00:00:00Z"\n}\n')
    db = lancedb.connect(
        str(folder), storage_options={"new_table_enable_stable_row_ids": "true"},
        read_consistency_interval=timedelta(0),
    )  # fmt: skip
    items = db.create_table("items", schema=schema.items_schema().append(pa.field("label", pa.string())))
    items.set_unenforced_primary_key(["id"])
    edits = schema.edits_schema()
    edited = db.create_table("edits", schema=edits.remove(edits.get_field_index("row_crc")))
    packed = golden.pack(golden.vectors(planted()))
    vectors = db.create_table(f"vectors_{SPACE.fingerprint}", schema=schema.vectors_schema(SPACE, packed))
    rows, made = [], []
    for k in range(n):
        text = f"text {k}"
        facts = {"id": f"i{k:04d}", "key": k + 1, "content_hash": hashlib.sha256(text.encode()).hexdigest()}
        label = "by hand" if k == 2 else None
        said = {**facts, "source": f"rows#i{k:04d}", "media_type": "text/plain", "text": text, "label": label}
        row = {**facts, "part": 0, "vector": planted_vector(text)}
        rows.append({**said, "row_crc": old_item_crc(said)})
        made.append({**row, "row_crc": old_vector_crc(row) ^ (k == damaged)})
    items.add(pa.Table.from_pylist(rows, schema=items.schema))
    vectors.add(pa.Table.from_pylist(made, schema=vectors.schema))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    edited.add([{"id": "i0002", "name": "label", "value": '"by hand"', "by": "me", "at": at}])
    (folder / "keys.json").write_text(json.dumps({"next": n + 17}))
    settings = {"created": "2026-01-01T00:00:00Z", "aliases": {"default": SPACE.fingerprint}, "roots": {"": "rows"}}
    (folder / "collection.json").write_text(json.dumps(settings))
    return path


def test_a_store_of_format_1_opens_and_lives_on(tmp_path: Path) -> None:
    path = store_of_format_1(tmp_path / "store")
    collection = Store.open(path).collection("c")
    marker = files.read_json(path / "permafrost.json")
    assert marker == {"format": migrate.FORMAT, "needs": "0.1.0", "created": "2026-01-01T00:00:00Z"}
    assert json.loads((path / ".before-format-2" / "permafrost.json").read_bytes())["format"] == 1
    assert json.loads((path / ".before-format-2" / "c" / "keys.json").read_bytes()) == {"next": 23}
    assert (collection.path / "locks" / "readers.lock").exists()
    assert inspect.verify(collection).problems == []
    assert search(view(collection), planted_vector("text 3")[None], k=1)[0].hits[0].id == "i0003"
    assert collection.items.search().where("label = 'by hand'").to_list()[0]["id"] == "i0002"
    old = path / ".before-format-3" / "c" / "items.lance"
    assert lancedb.connect(str(old.parent)).open_table("items").to_arrow()["row_crc"][0].as_py() < 1 << 32
    before = contents(collection, SPACE)
    ran = run(collection, Rows({f"i{k:04d}": f"text {k}" for k in range(7)}))
    assert (ran.embedded, ran.unchanged) == (1, 6)
    assert before.items() < contents(collection, SPACE).items()
    commit.edit(collection, "i0003", {"label": "mine"}, by="me")
    assert inspect.verify(collection).problems == []
    purge.purge(collection)
    assert not old.parent.exists(), "what was deleted is in no file any more"
    assert Store.open(path).names() == ["c"]


def test_a_step_that_was_killed_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reached = store_of_format_1(tmp_path / "store"), 0
    for point in ("migrate:step", "migrate:table", "file:permafrost.json"):

        def dies(at: str, point: str = point) -> None:
            if at == point:
                raise KeyboardInterrupt

        monkeypatch.setattr(files, "fault", dies)
        with pytest.raises(KeyboardInterrupt):
            Store.open(path)
        assert json.loads((path / "permafrost.json").read_bytes())["format"] == min(2, 1 + reached)
        reached += point == "migrate:step"
    monkeypatch.undo()
    assert Store.open(path).collection("c").count() == 6
    assert inspect.verify(Store.open(path).collection("c")).problems == []


def test_a_row_that_was_damaged_before_is_named_after(tmp_path: Path) -> None:
    path = store_of_format_1(tmp_path / "store", damaged=4)
    collection = Store.open(path).collection("c")
    verdict = inspect.verify(collection)
    assert [(p.id, p.where) for p in verdict.problems] == [("i0004", f"vectors_{SPACE.fingerprint}")]
    assert inspect.mend(collection, verdict) == 1
    assert run(collection, Rows({f"i{k:04d}": f"text {k}" for k in range(6)})).embedded == 1
    assert inspect.verify(collection).problems == []


def test_tags_and_backups_of_an_older_format_come_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store_of_format_1(tmp_path / "store")
    old = Collection(path / "c")
    with monkeypatch.context() as before:
        # as the code of format 2 wrote them: with the checksums that the tables have
        before.setattr(migrate, "FORMAT", 2)
        before.setattr("index.backup._require_sound", lambda rows, name: None)
        migrate.bring_up(path)
        tags.create(old, "first")
        (path / "c" / "ledger.json").unlink()
        frozen = tmp_path / "frozen"
        shutil.copytree(path, frozen)
    backup._seal(frozen, [backup.Backed("c", "", 6, {SPACE.fingerprint: 6}, contents_of.root(old))])
    collection = Store.open(path).collection("c")
    commit.delete_ids(collection, ["i0001"])
    vacuum.vacuum(collection, keep_s=0)
    restoring.to_tag(collection, "first")
    assert set(contents(collection, SPACE)) == {f"i{k:04d}" for k in range(6)}
    assert inspect.verify(collection).problems == []
    store = Store.open(tmp_path / "other", create=True)
    for name in ("one", "two"):
        backup.restore(store, frozen, "c", into=name)
        assert inspect.verify(store.collection(name)).problems == []


def test_a_newer_store_is_refused_with_the_version_to_install(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    marker = tmp_path / "store" / "permafrost.json"
    marker.write_text('{"format": 9, "needs": "3.1.0"}')
    with pytest.raises(Damaged, match="format 9") as caught:
        Store.open(tmp_path / "store")
    assert caught.value.hint == "pip install 'permafrost>=3.1.0'"
    for text in ("{}", "[]", '{"format": "x"}', '{"format": true}', '{"format": 0}'):
        marker.write_text(text)
        with pytest.raises(Damaged, match="names no format"):
            Store.open(tmp_path / "store")


def test_every_format_but_the_newest_has_a_step_and_says_what_it_needs() -> None:
    assert sorted(migrate.STEPS) == list(range(1, migrate.FORMAT))
    assert sorted(migrate.NEEDS) == list(range(1, migrate.FORMAT + 1))
