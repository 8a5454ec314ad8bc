"""Jobs: told of as they go, cancelled, and honest after a restart."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.jobs import ENDED, HOME, Jobs, once
from api.serving import Served, Serving
from api.settings import Settings
from embedder.errors import Refused, UnknownName, UsageError

WAIT_S = 60


@pytest.fixture
def client(store: Path, sources: Path) -> Iterator[TestClient]:
    service = Serving(Settings(store=str(store)), Served(sources=(str(sources),)))
    with closing(service), TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        yield client


def ended(jobs: Jobs, id: str) -> dict[str, Any]:
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        job = jobs.get(id)
        if job["state"] in ENDED:
            return job
        time.sleep(0.01)
    raise AssertionError("the job did not end")


def follow(client: TestClient, begun: Any) -> list[tuple[str, dict[str, Any]]]:
    assert begun.status_code == 202, begun.text
    text = client.get(f"{begun.headers['location']}/events").text
    lines = [[line for line in block.split("\n") if line[:1] != ":"] for block in text.strip().split("\n\n")]
    blocks = [dict(line.split(": ", 1) for line in block) for block in lines if block]
    return [(block["event"], json.loads(block["data"])) for block in blocks]


def test_runs_indexes_and_heads_are_jobs_whose_events_end_with_the_result(client: TestClient, sources: Path) -> None:
    asked = {"source": str(sources / "notes.csv"), "encoders": ["hashing:32"]}
    events = follow(client, client.post("/v1/collections/notes/runs", json=asked))
    assert events[-1][0] == "end"
    assert {name for name, _ in events[:-1]} <= {"progress"}
    assert events[-1][1]["result"]["embedded"] == 40
    index = follow(client, client.post("/v1/collections/notes/indexes", json={"space": "hashing:64"}))[-1][1]
    assert index["result"]["kind"] == "flat"
    head = follow(client, client.post("/v1/collections/notes/heads", json={"label": "label", "space": "hashing:64"}))
    assert head[-1][1]["result"]["classes"] == ["boat", "money"]
    wrong = follow(client, client.post("/v1/collections/notes/heads", json={"label": "lable"}))[-1][1]
    assert wrong["state"] == "failed"
    assert "lable" in wrong["error"]["message"]
    assert len(client.get("/v1/jobs").json()["jobs"]) == 4


def test_runs_read_only_from_the_folders_that_were_named(client: TestClient, tmp_path: Path, sources: Path) -> None:
    (sources / "way-out").symlink_to(tmp_path)
    for source in ("/etc", str(sources / ".."), str(sources / "way-out"), "http://127.0.0.1/x", f"{sources}x"):
        reply = client.post("/v1/collections/notes/runs", json={"source": source})
        assert reply.status_code == 409, source
        assert "--source" in reply.json()["error"]["hint"]
    (sources / "way-out").unlink()


def test_a_job_is_cancelled_at_its_next_step_or_before_it_began(tmp_path: Path) -> None:
    jobs, began = Jobs(tmp_path), threading.Event()

    def long(progress: Any) -> dict[str, Any]:
        began.set()
        while True:
            progress({"done": 1})
            time.sleep(0.005)

    with closing(jobs):
        running, waiting = jobs.begin("runs", "c", {}, long), jobs.begin("runs", "c", {}, long)
        assert began.wait(WAIT_S)
        assert jobs.cancel(waiting["id"])["state"] == "cancelled"
        jobs.cancel(running["id"])
        assert ended(jobs, running["id"])["state"] == "cancelled"
        with pytest.raises(Refused):
            jobs.cancel(running["id"])
        with pytest.raises(UnknownName):
            jobs.get("nothing")


def test_what_had_not_ended_is_failed_after_a_restart_and_what_had_stays(tmp_path: Path) -> None:
    first, began, go = Jobs(tmp_path), threading.Event(), threading.Event()

    def long(progress: Any) -> dict[str, Any]:
        began.set()
        go.wait(WAIT_S)
        return {}

    done = first.begin("heads", "c", {"label": "x"}, lambda progress: {"head": "x"})
    assert ended(first, done["id"])["state"] == "finished"
    running, waiting = first.begin("runs", "c", {}, long), first.begin("runs", "c", {}, long)
    assert began.wait(WAIT_S)
    second = Jobs(tmp_path)
    assert second.recover() == 2
    assert second.get(done["id"])["result"] == {"head": "x"}
    for job in (running, waiting):
        found = second.get(job["id"])
        assert found["state"] == "failed"
        assert "stopped" in found["error"]["message"]
    go.set()
    first.close()
    second.close()


def test_a_damaged_record_hides_no_other(tmp_path: Path) -> None:
    first = Jobs(tmp_path)
    done = first.begin("heads", "c", {}, lambda progress: {"ok": 1})
    ended(first, done["id"])
    first.close()
    (tmp_path / HOME / "20000101t000000-00000000.json").write_text("{")
    second = Jobs(tmp_path)
    assert second.recover() == 0
    assert [job["id"] for job in second.listed()] == [done["id"]]
    second.close()


def test_an_error_is_told_and_the_next_job_runs(tmp_path: Path) -> None:
    def bad(progress: Any) -> dict[str, Any]:
        raise UsageError("no", hint="do this")

    with closing(Jobs(tmp_path)) as jobs:
        first, second = jobs.begin("runs", "c", {}, bad), jobs.begin("runs", "c", {}, lambda progress: {"n": 1})
        assert ended(jobs, first["id"])["error"]["hint"] == "do this"
        assert ended(jobs, second["id"])["result"] == {"n": 1}


def test_a_request_that_is_sent_again_begins_nothing_new(client: TestClient) -> None:
    heads, body = "/v1/collections/notes/heads", {"label": "label", "space": "hashing:64"}
    named = {"idempotency-key": "the first"}
    first = client.post(heads, json=body, headers=named)
    again = client.post(heads, json=dict(reversed(body.items())), headers=named)
    assert first.status_code == again.status_code == 202
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["location"] == first.headers["location"]
    for path, other in ((heads, {**body, "kind": "ridge"}), ("/v1/collections/pics/heads", body)):
        refused = client.post(path, json=other, headers=named)
        assert refused.status_code == 422
        assert first.json()["id"] in refused.json()["error"]["message"]
    others = [client.post(heads, json=body, headers=one).json()["id"] for one in ({}, {}, {"idempotency-key": "more"})]
    assert len({first.json()["id"], *others}) == 4
    assert client.post(heads, json=body, headers={"idempotency-key": "x" * 256}).status_code == 422


def test_a_name_holds_over_a_restart_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = once.set("name")
    try:
        with closing(Jobs(tmp_path)) as jobs:
            first = ended(jobs, jobs.begin("runs", "c", {}, lambda progress: {"done": 1})["id"])
        with closing(Jobs(tmp_path)) as jobs:
            jobs.recover()
            assert jobs.begin("runs", "c", {}, lambda progress: {}) == first
            with pytest.raises(UsageError):
                jobs.begin("runs", "d", {}, lambda progress: {})
            now = time.time
            monkeypatch.setattr("api.jobs.time.time", lambda: now() + 24 * 3600)
            assert jobs.begin("runs", "c", {}, lambda progress: {})["id"] != first["id"]
    finally:
        once.reset(token)


def test_jobs_that_ended_are_kept_up_to_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.jobs.MOST_KEPT", 3)
    with closing(Jobs(tmp_path)) as jobs:
        begun = [ended(jobs, jobs.begin("runs", "c", {"n": n}, lambda progress: {})["id"])["id"] for n in range(6)]
        kept = {job["id"] for job in jobs.listed()}
    assert len(kept) == 3
    assert begun[-1] in kept
    assert {path.stem for path in (tmp_path / HOME).glob("*.json")} == kept
