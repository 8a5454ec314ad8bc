from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from heads import labels
from heads.report import report as questions
from heads.report.answers import Asked
from heads.report.candidates import Candidate, majority
from heads.report.compare import draw_error, paired
from heads.report.gather import Gathered
from heads.report.probes import plan
from heads.report.ridge import RidgeProbe
from heads.report.selection import drawn, nested
from heads.report.transfer import bar_of, transfer
from heads.report.twins import families, worth_comparing, worth_drawing
from tests.heads.report.tools import even, probe, share

Y = np.arange(120) % 2
TWINS = {f"a{k}": "a" for k in range(3)} | {"b0": "b"}


def twin(of: str, seed: int, shift: float = 0.0) -> Candidate:
    X = np.random.default_rng(seed).normal(size=(120, 4)) + shift * Y[:, None]
    return Candidate(f"{of}{seed}", "random", X.astype(np.float32), of=of)


def found(*controls: Candidate) -> Gathered:
    units: Any = [f"u{i}" for i in range(120)]
    keys: Any = np.arange(120)
    task = labels.Task(keys, np.zeros((120, 1), np.float32), Y, ["x", "y"], units, np.arange(120), None, {})
    return Gathered("c", "label", task, units, [], [*controls, majority(120)], {})


def test_draws_of_one_architecture_are_a_family() -> None:
    made = [twin("a", 0), majority(120), twin("b", 0), twin("a", 1)]
    assert [[c.name for c in family] for family in families(made)] == [["a0", "a1"], ["majority"], ["b0"]]


def test_the_best_twin_is_drawn_again_until_it_was_drawn_three_times() -> None:
    assert worth_drawing(found(twin("a", 0)), 3, 0) == "a"
    assert worth_drawing(found(twin("a", 0), twin("b", 1, shift=2.0)), 3, 0) == "b"
    thrice = [twin("b", k, shift=2.0) for k in range(3)]
    assert worth_drawing(found(twin("a", 0), *thrice), 3, 0) is None
    assert worth_drawing(found(), 3, 0) is None


def test_of_many_rows_the_twin_drawn_most_often_stands_for_all_twins() -> None:
    controls = [
        *(twin("a", k) for k in range(3)),
        twin("b", 0),
        *(Candidate(n, "pixels", twin("", 0).X) for n in "pqr"),
    ]
    shares = {"a0": 0.9, "a1": 0.5, "a2": 0.7, "b0": 0.99, "p": 0.6, "q": 0.8, "r": 0.5}
    ridge = {n: RidgeProbe(np.arange(1000) < 1000 * s, np.zeros(5)) for n, s in shares.items()}
    kept = worth_comparing(controls, ridge, 3000)
    assert [c.name for c in kept] == ["a0", "a1", "a2", "p", "q"]
    assert worth_comparing(controls, ridge, 2000) == controls


def test_twins_are_read_by_neighbours_as_encoders_are_and_their_draws_stay_together() -> None:
    it = found(*(twin("a", k) for k in range(3)))
    it.encoders.append(replace(twin("e", 9, shift=1.0), kind="encoder"))
    probed = questions.probe(it, plan(Y, it.ids, repeats=1), Asked(), lambda step: None)
    voted = {f"a{k} with neighbours": "a with neighbours" for k in range(3)}
    assert probed.twins == {"a0": "a", "a1": "a", "a2": "a", **voted}
    assert [p.name for p in probed.of("encoder", head="knn")] == ["e9 with neighbours"]
    bars = [[p.name for p in family] for family in bar_of(probed.controls, probed.twins)]
    assert sorted(map(len, bars)) == [1, 3, 3]
    assert list(voted) in bars


def test_the_bar_is_chosen_among_whole_families() -> None:
    on = even(60)
    made = {n: probe(on, share(on, 0.5, k), n) for k, n in enumerate(("a0", "b0", "pixels", "a1", "a2"))}
    assert [[p.name for p in family] for family in bar_of(list(made.values()), TWINS)] == [
        ["a0", "a1", "a2"],
        ["pixels"],
    ]
    assert len(bar_of([made["a0"], made["b0"]], TWINS)) == 2


