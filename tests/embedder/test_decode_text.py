from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from embedder.decode.text import clean, decode_text
from embedder.errors import Undecodable
from embedder.records import Decoded, Failure, Item


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def item(text: str | None = None, *, path: Path | None = None, data: bytes | None = None) -> Item:
    return Item("the id", "text", "the source", path=path and os.fspath(path), data=data, text=text)


def good(found: Decoded | Failure) -> Decoded:
    assert isinstance(found, Decoded), found
    return found


def bad(found: Decoded | Failure) -> Failure:
    assert isinstance(found, Failure), found
    assert (found.id, found.source) == ("the id", "the source")
    return found


def test_a_text_a_file_and_bytes_are_the_same_item(tmp_path: Path) -> None:
    text = "Grönland, 永久凍土\r\nПЪЖ\t🧊"
    path = tmp_path / "x.txt"
    for raw in (text.encode(), b"\xef\xbb\xbf" + text.encode()):
        path.write_bytes(raw)
        for found in (good(decode_text(item(path=path), 100)), good(decode_text(item(data=raw), 100))):
            assert (found.value, found.content_hash, found.truncated) == (text, sha(text), False)
            assert found.size == len(raw)
    assert good(decode_text(item(path=path), 100)).mtime_ns == path.stat().st_mtime_ns
    found = good(decode_text(item(text), 100))
    assert (found.value, found.content_hash, found.size) == (text, sha(text), len(text.encode()))


def test_the_hash_is_of_the_whole_text_and_the_value_is_cut() -> None:
    text = "é" * 50 + "\0" + "x" * 50
    found = good(decode_text(item(text), 60))
    assert found.value == "é" * 50 + "x" * 10
    assert found.truncated
    assert found.content_hash == sha(text)
    assert good(decode_text(item(text[:-1] + "y"), 60)).content_hash != found.content_hash
    assert not good(decode_text(item("x" * 60 + "\0"), 60)).truncated
    assert good(decode_text(item("x" * 61), 60)).truncated


@pytest.mark.parametrize("text", ["", " \n\t\u3000", "\0\0", " " * 100 + "too late"])
def test_nothing_to_embed(text: str) -> None:
    failure = bad(decode_text(item(text), 50))
    assert (failure.stage, failure.reason) == ("decode", "empty_text")


def test_what_is_no_unicode_is_named_with_its_place(tmp_path: Path) -> None:
    failure = bad(decode_text(item("abc\ud800d"), 2))
    assert (failure.stage, failure.reason, failure.exception) == ("decode", "bad_unicode", "UnicodeEncodeError")
    assert "at character 3" in failure.message
    (tmp_path / "x.txt").write_bytes(b"caf\xe9 noir")
    failure = bad(decode_text(item(path=tmp_path / "x.txt"), 50))
    assert (failure.stage, failure.reason, failure.exception) == ("decode", "bad_unicode", "UnicodeDecodeError")
    assert "at byte 3" in failure.message
    assert failure.bytes == 9
    wide = bad(decode_text(item(data="wide".encode("utf-16")), 50))
    assert wide.reason == "bad_unicode"
    assert "UTF-16" in wide.message


def test_a_byte_order_mark_does_not_shift_the_offset() -> None:
    assert "at byte 5" in bad(decode_text(item(data=b"\xef\xbb\xbfab\xff"), 50)).message


def test_a_file_that_cannot_be_read_fails_in_reading(tmp_path: Path) -> None:
    failure = bad(decode_text(item(path=tmp_path / "gone.txt"), 50))
    assert (failure.stage, failure.reason, failure.exception) == ("read", "missing", "FileNotFoundError")
    os.mkfifo(tmp_path / "pipe.txt")
    assert bad(decode_text(item(path=tmp_path / "pipe.txt"), 50)).reason == "not_a_file"
    huge = bad(decode_text(item(data=b"x" * ((64 << 20) + 1)), 50))
    assert (huge.stage, huge.reason, huge.bytes) == ("read", "too_large", (64 << 20) + 1)


def test_a_surrogate_behind_nuls_is_still_found() -> None:
    with pytest.raises(Undecodable, match="surrogate"):
        clean("\0" * 10 + "ab\ud800", 3)
    assert clean("ab\0c", 3) == ("abc", False)


def test_a_long_line_is_quick() -> None:
    started = time.process_time()
    found = good(decode_text(item("a long line " * 900_000), 32_768))
    assert len(found.value) == 32_768
    assert time.process_time() - started < 2
