"""Fine-tuning end to end: a planted gain, none at the ceiling, nothing leaks, and every door."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import permafrost as pf
from api.app import create_app
from api.asked import FinetuneRequest
from api.awaited import Awaited
from api.commands.finetune import line
from api.service import Service
from api.serving import Serving
from api.settings import Settings
from embedder import checkpoint
from embedder.errors import EncoderError, SpaceMismatch, Undecodable, UnknownName, UsageError
from embedder.recipe import Recipe, Step
from heads import saved
from heads.report import pilot
from index import tuned
from index.features import features
from index.selection import IngestOptions
from tests.api.conftest import Run
from tests.checkpoints import timm_folder
from tests.pictures import tinted

N = 240
RECIPE = {"lr": 3e-3, "epochs": 8, "patience": 8}
CHEAP = {"layers": False, "controls": False}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """A store with pictures that frozen random features do not tell apart, and some that they do."""
    root = tmp_path_factory.mktemp("tuning")
    model = timm_folder(root / "model", input_size=(3, 32, 32))
    service = Service(Settings(store=str(root / "s"), workers=1, device="cpu"))
    encoder = f"timm:local-dir:{model}"
    service.embed(str(tinted(root / "faint", N)), "faint", encoders=[encoder])
    service.embed(str(tinted(root / "plain", 120, strength=(90, 0), either=False)), "plain", encoders=[encoder])
    yield service, encoder
    service.close()


@pytest.fixture(scope="module")
def made(home: tuple[Service, str]) -> dict[str, Any]:
    service, encoder = home
    return service.finetune("faint", label="label", encoder=encoder, **RECIPE)


def test_what_tuning_finds_is_a_gain(home: tuple[Service, str], made: dict[str, Any]) -> None:
    metrics = made["metrics"]
    assert metrics["frozen_accuracy"] < 0.75
    assert metrics["accuracy"] > 0.85
    assert metrics["gain_interval"][0] > 0
    assert made["sentence"].startswith("Fine-tuning gains")
    assert {"space", "metrics", "compared_with"} <= set(made)
    assert made["compared_with"]["encoder"] == home[1]
    assert made["space"] != made["compared_with"]["space"]
    assert metrics["n_fit"] + metrics["n_validation"] + metrics["n_test"] == N


def test_at_the_ceiling_no_gain_is_claimed(home: tuple[Service, str]) -> None:
    service, encoder = home
    found = service.finetune("plain", label="label", encoder=encoder, epochs=1)
    assert found["metrics"]["frozen_accuracy"] == 1
    assert found["metrics"]["gain"] <= 0
    assert found["metrics"]["gain_interval"][0] <= 0 <= found["metrics"]["gain_interval"][1]
    assert found["sentence"].startswith("No gain is shown: 100.0 % against 100.0 % frozen.")
    report = service.report("plain", label="label", **CHEAP)
    assert report["verdicts"]["freeze"]["value"] != "fine_tune"
    assert report["verdicts"]["freeze"]["evidence"]["pilot"]["gain"]["difference"] <= 0


def test_the_new_space_is_whole_and_of_the_encoder_by_its_name(home: tuple[Service, str], made: dict[str, Any]) -> None:
    service, collection = home[0], home[0].collection("faint")
    assert made["encoder"].startswith("tuned:")
    space = collection.space(made["encoder"])
    assert space.fingerprint == made["space"]
    assert len(features(collection, space)) == N
    encoder = Service(service.settings).encoder(made["encoder"])
    assert encoder.space.fingerprint == made["space"]
    assert service.verify("faint", sample=8)["ok"]
    hit = service.search("faint", {"image": str(next(Path(collection.settings["roots"][""]).rglob("*.png")))}, k=1,
                         space=made["space"])["hits"][0]  # fmt: skip
    assert hit["score"] == pytest.approx(1, abs=1e-4)
    assert made["encoder"] in service.catalogue("TUNED")


def test_the_rows_it_saw_are_recorded_and_none_of_them_is_scored(
    home: tuple[Service, str], made: dict[str, Any]
) -> None:
    collection = home[0].collection("faint")
    rows = tuned.of(collection, collection.space(made["space"])).rows
    assert not rows["seen"] & rows["held_out"]
    assert len(rows["seen"]) == made["metrics"]["n_fit"] + made["metrics"]["n_validation"]
    assert len(rows["held_out"]) == made["metrics"]["n_test"]
    head = home[0].train("faint", label="label", space=made["space"], name="after")
    assert head["n_test"] == made["metrics"]["n_test"]
    kept = saved.load_head(collection, "after").manifest
    assert "did not see" in kept["split"]


def test_probes_of_the_report_predict_only_unseen_rows(
    home: tuple[Service, str], made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, asked = home[0].collection("faint"), []
    whole, predicted = features(collection, collection.space(made["space"]), ["content_hash"]), pilot.predicted

    def spy(X: Any, y: Any, units: Any, train: Any, test: Any, seed: int) -> Any:
        asked.append((X, train, test))
        return predicted(X, y, units, train, test, seed)

    monkeypatch.setattr(pilot, "predicted", spy)
    report = home[0].report("faint", label="label", **CHEAP)
    seen = tuned.seen(collection, collection.space(made["space"]))
    tuned_asked = [one for one in asked if one[0].shape == whole.X.shape and np.array_equal(one[0], whole.X)]
    assert len(asked) == 2
    assert len(tuned_asked) == 1
    hashes = np.array(whole.columns["content_hash"])
    for _, train, test in asked:
        assert set(hashes[train]) == seen
        assert not set(hashes[test]) & seen
        assert len(test) == made["metrics"]["n_test"]
    assert [one["name"] for one in report["encoders"]] == [home[1]], "in no ranking"
    verdict = report["verdicts"]["freeze"]
    assert verdict["value"] == "fine_tune"
    assert verdict["sentence"].startswith(f"Fine-tuning pays: {made['encoder']} gets ")
    assert verdict["evidence"]["pilot"]["gain"]["difference"] == pytest.approx(made["metrics"]["gain"])
    assert verdict["interval"] == pytest.approx(made["metrics"]["gain_interval"])
    assert any("tuned on" in note and "did not see" in note for note in report["notes"])


def test_a_report_of_another_label_leaves_it_out(home: tuple[Service, str], made: dict[str, Any]) -> None:
    service = home[0]
    source = service.collection("faint").settings["roots"][""]
    service.embed(source, "faint", encoders=[home[1]], options=IngestOptions(rename={"label": "other"}))
    report = service.report("faint", label="other", encoders=[made["encoder"]], **CHEAP)
    assert report["verdicts"]["freeze"]["evidence"]["pilot"] is None
    assert [one["name"] for one in report["encoders"]] == [home[1]], "its base takes its place"
    assert any("was left out: it was tuned on 'label'" in note for note in report["notes"])


def test_same_seed_same_encoder(home: tuple[Service, str], made: dict[str, Any], tmp_path: Path) -> None:
    again = Service(
        Settings(store=str(shutil.copytree(home[0].settings.store, tmp_path / "s")), workers=1, device="cpu")
    )
    with closing(again):
        shutil.rmtree(again.collection("faint").path / tuned.HOME)
        found = again.finetune("faint", label="label", encoder=home[1], **RECIPE)
    assert (found["encoder"], found["space"]) == (made["encoder"], made["space"])
    assert found["metrics"]["gain_interval"] == made["metrics"]["gain_interval"]


def test_heads_of_the_frozen_space_refuse_the_new_one(home: tuple[Service, str], made: dict[str, Any]) -> None:
    service = home[0]
    service.train("faint", label="label", space=made["compared_with"]["space"], name="before")
    with pytest.raises(SpaceMismatch, match="is of Space"):
        service.classify("faint", "before", [{"vector": [0.1] * 4}], space=made["space"])


def test_damage_is_found_and_a_backup_holds_it(home: tuple[Service, str], made: dict[str, Any], tmp_path: Path) -> None:
    service = home[0]
    service.backup(["faint"], str(tmp_path / "b"))
    weights = Path("tuned") / made["encoder"].removeprefix("tuned:") / checkpoint.WEIGHTS
    mine = service.collection("faint").path / weights
    assert (tmp_path / "b" / "faint" / weights).read_bytes() == mine.read_bytes()
    data = mine.read_bytes()
    mine.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    try:
        verdict = service.verify("faint", sample=0)
        assert not verdict["ok"]
        assert any("checksum" in problem["what"] for problem in verdict["problems"])
        with pytest.raises(EncoderError, match="checksum"):
            Service(service.settings).encoder(made["encoder"])
    finally:
        mine.write_bytes(data)


def test_what_is_wrong_is_said_before_anything_is_done(home: tuple[Service, str], tmp_path: Path) -> None:
    service, encoder = home
    asked: dict[str, Any] = {"label": "label", "encoder": encoder}
    for wrong, kind, why in (
        ({"encoder": "hashing:16"}, UsageError, "no weights"),
        ({"label": "lable"}, UnknownName, "lable"),
        ({"method": "magic"}, UsageError, "lp_ft"),
        ({"epoch": 3}, UsageError, "finetune takes no 'epoch'"),
        ({"out": str(tmp_path)}, UsageError, "exists"),
        ({"limit": 20}, UsageError, "too few"),
    ):
        with pytest.raises(kind, match=why):
            service.finetune("faint", **{**asked, **wrong})
    made = service.store().collection("plain")
    before = set(made.spaces())
    with pytest.raises(KeyboardInterrupt):
        service.finetune("plain", **asked, seed=3, step=interrupt)
    assert set(made.spaces()) == before
    assert not list((made.path / tuned.HOME).glob(".tmp-*"))


def interrupt(step: Step) -> None:
    raise KeyboardInterrupt


def test_files_that_are_gone_or_changed_are_named(home: tuple[Service, str], tmp_path: Path) -> None:
    service, encoder = home
    pictures = tinted(tmp_path / "pics", 100, seed=9)
    service.embed(str(pictures), "gone", encoders=[encoder])
    files = sorted(pictures.rglob("*.png"))
    files[0].unlink()
    files[1].write_bytes(files[2].read_bytes())
    found = service.finetune("gone", label="label", encoder=encoder, epochs=1, out=str(tmp_path / "mine"))
    assert found["unreadable"] == 2
    assert found["encoder"] == f"tuned:{tmp_path / 'mine'}"
    assert pf.Encoder(found["encoder"]).space.fingerprint == found["space"]
    for file in files[3:20]:
        file.unlink()
    with pytest.raises(Undecodable, match="cannot be read again"):
        service.finetune("gone", label="label", encoder=encoder, epochs=1)


def test_the_command_line(home: tuple[Service, str], run: Run) -> None:
    service, encoder = home
    words = ["--store", service.settings.store, "finetune", "plain", "--label", "label", "--encoder", encoder]
    said = run(*words, "--epochs", 1, "--interpolate", 0.5, "--seed", 1)
    assert said.code == 0, said.err
    assert "epoch 1/1: loss" in said.err
    assert "verdict" in said.out
    assert "tuned:" in said.out
    assert run(*words, "--method", "lora", "--json").code == 2
    assert run(*words, "--epochs", 1, "--json").json["metrics"]["n_test"] == 24
    assert run("--store", service.settings.store, "encoders", "tuned:").out.count("tuned:") >= 3


def test_a_line_says_how_far_it_is() -> None:
    step = Step(epoch=2, epochs=10, step=20, steps=100, loss=0.5, seconds=60.0)
    assert line(step) == "epoch 2/10: loss 0.500, 1 min 0 s, at most 4 min 0 s more"
    assert "validation 0.250, 75.0 % right" in line(replace(step, validation=0.25, accuracy=0.75))


def test_over_http_it_is_a_job(home: tuple[Service, str]) -> None:
    service, encoder = home
    serving = Serving(service.settings)
    asked = {"label": "label", "encoder": encoder, "epochs": 1, "seed": 2}
    with closing(serving), TestClient(create_app(serving), base_url="http://127.0.0.1") as client:
        begun = client.post("/v1/collections/plain/finetune", json=asked)
        assert begun.status_code == 202
        events = client.get(f"{begun.headers['location']}/events").text
        job = client.get(begun.headers["location"]).json()
        assert "tuning" in events or job["progress"]
        assert job["state"] == "finished", job["error"]
        assert job["result"]["metrics"]["n_test"] == 24
        assert client.post("/v1/collections/plain/finetune", json={**asked, "method": "x"}).status_code == 422
        found = client.post("/v1/collections/plain/search", json={
            "query": {"id": service.features("plain", space=job["result"]["space"])["ids"][0]},
            "space": job["result"]["space"], "k": 1,
        })  # fmt: skip
        assert found.json()["encoder"] == job["result"]["encoder"]


def test_in_python(home: tuple[Service, str]) -> None:
    with closing(pf.open(home[0].settings.store, device="cpu", workers=1)) as store:
        plain = store.collection("plain")
        done = plain.finetune("label", home[1], epochs=1, limit=80, seed=4)
        X, _, _ = plain.features(space=done["space"])
        assert len(X) == 120
        assert done["metrics"]["n_fit"] + done["metrics"]["n_validation"] + done["metrics"]["n_test"] == 80


def test_a_store_behind_a_service_begins_the_job_there(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Any] = []

    def job(self: Any, name: str, kind: str, asked: Any) -> dict[str, Any]:
        begun.append((name, kind, dict(asked)))
        return {"space": "f"}

    monkeypatch.setattr(Awaited, "_job", job)
    with closing(pf.open("http://127.0.0.1:9")) as store:
        found = store.collection("c").finetune("label", "bundled:minilm", method="lora", epochs=2)
    assert found["space"] == "f"
    asked = {"label": "label", "encoder": "bundled:minilm", "method": "lora", "epochs": 2}
    assert begun == [("c", "finetune", asked)]
    rows = {"label", "encoder", "split", "group", "where", "min_class_size", "limit"}
    assert set(FinetuneRequest.model_fields) - rows <= set(Recipe.__dataclass_fields__)
