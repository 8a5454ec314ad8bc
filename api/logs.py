"""Logs of the service: one JSON object a line, with request ids and without payloads."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal

Form = Literal["json", "text", "off"]
FIELDS = ("request_id", "method", "path", "status", "ms", "bytes_in", "bytes_out", "key")


class JsonLines(logging.Formatter):
    """A record as one line of JSON; ASCII, so that no payload can end a line or move a cursor."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line = {"time": at, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextLines(logging.Formatter):
    """A record as a line for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        told = " ".join(f"{name}={getattr(record, name)}" for name in FIELDS if getattr(record, name, None) is not None)
        line = f"{record.levelname} {record.name}: {record.getMessage()} {told}".rstrip()
        return line + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


def set_up(form: Form) -> None:
    """Send the service's logs to stderr; `off` leaves only warnings and what went wrong, without a line a request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    root = logging.getLogger("permafrost")
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(logging.WARNING if form == "off" else logging.INFO)
