"""API keys: 32 random bytes, shown once, kept as a hash; each may read, write, or administer.

{"keys": [{"name", "prefix", "sha256", "scope", "created"}]}
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args

from embedder.errors import UnknownName, UsageError

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
MARK = "pf_"
# what is asked by POST and changes nothing
ASKING = re.compile(
    r"/v1/(collections/[^/]+/(search|heads/[^/]+/predict)|embeddings|classify)|/|/embed|/predict|/similarity"
)
OPEN = re.compile(r"/(?!v1(/|$)|metrics$|embed$|predict$|similarity$|info$)")
COLLECTION = re.compile(r"/v1/collections/[^/]+")


def needed(method: str, path: str) -> Scope | None:
    """Return the scope that a request needs; None for probes, the page and the list of routes, which hold no data."""
    if OPEN.match(path) and method in ("GET", "HEAD"):
        return None
    if method in ("GET", "HEAD") or (method == "POST" and ASKING.fullmatch(path)):
        return "read"
    return "admin" if method == "DELETE" and COLLECTION.fullmatch(path) else "write"


@dataclass(frozen=True)
class Key:
    """What is kept of one key: `prefix` tells it from others in logs, `sha256` is of the whole key."""

    name: str
    prefix: str
    sha256: str
    scope: Scope
    created: str

    def may(self, scope: Scope) -> bool:
        """Say whether this key may do what needs a scope."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


class Keys:
    """The keys in a file, read again whenever it changes, so that a key that is taken out stops working at once."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises `UsageError` where it cannot be read or holds no keys."""
        self.path = path
        self._lock = Lock()
        self._stamp: tuple[int, int] | None = None
        self._keys: list[Key] = []
        self._read()

    def find(self, token: str) -> Key | None:
        """Return the key that a token is; every key is compared in full, in constant time."""
        with self._lock:
            stamp = _stamp(self.path)
            if stamp != self._stamp:
                self._read()
            keys = self._keys
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        found = [key for key in keys if hmac.compare_digest(key.sha256, digest)]
        return found[0] if found else None

    def _read(self) -> None:
        self._stamp, self._keys = _stamp(self.path), read(self.path)
        if not self._keys:
            raise UsageError(
                "there is no key in the file", where=str(self.path), hint=f"permafrost keys {self.path} --name N"
            )


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def read(path: Path) -> list[Key]:
    """Return the keys of a file. Raises `UsageError` where it cannot be read."""
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_bytes())["keys"]
        keys = [Key(**row) for row in rows]
        if any(key.scope not in SCOPES or not re.fullmatch("[0-9a-f]{64}", key.sha256) for key in keys):
            raise ValueError("a scope or a hash is not one")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"the keys cannot be read: {error}", where=str(path), hint=f"permafrost keys {path} --name N"
        ) from error
    return keys


def make(path: Path, name: str, scope: str) -> tuple[str, Key]:
    """Add a key to a file, which only its owner may read, and return it: it is never shown again.

    Raises:
        UsageError: a name that cannot be used or is taken, or a file that cannot be read or written.
        UnknownName: no such scope.
    """
    if scope not in SCOPES:
        raise UnknownName.of("scope", scope, SCOPES, hint="read, write or admin")
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a key", hint="use letters, digits, ., _ and -")
    kept = read(path) if path.exists() else []
    if any(key.name == name for key in kept):
        raise UsageError(f"a key is called {name!r} already", where=str(path), hint="--remove takes it out")
    token = MARK + secrets.token_urlsafe(32)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    digest = hashlib.sha256(token.encode()).hexdigest()
    key = Key(name, token[: len(MARK) + 6], digest, SCOPES[SCOPES.index(scope)], now)
    _write(path, [*kept, key])
    return token, key


def remove(path: Path, name: str) -> None:
    """Take a key out of a file. Raises `UnknownName` where there is none of that name."""
    kept = read(path)
    if all(key.name != name for key in kept):
        raise UnknownName.of("key", name, [key.name for key in kept], where=str(path))
    _write(path, [key for key in kept if key.name != name])


def _write(path: Path, keys: list[Key]) -> None:
    document = json.dumps({"keys": [vars(key) for key in keys]}, indent=1) + "\n"
    aside = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as out:
            out.write(document)
            out.flush()
            os.fsync(out.fileno())
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise UsageError(f"the keys cannot be written: {error.strerror}", where=str(path)) from error
