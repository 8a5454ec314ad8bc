"""Reports that were made: kept under `reports/<n>/`, listed, and read again as document or page."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from api import report_page
from api.acts.held import Held
from embedder.errors import UnknownName
from index import files
from index.store import Collection

HOME, DOCUMENT, PAGE = "reports", "report.json", "report.html"


class Reported(Held):
    """What became of reporting."""

    def reports(self, name: str) -> dict[str, Any]:
        """Return `collection` and `reports`, the newest first: `report label created seed items verdicts`, the last by
        name with their values alone."""
        home = self.collection(name).path / HOME
        numbers = sorted((int(path.name) for path in _folders(home)), reverse=True)
        return {"collection": name, "reports": [_line(home / str(number)) for number in numbers]}

    def report_document(self, name: str, number: int) -> dict[str, Any]:
        """Return the document of a report as the act of reporting did. Raises `UnknownName` where there is none."""
        folder = self._folder(name, number)
        return {**files.read_json(folder / DOCUMENT), **_place(folder)}

    def report_html(self, name: str, number: int) -> bytes:
        """Return the page of a report; of one that was made without, a page that shows no items' pictures."""
        folder = self._folder(name, number)
        kept = folder / PAGE
        return kept.read_bytes() if kept.exists() else report_page.html(files.read_json(folder / DOCUMENT), {}).encode()

    def _folder(self, name: str, number: int) -> Path:
        home = self.collection(name).path / HOME
        if not (home / str(number) / DOCUMENT).exists():
            known = [path.name for path in _folders(home)]
            raise UnknownName.of("report", str(number), known, where=f"collection {name}", hint="make one first")
        return home / str(number)


def keep(collection: Collection, made: Mapping[str, Any], html: str | None) -> dict[str, Any]:
    """Write a document, and its page if there is one, aside; give the folder the next number; return that and the path
    of the page, or of the document where there is no page."""
    home = collection.path / HOME
    home.mkdir(exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".tmp-", dir=home))
    try:
        files.write_json(aside / DOCUMENT, made)
        if html is not None:
            files.write_bytes(aside / PAGE, html.encode())
        number = max((int(path.name) for path in _folders(home)), default=0) + 1
        while (home / str(number)).exists() or not _renamed(aside, home / str(number)):
            number += 1
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    files.sync_folder(home)
    return _place(home / str(number))


def _place(folder: Path) -> dict[str, Any]:
    shown = folder / PAGE if (folder / PAGE).exists() else folder / DOCUMENT
    return {"report": int(folder.name), "path": str(shown)}


def _folders(home: Path) -> list[Path]:
    return [path for path in home.iterdir() if path.name.isdecimal()] if home.exists() else []


def _line(folder: Path) -> dict[str, Any]:
    made = files.read_json(folder / DOCUMENT)
    created = datetime.fromtimestamp((folder / DOCUMENT).stat().st_mtime, UTC).isoformat(timespec="seconds")
    verdicts = {name: one["value"] for name, one in made["verdicts"].items()}
    facts = {"label": made["label"], "seed": made["seed"], "items": made["figures"]["items"]}
    return {"report": int(folder.name), "created": created, **facts, "verdicts": verdicts}


def _renamed(aside: Path, to: Path) -> bool:
    try:
        aside.rename(to)
    except OSError:
        if not to.exists():
            raise
        return False
    return True
