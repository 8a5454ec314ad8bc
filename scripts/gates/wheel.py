"""Build the wheel, install it in a clean environment outside the checkout, and use its console script end to end.

The environment sees the packages that this one has, through a path file, so that nothing is downloaded again; a path
file named there is not followed, so this environment's editable install is not what gets imported. That is checked.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("embedder", "index", "heads", "api", "permafrost")
PROBE = """
import importlib, json, sys
from importlib.metadata import packages_distributions
names = sys.argv[1:]
files = {name: importlib.import_module(name).__file__ for name in names}
owners = packages_distributions()
print(json.dumps({"files": files, "owners": {name: owners.get(name, []) for name in names}}))
"""
TEXTS = {
    "animal": ("the cat sleeps", "a cat and a dog", "the dog barks at the cat", "a dog sleeps", "cat, dog, cat"),
    "weather": ("rain and wind today", "the wind brings rain", "snow after rain", "wind and snow", "rain, snow, wind"),
}


class Failed(Exception):
    """Something that the wheel must do and does not."""


def build(folder: Path) -> Path:
    """Build the wheel into `folder`, with the build tools that are installed here."""
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)])
    return next(folder.glob("*.whl"))


def contents(wheel: Path) -> set[str]:
    """Return the names at the top of a wheel, its own metadata left out."""
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    return {name for name in tops if not name.endswith(".dist-info")}


def install(wheel: Path, folder: Path) -> Path:
    """Make an environment in `folder`, install the wheel alone into it, and return its `bin`."""
    venv.create(folder, with_pip=False, symlinks=True)
    binaries = folder / "bin"
    python = str(binaries / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-qq", "--disable-pip-version-check"]
    run([*pip, "--no-deps", "--no-index", str(wheel)])
    site = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], cwd=folder).strip()
    Path(site, "the_other_environment.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return binaries


def check_imports(binaries: Path, home: Path) -> None:
    """Refuse where a room comes from elsewhere than the wheel, or belongs to another distribution too."""
    found = json.loads(run([str(binaries / "python"), "-c", PROBE, *NAMES], cwd=home))
    for name in NAMES:
        if not Path(found["files"][name]).is_relative_to(binaries.parent):
            raise Failed(f"{name} is imported from {found['files'][name]}, not from the wheel")
        if set(found["owners"][name]) != {"permafrost"}:
            raise Failed(f"{name} belongs to {found['owners'][name]}, not to permafrost alone")


def use(binaries: Path, home: Path) -> None:
    """Use the verbs of the console script, and look at the document that each prints."""
    table = home / "texts.csv"
    with table.open("w", encoding="utf-8", newline="") as out:
        rows = [(f"{label}-{i}", text, label) for label, texts in TEXTS.items() for i, text in enumerate(texts)]
        csv.writer(out).writerows([("id", "text", "label"), *rows])

    def permafrost(*words: str) -> dict[str, Any]:
        said = run([str(binaries / "permafrost"), "--json", *words], cwd=home)
        return dict(json.loads(said))

    run([str(binaries / "permafrost"), "--help"], cwd=home)
    count = len(rows)
    expect("embed", permafrost("embed", str(table), "--into", "texts", "--encoder", "hashing:64"), embedded=count)
    expect("embed again", permafrost("embed", str(table), "--into", "texts"), embedded=0, unchanged=count)
    hits = permafrost("search", "texts", "the cat sleeps", "-k", "3")["hits"]
    if [hit["id"] for hit in hits][:1] != ["animal-0"] or len(hits) != 3:
        raise Failed(f"search: {hits}")
    trained = permafrost("train", "texts", "--label", "label", "--name", "kind")
    expect("train", trained, label="label", classes=sorted(TEXTS))
    results = permafrost("classify", "texts/kind", "rain and snow", "a dog and a cat")["results"]
    if [one["label"] for one in results] != ["weather", "animal"]:
        raise Failed(f"classify: {results}")
    if permafrost("info", "texts").get("items") != count:
        raise Failed(f"info does not say {count} items")
    expect("verify", permafrost("verify", "texts"), ok=True)
    expect("delete", permafrost("delete", "texts", "--id", "animal-0"), deleted=1)


def expect(what: str, document: Mapping[str, Any], **facts: Any) -> None:
    """Refuse where a document does not say these facts."""
    wrong = {name: document.get(name) for name, value in facts.items() if document.get(name) != value}
    if wrong:
        raise Failed(f"{what}: {wrong} where {facts} was expected")


def run(words: Sequence[str], cwd: Path | None = None) -> str:
    """Run a command in a clean environment and return what it printed. Raises `Failed` with what it said."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("PERMAFROST_", "PYTHON"))}
    done = subprocess.run(words, cwd=cwd, env=keep, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Failed(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def main() -> int:
    """Build, install, use; 1 where something fails."""
    with tempfile.TemporaryDirectory(prefix="permafrost-wheel-") as work:
        home = Path(work)
        try:
            wheel = build(home / "dist")
            if contents(wheel) != {*NAMES[:-1], "permafrost.py"}:
                raise Failed(f"the wheel holds {sorted(contents(wheel))}")
            binaries = install(wheel, home / "environment")
            check_imports(binaries, home)
            use(binaries, home)
        except Failed as error:
            print(error)
            return 1
        print(f"{wheel.name}: built, installed outside the checkout, and used end to end")
    return 0


if __name__ == "__main__":
    sys.exit(main())
