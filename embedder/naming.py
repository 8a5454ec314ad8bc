"""Encoder names: `KIND:NAME[@REVISION][?key=value&…]`, the only spelling at every door.

A character that the form needs for itself is written %XX in a name (`%40` for @, `%3F` for ?, `%25` for %); in the
value of an option, any character may be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from embedder import kinds
from embedder.errors import UnknownName, UsageError

COMMON_OPTIONS = frozenset({"normalize", "dtype", "weights", "seed", "layer", "pooling"})
IMAGE_OPTIONS = frozenset({"image_size", "fit", "background"})
TEXT_OPTIONS = frozenset({"max_length", "query_prompt", "document_prompt"})
DTYPES = ("float32", "bfloat16", "float16")
WHOLE = re.compile(r"-?[0-9]{1,19}")
SPECIAL = re.compile(r"[%?@\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class EncoderName:
    """A parsed encoder name. `str()` gives the text that `parse` reads; the accessors read single options."""

    kind: str
    name: str
    revision: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        text = f"{self.kind}:{_escaped(self.name)}" + (f"@{_escaped(self.revision)}" if self.revision else "")
        pairs = [f"{k}={quote(v, safe='/:,.~ ', errors='surrogateescape')}" for k, v in sorted(self.options.items())]
        return text + ("?" + "&".join(pairs) if pairs else "")

    def allow(self, known: Iterable[str]) -> None:
        """Refuse an option that this kind does not read.

        Raises:
            UnknownName: with the nearest known ones.
        """
        allowed = set(known)
        for option in self.options:
            if option not in allowed:
                raise UnknownName.of(
                    "option", option, allowed, where=str(self), hint=f"known: {', '.join(sorted(allowed))}"
                )

    def flag(self, option: str, default: bool) -> bool:
        """Return a true/false option. Raises `UsageError` for any other word."""
        text = self.options.get(option)
        if text is None:
            return default
        if text not in ("true", "false"):
            raise UsageError(f"{option} must be true or false, not {text!r}", where=str(self))
        return text == "true"

    def integer(self, option: str, default: int | None, *, low: int, high: int) -> int | None:
        """Return a whole-number option between `low` and `high`. Raises `UsageError` otherwise."""
        text = self.options.get(option)
        if text is None:
            return default
        if not WHOLE.fullmatch(text) or not low <= int(text) <= high:
            raise UsageError(f"{option} must be a whole number from {low} to {high}, not {text!r}", where=str(self))
        return int(text)

    def choice(self, option: str, default: str, choices: Iterable[str]) -> str:
        """Return an option that is one of `choices`. Raises `UsageError` otherwise."""
        text = self.options.get(option, default)
        known = list(choices)
        if text not in known:
            raise UsageError(f"{option} must be one of {', '.join(known)}, not {text!r}", where=str(self))
        return text


def parse(text: str) -> EncoderName:
    """Read an encoder name.

    Raises:
        UsageError: the text has not the form `KIND:NAME[@REVISION][?key=value&…]`.
        UnknownName: no encoder kind has that name.
    """
    head, _, query = text.partition("?")
    kind, colon, rest = head.partition(":")
    name, at, revision = rest.partition("@")
    known = kinds.names("embedder.encoders")
    if not (colon and kind and name) or (at and not revision) or not _encodable(text):
        raise UsageError(
            f"{text!r} is not an encoder name",
            hint=f"write KIND:NAME[@REVISION][?key=value]; kinds: {', '.join(known)}",
        )
    if kind not in known:
        raise UnknownName.of("encoder kind", kind, known, where=text, hint=f"kinds: {', '.join(known)}")
    return EncoderName(kind, _unescaped(name), _unescaped(revision) or None, _options(query, text))


def _options(query: str, where: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        key, equals, value = pair.partition("=")
        if not equals or not key or not value:
            raise UsageError(f"{pair!r} is not an option", where=where, hint="write key=value, joined by &")
        if key in options:
            raise UsageError(f"option {key!r} is given twice", where=where, hint="give it once")
        options[key] = _unescaped(value)
    return options


def _escaped(text: str) -> str:
    return SPECIAL.sub(lambda found: quote(found[0], safe="", errors="surrogateescape"), text)


def _unescaped(text: str) -> str:
    # a path that is not UTF-8 comes from the command line with its bytes as surrogates
    return unquote(text, errors="surrogateescape")


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
