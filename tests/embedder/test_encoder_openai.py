"""openai encoders against an endpoint on this machine that answers rightly, slowly, wrongly, or not at all."""

from __future__ import annotations

import json
import logging
import socket
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

from embedder import golden
from embedder.batches import Batches
from embedder.encoder import Encoder, load_encoder
from embedder.encoders import openai
from embedder.encoders._openai_client import retry_after
from embedder.errors import EncoderError, PermafrostError, SpaceMismatch, Undecodable, UnknownName, UsageError
from embedder.extract import extract
from embedder.records import Failure, Item, Vectors
from embedder.remote import Endpoint
from embedder.stages import Stages
from tests.endpoint import DIM, KEY, Fake, Odd, running, vectors

TEXTS = ("frost", "a red boat on the sea", "ünïcode — 数字 42", "!", "frost again, and again")


@pytest.fixture
def fake() -> Iterator[Fake]:
    with running() as found:
        yield found


def opened(fake: Fake, options: str = "", **more: Any) -> Encoder:
    encoder = load_encoder(f"openai:tiny{'?' * bool(options)}{options}", endpoint=fake.endpoint(**more))
    fake.asked.clear()
    fake.times.clear()
    return encoder


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_vectors_are_the_endpoints_alone_and_in_a_batch(fake: Fake) -> None:
    encoder = opened(fake)
    for batch_size in (1, 2, 5):
        found = encoder.encode(TEXTS, batch_size=batch_size)
        assert np.allclose(found, unit(vectors(list(TEXTS))), atol=1e-6)
    last = fake.asked[-1]
    assert {**last, "input": sorted(last["input"])} == {
        "model": "tiny", "encoding_format": "base64", "input": sorted(TEXTS),
    }  # fmt: skip
    assert set(fake.keys) == {f"Bearer {KEY}"}
    assert np.array_equal(opened(fake, "normalize=false").encode(TEXTS), vectors(list(TEXTS)))


def test_prompts_go_before_texts_of_their_role(fake: Fake) -> None:
    encoder = opened(fake, "query_prompt=query: &document_prompt=the ")
    encoder.encode(["frost"], role="query")
    encoder.encode(["frost"])
    assert [body["input"] for body in fake.asked] == [["query: frost"], ["the frost"]]


def test_the_space_knows_model_host_and_options(fake: Fake) -> None:
    spaces = [
        load_encoder(name, endpoint=fake.endpoint()).space
        for name in ("openai:tiny", "openai:org/other", "openai:tiny?dimensions=24", "openai:tiny?dimensions=8")
    ]
    assert len({space.fingerprint for space in spaces}) == 4
    assert spaces[0].identity["weights"] == {"remote": "tiny", "host": "127.0.0.1"}
    assert spaces[0].provenance["source"] == fake.url
    assert [space.dim for space in spaces] == [DIM, DIM, DIM, 8]


def test_dimensions_are_the_endpoints_to_keep_or_are_refused(fake: Fake) -> None:
    encoder = opened(fake, "dimensions=8")
    assert np.allclose(encoder.encode(TEXTS), unit(vectors(list(TEXTS), dimensions=8)), atol=1e-6)
    assert fake.asked[0]["dimensions"] == 8
    fake.coming.append(Odd(how="full"))
    with pytest.raises(EncoderError, match="24 dimensions, and 8 were asked for"):
        opened(fake, "dimensions=8")


def test_order_is_that_of_the_index(fake: Fake) -> None:
    encoder = opened(fake)
    for how in ("reversed", "floats"):
        fake.coming.append(Odd(how=how))
        assert np.allclose(encoder.encode(TEXTS), unit(vectors(list(TEXTS))), atol=1e-6)
    assert not fake.coming


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (Odd(how="short"), "4 vectors with 4 different numbers for 5 texts"),
        (Odd(how="long"), "6 vectors"),
        (Odd(how="twice"), "5 vectors with 1 different numbers"),
        (Odd(how="unnumbered"), "KeyError"),
        (Odd(how="cut"), "ValueError"),
        (Odd(body="<html>"), "JSONDecodeError"),
        (Odd(body=[]), "TypeError"),
        (Odd(body={"data": []}), "0 vectors"),
    ],
)
def test_answers_that_are_not_one_vector_for_each_text(odd: Odd, said: str, fake: Fake) -> None:
    encoder = opened(fake)
    fake.coming.append(odd)
    with pytest.raises(EncoderError, match=said):
        encoder.encode(TEXTS)
    assert len(fake.asked) == 1, "a wrong answer is not asked for again"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
