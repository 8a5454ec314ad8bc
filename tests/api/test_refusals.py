"""Vectors of two Spaces never meet, whichever fact it is in which they differ, and however equal their dimensions."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.service import Service
from api.settings import Settings
from embedder.encoder import load_encoder
from embedder.errors import SpaceMismatch
from embedder.sourcing import open_source
from index.ingest import IngestOptions, ingest
from tests.api.conftest import write_pictures

BASE = "timm:test_vit.r160_in1k?weights=random&seed=0"
CHANGED = {
    "weights.random": "timm:test_vit.r160_in1k?weights=random&seed=1",
    "pooling": f"{BASE}&pooling=max",
    "image.fit": f"{BASE}&fit=squash",
    "image.background": f"{BASE}&background=black",
    "dtype": f"{BASE}&dtype=bfloat16",
    "normalize": f"{BASE}&normalize=false",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    folder = tmp_path_factory.mktemp("refusals")
    write_pictures(folder / "pics", 5)
    made = Service(Settings(store=str(folder / "store"), device="cpu"))
    made.embed(str(folder / "pics"), "pics", encoders=[BASE])
    made.train("pics", label="label")
    return made


@pytest.mark.parametrize("fact", sorted(CHANGED))
def test_an_encoder_that_changed_behind_its_name_is_refused_by_every_act(
    service: Service, fact: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, stored = load_encoder(CHANGED[fact], device="cpu"), service.collection("pics").space()
    assert changed.space.dim == stored.dim
    monkeypatch.setattr(Service, "encoder", lambda self, name: changed)
    monkeypatch.setattr(service, "_checked", set())
    picture = str(next(Path(service.settings.store).parent.glob("pics/red/*.png")))
    for act in (
        lambda: service.search("pics", {"image": picture}),
        lambda: service.classify("pics", "label", [{"image": picture}]),
    ):
        with pytest.raises(SpaceMismatch) as caught:
            act()
        assert {stored.short, changed.space.short} <= set(str(caught.value).replace("(", " ").split())
        assert fact in caught.value.where


@pytest.mark.parametrize("fact", sorted(CHANGED))
def test_a_resumed_run_with_a_changed_encoder_makes_a_space_of_its_own(service: Service, fact: str) -> None:
    changed = load_encoder(CHANGED[fact], device="cpu")
    collection = service.collection("pics")
    before = collection.vectors(collection.space(BASE)).count_rows()
    source = open_source(str(Path(service.settings.store).parent / "pics"))
    made = ingest(collection, source, changed, IngestOptions(), lambda run: None)
    assert (made.embedded, made.unchanged) == (15, 0)
    assert collection.vectors(collection.space(BASE)).count_rows() == before
    assert collection.space() == collection.space(BASE)
