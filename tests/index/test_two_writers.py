"""Two processes on one collection for some seconds: runs of the same and of different Spaces, and labels by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from index import inspect
from index.edits import edits
from index.store import Store
from tests.index.tools import contents, fresh, planted

SECONDS, ITEMS = 5.0, 60
WRITER = """
import random, sys, time
import embedder.extract, index.ingest
from embedder.errors import Locked
from index import commit
from index.store import Store
from tests.index.tools import Rows, planted, run
embedder.extract.WINDOW = index.ingest.COMMIT_ROWS = 16
store, salts, seed = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3])
until, count, written = float(sys.argv[4]), int(sys.argv[5]), set()
types = {"label": "string", "tag": "string"}
collection, chance = Store.open(store).collection("c"), random.Random(seed)
locked, turn = 0, 0
end = time.monotonic() + until
while time.monotonic() < end or turn < 2:
    salt = salts[turn % len(salts)]
    ids = [f"i{n}" for n in range(count)]
    chance.shuffle(ids)
    rows = Rows({id: f"text {id} {chance.randrange(3)}" for id in ids[: count // 2]}, {}, types)
    try:
        run(collection, rows, planted(salt=salt))
        turn += 1
        written |= {id for id, _ in rows.rows}
        commit.edit(collection, rows.rows[0][0], {["label", "tag"][seed % 2]: f"{seed}-{turn}"}, by=f"writer {seed}")
    except Locked:
        locked += 1
        time.sleep(0.01)
print(turn, locked, ",".join(written))
"""


def test_two_writers_lose_nothing_double_nothing_and_the_loser_may_retry(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    command = [sys.executable, "-c", WRITER, str(tmp_path / "store")]
    both = [
        subprocess.Popen([*command, salts, seed, str(SECONDS), str(ITEMS)], stdout=subprocess.PIPE, text=True)
        for salts, seed in (("a", "0"), ("a,b", "1"))
    ]
    said = [writer.communicate(timeout=120)[0].split() for writer in both]
    assert [writer.returncode for writer in both] == [0, 0]
    turns, locked = (sum(int(line[at]) for line in said) for at in (0, 1))
    assert turns >= 4
    assert locked >= 1, "they never met"
    collection = Store.open(tmp_path / "store").collection("c")
    rows = {row["id"]: row for row in collection.items.search().to_arrow().to_pylist()}
    assert set(rows) == {id for line in said for id in line[2].split(",")}
    assert len(rows) == collection.count()
    assert len({row["key"] for row in rows.values()}) == len(rows)
    for salt in "ab":
        space = planted(salt=salt).space
        for id, (content_hash, _) in contents(collection, space).items():
            assert rows[id]["content_hash"] == content_hash
    made = edits(collection)
    assert len(made) >= 1
    assert {key: rows[key[0]][key[1]] for key in made} == made, "an edit was written over"
    assert inspect.verify(collection).problems == []
