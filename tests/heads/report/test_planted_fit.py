"""The planted cases of questions 3 to 5 and of seeds over few seeds; `scripts/planted` runs them in full."""

from __future__ import annotations

import pytest
from plants import Case, curves, domains, seeds, tasks

FEW, MORE = 3, 20


def missed(case: Case, most: int) -> str:
    """What was found where it is not what the case demands; nothing where it is."""
    values = [float(case.run(seed)) for seed in range(most)]
    return "" if case.passes(values) else f"{sum(values)} of {most}, bound {case.low} to {case.high}"


@pytest.mark.parametrize("case", [c for c in domains.CASES if c.seeds > 50] + curves.CASES, ids=lambda case: case.name)
def test_planted(case: Case) -> None:
    assert missed(case, MORE) == ""


@pytest.mark.parametrize("case", seeds.CASES, ids=lambda case: case.name)
def test_planted_seeds(case: Case) -> None:
    assert missed(case, 6 if case.high == 0 else MORE) == ""


@pytest.mark.parametrize("case", tasks.CASES, ids=lambda case: case.name)
def test_planted_tasks(case: Case) -> None:
    assert missed(case, FEW) == ""


@pytest.mark.parametrize("case", tasks.SLOW, ids=lambda case: case.name)
def test_slow_cases_run(case: Case) -> None:
    assert missed(case, 2) == ""