def test_what_passes_is_tried_again(status: int, fake: Fake) -> None:
    encoder = opened(fake)
    fake.coming += [Odd(status), Odd(status)]
    assert np.allclose(encoder.encode(TEXTS), unit(vectors(list(TEXTS))), atol=1e-6)
    assert len(fake.asked) == 3
    assert fake.asked[0] == fake.asked[2]


def test_pauses_grow_and_are_not_all_alike(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("embedder.encoders._openai_client.time.sleep", slept.append)
    encoder = opened(fake, backoff_s=0.1)
    for _ in range(2):
        fake.coming += [Odd(500)] * 3
        encoder.encode(TEXTS)
    # the endpoint of the test, in a thread of its own, sleeps for nothing now and then
    pauses = [pause for pause in slept if pause > 0.01]
    assert all(low <= pause <= 2 * low for low, pause in zip((0.05, 0.1, 0.2) * 2, pauses, strict=True))
    assert len(set(pauses)) == 6


def test_attempts_come_to_an_end(fake: Fake) -> None:
    encoder = opened(fake)
    fake.coming += [Odd(503, {"message": "overloaded"})] * 9
    with pytest.raises(EncoderError, match="after 4 attempts; the last one: 503 overloaded"):
        encoder.encode(TEXTS)
    assert len(fake.asked) == 4


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409, 422])
def test_a_refusal_is_never_tried_again(status: int, fake: Fake) -> None:
    fake.coming.append(Odd(status))
    with pytest.raises((EncoderError, UnknownName), match=f"said {status}"):
        load_encoder("openai:tiny", endpoint=fake.endpoint())
    assert len(fake.asked) == 1


def test_a_quota_that_is_used_up_is_not_waited_for(fake: Fake) -> None:
    fake.coming.append(Odd(429, {"error": {"message": "no money", "code": "insufficient_quota"}}))
    with pytest.raises(EncoderError, match="no money"):
        load_encoder("openai:tiny", endpoint=fake.endpoint())
    assert len(fake.asked) == 1


def test_retry_after_is_honoured(fake: Fake) -> None:
    encoder = opened(fake)
    fake.coming.append(Odd(429, headers={"Retry-After": "0.4"}))
    encoder.encode(TEXTS)
    assert fake.times[1] - fake.times[0] >= 0.4
    fake.coming.append(Odd(429, headers={"Retry-After": "86400"}))
    with pytest.raises(EncoderError, match="asks to wait 86400 s"):
        encoder.encode(TEXTS)


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after(None) == retry_after("soon") == retry_after("-3") == retry_after("nan") == 0
    assert retry_after("2.5") == 2.5
    later = datetime.now(UTC) + timedelta(seconds=90)
    assert retry_after(format_datetime(later, usegmt=True)) == pytest.approx(90, abs=2)


def test_a_slow_answer_is_given_up_and_asked_for_again(fake: Fake) -> None:
    encoder = opened(fake, timeout_s=2.0)
    fake.coming.append(Odd(seconds=20.0))
    started = time.monotonic()
    assert np.allclose(encoder.encode(TEXTS), unit(vectors(list(TEXTS))), atol=1e-6)
    assert 2.0 < time.monotonic() - started < 20.0
    assert len(fake.asked) == 2


def test_nobody_there_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(EncoderError, match="cannot be reached") as caught:
        load_encoder("openai:tiny", endpoint=Endpoint(f"http://127.0.0.1:{port}/v1", KEY))
    assert time.monotonic() - started < 30
    assert "bundled:minilm" in caught.value.hint
    with pytest.raises(EncoderError, match="no endpoint is set"):
        load_encoder("openai:tiny")


