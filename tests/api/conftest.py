"""A small store behind every door: pictures of three colours and notes about two subjects, with a head on each."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from api.cli import main
from api.service import Service
from api.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COLOURS = {"red": (200, 30, 20), "green": (30, 180, 40), "blue": (20, 40, 210)}
PER_COLOUR = 8
SUBJECTS = {"boat": "a red boat on the sea and number", "money": "the stock market fell again on day"}
NOTES = 40


@dataclass(frozen=True)
class Said:
    """What a command line gave back."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out.count("\n") == 1, "one document on one line"
        return json.loads(self.out)


def picture(colour: tuple[int, int, int], seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(-30, 31, size=(24, 32, 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()


def write_pictures(folder: Path, per_colour: int = PER_COLOUR) -> Path:
    for at, (name, colour) in enumerate(COLOURS.items()):
        (folder / name).mkdir(parents=True)
        for n in range(per_colour):
            (folder / name / f"{n}.png").write_bytes(png(picture(colour, 100 * at + n)))
    return folder


def write_notes(path: Path, n: int = NOTES) -> Path:
    subjects = list(SUBJECTS.items())
    lines = [f"n{i},{subjects[i % 2][1]} {i},{2000 + i},{subjects[i % 2][0]}" for i in range(n)]
    path.write_text("\n".join(["id,text,year,label", *lines]) + "\n")
    return path


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_pictures(folder / "pics")
    write_notes(folder / "notes.csv")
    return folder


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, sources: Path) -> Path:
    """The store that others copy or only read."""
    store = tmp_path_factory.mktemp("built") / "store"
    service = Service(Settings(store=str(store)))
    service.embed(str(sources / "pics"), "pics", encoders=["pixels:8"])
    service.embed(str(sources / "notes.csv"), "notes", encoders=["hashing:64"])
    service.train("pics", label="label", kind="linear", name="colour")
    service.train("notes", label="label", kind="linear", name="subject")
    service.close()
    return store


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    """A store that a test may change."""
    return Path(shutil.copytree(built, tmp_path / "store"))


Run = Callable[..., Said]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process."""

    def act(*words: Any) -> Said:
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return act


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PERMAFROST_")}
    return {**kept, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **more}


def start(*words: Any, cwd: Path | None = None, **more: str) -> subprocess.Popen[str]:
    """Start a command line in a process of its own."""
    program = "import sys; from api.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(**more), cwd=cwd,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], timeout: float = 120) -> Said:
    out, err = process.communicate(timeout=timeout)
    return Said(process.returncode, out, err)
