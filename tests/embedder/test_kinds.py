"""A file in a kinds folder is a kind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from embedder import kinds
from embedder.errors import UnknownName


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "kinds_under_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "walnut.py").write_text("SHELL = 'hard'")
    (folder / "almond.py").write_text("raise RuntimeError('imported')")
    (folder / "_shared.py").write_text("")
    (folder / "notes.txt").write_text("")
    (folder / "pecan").mkdir()
    (folder / "pecan" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [n for n in sys.modules if n.startswith("kinds_under_test")]:
        monkeypatch.delitem(sys.modules, name)
    return "kinds_under_test"


def test_listing_imports_nothing(package: str) -> None:
    assert kinds.names(package) == ["almond", "pecan", "walnut"]
    assert not [name for name in sys.modules if name.startswith(f"{package}.")]


def test_a_kind_is_loaded_by_name(package: str) -> None:
    assert kinds.load(package, "walnut").SHELL == "hard"
    with pytest.raises(RuntimeError, match="imported"):
        kinds.load(package, "almond")


@pytest.mark.parametrize("name", ["walnuts", "_shared", "notes", "", "../walnut", "pecan.inner", "os"])
def test_what_is_no_kind_is_refused(package: str, name: str) -> None:
    with pytest.raises(UnknownName, match="no nut is called") as caught:
        kinds.load(package, name, "nut")
    assert caught.value.where == package
    assert ("pecan" if name.startswith("pecan") else "walnut") in caught.value.hint


def test_new_files_are_kinds_at_once(package: str, tmp_path: Path) -> None:
    kinds.names(package)
    (tmp_path / package / "hazel.py").write_text("")
    assert "hazel" in kinds.names(package)


def test_ours_are_there() -> None:
    assert set(kinds.names("embedder.sources")) >= {"folder", "table"}
    assert {"hashing", "bundled", "timm", "open_clip"} <= set(kinds.names("embedder.encoders"))
