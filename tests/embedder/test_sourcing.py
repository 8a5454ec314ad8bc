"""What is given as a source and is none is answered with what to give."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedder.errors import UsageError
from embedder.sourcing import READS, open_source, unreadable
from tests.embedder.sources import not_root


def refusal(uri: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        open_source(uri)
    str(caught.value)
    return caught.value


def test_a_path_with_nothing_there_is_told_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    error = refusal(str(tmp_path / "photo"))
    assert error.what == f"there is nothing at '{tmp_path}/photo'"
    assert (error.where, error.hint) == (f"looked in {tmp_path}", "did you mean photos?")


@pytest.mark.parametrize("uri", ["", "a\0b", "no/such/folder/x.csv", "\ud800", "x" * 5000])
def test_what_is_no_path(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    error = refusal(uri)
    assert error.what.startswith("there is nothing at")
    assert READS in error.hint


def test_an_address_is_not_taken_for_a_path() -> None:
    error = refusal("s3://bucket/photos")
    assert error.what == "s3://bucket/photos cannot be read: Install s3fs to access S3"
    assert "install that package" in error.hint


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    (tmp_path / "dangling.csv").symlink_to("gone")
    for name in ("a.xlsx", "dangling.csv"):
        error = refusal(str(tmp_path / name))
        assert error.what == f"no kind of source reads '{tmp_path / name}'"
        assert READS in error.hint


def test_names_are_not_looked_up_where_they_may_not_be() -> None:
    with not_root() as folder:
        (folder / "locked").mkdir(mode=0o311)
        assert READS in refusal(str(folder / "locked" / "x")).hint


def test_why_a_file_cannot_be_read() -> None:
    failure = unreadable("a", "/x/a%0A.jpg", PermissionError(13, "Permission denied", "/x/a\n.jpg"))
    assert (failure.stage, failure.reason, failure.exception) == ("read", "permission", "PermissionError")
    assert failure.message == "Permission denied: /x/a%0A.jpg"
    assert unreadable("a", "a%00", ValueError("embedded null byte")).reason == "missing"
    assert unreadable("a", "a", OSError(5, "Input/output error")).reason == "io"
