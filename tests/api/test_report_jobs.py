"""Reports over HTTP and behind a service: choices pass, steps are told, an end is asked for, pages are kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import permafrost as pf
from api.acts.reporting import Reporting
from api.answers import Report
from api.app import create_app
from api.service import Service
from api.serving import Served, Serving
from api.settings import Settings
from heads.report.steps import PHASES, Step, silent
from tests.api.conftest import finish
from tests.api.test_jobs import WAIT_S, ended, follow
from tests.api.test_report import texts
from tests.api.test_serve import serve

PER_SUBJECT = 30
LABEL = {"label": "kind"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with texts enough for a report, a reference for them, and texts too few."""
    root = tmp_path_factory.mktemp("report-jobs")
    with closing(Service(Settings(store=str(root / "s"), workers=1, device="cpu"))) as service:
        for name, n in (("texts", PER_SUBJECT), ("others", PER_SUBJECT), ("few", 8)):
            source = texts(root / f"{name}.jsonl", n, seed=len(name))
            service.embed(str(source), name, encoders=["hashing:16"], content_column="text", id_column="id")
    return root / "s"


@pytest.fixture(scope="module", autouse=True)
def _without_mlp() -> Iterator[None]:
    """Leave out the non-linear head, which takes most of the time of a small report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.acts.reporting._mlp", lambda seed: None)
        yield


@pytest.fixture(scope="module")
def client(place: Path) -> Iterator[TestClient]:
    service = Serving(Settings(store=str(place), workers=1, device="cpu"), Served())
    with closing(service), TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        yield client


ASKED = {
    **LABEL, "encoders": ["hashing:16", "hashing:8"], "reference": "others", "target": 0.5, "human": 0.1, "delta": 0.05,
    "layers": False, "controls": True, "group": "kind_of_source", "where": "kind IS NOT NULL", "min_class_size": 4,
    "html": False, "seed": 3,
}  # fmt: skip


def test_every_choice_of_the_command_line_reaches_the_act(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def act(self: Any, name: str, /, watch: Any, say: Any, **asked: Any) -> dict[str, Any]:
        seen.update(asked)
        return {"report": 1}

    monkeypatch.setattr(Reporting, "report", act)
    end = follow(client, client.post("/v1/collections/texts/reports", json=ASKED))[-1][1]
    assert seen == ASKED
    assert end["result"]["path"] == "/v1/collections/texts/reports/1/html"


def test_a_report_is_a_job_with_steps_whose_result_and_page_stay(client: TestClient) -> None:
    asked = {**LABEL, "encoders": ["hashing:16", "hashing:8"], "reference": "others", "seed": 3}
    job = follow(client, client.post("/v1/collections/texts/reports", json=asked))[-1][1]
    assert job["state"] == "finished", job["error"]
    assert job["progress"]["phase"] == "scores"
    assert job["progress"]["step"] == job["progress"]["steps"] == len(PHASES)
    made = job["result"]
    assert (made["seed"], made["reference"], made["verdicts"]["domain"]["value"] == "no_reference") == (
        3, "others", False,
    )  # fmt: skip
    assert {one["name"] for one in made["encoders"]} == {"hashing:16", "hashing:8"}
    assert client.get(f"/v1/collections/texts/reports/{made['report']}").json() == made
    page = client.get(made["path"])
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.text.startswith("<!DOCTYPE html>")
    again = client.app.state.service.report("texts", **asked)  # type: ignore[attr-defined]
    changing = ("report", "path", "seconds")
    assert {k: v for k, v in again.items() if k not in changing} == {k: v for k, v in made.items() if k not in changing}
    _, line = client.get("/v1/collections/texts/reports").json()["reports"]
    assert line["report"] == made["report"]
    assert line["verdicts"] == {name: one["value"] for name, one in made["verdicts"].items()}


def test_without_a_page_one_is_made_when_it_is_asked_for(client: TestClient) -> None:
    job = follow(client, client.post("/v1/collections/few/reports", json={**LABEL, "html": False}))[-1][1]
    kept = Path(client.app.state.service.collection("few").path) / "reports" / str(job["result"]["report"])  # type: ignore[attr-defined]
    assert [path.name for path in kept.iterdir()] == ["report.json"]
    assert "Not enough data to say" in client.get(job["result"]["path"]).text


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"target": 95}, 422), ({"seed": -1}, 422), ({"lable": "kind"}, 422), ({"min_class_size": 1}, 422),
        ({"reference": "nowhere"}, 404),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_before_a_job_begins(client: TestClient, wrong: dict[str, Any], status: int) -> None:
    before = len(client.get("/v1/jobs").json()["jobs"])
    assert client.post("/v1/collections/texts/reports", json={**LABEL, **wrong}).status_code == status
    assert len(client.get("/v1/jobs").json()["jobs"]) == before
    assert client.get("/v1/collections/texts/reports/99").status_code == 404
    assert client.get("/v1/collections/texts/reports/99/html").status_code == 404


def test_a_report_is_ended_at_its_next_step(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The act stands still within a step until the end was asked for; then the step after it must not come."""
    begun, asked, reached = threading.Event(), threading.Event(), []
    real = Reporting.report

    def act(self: Any, name: str, /, say: Any = silent, **choices: Any) -> dict[str, Any]:
        def slow(step: Step) -> None:
            reached.append(step.phase)
            say(step)
            begun.set()
            assert asked.wait(WAIT_S)

        return real(self, name, say=slow, **choices)

    monkeypatch.setattr(Reporting, "report", act)
    job = client.post("/v1/collections/texts/reports", json={**LABEL, "encoders": ["hashing:16"]}).json()
    assert begun.wait(WAIT_S)
    assert client.get(f"/v1/jobs/{job['id']}").json()["progress"]["phase"] == reached[0] == "vectors"
    assert client.delete(f"/v1/jobs/{job['id']}").status_code == 200
    asked.set()
    jobs = client.app.state.service.jobs  # type: ignore[attr-defined]
    assert ended(jobs, job["id"])["state"] == "cancelled"
    assert reached == ["vectors", "contents"]


def test_the_door_gives_the_same_object_here_and_there(place: Path, tmp_path: Path) -> None:
    process, url = serve(place)
    try:
        with closing(pf.open(place)) as here, closing(pf.open(url)) as there:
            # of few items, as nothing is probed there: what is probed is compared over HTTP above
            asked = {**LABEL, "encoders": "hashing:16", "seed": 1, "reference": "others"}
            made = [store.collection("few").report(**asked) for store in (here, there)]
            changing = ("report", "path", "seconds")
            mine, theirs = ({k: v for k, v in one.items() if k not in changing} for one in made)
            assert mine == theirs
            assert [type(one) for one in made] == [Report, Report]
            assert repr(made[0]) == repr(made[1])
            for k, one in enumerate(made):
                one.html(tmp_path / f"{k}.html")
            pages = [(tmp_path / f"{k}.html").read_text() for k in range(2)]
            assert pages[0] == pages[1]
            lists = [store.collection("few").reports() for store in (here, there)]
            assert lists[0] == lists[1]
            assert [one.report for one in lists[0]][:2] == [made[1].report, made[0].report]
            again = there.collection("few").open_report(made[0].report)
            assert {k: v for k, v in again.items() if k not in changing} == mine
            with pytest.raises(pf.UnknownName, match="few"):
                there.collection("few").open_report(99)
    finally:
        process.terminate()
        finish(process)
