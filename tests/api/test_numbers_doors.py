"""A head that predicts a number, and one that looks its neighbours up, through every door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import permafrost as pf
from tests.api.conftest import Run
from tests.api.test_http import client_of
from tests.api.test_jobs import follow


def checked(result: dict[str, Any]) -> None:
    """What every door says of one number."""
    low, high = result["interval"]
    assert low < result["value"] < high
    assert result["label"] == f"{result['value']:.6g}"
    assert (result["probabilities"], result["prediction_set"]) == ({}, None)
    assert isinstance(result["abstained"], bool)


def test_every_door_gives_the_same_number(run: Run, store: Path, tmp_path: Path) -> None:
    words = ("--label", "year", "--head", "ridge", "--task", "regression", "--name", "age")
    trained = run("--store", store, "train", "notes", *words, "--json").json
    assert (trained["task"], trained["classes"], trained["n_test"]) == ("regression", [], 40)
    assert trained["metrics"].keys() >= {"r2", "r2_interval", "mae", "rmse", "mae_of_mean", "shuffled_r2"}
    shown = run("--store", store, "train", "notes", *words)
    assert shown.code == 0
    assert "r2" in (shown.out + shown.err).lower().replace("²", "2")
    result = run("--store", store, "classify", "notes/age@1", "--id", "n7", "--json").json["results"][0]
    checked(result)
    said = run("--store", store, "classify", "notes/age@1", "--id", "n7")
    assert result["label"] in said.out
    from_python = pf.open(store).collection("notes").head("age@1").predict(ids=["n7"])[0]
    with client_of(store) as client:
        reply = client.post("/v1/collections/notes/heads/age@1/predict", json={"inputs": [{"id": "n7"}]})
        from_http = reply.json()["results"][0]
        asked = {"label": "year", "kind": "ridge", "task": "regression", "space": "hashing:64", "name": "over"}
        done = follow(client, client.post("/v1/collections/notes/heads", json=asked))[-1][1]
        assert done["result"]["metrics"]["r2"] == pytest.approx(trained["metrics"]["r2"], abs=1e-6)
        wrong = client.post(
            "/v1/collections/notes/heads", json={"label": "label", "kind": "ridge", "task": "regression"}
        )
        assert "no finite number" in str(follow(client, wrong)[-1][1]["error"])
    for other in (from_python, from_http):
        checked(dict(other))
        assert other["value"] == pytest.approx(result["value"])


def test_neighbours_are_looked_up_through_every_door(run: Run, store: Path) -> None:
    assert run("--store", store, "train", "notes", "--label", "label", "--head", "knn", "--name", "near").code == 0
    words = ("--store", store, "classify", "notes/near", "--id", "n1", "--json")
    before = run(*words).json
    notes = pf.open(store).collection("notes")
    with client_of(store) as client:
        reply = client.post("/v1/collections/notes/heads/near/predict", json={"inputs": [{"id": "n1"}]})
        assert reply.json()["results"][0]["probabilities"] == pytest.approx(before["results"][0]["probabilities"])
        assert notes.delete(where="label = 'money' and id != 'n1'") == 19
        again = client.post("/v1/collections/notes/heads/near/predict", json={"inputs": [{"id": "n1"}]}).json()
    after = run(*words).json
    assert after["results"][0]["probabilities"]["money"] < before["results"][0]["probabilities"]["money"]
    assert again["results"][0]["probabilities"] == pytest.approx(after["results"][0]["probabilities"])
    assert "19 were deleted" in after["stale"]
