"""The transfer report end to end: planted collections, the contract's shape, what is kept, and a page that is safe."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import permafrost as pf
from api import compared, told
from api.service import Service
from api.settings import Settings
from heads.report.gather import Chosen, gather
from index import files
from tests.api.conftest import Said

HOSTILE = "<script>alert('x')</script>"
WORDS = {HOSTILE: "boat sea sail harbour wave", "money & more": "stock market price bank share"}
COMMON = ["the", "of", "and", "in", "a", "day", "year", "time", "new", "old", "man", "city"]
VALUES = {
    "transfer": {"helps", "hurts", "no_difference", "undecided"},
    "domain": {"fits", "shifted", "undecided", "no_reference"},
    "task": {"linear", "nonlinear", "other_layer", "absent", "noisy_labels", "too_few_labels", "leaking", "undecided"},
    "freeze": {"stay_frozen", "switch", "label_more", "pilot", "fine_tune", "undecided"},
}
PICTURES = 30


def texts(path: Path, n: int, seed: int = 0) -> Path:
    """n texts of each of two subjects: two words of the subject among six common ones; ids that a page must escape."""
    rng = np.random.default_rng(seed)
    rows = []
    for subject, words in WORDS.items():
        for k in range(n):
            said = [*rng.choice(words.split(), 2), *rng.choice(COMMON, 6)]
            rows.append({"id": f"{subject[:8]}-{k}", "text": " ".join(rng.permutation(said)), "kind": subject})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def shapes(folder: Path, n: int) -> Path:
    """Bright above or below on noise: pixels know it, a colour histogram does not."""
    rng = np.random.default_rng(1)
    for name, rows in (("above", slice(0, 8)), ("below", slice(8, 16))):
        (folder / name).mkdir(parents=True)
        for k in range(n):
            picture = rng.integers(0, 120, (16, 16, 3))
            picture[rows] += 60
            Image.fromarray(picture.astype(np.uint8)).save(folder / name / f"{k}.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def mlp() -> Iterator[pytest.MonkeyPatch]:
    """Leave out the non-linear head, which takes most of the time of a small report; one test undoes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.acts.reporting._mlp", lambda seed: None)
        yield patch


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A store with texts, a reference for them, few texts, and pictures."""
    root = tmp_path_factory.mktemp("reports")
    service = Service(Settings(store=str(root / "s"), workers=1, device="cpu"))
    for name, n in (("texts", 60), ("others", 60), ("few", 8)):
        source = texts(root / f"{name}.jsonl", n, seed=len(name))
        service.embed(str(source), name, encoders=["hashing:64"], content_column="text", id_column="id")
    service.embed(str(shapes(root / "shapes", PICTURES)), "shapes", encoders=["pixels:4"])
    yield service
    service.close()


@pytest.fixture(scope="module")
def made(home: Service) -> dict[str, Any]:
    """The report of the texts: one Space is there, one is missing, and a reference is named."""
    return home.report("texts", label="kind", encoders=["hashing:64", "hashing:16"], reference="others")


def test_the_shape_is_the_contracts(made: dict[str, Any]) -> None:
    assert {"verdicts", "encoders", "tables", "figures", "collection", "label", "seed", "path", "notes"} <= set(made)
    assert list(made["verdicts"]) == ["encoder", "transfer", "domain", "task", "freeze"]
    for name, verdict in made["verdicts"].items():
        assert {"value", "sentence", "interval", "evidence"} <= set(verdict)
        assert verdict["sentence"].endswith(".")
        assert name == "encoder" or verdict["value"] in VALUES[name]
    assert made["verdicts"]["encoder"]["value"] == "hashing:64"
    assert isinstance(made["verdicts"]["encoder"]["tied_with"], list)
    json.dumps(made, allow_nan=False)


def test_a_missing_space_is_extracted_and_has_its_cost(home: Service, made: dict[str, Any]) -> None:
    names = {space.encoder for space in home.collection("texts").spaces().values()}
    assert names == {"hashing:64", "hashing:16"}
    rows = {one["name"]: one for one in made["encoders"]}
    assert set(rows) == names
    assert rows["hashing:16"]["bytes_per_vector"] == 64
    assert all(one["items_per_second"] > 0 for one in rows.values())


def test_words_are_a_control_that_hashed_words_cannot_beat(made: dict[str, Any]) -> None:
    accuracy = {one["name"]: one["accuracy"] for one in made["tables"]["controls"]}
    assert set(accuracy) == {"tfidf", "tfidf with neighbours", "majority"}
    assert accuracy["tfidf"] > 0.95
    assert accuracy["majority"] == pytest.approx(0.5, abs=0.05)
    assert made["verdicts"]["transfer"]["value"] != "helps"


def test_the_reference_is_read_in_the_space_of_the_encoder(made: dict[str, Any]) -> None:
    assert made["verdicts"]["domain"]["value"] in ("fits", "undecided")
    assert sum(made["figures"]["domain"]["shares"]) == pytest.approx(1)
    assert all(0 < one["percentile"] <= 1 for one in made["tables"]["strangest"])


def test_what_is_kept_is_what_was_returned(home: Service, made: dict[str, Any]) -> None:
    folder = home.collection("texts").path / "reports" / str(made["report"])
    kept = files.read_json(folder / "report.json")
    assert kept["verdicts"] == json.loads(json.dumps(made["verdicts"]))
    assert made["path"] == str(folder / "report.html")
    assert not list(folder.parent.glob(".tmp*"))


def test_the_same_seed_gives_the_same_document(home: Service, made: dict[str, Any]) -> None:
    again = home.report("texts", label="kind", encoders=["hashing:64", "hashing:16"], reference="others")
    changing = ("report", "path", "seconds")
    assert {k: v for k, v in again.items() if k not in changing} == {k: v for k, v in made.items() if k not in changing}
    assert again["report"] == made["report"] + 1


def test_few_items_are_not_enough_and_how_many_are(home: Service) -> None:
    found = home.report("few", label="kind")
    assert {verdict["value"] for verdict in found["verdicts"].values()} == {"undecided"}
    assert "needs about" in found["verdicts"]["transfer"]["sentence"]
    assert "you have 16" in found["verdicts"]["encoder"]["sentence"]
    assert "undecided" in told.text(found)


def test_one_class_or_a_wrong_name_is_an_error(home: Service) -> None:
    with pytest.raises(pf.UnknownName, match="kind"):
        home.report("texts", label="kinds")
    with pytest.raises(pf.UsageError, match="at least 10 rows of 2 classes"):
        home.report("texts", label="kind", where="kind = 'money & more'", encoders=["hashing:64"])
    with pytest.raises(pf.UsageError, match="share from 0 to 1"):
        home.report("texts", label="kind", target=95)
    with pytest.raises(pf.UnknownName):
        home.report("texts", label="kind", encoders=["hashin:64"])


def test_a_wrong_column_is_told_before_anything_is_extracted(home: Service) -> None:
    before = set(home.collection("texts").spaces())
    for wrong in ({"label": "kinds"}, {"label": "kind", "group": "nowhere"}):
        with pytest.raises(pf.UnknownName, match="no column"):
            home.report("texts", **wrong, encoders=["hashing:48"])
    assert set(home.collection("texts").spaces()) == before


def test_pictures_are_decoded_again_for_their_controls(home: Service) -> None:
    found = home.report("shapes", label="label", seed=3)
    accuracy = {one["name"]: one["accuracy"] for one in found["tables"]["controls"]}
    assert set(accuracy) == {"pixels", "histogram", "pixels with neighbours", "histogram with neighbours", "majority"}
    assert accuracy["pixels"] > 0.95
    assert found["verdicts"]["transfer"]["value"] in ("no_difference", "undecided")
    page = Path(found["path"]).read_text()
    assert page.count("data:image/png;base64,") >= 12


def test_a_few_pictures_that_are_gone_are_left_out_and_many_end_the_control(home: Service) -> None:
    root = Path(home.settings.store).parent / "shapes" / "above"
    (root / "0.png").unlink()
    found = home.report("shapes", label="label")
    assert found["figures"]["items"] == 2 * PICTURES - 1
    assert any(note.startswith("1 pictures are gone") for note in found["notes"])
    for k in range(1, 12):
        (root / f"{k}.png").unlink()
    chosen = [Chosen(home.collection("shapes").space())]
    gathered = gather(home.collection("shapes"), "label", chosen, workers=1)
    assert [one.name for one in gathered.controls] == ["majority"]
    assert len(gathered.ids) == 2 * PICTURES
    assert any("pixels are no control" in note for note in gathered.notes)


def test_the_page_is_well_formed_escaped_and_needs_nothing_from_outside(made: dict[str, Any]) -> None:
    page = Path(made["path"]).read_text()
    root = ET.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    assert not [node for node in root.iter() if node.tag.endswith(("script", "link", "iframe"))]
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    for name in ("src", "href", "data", "action"):
        assert all(v.startswith("data:") for node in root.iter() if (v := node.get(name)))
    assert "http" not in page
    assert "url(" not in page
    assert "@import" not in page


def test_the_page_leads_with_the_verdicts_and_says_its_plots_in_words(made: dict[str, Any]) -> None:
    root = ET.fromstring(Path(made["path"]).read_text().removeprefix("<!DOCTYPE html>\n"))
    assert next(node.text for node in root.iter("h2")) == "Verdicts"
    plots = [node for node in root.iter("svg") if node.get("role") == "img"]
    assert len(plots) >= 4
    assert all(node.find("title") is not None and node.find("desc") is not None for node in plots)
    assert all(table.find("caption") is not None for table in root.iter("table"))
    assert all(cell.get("scope") in ("col", "row") for cell in root.iter("th"))
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert len(ids) == len(set(ids))


def test_the_command_prints_verdicts_first_or_one_document(
    home: Service, run: Any, tmp_path: Path, mlp: pytest.MonkeyPatch
) -> None:
    mlp.undo()
    command = ["--store", home.settings.store, "report", "texts", "--label", "kind", "--encoder", "hashing:16"]
    said: Said = run(*command, "--html", str(tmp_path / "r.html"), "--target", "0.5")
    assert said.code == 0, said.err
    assert said.out.index("Which encoder?") < said.out.index("encoders:")
    assert "stay frozen" in said.out
    assert "step 6 of 9: learning curves" in said.err
    kept = home.report_document("texts", home.reports("texts")["reports"][0]["report"])
    assert {one["head"] for one in kept["tables"]["heads"]} == {"linear", "knn", "mlp"}
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")
    said = run("--store", home.settings.store, "report", "few", "--label", "kind", "--json")
    assert said.json["verdicts"]["encoder"]["value"] == "undecided"


def test_the_door_returns_an_object_with_a_page(home: Service, tmp_path: Path) -> None:
    report = pf.open(home.settings.store).collection("few").report(label="kind", encoders=["hashing:64"])
    assert report.verdicts["encoder"]["value"] == "undecided"
    report.html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == Path(report.path).read_bytes()
    assert "Does pretraining help?" in repr(report)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["hashing:64"], [("hashing:64", "encoder", None)]),
        (
            ["timm:a?seed=1&weights=random", "timm:a", "timm:a?layer=-2"],
            [
                ("timm:a", "encoder", None), ("timm:a?layer=-2", "layer", "timm:a"),
                ("timm:a?seed=1&weights=random", "random", "timm:a"),
                ("timm:a?layer=-3", "layer", "timm:a"), ("timm:a?pooling=max", "layer", "timm:a"),
                *((f"timm:a?seed={k}&weights=random", "random", "timm:a") for k in (0, 2)),
            ],
        ),
        (["timm:a?layer=3"], [
            ("timm:a?layer=3", "encoder", None),
            *((f"timm:a?layer=3&seed={k}&weights=random", "random", "timm:a?layer=3") for k in range(3)),
        ]),
        (["declared:mine"], [("declared:mine", "encoder", None)]),
    ],
)  # fmt: skip
def test_what_belongs_to_an_encoder(asked: list[str], expected: list[tuple[str, str, str | None]]) -> None:
    found = compared.wanted(asked, layers=True, controls=True)
    plain = [(one.name, one.kind, one.of) for one in found]
    assert sorted((n, k) for n, k, _ in plain) == sorted((str(n), k) for n, k, _ in expected)
    assert [one for one in plain if one[1] == "layer"] == [one for one in expected if one[1] == "layer"]


def test_twins_of_several_encoders_are_drawn_once_until_one_is_known_to_be_best() -> None:
    found = compared.wanted(["timm:a", "timm:b", "hashing:8"], layers=False, controls=True)
    assert [one.name for one in found if one.kind == "random"] == [
        "timm:a?seed=0&weights=random", "timm:b?seed=0&weights=random",
    ]  # fmt: skip


def test_only_controls_are_nothing_to_compare() -> None:
    with pytest.raises(pf.UsageError, match="no encoder to compare"):
        compared.wanted(["timm:a?weights=random"], layers=True, controls=True)
