"""Tuned encoders in a store: found by name from any collection, written whole or not at all, swept when left over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedder import checkpoint
from embedder.errors import UnknownName, UsageError
from index import files, tuned, vacuum
from tests.checkpoints import tuned_folder
from tests.index.tools import fresh

CONTENTS = {checkpoint.WEIGHTS: b"w", checkpoint.ROWS: b"r", checkpoint.MANIFEST: b"m"}


def test_a_name_of_the_store_gets_its_place_and_every_other_stays(tmp_path: Path) -> None:
    collection = fresh(tmp_path / "s" / "c")
    root = collection.path.parent
    made = tuned_folder(tmp_path)
    place = tuned.save(collection.path / tuned.HOME, made.name, {p.name: p.read_bytes() for p in made.iterdir()})
    assert tuned.names(root) == [f"tuned:{made.name}"]
    assert tuned.located(f"tuned:{made.name}?interpolate=0.5", root) == (
        f"tuned:{made.name}?home={place.parent}&interpolate=0.5"
    )
    for name in ("hashing:16", "tuned:./folder", f"tuned:{made.name}?home=/elsewhere"):
        assert tuned.located(name, root) == name
    with pytest.raises(UnknownName, match=f"did you mean tuned:{made.name}"):
        tuned.located(f"tuned:{made.name[:-1]}0x", root)
    with pytest.raises(UnknownName, match="permafrost finetune makes one"):
        tuned.located("tuned:abc", tmp_path / "nowhere")


def test_a_name_does_not_lead_out_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "s" / "c" / "tuned").mkdir(parents=True)
    made = tuned_folder(tmp_path)
    made.rename(tmp_path / "s" / "c" / "tuned" / made.name)
    for name in ("tuned:*", f"tuned:{made.name}/..", "tuned:[a-f0-9]*", f"tuned:x/../{made.name}"):
        with pytest.raises(UnknownName):
            tuned.located(name, tmp_path / "s")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(4):
        seen: list[str] = []

        def fail(point: str, n: int = n, seen: list[str] = seen) -> None:
            seen.append(point)
            if len(seen) > n:
                raise OSError("no space left on device")

        monkeypatch.setattr(files, "fault", fail)
        with pytest.raises(OSError, match="no space"):
            tuned.save(tmp_path / "tuned", "abc", CONTENTS)
        assert not list((tmp_path / "tuned").iterdir())
    monkeypatch.undo()
    place = tuned.save(tmp_path / "tuned", "abc", CONTENTS)
    again = tuned.save(tmp_path / "tuned", "abc", {**CONTENTS, checkpoint.MANIFEST: b"other"})
    assert place == again
    assert {p.name: p.read_bytes() for p in place.iterdir()} == {**CONTENTS, checkpoint.MANIFEST: b"other"}


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    collection = fresh(tmp_path / "s")
    home = collection.path / tuned.HOME
    dead, alive = home / f".tmp-{2**22 + 1}-x", home / f".tmp-{os.getpid()}-x"
    for folder in (dead, alive):
        folder.mkdir(parents=True)
    assert dead in vacuum.leftovers(collection)
    assert alive not in vacuum.leftovers(collection)
    assert tuned.damaged(collection) == []


def test_out_is_a_new_folder(tmp_path: Path) -> None:
    assert tuned.check_out(str(tmp_path / "new")) == tmp_path / "new"
    with pytest.raises(UsageError, match="exists"):
        tuned.check_out(str(tmp_path))
