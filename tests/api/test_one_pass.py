"""`embed` with several encoders of one model, from the command line: decoded once, and one pass a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedder.encoder import load_encoder
from embedder.pool import DecodePool
from embedder.records import Item
from index.store import Store
from tests.api.conftest import COLOURS, PER_COLOUR, Run
from tests.checkpoints import timm_folder

PICTURES = len(COLOURS) * PER_COLOUR
BATCH = 5


def test_three_spaces_from_one_pass(run: Run, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = f"timm:local-dir:{timm_folder(tmp_path / 'model', 'test_efficientnet')}"
    names = [f"{base}?layer=-1", f"{base}?layer=-3&pooling=max", base]
    decoded: list[str] = []
    batches: list[int] = []
    decode, call = DecodePool.map, torch.nn.Conv2d.forward

    def watched(pool: DecodePool, items: Iterable[Item], *rest: Any, **more: Any) -> Iterator[Any]:
        def seen() -> Iterator[Item]:
            for item in items:
                decoded.append(item.id)
                yield item

        return decode(pool, seen(), *rest, **more)

    def counted(module: Any, pixels: torch.Tensor) -> torch.Tensor:
        if decoded and module.in_channels == 3:
            batches.append(len(pixels))
        return call(module, pixels)

    monkeypatch.setattr(DecodePool, "map", watched)
    monkeypatch.setattr(torch.nn.Conv2d, "forward", counted)
    encoders = [word for name in names for word in ("--encoder", name)]
    words = ("--store", tmp_path / "s", "embed", sources / "pics", "--into", "pics", "--batch-size", BATCH, "--json")
    said = run(*words, *encoders)
    assert said.code == 0, said.err
    assert len(decoded) == len(set(decoded)) == PICTURES
    assert sum(batches) == PICTURES
    assert len(batches) == -(-PICTURES // BATCH)
    monkeypatch.undo()
    alone = [load_encoder(name) for name in names]
    assert [r["space"] for r in said.json["runs"]] == [e.space.fingerprint for e in alone]
    assert [(r["found"], r["embedded"]) for r in said.json["runs"]] == [(PICTURES, PICTURES)] * 3
    collection = Store.open(tmp_path / "s").collection("pics")
    one = run("--store", tmp_path / "apart", *words[2:], "--encoder", names[1])
    assert one.code == 0
    expected = vectors(Store.open(tmp_path / "apart").collection("pics"), alone[1].space)
    found = vectors(collection, alone[1].space)
    assert found.keys() == expected.keys()
    for id, row in found.items():
        np.testing.assert_allclose(row, expected[id], rtol=1e-4, atol=1e-6)
    again = run(*words, *encoders)
    assert [(r["embedded"], r["unchanged"]) for r in again.json["runs"]] == [(0, PICTURES)] * 3


def vectors(collection: Any, space: Any) -> dict[str, Any]:
    return {r["id"]: np.asarray(r["vector"]) for r in collection.vectors(space).search().to_arrow().to_pylist()}
