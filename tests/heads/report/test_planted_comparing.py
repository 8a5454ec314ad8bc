"""The planted suite over few seeds; `scripts/planted` runs it in full."""

from __future__ import annotations

import planted
import pytest
from plants import Case
from plants.comparing import CASES, SLOW

SEEDS = 20


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_planted(case: Case) -> None:
    values = [float(case.run(seed)) for seed in range(SEEDS)]
    assert case.passes(values), f"{sum(values)} of {SEEDS}, bound {case.low} to {case.high}"


@pytest.mark.parametrize("case", SLOW, ids=lambda case: case.name)
def test_slow_cases_run(case: Case) -> None:
    assert case.passes([float(case.run(seed)) for seed in range(1)])


def test_bounds_notice_what_is_wrong() -> None:
    alarm, power = Case("", lambda _: 0, 0, 0.05), Case("", lambda _: 1, 0.95, 1)
    assert alarm.passes([1.0] * 20 + [0.0] * 180)
    assert not alarm.passes([1.0] * 22 + [0.0] * 178)
    assert not power.passes([0.0] * 25 + [1.0] * 175)
    assert not Case("", lambda _: 0, 0.4, 0.6, share=False).passes([0.7, 0.6])


def test_the_table_says_what_was_outside(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [Case("fine", lambda s: s % 2, 0.4, 0.6), Case("bad", lambda s: 3.0, 0, 1, share=False)]
    monkeypatch.setattr(planted, "cases", lambda: iter(cases))
    monkeypatch.setattr("sys.argv", ["planted", "--seeds", "10"])
    assert planted.main() == 1
    out = capsys.readouterr().out
    assert "| fine | 10 | 5 | 18.7% to 81.3% | 40% to 60% |  |" in out
    assert "| bad | 10 | 3.000 | 3.000 to 3.000 | 0 to 1 | **outside** |" in out
    monkeypatch.setattr("sys.argv", ["planted", "--seeds", "10", "--only", "fine"])
    assert planted.main() == 0
