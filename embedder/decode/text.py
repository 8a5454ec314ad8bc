"""Text: read as UTF-8, cleaned, and cut before it is tokenised."""

from __future__ import annotations

import codecs
import hashlib
from time import perf_counter

from embedder.errors import Undecodable
from embedder.reading import MAX_BYTES, read_file, too_large
from embedder.records import Decoded, Failure, Item

UTF_16_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


def clean(text: str, max_chars: int) -> tuple[str, bool]:
    """Return the text without NUL characters, cut to `max_chars` characters, and whether it was cut.

    Raises:
        Undecodable: reason `empty_text` (nothing but blanks in what is kept) or `bad_unicode` (a lone surrogate).
    """
    whole = text.replace("\0", "")
    kept = whole[:max_chars]
    if not kept or kept.isspace():
        raise Undecodable("the text is empty", stage="decode", reason="empty_text")
    _utf8(kept)
    return kept, len(whole) > max_chars


def decode_text(item: Item, max_chars: int) -> Decoded | Failure:
    """Read and clean a text item: its `text`, or the UTF-8 in its `path` or `data` (a byte order mark is dropped).

    `content_hash` covers the whole text, before NUL characters are dropped and before it is cut. A failure's reason is
    `empty_text`, `bad_unicode` (with the offset of the first bad byte or character), or one of `reading.read_file`.
    """
    started = perf_counter()
    size, mtime_ns = item.size if item.data is None else len(item.data), item.mtime_ns
    try:
        if item.text is None:
            data, mtime_ns = _bytes(item)
            size = len(data)
            text = _text(data)
        else:
            text = item.text
        raw = _utf8(text)
        read_ms = 1e3 * (perf_counter() - started)
        value, truncated = clean(text, max_chars)
    except Undecodable as error:
        return Failure.of(item, error, size=size, ms=1e3 * (perf_counter() - started))
    return Decoded(
        item, hashlib.sha256(raw).hexdigest(), value, len(raw) if size is None else size, mtime_ns, truncated,
        read_ms, 1e3 * (perf_counter() - started) - read_ms,
    )  # fmt: skip


def _bytes(item: Item) -> tuple[bytes, int | None]:
    if item.path is not None:
        data, _, mtime_ns = read_file(item.path)
        return data, mtime_ns
    data = item.data or b""
    if len(data) > MAX_BYTES:
        raise too_large(len(data))
    return data, item.mtime_ns


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        wide = "it looks like UTF-16 or UTF-32: " if data.startswith(UTF_16_32) else ""
        raise _bad(f"not UTF-8: {error.reason} at byte {error.start}", f"{wide}convert it to UTF-8") from error


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _bad(f"half of a surrogate pair at character {error.start}", "repair the text") from error


def _bad(what: str, hint: str) -> Undecodable:
    return Undecodable(what, stage="decode", reason="bad_unicode", hint=hint)
