from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import lancedb
import pytest

from embedder import golden
from embedder.errors import Damaged
from index import files, inspect, migrate, purge, schema
from index.search import search
from index.store import Store
from tests.index.tools import Rows, contents, filled, planted, planted_vector, run, view

SPACE = planted().space


def store_of_format_1(path: Path, n: int = 6) -> Path:
    """A store as the code of format 1 wrote it, down to the last file."""
    folder = path / "c"
    (folder / "locks").mkdir(parents=True)
    (path / "permafrost.json").write_text('{\n "format": 1,\n "created": "2026-01-01T00:00:00Z"\n}\n')
    db = lancedb.connect(
        str(folder), storage_options={"new_table_enable_stable_row_ids": "true"},
        read_consistency_interval=timedelta(0),
    )  # fmt: skip
    items = db.create_table("items", schema=schema.items_schema())
    items.set_unenforced_primary_key(["id"])
    db.create_table("edits", schema=schema.edits_schema())
    packed = golden.pack(golden.vectors(planted()))
    vectors = db.create_table(f"vectors_{SPACE.fingerprint}", schema=schema.vectors_schema(SPACE, packed))
    import hashlib

    import numpy as np

    texts = [f"text {k}" for k in range(n)]
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    rows = [
        {
            "id": f"i{k:04d}", "key": k + 1, "source": f"rows#i{k:04d}", "content_hash": hashes[k],
            "media_type": "text/plain", "text": texts[k],
        }
        for k in range(n)
    ]  # fmt: skip
    items.add(schema.item_table(items.schema, rows))
    array = np.stack([planted_vector(text) for text in texts])
    ids = [row["id"] for row in rows]
    vectors.add(schema.vector_table(vectors.schema, list(range(1, n + 1)), [0] * n, ids, hashes, array))
    (folder / "keys.json").write_text(json.dumps({"next": n + 17}))
    settings = {"created": "2026-01-01T00:00:00Z", "aliases": {"default": SPACE.fingerprint}, "roots": {"": "rows"}}
    (folder / "collection.json").write_text(json.dumps(settings))
    return path


def test_a_store_of_format_1_opens_and_lives_on(tmp_path: Path) -> None:
    path = store_of_format_1(tmp_path / "store")
    collection = Store.open(path).collection("c")
    marker = json.loads((path / "permafrost.json").read_bytes())
    assert marker == {"format": migrate.FORMAT, "needs": "0.1.0", "created": "2026-01-01T00:00:00Z"}
    assert json.loads((path / ".before-format-2" / "permafrost.json").read_bytes())["format"] == 1
    assert json.loads((path / ".before-format-2" / "c" / "keys.json").read_bytes()) == {"next": 23}
    assert (collection.path / "locks" / "readers.lock").exists()
    assert inspect.verify(collection).problems == []
    assert search(view(collection), planted_vector("text 3")[None], k=1)[0].hits[0].id == "i0003"
    before = contents(collection, SPACE)
    ran = run(collection, Rows({f"i{k:04d}": f"text {k}" for k in range(7)}))
    assert (ran.embedded, ran.unchanged) == (1, 6)
    assert before.items() < contents(collection, SPACE).items()
    purge.purge(collection)
    assert Store.open(path).names() == ["c"]


def test_a_step_that_was_killed_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store_of_format_1(tmp_path / "store")
    for point in ("migrate:step", "file:permafrost.json"):

        def dies(at: str, point: str = point) -> None:
            if at == point:
                raise KeyboardInterrupt

        monkeypatch.setattr(files, "fault", dies)
        with pytest.raises(KeyboardInterrupt):
            Store.open(path)
        assert json.loads((path / "permafrost.json").read_bytes())["format"] == 1
    monkeypatch.undo()
    assert Store.open(path).collection("c").count() == 6


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