def test_a_family_is_chosen_by_its_mean_and_read_draw_by_draw() -> None:
    on = even(100)
    good, bad = probe(on, share(on, 0.9, 1), "a0", inner=-0.1), probe(on, share(on, 0.5, 2), "a1", inner=-0.9)
    pixels = probe(on, share(on, 0.7, 3), "pixels", inner=-0.4)
    assert [bar.name for bar in drawn([[good, bad], [pixels]], on)] == ["pixels", "pixels"]
    pixels.inner[:] = -0.6
    first, second = drawn([[good, bad], [pixels]], on)
    assert np.array_equal(first.correct, good.correct)
    assert np.array_equal(second.correct, bad.correct)
    assert nested([good, pixels], on).name == "a0"


def test_the_mean_of_draws_is_compared_and_the_interval_covers_their_spread() -> None:
    on = even(400)
    mine = probe(on, share(on, 0.8, 1))
    alike = [probe(on, share(on, 0.7, k), f"a{k}") for k in range(3)]
    apart = [probe(on, share(on, a, k), f"a{k}") for k, a in enumerate((0.55, 0.7, 0.85))]
    near, far = (
        paired(mine.correct, np.stack([p.correct for p in some]), on.fold, on.resampler) for some in (alike, apart)
    )  # fmt: skip
    assert near.difference == pytest.approx(mine.accuracy - np.mean([p.accuracy for p in alike]))
    assert far.draw_error == pytest.approx(np.std([p.accuracy for p in apart], ddof=1) / np.sqrt(3))
    assert far.interval[0] < far.t_interval[0] + 0.03 < near.interval[0]
    assert far.p > near.p
    assert far.direction() == "undecided"
    single = paired(mine.correct, alike[0].correct[None], on.fold, on.resampler)
    assert (single.draw_error, single.draws) == (0.0, 1)
    assert single == paired(mine.correct, alike[0].correct, on.fold, on.resampler)


def test_draws_that_are_one_add_nothing() -> None:
    right = np.random.default_rng(0).random(50)
    assert draw_error(np.stack([right, right, right])) == pytest.approx(0)
    assert draw_error(right[None]) == 0.0


def test_a_lucky_draw_does_not_make_the_encoder_worse_nor_better() -> None:
    on = even(400)
    twins = [probe(on, share(on, a, k), f"a{k}") for k, a in enumerate((0.6, 0.6, 0.9))]
    hurt = transfer([probe(on, share(on, 0.8, 9), "enc")], twins, on, twins=TWINS).verdict
    assert hurt.value == "undecided"
    assert hurt.evidence["control_draws"] == pytest.approx([p.accuracy for p in twins])
    assert transfer([probe(on, share(on, 0.8, 9), "enc")], [twins[2]], on, twins=TWINS).verdict.value == "hurts"


def test_the_sentence_says_how_many_seeds() -> None:
    on = even(400)
    twins = [probe(on, share(on, 0.6, k), f"a{k}") for k in range(3)]
    said = transfer([probe(on, share(on, 0.9, 9), "enc")], twins, on, twins=TWINS).verdict
    assert said.value == "helps"
    assert "over the best control (a0, mean of 3 seeds)" in said.sentence
    pixels = probe(on, share(on, 0.7, 5), "pixels", inner=0.1)
    pixels.inner[0, 0] = -0.1
    mixed = transfer([probe(on, share(on, 0.95, 9), "enc")], [*twins, pixels], on, twins=TWINS).verdict
    assert mixed.evidence["controls_picked"] == {"pixels": 9, "a0": 1}
    assert "over the best control (pixels)" in mixed.sentence
    assert len(mixed.evidence["control_draws"]) == 3
