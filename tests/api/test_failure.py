"""Every exception has its number and says what, where and what to do."""

from __future__ import annotations

import errno

import pytest

from api.failure import explain
from embedder import errors


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (errors.PermafrostError("x"), 1, 500),
        (errors.UsageError("x"), 2, 422),
        (errors.UnknownName("x"), 2, 404),
        (errors.NothingToDo("x"), 2, 422),
        (errors.Overloaded("x"), 1, 429),
        (errors.DeadlineExceeded("x"), 1, 504),
        (errors.Undecodable("x", stage="read", reason="missing"), 1, 415),
        (errors.EncoderError("x"), 1, 503),
        (errors.MissingFact("x"), 1, 503),
        (errors.Damaged("x"), 1, 500),
        (errors.Refused("x"), 3, 409),
        (errors.SpaceMismatch("x"), 3, 409),
        (errors.TooManyFailures("x"), 4, 422),
        (errors.Locked("x"), 5, 409),
        (errors.OutOfResource("x"), 6, 507),
        (OSError(errno.ENOSPC, "No space left on device"), 6, 507),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 6, 507),
        (RuntimeError("lance error: LanceError(IO): No space left on device (os error 28)"), 6, 507),
        (MemoryError(), 6, 507),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), 6, 507),
        (KeyboardInterrupt(), 130, 500),
        (SystemExit(143), 143, 500),
        (PermissionError(errno.EACCES, "Permission denied", "some/file"), 1, 500),
        (ZeroDivisionError("division by zero"), 1, 500),
    ],
)
def test_each_has_its_number(error: BaseException, code: int, status: int) -> None:
    failure = explain(error)
    assert (failure.exit_code, failure.status) == (code, status)
    assert failure.what
    assert failure.as_json()["exit_code"] == code


def test_every_error_of_ours_is_in_the_table() -> None:
    params = test_each_has_its_number.pytestmark[0].args[1]  # type: ignore[attr-defined]
    listed = {type(error) for error, _, _ in params}
    ours = {e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.PermafrostError)}
    assert ours <= listed


def test_what_nobody_expected_names_our_line_and_the_way_to_more() -> None:
    try:
        from api.documents import plain

        plain(object())
    except TypeError as error:
        failure = explain(error)
    assert failure.unexpected
    assert failure.where.startswith("api/documents.py:")
    assert "--debug" in failure.hint
    assert failure.what == "unexpected TypeError: object has no JSON form"


def test_an_interruption_says_that_it_can_go_on() -> None:
    assert "goes on where it stopped" in explain(KeyboardInterrupt()).hint
