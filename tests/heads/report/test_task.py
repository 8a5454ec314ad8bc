from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from heads.report.curve import Curve, Measured
from heads.report.leakage import Leakage
from heads.report.noise import Noise
from heads.report.probes import Plan, Probe, plan
from heads.report.signs import Signs, _relabelled, information, profile
from heads.report.task import task

N = 400


def planned(copies: int = 1) -> Plan:
    y = np.repeat(np.arange(N // copies) % 2, copies)
    return plan(y, [f"{i // copies:03}" for i in range(N)], repeats=1)


def said(on: Plan, accuracy: float, name: str = "e", head: str = "linear", train: float = 0.9, seed: int = 0) -> Probe:
    """A probe that is right on that share of the rows, the same ones for the same seed."""
    right = np.random.default_rng(seed).permutation(N) < accuracy * N
    answer = np.where(right, on.y, 1 - on.y)
    p = np.where(np.arange(2) == answer[:, None], 0.8, 0.2).astype(np.float32)[None]
    return Probe(name, head, on.y, p, np.zeros((1, 5)), np.full((1, 5), train), 0.0)


def curve(low: float, high: float) -> Curve:
    some = Measured(np.array([160, 320]), np.full((8, 2), 0.2), 80.0)
    return Curve(some, 1, 0.5, 0.1, np.ones((2, 3)), (low + high) / 2, (low, high), 0.01, (0.0, 0.02))


def doubts(rate: tuple[float, float, float], sure: float) -> Noise:
    return Noise(rate[0], rate[1:], np.arange(30), np.zeros(N, dtype=np.intp), sure + 0.1, (sure, sure + 0.2))


def leak(gap: float, low: float) -> Leakage:
    return Leakage(40, np.zeros((0, 2), dtype=np.intp), 0.8 + gap, 0.8, (low, gap + 0.01), N)


ON = planned()
GOOD = said(ON, 0.8)
SAME = (said(ON, 0.8, head="knn"),)
FALLING, FLAT = curve(0.03, 0.06), curve(0.0, 0.01)


@pytest.mark.parametrize(
    ("signs", "value", "words"),
    [
        (Signs(GOOD, SAME), "linear", "knn does worse"),
        (Signs(GOOD, (*SAME, said(ON, 0.8, head="mlp"))), "linear", "knn and mlp do worse"),
        (Signs(GOOD, SAME, leakage=leak(0.1, 0.05)), "leaking", "40 of 400 items have a near-copy"),
        (Signs(GOOD, SAME, leakage=leak(0.1, -0.01)), "linear", "A linear head is enough"),
        (Signs(GOOD, SAME, leakage=leak(0.01, 0.005)), "linear", "A linear head is enough"),
        (Signs(said(ON, 0.42), (said(ON, 0.42, head="knn"),)), "absent", "No information about the label"),
        (Signs(said(ON, 0.52), (said(ON, 0.545, head="knn", seed=1),)), "undecided", "better than chance"),
        (Signs(GOOD, (said(ON, 0.9, head="mlp"),)), "nonlinear", "mlp gets 10.0 points more"),
        (Signs(GOOD, (said(ON, 0.82, head="mlp"),)), "undecided", "Not enough data to say"),
        (Signs(GOOD, SAME, (said(ON, 0.95, "layer 3"), said(ON, 0.85, "l2"))), "other_layer", "Read layer 3: it"),
        (Signs(said(ON, 0.49), (said(ON, 0.49, head="knn"),), (said(ON, 0.9, "l3"),)), "other_layer", "Read l3"),
        (Signs(said(ON, 0.8, train=1.0), SAME, curve=FALLING), "too_few_labels", "twice the labels should gain"),
        (Signs(said(ON, 0.8, train=1.0), SAME, curve=FLAT), "linear", "A linear head"),
        (Signs(said(ON, 0.8, train=1.0), SAME, curve=curve(0.01, 0.05)), "undecided", "the labels may gain 3.0 points"),
        (Signs(said(ON, 0.8, train=1.0), SAME, curve=curve(0.01, 0.025)), "linear", "A linear head"),
        (Signs(said(ON, 0.87, train=1.0), SAME, curve=FALLING), "undecided", "the labels may gain 4.5 points"),
        (Signs(GOOD, SAME, (said(ON, 0.825, "layer 3"),)), "undecided", "which other folds of the same items may not"),
        (Signs(said(ON, 0.8, train=0.9), SAME, curve=FALLING), "linear", "A linear head"),
        (Signs(said(ON, 0.95, train=1.0), (), curve=FALLING), "undecided", "no other head was compared"),
        (Signs(GOOD, SAME, noise=doubts((0.1, 0.07, 0.13), 0.4)), "noisy_labels", "hard or mislabelled"),
        (Signs(GOOD, SAME, noise=doubts((0.1, 0.07, 0.13), 0.3)), "linear", "A linear head"),
        (Signs(GOOD, SAME, noise=doubts((0.1, 0.07, 0.13), 0.33)), "undecided", "or classes overlap"),
        (Signs(said(ON, 0.556), (said(ON, 0.556, head="knn"),)), "undecided", "one useless encoder in a hundred"),
        (Signs(said(ON, 0.58), (said(ON, 0.58, head="knn"),)), "linear", "A linear head"),
        (Signs(GOOD, SAME, noise=doubts((0.1, 0.04, 0.13), 0.4)), "linear", "A linear head"),
        (Signs(GOOD, SAME, noise=doubts((0.1, 0.07, 0.13), 0.4), curve=FALLING), "linear", "A linear head"),
        (Signs(GOOD, SAME, noise=doubts((0.4, 0.35, 0.45), 0.4)), "linear", "A linear head"),
        (Signs(GOOD, (said(ON, 0.97, head="knn"),), leakage=leak(0.1, 0.05)), "leaking", ""),
    ],
)  # fmt: skip
def test_the_first_rule_that_holds_answers(signs: Signs, value: str, words: str) -> None:
    found = task(signs, ON)
    assert found.verdict.value == value
    assert words in found.verdict.sentence
    assert json.loads(json.dumps(found.as_json()))["verdict"]["value"] == value


def test_selectivity_is_shown_beside() -> None:
    found = task(Signs(GOOD, SAME, control=said(ON, 0.6, "control")), ON)
    assert found.verdict.evidence["selectivity"] == pytest.approx(0.2)


def test_information_is_found_and_chance_is_not() -> None:
    p = information([said(ON, 0.7), said(ON, 0.5), said(ON, 0.45)], ON)
    assert p[0] == pytest.approx(3 / 1000)
    assert min(p[1:]) > 0.3


def test_labels_change_places_by_unit() -> None:
    on = planned(copies=4)
    drawn = list(_relabelled(on, 5))
    for y in drawn:
        blocks = y[np.argsort(on.units, kind="stable")].reshape(-1, 4)
        assert (blocks == blocks[:, :1]).all()
        assert y.sum() == on.y.sum()
    assert any((y != on.y).any() for y in drawn)


def test_grouped_guesses_that_are_right_by_units_are_not_taken_for_many() -> None:
    """Ten groups of forty: right on all of six groups is chance, though 240 of 400 rows are right."""
    y = np.repeat(np.arange(10) % 2, 40)
    on = plan(y, [f"{i // 40}" for i in range(N)], repeats=1)
    right = np.repeat(np.arange(10) < 6, 40)
    answer = np.where(right, y, 1 - y)
    p = np.where(np.arange(2) == answer[:, None], 0.8, 0.2).astype(np.float32)[None]
    probe = Probe("e", "linear", y, p, np.zeros((1, 5)), np.ones((1, 5)), 0.0)
    alone = replace(on, units=np.arange(N))
    assert information([probe], on)[0] > 0.05
    assert information([probe], alone)[0] <= 0.05


def test_the_profile_keeps_the_order_given_and_the_set_of_the_best() -> None:
    layers = [said(ON, a, f"layer {k}", seed=k) for k, a in enumerate((0.6, 0.9, 0.89, 0.7))]
    found = profile(layers, ON)
    assert [line.name for line in found] == [f"layer {k}" for k in range(4)]
    assert [line.best for line in found] == [False, True, True, False]
    assert all(line.interval[0] < line.accuracy < line.interval[1] for line in found)


def test_undecided_names_more_items_than_there_are() -> None:
    sentence: Any = task(Signs(GOOD, (said(ON, 0.82, head="mlp", seed=3),)), ON).verdict.sentence
    need = int(sentence.split("about ")[1].split(" items")[0].replace(",", ""))
    assert need > N
