"""Tuned encoders of a store: `tuned/<digits>/` in the collection whose items they were tuned on."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from embedder import checkpoint, naming
from embedder.checkpoint import SEEN, Checkpoint
from embedder.encoders.tuned import folder_of
from embedder.errors import EncoderError, PermafrostError, UnknownName, UsageError
from embedder.naming import EncoderName
from embedder.space import Space
from index import files
from index.store import Collection

HOME, KIND = "tuned", "tuned"


def save(home: Path, name: str, contents: Mapping[str, bytes]) -> Path:
    """Write a tuned encoder into `home`, whole or not at all, and return its folder; one that is there stays."""
    home.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".tmp-{os.getpid()}-", dir=home))
    try:
        for file, data in contents.items():
            files.write_bytes(aside / file, data)
        files.checkpoint("tuned:rename")
        _put(aside, home / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    files.sync_folder(home)
    return home / name


def _put(aside: Path, folder: Path) -> None:
    if (folder / checkpoint.MANIFEST).exists():
        # the same weights again: what was measured may have changed
        for file in (checkpoint.ROWS, checkpoint.MANIFEST):
            (aside / file).replace(folder / file)
        return
    aside.chmod(0o755)
    aside.rename(folder)


def name_of(folder: Path) -> str:
    """Return the encoder's name of a tuned encoder in any folder."""
    return str(EncoderName(KIND, str(folder)))


def names(root: Path) -> list[str]:
    """Return the names of the tuned encoders in a store's folder."""
    return sorted({f"{KIND}:{path.parent.name}" for path in root.glob(f"*/{HOME}/*/{checkpoint.MANIFEST}")})


def located(name: str, root: Path) -> str:
    """Return an encoder's name with the place of its files in it, where it is one of the store at `root`.

    Raises:
        UnknownName: a tuned encoder that the store does not have.
    """
    if not name.startswith(f"{KIND}:"):
        return name
    parsed = naming.parse(name)
    if parsed.name.startswith(("/", ".", "~")) or "home" in parsed.options:
        return name
    named = checkpoint.NAME.fullmatch(parsed.name)
    homes = sorted(path.parent for path in root.glob(f"*/{HOME}/{parsed.name}") if path.is_dir()) if named else []
    if not homes:
        known = names(root)
        hint = f"here: {', '.join(known)}" if known else "permafrost finetune makes one"
        raise UnknownName.of("tuned encoder", f"{KIND}:{parsed.name}", known, where=str(root), hint=hint)
    return str(replace(parsed, options={**parsed.options, "home": str(homes[0])}))


def is_tuned(space: Space) -> bool:
    """Say whether a Space is of a tuned encoder."""
    return space.encoder.startswith(f"{KIND}:")


def of(collection: Collection, space: Space) -> Checkpoint:
    """Return the tuned encoder of a Space.

    Raises:
        EncoderError: its folder is gone or damaged, so that nobody can say which rows it saw.
    """
    root = collection.path.parent
    try:
        found = checkpoint.read(folder_of(naming.parse(located(space.encoder, root))))
        if found.digest != space.identity["weights"]["tuned"]:
            raise EncoderError("it has other weights than those of the Space")
    except PermafrostError as error:
        raise EncoderError(
            f"which items {space.encoder} was tuned on cannot be read: {error.what}", where=f"Space {space}",
            hint="bring its folder back from a backup, or tune again: permafrost finetune",
        ) from error  # fmt: skip
    return found


def seen(collection: Collection, space: Space) -> frozenset[str]:
    """Return the contents (sha256) whose labels the encoder of a Space was tuned on; none where it was not tuned.

    Raises:
        EncoderError: see `of`.
    """
    return of(collection, space).rows[SEEN] if is_tuned(space) else frozenset()


def damaged(collection: Collection) -> list[tuple[str, str]]:
    """Return each tuned encoder of a collection that cannot be read, and why."""
    found = []
    for folder in sorted((collection.path / HOME).glob("[!.]*")):
        try:
            one = checkpoint.read(folder)
            one.weights()
            one.rows  # noqa: B018  read and compared with its checksum
        except EncoderError as error:
            found.append((folder.name, error.what))
    return found


def check_out(out: str) -> Path:
    """Return the folder given with `--out`. Raises `UsageError` where something is there."""
    folder = Path(out).expanduser().absolute()
    if folder.exists():
        raise UsageError(f"{folder} exists", where="--out", hint="give a new folder")
    return folder
