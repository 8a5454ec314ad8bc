"""One request to an OpenAI-compatible endpoint: sent, tried again where that can help, and its answer checked."""

from __future__ import annotations

import base64
import binascii
import random
import time
import weakref
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np

from embedder.encoders._common import OFFLINE_HINT
from embedder.errors import EncoderError, Undecodable, UnknownName, UsageError
from embedder.records import FloatMatrix
from embedder.remote import Endpoint

CONNECT_S = 5.0
LONGEST_PAUSE_S = 30.0
LONGEST_WAIT_S = 300.0
AT_FAULT = (400, 413, 422)
QUOTA = "insufficient_quota"


class TooLarge(Undecodable):
    """The endpoint takes smaller requests only."""


class Client:
    """Sends requests to one endpoint; safe to share between threads.

    A request is tried again after 429, 5xx, a time-out or a connection that broke, and after no other answer. An
    endpoint that nobody ever reached is not waited for.
    """

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        self.endpoint, self.name = endpoint, name
        self.address = address(endpoint)
        self.where = f"{name} at {self.address}"
        headers = {"Authorization": f"Bearer {_key(endpoint)}"} if endpoint.api_key else {}
        timeout = httpx2.Timeout(endpoint.timeout_s, connect=min(CONNECT_S, endpoint.timeout_s))
        self._http = httpx2.Client(timeout=timeout, headers=headers)
        self._reached = self._answered = False
        weakref.finalize(self, self._http.close)

    def embed(self, body: dict[str, Any], count: int) -> FloatMatrix:
        """Return the vectors of one request, (count, dim) float32.

        Raises:
            TooLarge, Undecodable: the endpoint refuses the texts.
            UnknownName: it has no such model.
        EncoderError: it does not answer, refuses the key, or answers something else.
        """
        if self.endpoint.dry_run:
            raise EncoderError("a dry run sends nothing", where=self.where)
        return self._vectors(self._answer(body), count)

    def _answer(self, body: dict[str, Any]) -> httpx2.Response:
        said = ""
        for attempt in range(1, self.endpoint.attempts + 1):
            least = 0.0
            try:
                response = self._http.post(f"{self.address}/embeddings", json=body)
                self._reached = True
            except httpx2.TransportError as error:
                said = f"{type(error).__name__}: {self._clean(str(error))}".rstrip(": ")
                if not self._reached and not isinstance(error, httpx2.ReadTimeout):
                    raise self._unreachable(said) from error
            else:
                if response.status_code == 200:
                    return response
                said = f"{response.status_code} {self._message(response)}".strip()
                if not self._passing(response):
                    raise self._refusal(response.status_code, said)
                least = retry_after(response.headers.get("retry-after"))
            if attempt < self.endpoint.attempts:
                self._pause(attempt, least, said)
        raise EncoderError(
            f"the endpoint does not answer after {self.endpoint.attempts} attempts; the last one: {said}",
            where=self.where, hint="try again later: what was committed stays, and the same command goes on from there",
        )  # fmt: skip

    def _passing(self, response: httpx2.Response) -> bool:
        limited = response.status_code == 429 and QUOTA not in response.text
        return limited or response.status_code >= 500

    def _pause(self, attempt: int, least: float, said: str) -> None:
        if least > LONGEST_WAIT_S:
            raise EncoderError(
                f"the endpoint asks to wait {least:.0f} s: {said}", where=self.where, hint="run it again after that"
            )
        longest = min(LONGEST_PAUSE_S, self.endpoint.backoff_s * 2 ** (attempt - 1))
        # jitter, so that several processes that were refused together do not all come back together
        time.sleep(max(least, longest * (0.5 + random.SystemRandom().random() / 2)))

    def _refusal(self, status: int, said: str) -> EncoderError | Undecodable | UnknownName:
        if status == 404:
            return UnknownName(
                f"the endpoint has no model {self.name.partition(':')[2]!r}: {said}", where=self.where,
                hint="check the name, and PERMAFROST_OPENAI_BASE_URL, which ends before /embeddings",
            )  # fmt: skip
        if status == 413:
            return TooLarge(f"the request is too large: {said}", stage="encode", reason="too_large", where=self.where)
        if status in AT_FAULT and self._answered:
            return Undecodable(f"the endpoint refuses this: {said}", stage="encode", reason="refused", where=self.where)
        hint = {
            401: "check PERMAFROST_OPENAI_API_KEY", 403: "check PERMAFROST_OPENAI_API_KEY",
            429: "the account's quota is used up",
        }.get(status, "check the model's name and options")  # fmt: skip
        return EncoderError(f"the endpoint refuses: {said}", where=self.where, hint=hint)

    def _unreachable(self, said: str) -> EncoderError:
        return EncoderError(
            f"the endpoint cannot be reached: {said}", where=self.where,
            hint=f"check PERMAFROST_OPENAI_BASE_URL, or {OFFLINE_HINT['text']}",
        )  # fmt: skip

    def _vectors(self, response: httpx2.Response, count: int) -> FloatMatrix:
        try:
            rows = {row["index"]: _vector(row["embedding"]) for row in response.json()["data"]}
            stated = len(response.json()["data"])
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise self._odd(f"{type(error).__name__} while it was read") from error
        if stated != count or set(rows) != set(range(count)):
            raise self._odd(f"{stated} vectors with {len(rows)} different numbers for {count} texts")
        if len({len(row) for row in rows.values()}) != 1 or not len(rows[0]):
            raise self._odd("vectors of several lengths, or of none")
        self._answered = True
        return np.stack([rows[i] for i in range(count)])

    def _odd(self, what: str) -> EncoderError:
        return EncoderError(
            f"the endpoint's answer is not one vector for each text: {what}",
            where=self.where, hint="check that PERMAFROST_OPENAI_BASE_URL is of an OpenAI-compatible API",
        )  # fmt: skip

    def _message(self, response: httpx2.Response) -> str:
        """Return what the endpoint says went wrong, in any of the usual shapes."""
        try:
            record = response.json()
            found = record.get("error", record)
            text = found if isinstance(found, str) else found.get("message") or found.get("detail") or ""
        except (ValueError, AttributeError):
            text = response.text
        return self._clean(str(text))

    def _clean(self, text: str) -> str:
        key = (self.endpoint.api_key or "").strip()
        return " ".join((text.replace(key, "***") if key else text).split())[:300]


