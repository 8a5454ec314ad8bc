"""Makes the example of docs/report.md: the report of scikit-learn's digits, 1,797 pictures of 8 x 8 pixels.

    python scripts/example_report.py [--home FOLDER]

The digits ship with scikit-learn (BSD-3-Clause; from the UCI repository), so their pictures may stand in the page. With
`--home` pictures and store are kept there, and a second run embeds nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from api.service import Service  # noqa: E402
from api.settings import Settings  # noqa: E402

ENCODER, PAGE = "bundled:efficientnet_lite0?fit=pad", ROOT / "docs" / "examples" / "digits.html"
PER_LEVEL = 255 / 16


def write_digits(folder: Path) -> Path:
    """Write the digits black on white, a folder for each class."""
    digits = load_digits()
    for k, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        pixels = np.rint(255 - PER_LEVEL * image).astype(np.uint8)
        Image.fromarray(pixels).save(folder / str(label) / f"{k:04d}.png")
    return folder


def main() -> None:
    """Embed, report, and put the page in its place."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, help="keep pictures and store here")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        home = asked.home or Path(work)
        pictures = write_digits(home / "digits")
        with closing(Service(Settings(store=str(home / "store")))) as service:
            service.embed(str(pictures), "digits", encoders=[ENCODER])
            made = service.report("digits", label="label", encoders=[ENCODER], seed=asked.seed, say=print)
        PAGE.parent.mkdir(exist_ok=True)
        shutil.copyfile(made["path"], PAGE)
    for verdict in made["verdicts"].values():
        print(verdict["value"], verdict["sentence"], sep=": ")


if __name__ == "__main__":
    main()
