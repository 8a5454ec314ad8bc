"""Files from the Hugging Face hub: pinned to one commit, checked against their hash, and quick to fail without one."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from embedder.encoders._files import sha256_file
from embedder.errors import EncoderError

TIMEOUT_S = 3
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Snapshot:
    """Files of one commit, side by side in `folder`."""

    folder: Path
    commit: str


def fetch(
    repo: str,
    revision: str | None,
    required: Sequence[Sequence[str]],
    optional: Sequence[str] = (),
    *,
    offline_hint: str,
) -> Snapshot:
    """Return a folder with one file of each group in `required`, and those of `optional` that exist.

    A full commit hash whose files are cached needs no network. Without a hub the newest cached commit is used.

    Raises:
        EncoderError: no hub can be reached and the files are not cached; or the hub has no such repository,
            revision or file; or a file fails its checksum twice.
    """
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    where = f"{repo}@{revision or 'main'}"
    try:
        if revision and COMMIT.fullmatch(revision):
            try:
                return _fetch(repo, revision, required, optional, local=True)
            except (LocalEntryNotFoundError, EncoderError):
                pass  # a commit never changes, so the cache is asked first; what it lacks or spoiled is fetched
        return _fetch(repo, revision, required, optional, local=not reachable())
    except LocalEntryNotFoundError as error:
        raise EncoderError(
            "no hub can be reached, and these weights are not in its cache", where=where, hint=offline_hint
        ) from error
    except (EntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise EncoderError(f"the hub does not give {where}: {reason}", where=where, hint=offline_hint) from error


def reachable() -> bool:
    """Say whether the hub answers within three seconds; the hub's client alone would retry for twenty."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    request = Request(constants.ENDPOINT, method="HEAD")  # noqa: S310  the endpoint is the hub client's own setting
    try:
        with urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
            return True
    except HTTPError:
        return True
    except URLError as error:
        # the hub's own client may know certificates that urllib does not
        return isinstance(error.reason, ssl.SSLError)
    except OSError:
        return False


def _fetch(
    repo: str, revision: str | None, required: Sequence[Sequence[str]], optional: Sequence[str], *, local: bool
) -> Snapshot:
    from huggingface_hub.errors import EntryNotFoundError

    first = _any_of(repo, required[0], revision, local)
    commit = first.parent.name
    for group in required[1:]:
        _any_of(repo, group, commit, local)
    for file in optional:
        try:
            _any_of(repo, [file], commit, local)
        except EntryNotFoundError:
            continue
    return Snapshot(first.parent, commit)


def _any_of(repo: str, files: Sequence[str], revision: str | None, local: bool) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    for file in files:
        try:
            path = Path(hf_hub_download(repo, file, revision=revision, local_files_only=local, etag_timeout=TIMEOUT_S))
        except EntryNotFoundError:
            if file == files[-1]:
                raise
            continue
        if not _intact(path) and not local:
            path = Path(hf_hub_download(repo, file, revision=revision, force_download=True))
        if not _intact(path):
            raise EncoderError(
                f"{file} of {repo} is damaged in the hub's cache: its bytes do not match its sha256",
                where=str(path), hint="delete this file and load the encoder again with a network",
            )  # fmt: skip
        return path
    raise ValueError("no file was asked for")


def _intact(path: Path) -> bool:
    """Compare a large file with its sha256, which is its name in the cache; small files carry a git hash instead."""
    name = path.resolve().name
    return re.fullmatch(r"[0-9a-f]{64}", name) is None or sha256_file(path.resolve()) == name