def test_many_texts_go_in_several_requests(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = opened(fake)
    monkeypatch.setattr(openai, "MOST_TOKENS", 10)
    texts = ["1234567890123456"] * 5 + ["x" * 100, "y"]
    found = encoder.encode(texts)
    assert [len(body["input"]) for body in fake.asked] == [1, 2, 2, 2]
    assert np.allclose(found, unit(vectors(texts)), atol=1e-6)


def test_an_endpoint_of_smaller_requests_is_learnt_once(fake: Fake) -> None:
    encoder = opened(fake)
    fake.most = 4
    texts = [f"text {n}" for n in range(20)]
    assert np.allclose(encoder.encode(texts), unit(vectors(texts)), atol=1e-6)
    fake.asked.clear()
    encoder.encode(texts)
    assert max(len(body["input"]) for body in fake.asked) <= 4


def test_a_text_that_is_refused_fails_alone(fake: Fake) -> None:
    encoder = opened(fake)
    items = [Item(id=f"i{n}", medium="text", source="s", text=text) for n, text in enumerate((*TEXTS, "REFUSE this"))]
    found = list(extract(items, encoder, "text", pool=None, batch_size=None, stages=Stages()))
    failures = [one for one in found if isinstance(one, Failure)]
    kept = {d.item.id for one in found if isinstance(one, Vectors) for d in one.decoded}
    assert [(f.id, f.stage, f.reason) for f in failures] == [("i5", "encode", "refused")]
    assert "a text is not allowed" in failures[0].message
    assert kept == {"i0", "i1", "i2", "i3", "i4"}
    with pytest.raises(Undecodable, match="not allowed"):
        encoder.encode(["REFUSE"])


def test_an_endpoint_that_fails_stops_the_run_and_blames_no_item(fake: Fake) -> None:
    encoder = opened(fake)
    fake.coming += [Odd(500)] * 4
    items = [Item(id="a", medium="text", source="s", text="frost")]
    with pytest.raises(EncoderError, match="after 4 attempts"):
        list(extract(items, encoder, "text", pool=None, batch_size=None, stages=Stages()))
    assert Batches(encoder, "text").share == 1


def test_a_model_that_changes_behind_its_name_is_noticed(fake: Fake) -> None:
    encoder = opened(fake)
    stored = golden.pack(golden.vectors(encoder))
    golden.check(encoder, stored)
    encoder.text.forward.body["model"] = "org/other"  # type: ignore[union-attr]
    with pytest.raises(SpaceMismatch, match="no longer makes"):
        golden.check(encoder, stored)


def test_a_dry_run_sends_nothing(fake: Fake) -> None:
    for name, dim in (("openai:tiny", 0), ("openai:tiny?dimensions=8", 8)):
        planned = load_encoder(name, endpoint=fake.endpoint(dry_run=True))
        assert planned.space.dim == dim
        assert planned.space.identity == load_encoder(name, endpoint=fake.endpoint()).space.identity
        fake.asked.clear()
        with pytest.raises(EncoderError, match="sends nothing"):
            planned.encode(["frost"])
        assert fake.asked == []


def test_tokens_are_counted_by_their_bytes() -> None:
    assert [openai.approximate_tokens(t) for t in ("", "abcd", "abcde", "数字")] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    "odd",
    [
        Odd(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}), Odd(403, f"Bearer {KEY} is bad"),
        Odd(500, {"error": f"{KEY}"}), Odd(400, {"detail": f"{KEY}"}), Odd(body=f"{{{KEY}"), Odd(body={KEY: KEY}),
    ],
)  # fmt: skip
def test_the_key_is_in_no_error_and_no_log(odd: Odd, fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fake.coming += [odd] * 4
    with pytest.raises(PermafrostError) as caught:
        load_encoder("openai:tiny", endpoint=fake.endpoint())
    shown = "".join(traceback.format_exception(caught.value)) + str(caught.value) + caplog.text
    assert KEY not in shown
    assert fake.keys[0] == f"Bearer {KEY}", "the test has planted it"


def test_the_key_is_in_no_record(fake: Fake) -> None:
    endpoint = fake.endpoint()
    encoder = opened(fake)
    assert KEY not in json.dumps(encoder.space.as_json()) + repr(encoder) + repr(endpoint) + str(endpoint)


@pytest.mark.parametrize(
    ("url", "key", "said"),
    [
        ("ftp://host/v1", KEY, "must be http"),
        ("host/v1", KEY, "must be http"),
        (f"https://me:{KEY}@host/v1", None, "without a password"),
        (f"https://host/v1?key={KEY}", None, "without a password or a query"),
        ("https://host:port/v1", KEY, "no URL"),
        ("http://127.0.0.1:1/v1", f"{KEY}\nX-Other: y", "characters"),
        ("http://127.0.0.1:1/v1", f"{KEY}é", "characters"),
    ],
)
def test_addresses_and_keys_that_cannot_be_used(url: str, key: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        load_encoder("openai:tiny", endpoint=Endpoint(url, key))
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_names_that_the_endpoint_does_not_have(fake: Fake) -> None:
    with pytest.raises(UnknownName, match="no model 'nothing'"):
        load_encoder("openai:nothing", endpoint=fake.endpoint())
    with pytest.raises(UsageError, match="no revisions"):
        load_encoder("openai:tiny@main", endpoint=fake.endpoint())
    with pytest.raises(UnknownName, match="base_url"):
        load_encoder(f"openai:tiny?base_url={fake.url}", endpoint=fake.endpoint())


def test_no_key_is_sent_where_none_is_set(fake: Fake) -> None:
    load_encoder("openai:tiny", endpoint=fake.endpoint(api_key=None))
    assert fake.keys == [None]
