from __future__ import annotations

import re

import pytest

from api import plots


def row(name: str, accuracy: float, bar: bool) -> dict[str, object]:
    return {"name": name, "accuracy": accuracy, "interval": [accuracy - 0.02, accuracy + 0.02], "bar": bar}


@pytest.mark.parametrize(
    ("controls", "off", "least"),
    [({"pixels": 0.34, "majority": 0.17}, 1, 30), ({"pixels": 0.72, "majority": 0.17}, 1, 70), ({}, 0, 70)],
)
def test_the_best_control_is_on_the_scale_however_far_it_is_behind(
    controls: dict[str, float], off: int, least: int
) -> None:
    rows = [row("encoder", 0.74, False), *(row(name, share, True) for name, share in controls.items())]
    drawn = plots.intervals("ranking", "Accuracy", rows)
    assert drawn.count("off the scale") == off
    assert drawn.count("<circle") == len(rows) - off
    ticks = [int(share) for share in re.findall(r">(\d+) %</text>", drawn)]
    assert min(ticks) == least
    assert all(float(x) >= plots.LEFT for x in re.findall(r'<circle cx="([\d.]+)"', drawn))
