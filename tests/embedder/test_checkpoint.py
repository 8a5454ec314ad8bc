"""A tuned encoder on disk: what is read is what was written, damage is named, and it loads as an encoder by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embedder import checkpoint, golden
from embedder.encoder import load_encoder
from embedder.errors import EncoderError, SpaceMismatch, UnknownName, UsageError
from embedder.space import differences
from tests.checkpoints import TUNED_WEIGHT, timm_folder, tuned_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tuned_folder(tmp_path)


def test_what_is_read_is_what_was_written(folder: Path) -> None:
    found = checkpoint.read(folder)
    assert found.rows == {"seen": frozenset({"a", "b"}), "held_out": frozenset({"c"})}
    assert found.base.startswith("timm:local-dir:")
    assert found.facts["label"] == "kind"
    assert checkpoint.read(folder).digest == found.digest


def test_the_name_is_of_weights_and_base(tmp_path: Path) -> None:
    space = load_encoder(f"timm:local-dir:{timm_folder(tmp_path / 'a')}", device="cpu").space
    other = load_encoder(f"timm:local-dir:{timm_folder(tmp_path / 'b', seed=1)}", device="cpu").space
    rows, one, two = {"seen": ["x"], "held_out": []}, np.ones(3, np.float32), np.zeros(3, np.float32)
    every = [(w, base, n) for w in (one, two) for base in (space, other) for n in "ab"]
    named = {checkpoint.pack({"w": w}, base, rows, {"n": n})[0] for w, base, n in every}
    assert len(named) == 4, "what was measured is no part of it"
    assert all(len(name) == checkpoint.DIGITS for name in named)


def test_the_loaded_encoder_is_the_base_with_other_weights(folder: Path) -> None:
    found = checkpoint.read(folder)
    base, tuned = load_encoder(found.base, device="cpu"), load_encoder(f"tuned:{folder}", device="cpu")
    was, now = dict(base.module.named_parameters()), dict(tuned.module.named_parameters())
    changed = [name for name in was if not np.array_equal(was[name], now[name])]
    assert changed == [TUNED_WEIGHT]
    assert set(differences(base.space, tuned.space)) == {"weights.base", "weights.tuned", "weights.sha256"}
    assert tuned.space.identity["weights"]["tuned"] == found.digest
    assert tuned.space.encoder == str(tuned.name) == f"tuned:{folder}"
    assert tuned.space.provenance["tuned"]["base_space"] == base.space.fingerprint
    with pytest.raises(SpaceMismatch, match="is of Space"):
        base.space.require(tuned.space, what="the query")


def test_where_the_files_lie_is_no_part_of_the_space(folder: Path) -> None:
    at_home = load_encoder(f"tuned:{folder.name}?home={folder.parent}", device="cpu")
    assert at_home.space.encoder == f"tuned:{folder.name}"
    assert at_home.space.fingerprint == load_encoder(f"tuned:{folder}", device="cpu").space.fingerprint


def test_part_of_the_way_is_a_space_of_its_own(folder: Path) -> None:
    found, names = checkpoint.read(folder), (f"tuned:{folder}", f"tuned:{folder}?interpolate=0.25")
    base, (whole, part) = load_encoder(found.base, device="cpu"), (load_encoder(n, device="cpu") for n in names)
    a, b, c = (dict(one.module.named_parameters())[TUNED_WEIGHT].numpy() for one in (base, whole, part))
    assert np.allclose(c, 0.75 * a + 0.25 * b, atol=1e-6)
    assert set(differences(whole.space, part.space)) == {"weights.interpolate"}
    start = load_encoder(f"tuned:{folder}?interpolate=0", device="cpu")
    assert np.array_equal(golden.vectors(start)["image"], golden.vectors(base)["image"])
    for wrong in ("2", "-0.1", "half", "nan"):
        with pytest.raises(UsageError, match="from 0 to 1"):
            load_encoder(f"tuned:{folder}?interpolate={wrong}", device="cpu")


def test_half_precision_has_a_tuned_float32_model_for_what_does_not_fit(folder: Path) -> None:
    half = load_encoder(f"tuned:{folder}?dtype=bfloat16", device="cpu")
    assert half.exact is not None
    assert half.exact().space.fingerprint == load_encoder(f"tuned:{folder}", device="cpu").space.fingerprint


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def forge(path: Path) -> None:
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "base": "hashing:8"}))


@pytest.mark.parametrize(
    ("file", "damage"),
    [(checkpoint.WEIGHTS, flip), (checkpoint.WEIGHTS, Path.unlink), (checkpoint.MANIFEST, forge),
     (checkpoint.MANIFEST, Path.unlink), (checkpoint.MANIFEST, lambda path: path.write_text("{"))],
)  # fmt: skip
def test_damage_is_named(folder: Path, file: str, damage: Callable[[Path], None]) -> None:
    damage(folder / file)
    with pytest.raises(EncoderError, match=r"checksum|cannot be read|holds no tuned encoder"):
        load_encoder(f"tuned:{folder}", device="cpu")


def test_rows_are_checked_when_they_are_read(folder: Path) -> None:
    flip(folder / checkpoint.ROWS)
    with pytest.raises(EncoderError, match="checksum"):
        checkpoint.read(folder).rows  # noqa: B018


def test_another_base_under_the_same_name_is_refused(folder: Path) -> None:
    base = Path(checkpoint.read(folder).base.removeprefix("timm:local-dir:"))
    timm_folder(base, seed=5)
    with pytest.raises(EncoderError, match="other weights than when it was tuned"):
        load_encoder(f"tuned:{folder}", device="cpu")


def test_names_that_lead_nowhere(folder: Path) -> None:
    with pytest.raises(UnknownName, match="store"):
        load_encoder("tuned:abc", device="cpu")
    with pytest.raises(UsageError, match="no revisions"):
        load_encoder(f"tuned:{folder.name}@main", device="cpu")
    assert np.isfinite(golden.vectors(load_encoder(f"tuned:{folder}", device="cpu"))["image"]).all()
