"""The whole life of a collection against a dictionary: whatever is done, in whatever order, it holds what it must."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from embedder.encoder import Encoder, load_encoder
from embedder.given import Given
from embedder.sourcing import SourceOptions
from index import build, commit, inspect, purge, restoring, schema, tags, vacuum
from index.ingest import ingest
from index.itself import Itself
from index.search import search
from index.selection import IngestOptions
from index.standing import spaces as standing_of
from index.store import Store
from index.view import View

IDS = [f"i{n}" for n in range(8)]
LABELS = ["cat", "dog", "it's", ""]
ids, labels = st.sampled_from(IDS), st.sampled_from(LABELS)
# words, so that no two texts have the same vector in a Space of few dimensions
rows = st.dictionaries(ids, st.tuples(st.integers(0, 40), labels), min_size=1, max_size=4)
_encoders: dict[str, Encoder] = {}


def encoder(name: str) -> Encoder:
    if name not in _encoders:
        _encoders[name] = load_encoder(name, device="cpu")
    return _encoders[name]


FIRST, SECOND = "hashing:32", "hashing:16"
State = tuple[dict[str, tuple[str, str]], dict[str, str], set[str]]


class Life(RuleBasedStateMachine):
    """`texts` has the text and the label that the source gave; `edited` what was set by hand, also of deleted items."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.texts: dict[str, tuple[str, str]] = {}
        self.edited: dict[str, str] = {}
        self.embedded: dict[str, dict[str, str]] = {FIRST: {}, SECOND: {}}
        self.tagged: dict[str, State] = {}
        self.keys: dict[int, tuple[str, str]] = {}
        self.vectors_of: dict[tuple[str, str], np.ndarray[Any, Any]] = {}

    def teardown(self) -> None:
        """Every life ends with a restore of what is tagged, after a loss."""
        try:
            if self.tagged:
                self.clean({"i0", "i1", "i2"}, "lost")
                self.put({"i7": (7, "new")})
                name = max(self.tagged)
                restoring.to_tag(self.collection, name)
                self.become(self.tagged[name])
                assert inspect.verify(self.collection).problems == []
        finally:
            shutil.rmtree(self.folder)

    @initialize()
    def make(self) -> None:
        self.open(create=True)
        self.put({"i0": (0, "cat"), "i1": (1, "dog")})
        self.embed_in_a_second_space()
        self.tag("a")

    def open(self, *, create: bool = False) -> None:
        self.collection = Store.open(self.folder / "s", create=create).collection("c", create=create)
        self.view: View | None = None

    @rule(found=rows)
    def put(self, found: dict[str, tuple[int, str]]) -> None:
        values = [{"id": id, "text": f"text number {n}", "label": label} for id, (n, label) in found.items()]
        run = ingest(self.collection, Given(values, SourceOptions()), encoder(FIRST), IngestOptions(), lambda run: None)
        for value in values:
            self.texts[value["id"]] = (value["text"], value["label"])
            self.embedded[FIRST][value["id"]] = value["text"]
        assert run.embedded + run.unchanged == len(values)

    @precondition(lambda self: self.texts)
    @rule()
    def run_again(self) -> None:
        values = [{"id": id, "text": text, "label": label} for id, (text, label) in self.texts.items()]
        run = ingest(self.collection, Given(values, SourceOptions()), encoder(FIRST), IngestOptions(), lambda run: None)
        lacking = sum(self.embedded[FIRST].get(id) != text for id, (text, _) in self.texts.items())
        assert (run.embedded, run.unchanged) == (lacking, len(values) - lacking)
        self.embedded[FIRST] |= {id: text for id, (text, _) in self.texts.items()}

    @rule(chosen=st.sets(ids, min_size=1, max_size=3))
    def delete(self, chosen: set[str]) -> None:
        assert commit.delete_ids(self.collection, sorted(chosen)) == len(chosen & self.texts.keys())
        for id in chosen:
            self.texts.pop(id, None)

    @rule(id=ids, label=labels)
    def edit(self, id: str, label: str) -> None:
        if id in self.texts:
            commit.edit(self.collection, id, {"label": label}, by="test")
            self.edited[id] = label

    @precondition(lambda self: self.texts)
    @rule()
    def embed_in_a_second_space(self) -> None:
        ingest(self.collection, Itself(self.collection, "text"), encoder(SECOND), IngestOptions(), lambda run: None)
        self.embedded[SECOND] |= {id: text for id, (text, _) in self.texts.items()}

    @rule(name=st.sampled_from(["a", "b"]))
    def tag(self, name: str) -> None:
        if name in self.tagged:
            tags.remove(self.collection, name)
        tags.create(self.collection, name)
        self.tagged[name] = self.state()

    def state(self) -> State:
        return dict(self.texts), dict(self.edited), set(self.embedded[SECOND])

    def become(self, state: State) -> None:
        """A restore brings back the texts, the edits, and each vector that there was."""
        self.texts, self.edited = dict(state[0]), dict(state[1])
        self.check()
        assert state[2] <= self.embedded[SECOND].keys()
        if self.texts:
            # what was set by hand since is forgotten, what was set before is not
            self.run_again()
            self.check()

    @precondition(lambda self: self.tagged)
    @rule(data=st.data(), chosen=st.sets(ids, max_size=2), label=labels)
    def restore(self, data: st.DataObject, chosen: set[str], label: str) -> None:
        if chosen:
            self.clean(chosen, label)
        name = data.draw(st.sampled_from(sorted(self.tagged)))
        before = self.state()
        done = restoring.to_tag(self.collection, name)
        self.become(self.tagged[name])
        if data.draw(st.booleans()):
            restoring.to_tag(self.collection, done.undo)
            self.become(before)
        for tag in tags.listed(self.collection):
            if tag.name not in self.tagged:
                tags.remove(self.collection, tag.name)

    @rule(chosen=st.sets(ids, min_size=1, max_size=3), label=labels)
    def clean(self, chosen: set[str], label: str) -> None:
        self.delete(chosen)
        self.edit(min(self.texts, default="none"), label)
        vacuum.vacuum(self.collection, keep_s=0)
        assert all(space["dead"] == 0 for space in inspect.describe(self.collection)["spaces"])

    @rule(sure=st.sampled_from([True, False, False]))
    def purge(self, sure: bool) -> None:
        if not sure:
            vacuum.vacuum(self.collection)
            return
        for name in self.tagged:
            tags.remove(self.collection, name)
        self.tagged = {}
        purge.purge(self.collection)
        self.edited = {id: label for id, label in self.edited.items() if id in self.texts}

    @precondition(lambda self: self.texts)
    @rule()
    def index(self) -> None:
        self.embed_in_a_second_space()
        build.build(self.collection, encoder(SECOND).space, kind="flat")

    @rule()
    def reopen(self) -> None:
        assert inspect.verify(self.collection).problems == []
        self.open()

    def label(self, id: str) -> str:
        return self.edited.get(id, self.texts[id][1])

    @invariant()
    def check(self) -> None:
        if not hasattr(self, "collection"):
            return
        found = self.collection.items.search().to_arrow().to_pylist()
        assert {row["id"]: (row["text"], row["label"]) for row in found} == {
            id: (text, self.label(id)) for id, (text, _) in self.texts.items()
        }
        assert len(found) == len(self.texts) == self.collection.count()
        for row in found:
            # a key is of one content for ever
            assert self.keys.setdefault(row["key"], (row["id"], row["text"])) == (row["id"], row["text"])
        self.check_vectors({row["key"]: row["id"] for row in found})

    def check_vectors(self, live: dict[int, str]) -> None:
        facts = {space["fingerprint"]: space for space in inspect.describe(self.collection)["spaces"]}
        stale = standing_of(self.collection)
        for name in (FIRST, SECOND):
            space = encoder(name).space
            if not self.collection.has_space(space):
                continue
            stored = self.collection.table(schema.VECTORS + space.fingerprint).search().to_arrow().to_pylist()
            alive = {live[row["key"]]: row["vector"] for row in stored if row["key"] in live}
            for id, vector in alive.items():
                text = self.texts[id][0]
                if (name, text) not in self.vectors_of:
                    self.vectors_of[name, text] = encoder(name).encode([text])[0]
                assert np.array_equal(np.asarray(vector, dtype=np.float32), self.vectors_of[name, text])
            # what lacks a vector is only what never was embedded as it is now
            self.embedded[name] = {id: self.texts[id][0] for id in alive}
            assert facts[space.fingerprint]["vectors"] == len(alive)
            assert facts[space.fingerprint]["missing"] == len(self.texts) - len(alive)
            assert stale[space.fingerprint]["stale"] <= len(self.texts) - len(alive)
            if name == FIRST:
                assert alive.keys() == self.texts.keys()
                self.check_search(space)

    def check_search(self, space: Any) -> None:
        if self.view is None:
            self.view = View(self.collection, space)
        for id, (text, _) in list(self.texts.items())[:2]:
            hits = search(self.view, encoder(FIRST).encode([text], role="query"), k=len(IDS))[0].hits
            assert len(hits) == len(self.texts)
            best = {hit.id for hit in hits if hit.score > hits[0].score - 1e-6}
            assert id in best
            where = f"label = '{self.label(id).replace(chr(39), chr(39) * 2)}'"
            kept = search(self.view, encoder(FIRST).encode([text], role="query"), k=len(IDS), where=where)[0]
            assert {hit.id for hit in kept.hits} == {i for i in self.texts if self.label(i) == self.label(id)}


Life.TestCase.settings = settings(
    max_examples=5, stateful_step_count=15, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
TestLife = Life.TestCase
