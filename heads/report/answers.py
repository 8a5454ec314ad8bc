"""What a report was asked, what was probed for it, and what it answers: passed from question to question."""

from __future__ import annotations

from dataclasses import dataclass

from heads.report.candidates import Candidate
from heads.report.curve import DELTA, Curve
from heads.report.domain import Domain
from heads.report.labels_saved import LabelsSaved
from heads.report.probes import Plan, Probe
from heads.report.ranking import Ranking
from heads.report.ridge import RidgeProbe
from heads.report.signs import Signs
from heads.report.task import Task
from heads.report.transfer import Transfer
from heads.report.verdict import Verdict


@dataclass(frozen=True)
class Asked:
    """What the user said.

    Attributes:
        delta: the smallest gain worth paying for, a share. `target`: the accuracy that is wanted.
        human: the share of items that people label differently.
        default: the encoder in use; none means the best of those compared.
    """

    delta: float = DELTA
    target: float | None = None
    human: float | None = None
    default: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Probed:
    """Candidates that were probed, by name, and their probes; `cheap` has the ridge probes of large sets."""

    on: Plan
    candidates: dict[str, Candidate]
    probes: dict[str, Probe]
    cheap: dict[str, RidgeProbe]

    def of(self, *kinds: str, head: str = "linear") -> list[Probe]:
        """Return the probes of candidates of these kinds, as one head reads them."""
        its = ((self.candidates[name], probe) for name, probe in self.probes.items())
        return [probe for it, probe in its if it.kind in kinds and it.head == head]

    @property
    def twins(self) -> dict[str, str]:
        """The architecture of each untrained twin, by its name."""
        return {c.name: c.of for c in self.candidates.values() if c.kind == "random" and c.of is not None}

    @property
    def controls(self) -> list[Probe]:
        """The probes of controls."""
        return [probe for name, probe in self.probes.items() if self.candidates[name].control]


@dataclass(frozen=True)
class Answers:
    """Everything that the document is made of. `base`: the best encoder as it is read by default."""

    asked: Asked
    probed: Probed
    base: str
    present: str
    ranking: Ranking
    transfer: Transfer
    task: Task
    domain: Domain
    freeze: Verdict
    signs: Signs
    control_curve: Curve
    saved: LabelsSaved

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The five, in the contract's order."""
        return {
            "encoder": self.ranking.verdict, "transfer": self.transfer.verdict, "domain": self.domain.verdict,
            "task": self.task.verdict, "freeze": self.freeze,
        }  # fmt: skip
