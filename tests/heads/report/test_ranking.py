from __future__ import annotations

import json

import numpy as np
import pytest

from heads.report.candidates import Candidate
from heads.report.probes import Plan, Probe, plan
from heads.report.ranking import Ranking, rank, ridge_of, worth_probing
from heads.report.ridge import RidgeProbe
from tests.heads.report.tools import even, probe, share

NONE = np.zeros((1, 1), dtype=np.float32)


def ranked(on: Plan, probes: list[Probe], speeds: dict[str, float] | None = None, **options: object) -> Ranking:
    made = {p.name: Candidate(p.name, "encoder", NONE, (speeds or {}).get(p.name), 4) for p in probes}
    return rank(probes, made, on, **options)  # type: ignore[arg-type]


def test_the_best_is_named_alone_only_when_it_is() -> None:
    on = even(600)
    found = ranked(on, [probe(on, share(on, a, k), n, inner=a) for k, (n, a) in enumerate([("a", 0.6), ("b", 0.9)])])
    assert (found.verdict.value, found.verdict.tied_with) == ("b", ())
    assert [line.standing for line in found.ranked] == ["first", "behind"]
    assert "it is the best of 2: the next is " in found.verdict.sentence
    json.dumps(found.as_json(), allow_nan=False)


def test_ties_and_what_cannot_be_told_apart_are_said_apart_with_cost() -> None:
    on = even(600)
    right = share(on, 0.85, 1)
    nearly = right.copy()
    nearly[:2] = False
    right[:2] = True
    probes = [probe(on, right, "a"), probe(on, nearly, "b"), probe(on, share(on, 0.84, 3), "c")]
    found = ranked(on, probes, {"a": 10.0, "b": 35.0, "c": 5.0})
    assert [(line.name, line.standing) for line in found.ranked] == [
        ("a", "first"), ("b", "tied"), ("c", "not told apart"),
    ]  # fmt: skip
    assert found.verdict.tied_with == ("b", "c")
    assert "b is tied with it within ±3.0 points; c is not told apart from it." in found.verdict.sentence
    assert "Not enough data to say: a 3.0-point difference needs" in found.verdict.sentence
    assert "b is the fastest, 3.5 times as fast as a" in found.verdict.sentence


def test_the_score_told_is_that_of_choosing_too() -> None:
    on = even(200)
    probes = [probe(on, share(on, 0.5, k), f"e{k}", inner=float(-k)) for k in range(10)]
    found = ranked(on, probes)
    evidence = found.verdict.evidence
    assert evidence["nested_accuracy"] == probes[0].accuracy
    assert evidence["apparent_accuracy"] == max(p.accuracy for p in probes) > evidence["nested_accuracy"]
    assert f"gets {100 * probes[0].accuracy:.1f} %" in found.verdict.sentence


def test_one_alone_is_compared_with_nothing() -> None:
    on = even(100)
    found = ranked(on, [probe(on, share(on, 0.8, 1))])
    assert found.verdict.sentence.endswith("of 100 items right, held out. Nothing else was compared.")


def test_corrections_count_every_pair() -> None:
    on = even(300)
    probes = [probe(on, share(on, 0.8 - 0.05 * k, k), f"e{k}") for k in range(4)]
    found = ranked(on, probes).ranked
    raw = sorted(line.behind.p for line in found[1:] if line.behind)
    told = sorted(line.p for line in found[1:] if line.p is not None)
    assert told[0] == pytest.approx(min(1.0, 6 * raw[0]))


def test_all_are_probed_on_small_sets_and_the_three_best_on_large() -> None:
    candidates = [Candidate(f"e{k}", "encoder", NONE) for k in range(6)]
    ridge = {c.name: RidgeProbe(np.arange(10) < k, np.zeros(5)) for k, c in enumerate(candidates)}
    small, large = (plan(np.arange(n) % 2, [str(i) for i in range(n)]) for n in (2000, 2001))
    assert worth_probing(candidates, ridge, small) == candidates
    assert [c.name for c in worth_probing(candidates, ridge, large)] == ["e3", "e4", "e5"]
    assert [c.name for c in worth_probing(candidates, ridge, large, default="e0")] == ["e0", "e3", "e4", "e5"]


def test_the_cheap_probe_is_told_and_names_what_was_left_out() -> None:
    on = even(100)
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(100, 3)) + 2 * on.y[:, None]).astype(np.float32)
    ridge = ridge_of([Candidate("a", "encoder", X), Candidate("z", "layer", X[:, ::-1].copy())], on)
    found = ranked(on, [probe(on, True)], ridge=ridge)
    assert found.ranked[0].ridge == ridge["a"].accuracy > 0.9
    assert found.left_out == {"z": ridge["z"].accuracy}
