"""`verify` embeds a sample again: what it compares, what it says it cannot, and what it finds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from api.cli import main
from api.service import Service
from api.settings import Settings
from index import schema

N = 12


@pytest.fixture
def service(tmp_path: Path) -> Service:
    folder = tmp_path / "notes"
    folder.mkdir()
    for n in range(N):
        (folder / f"{n}.txt").write_text(f"note {n} about boats and money")
    service = Service(Settings(store=str(tmp_path / "store")))
    service.embed(str(folder), "notes", encoders=["hashing:32"])
    return service


def test_a_sound_sample_is_compared_and_the_same_seed_draws_the_same(service: Service) -> None:
    found = service.verify("notes", sample=5)
    assert found["ok"]
    (again,) = found["reembedded"]
    assert (again["compared"], again["skipped"], again["why"]) == (5, {}, None)
    assert again["lowest"] > 0.99999
    assert service.verify("notes", sample=0)["reembedded"] == []
    assert service.verify("notes", sample=99)["reembedded"][0]["compared"] == N


def test_what_cannot_be_embedded_again_is_counted_with_its_reason(service: Service, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    (notes / "0.txt").unlink()
    (notes / "1.txt").write_text("rewritten since then, and longer")
    stat = (notes / "2.txt").stat()
    (notes / "2.txt").write_text("note 2 about birds and money")
    os.utime(notes / "2.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    found = service.verify("notes", sample=N)
    assert found["ok"]
    assert found["reembedded"][0]["skipped"] == {"its source is not here": 1, "changed since it was embedded": 2}
    assert found["reembedded"][0]["compared"] == N - 3


def test_a_vector_that_its_encoder_does_not_make_is_named_and_redone(service: Service, tmp_path: Path) -> None:
    """With a right checksum: only embedding again can tell."""
    collection = service.collection("notes")
    space = collection.space()
    table = collection.vectors(space)
    row = table.search().where("id = '3.txt'").to_arrow()
    other = np.roll(schema.vectors_of(row), 1, axis=1)
    values = [row[name].to_pylist() for name in ("key", "part", "id", "content_hash")]
    table.delete("id = '3.txt'")
    table.add(schema.vector_table(table.schema, *values, other))
    found = service.verify("notes", sample=N, mend=True)
    assert [(p["id"], p["what"].split(":")[0]) for p in found["problems"]] == [
        ("3.txt", "a vector is not what its encoder makes of it")
    ]
    assert found["mended"] == 1
    assert service.embed(str(tmp_path / "notes"), "notes")["embedded"] == 1
    assert service.verify("notes", sample=N)["ok"]


def test_an_encoder_that_cannot_be_loaded_is_said_and_the_rest_is_checked(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedder.errors import UsageError

    def broken(*args: object) -> None:
        raise UsageError("its weights are not here")

    monkeypatch.setattr(service, "encoder_of", broken)
    found = service.verify("notes")
    assert found["ok"]
    assert found["reembedded"][0]["why"] == "its weights are not here"
    assert found["checked"]["vectors"] == N


def test_the_command_says_what_was_compared(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = main(["verify", "notes", "--sample", "4", "--store", service.settings.store])
    out = capsys.readouterr().out
    assert code == 0
    assert "4 items embedded again, lowest cosine 1.000000" in out
