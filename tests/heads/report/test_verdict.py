from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heads.report.verdict import FAR_ONCE, Verdict, direction, not_enough, percent, plain, points, rounded, span


@pytest.mark.parametrize(
    ("difference", "interval", "tie_interval", "expected"),
    [
        (0.05, (0.001, 0.1), (0.01, 0.09), "above"),
        (-0.05, (-0.1, -0.001), (-0.09, -0.01), "below"),
        (0.02, (0.011, 0.029), (0.012, 0.028), "above"),
        (0.017, (0.008, 0.026), (0.01, 0.024), "undecided"),
        (-0.017, (-0.026, -0.008), (-0.024, -0.01), "undecided"),
        (0.029, (0.001, 0.06), (0.005, 0.055), "undecided"),
        (0.031, (0.001, 0.06), (0.005, 0.055), "above"),
        (-0.005, (-0.031, 0.02), (-0.029, 0.019), "tie"),
        (-0.01, (-0.04, 0.02), (-0.03, 0.019), "undecided"),
        (0.0, (-0.04, 0.04), (-0.02, 0.035), "undecided"),
        (0.05, (0.0, 0.1), (0.01, 0.09), "undecided"),
    ],
)
def test_words_follow_from_intervals(
    difference: float, interval: tuple[float, float], tie_interval: tuple[float, float], expected: str
) -> None:
    assert direction(difference, interval, tie_interval, 0.03) == expected


def test_a_single_repeat_must_be_farther_from_zero() -> None:
    ends = ((0.011, 0.029), (0.012, 0.028))
    assert direction(0.02, *ends, far=FAR_ONCE) == "undecided"
    assert direction(0.02, (0.0135, 0.0265), ends[1], far=FAR_ONCE) == "above"


@given(st.floats(-0.1, 0.1), st.floats(0.001, 0.1), st.floats(0.84, 0.95), st.floats(-0.8, 0.8))
def test_a_shift_by_four_fifths_of_a_half_width_turns_no_direction_into_a_tie(
    difference: float, half: float, narrower: float, shift: float
) -> None:
    def said(at: float) -> str:
        tie = narrower * half
        return direction(at, (at - half, at + half), (at - tie, at + tie), 0.03)

    pair = {said(difference), said(difference + shift * half)} - {"undecided"}
    assert len(pair) < 2


def test_figures_in_words() -> None:
    assert percent(0.8123) == "81.2 %"
    assert points(-0.0312) == "3.1"
    assert span((0.781, 0.84)) == "78.1 to 84.0"
    assert span((-0.075, 0.027), signed=True) == "-7.5 to +2.7"
    assert [rounded(n) for n in (7, 193.6, 1957, 96_001, 2e6, np.inf)] == [
        "7", "200", "2,000", "97,000", "more than a million", "more than a million",
    ]  # fmt: skip
    assert not_enough(0.03, 1957, 300) == (
        "Not enough data to say: a 3.0-point difference needs about 2,000 items; you have 300."
    )


def test_json_is_json() -> None:
    evidence = {"a": np.float32(0.5), "b": np.arange(2), 3: (np.nan, np.inf), "d": np.bool_(True), "e": None}
    found = Verdict("helps", "It helps.", (0.1, 0.2), evidence).as_json()
    assert found == {
        "value": "helps", "sentence": "It helps.", "interval": [0.1, 0.2],
        "evidence": {"a": 0.5, "b": [0, 1], "3": [None, None], "d": True, "e": None},
    }  # fmt: skip
    json.dumps(found, allow_nan=False)
    assert Verdict("a", "", None, {}, ("b",)).as_json()["tied_with"] == ["b"]
    assert plain(Verdict("a", "", None, {}))["interval"] is None
