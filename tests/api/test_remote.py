"""Encoders that are elsewhere, from the settings through every door: free dry runs, and a key that is shown nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.client import Encoder
from api.service import Service
from api.settings import read_settings
from embedder.errors import EncoderError
from index.selection import IngestOptions
from tests.api.conftest import Run, write_notes
from tests.endpoint import DIM, KEY, Fake, running

DRY = IngestOptions(dry_run=True)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with running() as found:
        monkeypatch.setenv("PERMAFROST_OPENAI_BASE_URL", found.url)
        monkeypatch.setenv("PERMAFROST_OPENAI_API_KEY", KEY)
        yield found


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return write_notes(tmp_path / "notes.csv", 12)


@pytest.fixture
def service(fake: Fake, tmp_path: Path) -> Iterator[Service]:
    found = Service(read_settings(store=str(tmp_path / "store")))
    yield found
    found.close()


@pytest.mark.parametrize("name", ["openai:tiny", "openai:tiny?dimensions=8", "openai:tiny?chunk=20"])
def test_a_dry_run_asks_nothing_and_says_what_would_be_sent(
    name: str, fake: Fake, service: Service, notes: Path, tmp_path: Path
) -> None:
    planned = service.embed(str(notes), "notes", encoders=[name], options=DRY)
    assert fake.asked == []
    assert not (tmp_path / "store").exists()
    assert (planned["found"], planned["skipped"], planned["embedded"]) == (12, 12, 0)
    chars = sum(len(line.split(",")[1]) for line in notes.read_text().splitlines()[1:])
    assert planned["sends"]["texts"] == 12
    assert chars / 4 <= planned["sends"]["tokens"] <= chars / 4 + 12
    assert (planned["space"] is None) == (planned["dim"] is None) == ("dimensions" not in name)
    service.embed(str(notes), "notes", encoders=[name])
    fake.asked.clear()
    again = service.embed(str(write_notes(notes, 15)), "notes", encoders=[name], options=DRY)
    assert fake.asked == []
    assert (again["unchanged"], again["skipped"], again["sends"]["texts"]) == (12, 3, 3)
    assert again["space"] == service.collection("notes").space(None).fingerprint


def test_a_dry_run_of_an_encoder_that_is_here_sends_nothing(service: Service, fake: Fake, notes: Path) -> None:
    planned = service.embed(str(notes), "notes", encoders=["hashing:64"], options=DRY)
    assert (planned["sends"], planned["dim"]) == (None, 64)


def test_what_is_embedded_is_found_with_the_same_model(service: Service, fake: Fake, notes: Path) -> None:
    service.embed(str(notes), "notes", encoders=["openai:tiny"])
    sent = [text for body in fake.asked for text in body["input"]]
    texts = [line.split(",")[1] for line in notes.read_text().splitlines()[1:]]
    assert sorted(text for text in sent if text in texts) == sorted(texts), "each text is paid for once"
    hits = service.search("notes", {"text": texts[3]}, k=1)["hits"]
    assert hits[0]["id"] == "n3"
    fake.asked.clear()
    service.embed(str(notes), "notes", encoders=["openai:tiny"])
    assert not [text for body in fake.asked for text in body["input"] if text in texts], "nothing is paid for twice"


def test_the_command_line_says_it_in_words_and_as_json(run: Run, fake: Fake, notes: Path, tmp_path: Path) -> None:
    words = ("--store", tmp_path / "store", "embed", notes, "--into", "notes", "--encoder", "openai:tiny", "--dry-run")
    said = run(*words)
    assert said.code == 0, said.err
    assert "sends" in said.out + said.err
    assert "12 texts, about" in said.out + said.err
    assert "known at the first call" in said.out + said.err
    assert run(*words, "--json").json["sends"]["texts"] == 12
    assert fake.asked == []


def test_the_key_is_written_nowhere(
    run: Run, fake: Fake, notes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ("--store", tmp_path / "store", "--debug", "embed", notes, "--into", "notes", "--encoder")
    good, bad = run(*words, "openai:tiny"), run(*words, "openai:nothing", "--json")
    assert (good.code, bad.code) == (0, 2)
    assert fake.keys[0] == f"Bearer {KEY}"
    shown = [good.out, good.err, bad.out, bad.err, caplog.text, repr(read_settings()), str(read_settings())]
    assert not [text for text in shown if KEY in text]
    written = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


def test_the_door_reads_the_same_settings(fake: Fake) -> None:
    assert Encoder("openai:tiny").dim == DIM
    assert json.dumps(fake.asked[0]["input"]) == '["dimension"]'


def test_without_settings_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().endpoint is None
    with pytest.raises(EncoderError, match="no endpoint is set"):
        Encoder("openai:tiny")
    monkeypatch.setenv("PERMAFROST_OPENAI_API_KEY", KEY)
    assert str(read_settings().endpoint).startswith("Endpoint(base_url='https://api.openai.com/v1'")
    monkeypatch.setenv("PERMAFROST_OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.delenv("PERMAFROST_OPENAI_API_KEY")
    assert read_settings().endpoint == read_settings(openai_base_url="http://127.0.0.1:1/v1").endpoint
