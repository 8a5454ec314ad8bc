"""Settings: read in one place, frozen, and a name that does not exist is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from api.settings import Settings, read_settings
from embedder.errors import UnknownName, UsageError
from tests.api.conftest import Run


def test_a_misspelt_setting_is_refused_with_the_nearest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERMAFROST_STOER", "x")
    with pytest.raises(UnknownName, match="PERMAFROST_STOER") as caught:
        read_settings()
    assert "PERMAFROST_STORE" in caught.value.hint


def test_the_command_line_refuses_it_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERMAFROST_DEVCE", "cpu")
    said = run("ls", "--json")
    assert said.code == 2
    assert "PERMAFROST_DEVICE" in said.json["error"]["hint"]


def test_a_value_of_the_wrong_type_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERMAFROST_WORKERS", "many")
    with pytest.raises(UsageError, match="PERMAFROST_WORKERS"):
        read_settings()


def test_what_is_given_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERMAFROST_STORE", "of the environment")
    assert read_settings().store == "of the environment"
    assert read_settings(store="given", device=None).store == "given"
    assert read_settings(workers=3).decode_workers == 3


def test_a_wrong_runtime_is_refused_as_a_flag_and_as_a_setting(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.csv").write_text("text\nfrost\n", encoding="utf-8")
    embed = ("--store", tmp_path / "s", "embed", tmp_path / "t.csv", "--into", "c", "--encoder", "hashing:8", "--json")
    said = run(*embed, "--runtime", "openvinno")
    assert said.code == 2
    assert "openvino" in said.json["error"]["hint"]
    monkeypatch.setenv("PERMAFROST_RUNTIME", "onx")
    assert "onnx" in run(*embed).json["error"]["hint"]
    assert run(*embed, "--runtime", "torch").code == 0


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().store = "other"  # type: ignore[misc]
