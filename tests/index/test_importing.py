"""Vectors of others: clip-retrieval's folders, matrices, tables, LanceDB and FAISS, each with its ids and a Space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faiss
import lancedb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedder.declared import declare
from embedder.errors import Damaged, NothingToDo, Refused, UnknownName, UsageError
from index import bringing, importing
from index.bringing import Asked
from index.importing import Imported
from index.store import Collection
from tests.index.tools import DIM, contents, fresh, planted_vector

N = 30
SPACE = declare("theirs", DIM, ["image"])
TEXTS = declare("theirs", DIM, ["text"])
MATRIX = np.stack([planted_vector(str(n)) for n in range(N)])


def take(collection: Collection, source: Any, space: Any = SPACE, **asked: Any) -> Imported:
    opened = importing.open_vectors(str(source), Asked(**asked))
    return importing.store(collection, space, {}, bringing.plan(opened, Asked(**asked), space))


def vectors(collection: Collection, space: Any = SPACE) -> dict[str, np.ndarray]:
    return {id: np.frombuffer(raw, "<f4") for id, (_, raw) in contents(collection, space).items()}


def same(found: dict[str, np.ndarray], ids: list[str], matrix: np.ndarray = MATRIX) -> bool:
    return set(found) == set(ids) and all(np.array_equal(found[id], v) for id, v in zip(ids, matrix, strict=True))


def clip_folder(folder: Path, sizes: tuple[int, ...] = (20, 10), *, texts: bool = False) -> Path:
    """Written as `clip_retrieval/clip_inference/writer.py` writes it: one metadata file for each matrix, float16."""
    (folder / "metadata").mkdir(parents=True)
    start = 0
    for part, size in enumerate(sizes):
        rows = MATRIX[start : start + size].astype("float16")
        for name in ("img_emb", "text_emb") if texts else ("img_emb",):
            (folder / name).mkdir(exist_ok=True)
            np.save(folder / name / f"{name}_{part}", rows)
        names = [f"pics/{n}.jpg" for n in range(start, start + size)]
        frame = pd.DataFrame({"image_path": names, "caption": [f"photo {n}" for n in range(start, start + size)]})
        frame.join(pd.DataFrame({"width": range(size)})).to_parquet(folder / "metadata" / f"metadata_{part}.parquet")
        start += size
    return folder


def test_clip_retrievals_layout_comes_in_row_by_row(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    run = take(collection, clip_folder(tmp_path / "clip"))
    assert (run.found, run.embedded) == (N, N)
    assert same(vectors(collection), [f"pics/{n}.jpg" for n in range(N)], MATRIX.astype("float16"))
    row = collection.items.search().where("id = 'pics/7.jpg'").to_list()[0]
    assert (row["caption"], row["width"], row["media_type"]) == ("photo 7", 7, "image/jpeg")
    assert row["source"] == str(tmp_path / "clip" / "pics/7.jpg")
    assert take(collection, tmp_path / "clip").unchanged == N


def test_both_towers_of_a_layout_are_asked_for_by_name(tmp_path: Path) -> None:
    folder, collection = clip_folder(tmp_path / "clip", texts=True), fresh(tmp_path)
    with pytest.raises(UsageError, match="images and of texts"):
        take(collection, folder)
    take(collection, folder, TEXTS, media="text", id_column="image_path")
    row = collection.items.search().where("id = 'pics/7.jpg'").to_list()[0]
    assert (row["text"], row["media_type"], "caption" in row) == ("photo 7", "text/plain", False)


def test_rows_that_drifted_apart_are_refused(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "clip")
    np.save(folder / "img_emb" / "img_emb_1", MATRIX[:9])
    with pytest.raises(Damaged, match="29 vectors and metadata has 30"):
        take(fresh(tmp_path), folder)


@pytest.mark.parametrize("form", ["npy", "txt", "csv", "npz"])
def test_a_bare_matrix_takes_its_ids_from_beside_it(tmp_path: Path, form: str) -> None:
    ids = [f"ä {n}" for n in range(N)]
    np.save(tmp_path / "m.npy", MATRIX)
    np.save(tmp_path / "ids.npy", np.array(ids))
    (tmp_path / "ids.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    (tmp_path / "ids.csv").write_text("n,id\n" + "".join(f"{n},{id}\n" for n, id in enumerate(ids)), encoding="utf-8")
    np.savez(tmp_path / "m.npz", embeddings=MATRIX, ids=np.array(ids), labels=np.arange(N))
    collection = fresh(tmp_path)
    if form == "npz":
        take(collection, tmp_path / "m.npz")
    else:
        take(collection, tmp_path / "m.npy", ids=str(tmp_path / f"ids.{form}"))
    assert same(vectors(collection), ids)


def test_positions_are_ids_only_with_a_prefix(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", MATRIX)
    collection = fresh(tmp_path)
    with pytest.raises(UsageError, match="no ids but their positions"):
        take(collection, tmp_path / "m.npy")
    take(collection, tmp_path / "m.npy", prefix="row-")
    assert same(vectors(collection), [f"row-{n}" for n in range(N)])
    (tmp_path / "ids.txt").write_text("a\nb\n")
    with pytest.raises(UsageError, match="2 ids for 30 vectors"):
        take(collection, tmp_path / "m.npy", ids=str(tmp_path / "ids.txt"))


def test_no_file_is_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "m.npz", X=MATRIX, ids=np.array([object()]))
    for name in ("m.npy", "m.npz"):
        with pytest.raises(UsageError, match="cannot be read"):
            take(fresh(tmp_path), tmp_path / name, prefix="p")


def table() -> dict[str, list[Any]]:
    rows = MATRIX.tolist()
    rows[3] = [float("nan")] * DIM
    rows[4] = rows[4][:-1]
    rows[5] = None
    rows[6] = [0.0] * DIM
    ids: list[Any] = list(range(N))
    ids[7], ids[8] = None, 9
    return {"id": ids, "embedding": rows, "year": list(range(N)), "tags": [["a", "b"]] * N}


REASONS = {"non_finite": 1, "wrong_dim": 1, "no_vector": 1, "zero_norm": 1, "no_id": 1, "duplicate_id": 1}


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl"])
def test_bad_rows_of_a_table_are_named_and_the_others_stored(tmp_path: Path, form: str) -> None:
    path, rows = tmp_path / f"t.{form}", table()
    if form == "jsonl":
        made = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in made))
    elif form == "arrow":
        with pa.ipc.new_file(str(path), pa.table(rows).schema) as out:
            out.write_table(pa.table(rows))
    else:
        pq.write_table(pa.table(rows), path)
    collection = fresh(tmp_path)
    run = take(collection, path, vector_column="embedding")
    good = [str(n) for n in range(N) if n not in (3, 4, 5, 6, 7, 9)]
    assert (run.found, run.embedded, run.failed) == (N, N - 6, 6)
    assert run.reasons == REASONS
    expected = {n: MATRIX[int(n)] for n in good} | {"9": MATRIX[8]}
    del expected["8"]
    assert {id: v.tobytes() for id, v in vectors(collection).items()} == {i: v.tobytes() for i, v in expected.items()}
    lines = [json.loads(line) for line in Path(str(run.failures)).read_text().splitlines()]
    assert {(line["id"], line["reason"]) for line in lines} >= {("3", "non_finite"), ("9", "duplicate_id")}
    row = collection.items.search().where("id = '2'").to_list()[0]
    assert (row["year"], row["tags"]) == (2, '["a", "b"]')


def test_columns_are_found_renamed_and_refused(tmp_path: Path) -> None:
    rows = {"id": [str(n) for n in range(N)], "vec": MATRIX.tolist(), "source": ["web"] * N, "size": list(range(N))}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    collection = fresh(tmp_path)
    with pytest.raises(UsageError, match="keeps for itself") as caught:
        take(collection, tmp_path / "t.parquet")
    assert "--rename source=original_source" in caught.value.hint
    take(collection, tmp_path / "t.parquet", rename={"source": "origin", "size": "pixels"})
    row = collection.items.search().where("id = '4'").to_list()[0]
    assert (row["origin"], row["pixels"]) == ("web", 4)
    with pytest.raises(UnknownName, match="'vce'"):
        take(collection, tmp_path / "t.parquet", vector_column="vce")
    with pytest.raises(UnknownName, match="'idd'"):
        take(collection, tmp_path / "t.parquet", id_column="idd")


def test_a_table_of_lancedb_comes_in(tmp_path: Path) -> None:
    db = lancedb.connect(str(tmp_path / "db.lance"))
    db.create_table("photos", pa.table({"id": [str(n) for n in range(N)], "vector": MATRIX.tolist(), "y": range(N)}))
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(MATRIX.astype("float16").reshape(-1)), DIM)
    db.create_table("half", pa.table({"name": [f"h{n}" for n in range(N)], "emb": fixed}))
    collection = fresh(tmp_path)
    with pytest.raises(UsageError, match="half, photos"):
        take(collection, tmp_path / "db.lance")
    take(collection, f"{tmp_path}/db.lance#photos")
    assert same(vectors(collection), [str(n) for n in range(N)])
    take(collection, tmp_path / "db.lance", table="half", id_column="name")
    assert np.array_equal(vectors(collection)["h7"], MATRIX[7].astype("float16"))
    with pytest.raises(UnknownName) as caught:
        take(collection, f"{tmp_path}/db.lance#photo")
    assert "photos" in caught.value.hint


def ivf(size: int = 4) -> Any:
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(DIM), DIM, size, faiss.METRIC_INNER_PRODUCT)
    index.train(MATRIX)
    return index


def flat() -> Any:
    return faiss.IndexFlatIP(DIM)


OWN = np.arange(N, dtype=np.int64) * 7 + 1000


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf", "ivf_ids", "idmap", "idmap2", "idmap_ivf"])
def test_a_faiss_index_gives_back_its_vectors_and_ids(tmp_path: Path, kind: str) -> None:
    made: dict[str, Any] = {
        "flat": flat, "hnsw": lambda: faiss.IndexHNSWFlat(DIM, 4), "ivf": ivf, "ivf_ids": ivf,
        "idmap": lambda: faiss.IndexIDMap(flat()), "idmap2": lambda: faiss.IndexIDMap2(flat()),
        "idmap_ivf": lambda: faiss.IndexIDMap(ivf()),
    }  # fmt: skip
    index, own = made[kind](), kind not in ("flat", "hnsw", "ivf")
    if own:
        index.add_with_ids(MATRIX, OWN)
    else:
        index.add(MATRIX)
    path = tmp_path / "my.index"
    faiss.write_index(index, str(path))
    collection = fresh(tmp_path)
    if own:
        take(collection, path)
        assert same(vectors(collection), [str(i) for i in OWN])
        if kind == "ivf_ids":
            (tmp_path / "ids.txt").write_text("a\n" * N)
            with pytest.raises(UsageError, match="ids of its own"):
                take(collection, path, ids=str(tmp_path / "ids.txt"))
        return
    if kind == "flat":
        with pytest.raises(UsageError, match="no ids but their positions"):
            take(collection, path)
    if kind == "hnsw":
        take(collection, path, prefix="p")
        assert same(vectors(collection), [f"p{n}" for n in range(N)])
        return
    (tmp_path / "ids.txt").write_text("".join(f"name {n}\n" for n in range(N)))
    take(collection, path, ids=str(tmp_path / "ids.txt"))
    assert all(np.array_equal(vectors(collection)[f"name {n}"], MATRIX[n]) for n in range(N))


def test_a_lossy_index_is_refused_unless_asked(tmp_path: Path) -> None:
    index = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_8bit)
    index.train(MATRIX)
    index.add(MATRIX)
    faiss.write_index(index, str(tmp_path / "sq.faiss"))
    with pytest.raises(Refused, match="compressed"):
        take(fresh(tmp_path), tmp_path / "sq.faiss", prefix="p")
    collection = fresh(tmp_path, "lossy")
    take(collection, tmp_path / "sq.faiss", prefix="p", allow_lossy=True)
    assert np.array_equal(vectors(collection)["p3"], index.reconstruct(3))


def test_a_damaged_index_is_refused_and_takes_nothing_down(tmp_path: Path) -> None:
    index = faiss.IndexIDMap(flat())
    index.add_with_ids(MATRIX, OWN)
    faiss.write_index(index, str(tmp_path / "good.index"))
    data = (tmp_path / "good.index").read_bytes()
    huge = data[:41] + b"\xff" * 8 + data[49:]
    hostile = {"cut": data[: len(data) // 2], "text": b"not an index at all", "huge": huge}
    hostile["count"] = data.replace(N.to_bytes(8, "little"), (1 << 40).to_bytes(8, "little"))
    hostile["fewer"] = data.replace(N.to_bytes(8, "little"), (N - 3).to_bytes(8, "little"), 1)
    # the same reader takes the good one
    take(fresh(tmp_path, "good"), tmp_path / "good.index")
    for name, content in hostile.items():
        path = tmp_path / f"{name}.index"
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"cannot be read as a FAISS index|holds no vectors"):
            take(fresh(tmp_path), path)


def test_what_is_not_there_or_holds_nothing_is_said(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    with pytest.raises(UsageError, match="is not there"):
        take(collection, tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("no vectors")
    with pytest.raises(UsageError, match="holds no vectors that are read here"):
        take(collection, tmp_path / "notes.txt")
    pq.write_table(pa.table({"id": ["a"], "x": [1.0]}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="no column holds lists"):
        take(collection, tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(UsageError, match=r"t\.parquet cannot be read"):
        take(collection, tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text('{"id": 1, "vector": [1, 2]}\n{"id": 2,')
    with pytest.raises(UsageError, match="line 2"):
        take(collection, tmp_path / "t.jsonl")
    pq.write_table(pa.table({"id": ["a"], "vector": [[0.0] * DIM]}), tmp_path / "z.parquet")
    with pytest.raises(NothingToDo, match="1 zero_norm"):
        take(collection, tmp_path / "z.parquet")


def test_a_run_leaves_its_record_and_can_be_run_again(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", MATRIX)
    collection = fresh(tmp_path)
    run = take(collection, tmp_path / "m.npy", prefix="p")
    record = json.loads((collection.path / "runs" / run.id / "run.json").read_text())
    assert (record["state"], record["inserted"], record["space"]) == ("finished", N, SPACE.fingerprint)
    assert take(collection, tmp_path / "m.npy", prefix="p").unchanged == N
    assert collection.count() == N
