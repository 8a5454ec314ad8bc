from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from heads.report.compare import Comparison, NadeauBengio
from heads.report.curve import Curve, Measured
from heads.report.freeze import Ceiling, Pilot, Read, ceiling, freeze, pilot_cost


def compared(a: str, low: float, high: float, p: float = 0.001) -> Comparison:
    middle = (low + high) / 2
    nb = NadeauBengio(1.0, 4, p, (low, high), (low, high))
    return Comparison(a, "frozen", middle, (low, high), (low, high), (low, high), p, nb, p, 0.1, 1.0, 500, 500)


def curve(low: float, high: float) -> Curve:
    some = Measured(np.array([200, 400]), np.full((8, 2), 0.2), 100.0)
    return Curve(some, 1, 0.5, 0.1, np.ones((2, 3)), (low + high) / 2, (low, high), 0.01, (0.0, 0.02))


FALLING, FLAT, OPEN = curve(0.03, 0.05), curve(0.0, 0.01), curve(0.01, 0.05)
FAR, MET = Ceiling(0.95, "your target", True), Ceiling(0.75, "your target", True)
BASE = Read(0.8, (0.78, 0.82), 500, FLAT, ceiling=FAR)
GAINS, FAILS = Pilot(compared("tuned", 0.03, 0.06)), Pilot(compared("tuned", -0.01, 0.01))


@pytest.mark.parametrize(
    ("read", "value", "words"),
    [
        (BASE, "pilot", "Frozen has levelled off 15.0 points (13.0 to 17.0) below your target"),
        (replace(BASE, ceiling=MET), "stay_frozen", "reaches your target, 75.0 %"),
        (replace(BASE, ceiling=Ceiling(0.75, "noise", False)), "undecided", "within that of"),
        (replace(BASE, curve=FALLING), "label_more", "from 400 to 800 labels"),
        (replace(BASE, curve=OPEN), "undecided", "Not enough data to say"),
        (replace(BASE, curve=None), "undecided", "learning curve was not measured"),
        (replace(BASE, ceiling=None), "undecided", "none was given"),
        (replace(BASE, ceiling=Ceiling(0.83, "your target", True)), "undecided", "needs about"),
        (replace(BASE, ceiling=Ceiling(0.82, "", True), interval=(0.795, 0.81), accuracy=0.805), "undecided", ""),
        (replace(BASE, switches=[compared("layer 3", 0.01, 0.03)]), "switch", "layer 3 gets 2.0 points"),
        (replace(BASE, switches=[compared("layer 3", 0.01, 0.03, 0.04)] * 2), "pilot", "levelled off"),
        (replace(BASE, switches=[compared("x", 0.01, 0.03)], ceiling=MET), "stay_frozen", "reaches"),
        (replace(BASE, pilot=GAINS), "fine_tune", "tuned gets 4.5 points (3.0 to 6.0) more than frozen"),
        (replace(BASE, pilot=GAINS, curve=FALLING), "fine_tune", "Fine-tuning pays"),
        (replace(BASE, pilot=replace(GAINS, shifted_loss=compared("x", -0.01, 0.01))), "fine_tune", "at most 1.0"),
        (replace(BASE, pilot=replace(GAINS, shifted_loss=compared("x", 0.01, 0.09))), "undecided", "weigh the two"),
        (replace(BASE, pilot=FAILS), "stay_frozen", "gains less than 2.0 points"),
        (replace(BASE, pilot=FAILS, curve=FALLING), "label_more", "Label more"),
        (replace(BASE, pilot=Pilot(compared("tuned", 0.0, 0.05))), "undecided", "Not enough data to say"),
        (replace(BASE, pilot=GAINS, delta=0.04), "undecided", "Not enough data to say"),
    ],
)  # fmt: skip
def test_the_first_rule_that_holds_answers(read: Read, value: str, words: str) -> None:
    found = freeze(read)
    assert found.value == value
    assert words in found.sentence
    json.dumps(found.as_json())


def test_only_a_measured_gain_says_fine_tune() -> None:
    for part in (FALLING, FLAT, OPEN, None):
        for top in (FAR, MET, None):
            assert freeze(replace(BASE, curve=part, ceiling=top)).value != "fine_tune"


def test_the_ceiling_is_the_target_then_people_then_noise() -> None:
    found = [
        ceiling(target=0.9, human_disagreement=0.05, noise=0.1), ceiling(human_disagreement=0.05, noise=0.1),
        ceiling(noise=0.1), ceiling(),
    ]  # fmt: skip
    assert [c and (pytest.approx(c.accuracy), c.reachable) for c in found] == [
        (0.9, True), (0.95, True), (0.9, False), None,
    ]  # fmt: skip


def test_the_cost_of_a_pilot() -> None:
    cost = pilot_cost(1000, 50.0)
    assert cost.passes == 1000 * (1.75 * 3 * 10 * 3 + 1)
    assert cost.seconds == pytest.approx(cost.passes / 50)
    said: Any = freeze(replace(BASE, cost=cost)).sentence
    assert said.endswith("A pilot takes about 53 minutes at the speed measured here (160,000 passes).")
    assert "160,000 passes through the encoder" in freeze(replace(BASE, cost=pilot_cost(1000, None))).sentence


def test_items_needed_grow_as_the_square_of_the_interval() -> None:
    read = replace(BASE, curve=replace(OPEN, gain=0.025, gain_interval=(0.015, 0.035)))
    assert "about 2,000 items; you have 500" in freeze(read).sentence