def _vector(value: Any) -> FloatMatrix:
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").astype(np.float32)
    row = np.asarray(value, dtype=np.float32)
    if row.ndim != 1:
        raise ValueError("not a flat list of numbers")
    return row


def retry_after(value: str | None) -> float:
    """Return the seconds that a Retry-After header asks for, as a number or as a date; 0 for none."""
    try:
        seconds = float(value or 0)
    except ValueError:
        try:
            when = parsedate_to_datetime(str(value))
        except ValueError:
            return 0.0
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return seconds if seconds > 0 else 0.0


def address(endpoint: Endpoint) -> str:
    """Return the endpoint's address as it may be shown.

    Raises:
        UsageError: not http(s), or it holds a name and password, which would end up in provenance.
    """
    try:
        parts = urlsplit(endpoint.base_url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise UsageError("the endpoint's address is no URL", where="PERMAFROST_OPENAI_BASE_URL") from error
    plain = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
    if not plain or "@" in parts.netloc:
        raise UsageError(
            "the endpoint's address must be http(s)://HOST[:PORT]/PATH, without a password or a query",
            where="PERMAFROST_OPENAI_BASE_URL", hint="give a key in PERMAFROST_OPENAI_API_KEY",
        )  # fmt: skip
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


def _key(endpoint: Endpoint) -> str:
    key = (endpoint.api_key or "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError("the key holds characters that no key has", where="PERMAFROST_OPENAI_API_KEY")
    return key
