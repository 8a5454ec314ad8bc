from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import normalize

from embedder.errors import UsageError
from heads.calibration import Calibration
from heads.export import export
from heads.honest import Wishes
from heads.saved import Head, load_head
from heads.train import train
from tests.heads.tools import animals, task_of, worded

DOCS = Path(__file__).resolve().parents[2] / "docs" / "heads.md"
KINDS = ["linear", "ridge", "prototype", "lda", "mlp"]


def trained(folder: Path, kind: str) -> tuple[Head, Any]:
    collection = animals(folder, encoder=worded(0.7))
    train(collection, label="label", kind=kind, wishes=Wishes(controls=False))
    return load_head(collection, "label"), task_of(collection).X


def documented() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S):
        if "def " in block:
            exec(block, names)
    return names


@pytest.mark.parametrize(
    "calibration",
    [None, Calibration("temperature", (0.4,), (0.0,)), Calibration("vector", (0.4, 1.5, 1.1), (0.1, 0.0, -0.3))],
)
@pytest.mark.parametrize("kind", KINDS)
def test_other_programs_get_the_same_probabilities(kind: str, calibration: Calibration | None, tmp_path: Path) -> None:
    import onnxruntime

    head, X = trained(tmp_path, kind)
    if calibration is not None:
        assert head.guard is not None
        head = replace(head, guard=replace(head.guard, calibration=calibration))
    expected = np.array([[p.probabilities[name] for name in head.classes] for p in head.predict(X)])
    export(head, tmp_path / "h.npz")
    classes, predict_proba = documented()["load_head"](tmp_path / "h.npz")
    assert classes.tolist() == head.classes
    assert predict_proba(X.astype(np.float64)) == pytest.approx(expected, abs=1e-9)
    done = export(head, tmp_path / "h.onnx")
    session = onnxruntime.InferenceSession(done["path"], providers=["CPUExecutionProvider"])
    (found,) = session.run(["probabilities"], {"vectors": X})
    assert found == pytest.approx(expected, abs=1e-5)
    facts = session.get_modelmeta().custom_metadata_map
    assert (facts["space"], facts["classes"].split("\n")) == (head.space.fingerprint, head.classes)


@pytest.mark.parametrize("kind", ["linear", "prototype"])
def test_a_plain_estimator_of_scikit_learn_says_the_same(kind: str, tmp_path: Path) -> None:
    head, X = trained(tmp_path, kind)
    export(head, tmp_path / "h.npz")
    model = documented()["as_scikit_learn"](tmp_path / "h.npz")
    rows = normalize(X) if kind == "prototype" else X
    assert model.predict_proba(rows.astype(np.float64)) == pytest.approx(
        np.array([[p.probabilities[name] for name in head.classes] for p in head.predict(X)]), abs=1e-6
    )
    assert model.predict(rows).tolist() == [p.label for p in head.predict(X)]


def test_what_cannot_be_exported_says_why(tmp_path: Path) -> None:
    head, _ = trained(tmp_path, "knn")
    with pytest.raises(UsageError, match="vectors it was fitted to"):
        export(head, tmp_path / "h.onnx")
    with pytest.raises(UsageError, match="neither"):
        export(head, tmp_path / "h.pkl")
