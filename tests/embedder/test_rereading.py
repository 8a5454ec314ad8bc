"""Items read again: in their order, prepared as an extraction prepares them, and every gap named."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from embedder.encoder import load_encoder
from embedder.errors import OutOfResource, Undecodable
from embedder.records import Failure, Item
from embedder.rereading import reread
from tests.pictures import tinted


def test_pictures_are_those_of_an_extraction(tmp_path: Path) -> None:
    encoder = load_encoder("pixels:8")
    files = sorted(tinted(tmp_path, 6).rglob("*.png"))
    entries: list[Item | Failure] = [Item(id=f.name, medium="image", source=str(f), path=str(f)) for f in files]
    entries[2] = Failure("x", "x", "read", "missing", "OSError", "gone")
    files[4].write_bytes(b"no picture")
    found = reread(entries, encoder, "image", workers=1, scratch=tmp_path)
    assert [h is None for h in found.hashes] == [False, False, True, False, True, False]
    assert {one.id for one in found.failures} == {"x", files[4].name}
    assert found.hashes[0] == hashlib.sha256(files[0].read_bytes()).hexdigest()
    from PIL import Image

    for at in (5, 0, 3):
        assert np.array_equal(found.take([at])[0], encoder.prepare(Image.open(files[at]))[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["even", "odd"], "the file of pixels has no name"


def test_texts_are_in_their_order_and_remote_ones_are_fetched(tmp_path: Path) -> None:
    def lost() -> bytes:
        raise Undecodable("the server is gone", stage="read", reason="unreachable")

    encoder = load_encoder("hashing:16")
    texts = ["frost", "", "a much longer text about snow", "ice"]
    entries: list[Item | Failure] = [
        Item(id=f"t{i}", medium="text", source=f"t{i}", text=text) for i, text in enumerate(texts)
    ]
    entries.insert(1, Item(id="r", medium="text", source="http://x", remote=lambda: b"heat"))
    entries.append(Item(id="l", medium="text", source="http://y", remote=lost))
    found = reread(entries, encoder, "text", workers=1, scratch=tmp_path)
    wanted = ["frost", "heat", "", texts[2], "ice", ""]
    for at, text in enumerate(wanted):
        if text:
            assert found.values[at] == encoder.prepare(text)[1]
            assert found.hashes[at] == hashlib.sha256(text.encode()).hexdigest()
    assert [h is None for h in found.hashes] == [not text for text in wanted]
    assert {one.reason for one in found.failures} == {"empty_text", "unreachable"}


def test_no_room_for_pixels_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    item = Item(id="a", medium="image", source="a", path=str(tmp_path / "a.png"))
    with pytest.raises(OutOfResource, match="do not fit on the disk"):
        reread([item], load_encoder("pixels:8"), "image", workers=1, scratch=tmp_path)
