"""Which models stay loaded: the latest used within the budget, and never one that takes more than all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest

from api import models
from api.batching import Batcher
from api.metering import Meter
from api.models import Models
from api.recent import Recent
from embedder.encoder import Encoder, load_encoder
from embedder.errors import OutOfResource, UnknownName

SIZES = {"hashing:8": 40, "hashing:16": 50, "hashing:32": 60, "hashing:64": 101}
MIB = 1 << 20


@dataclass
class Machine:
    """Counts what the models that are loaded hold, in place of the process's resident memory."""

    loaded: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    def resident(self) -> float:
        return float(MIB * sum(SIZES[name] for name in self.loaded))

    def load(self, name: str) -> Encoder:
        found = load_encoder(name)
        self.loaded.append(name)
        return found

    def forget(self, name: str) -> None:
        self.loaded.remove(name)
        self.forgotten.append(name)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(models, "resident", made.resident)
    return made


def no_pictures(data: bytes, tower: Any) -> Any:
    raise AssertionError("no picture was sent")


def batcher(encoder: Encoder) -> Batcher:
    return Batcher(encoder, decode=no_pictures, recent=Recent(), meter=Meter())


@pytest.fixture
def made(machine: Machine) -> Iterator[Models]:
    """Models within 100 MiB."""
    names: Sequence[str] = list(SIZES)
    one = Models([], found=lambda: names, load=machine.load, forget=machine.forget, batcher=batcher, memory=100 * MIB)
    with closing(one):
        yield one


def use(made: Models, *names: str) -> None:
    for name in names:
        with made.use(name) as batcher:
            assert batcher.submit(["a text"], "text", "query").result(30).vectors.shape == (1, int(name[8:]))


def test_a_model_over_the_budget_takes_the_place_of_the_one_not_used_for_longest(
    made: Models, machine: Machine
) -> None:
    use(made, "hashing:8", "hashing:16")
    assert machine.loaded == ["hashing:8", "hashing:16"], "90 of 100 MiB"
    use(made, "hashing:8", "hashing:32")
    assert machine.loaded == ["hashing:8", "hashing:32"], "16 was used before 8 was again"
    use(made, "hashing:16")
    assert machine.forgotten == ["hashing:16", "hashing:8", "hashing:32"][: len(machine.forgotten)]
    assert machine.resident() <= 100 * MIB


def test_a_model_that_is_in_use_is_not_unloaded_and_the_other_is_refused(made: Models, machine: Machine) -> None:
    with made.use("hashing:16") as held:
        with pytest.raises(OutOfResource, match="none is idle") as refused, made.use("hashing:32"):
            pass
        assert refused.value.status == 507
        assert held.submit(["still here"], "text", "query").result(30).vectors.shape == (1, 16)
    assert machine.loaded == ["hashing:16"]
    use(made, "hashing:32")


def test_a_model_that_takes_more_than_the_budget_is_refused_and_let_go(made: Models, machine: Machine) -> None:
    use(made, "hashing:8")
    with pytest.raises(OutOfResource, match="hashing:64 holds 101 MiB, and 100 MiB are allowed"):
        use(made, "hashing:64")
    assert machine.loaded == ["hashing:8"]
    use(made, "hashing:8")


def test_without_a_budget_all_stay_until_they_are_idle(machine: Machine) -> None:
    one = Models(["hashing:8"], found=list, load=machine.load, forget=machine.forget, batcher=batcher, idle_s=0.0)
    with closing(one):
        one.load_named()
        use(one, "hashing:8")
        held = one.hold("hashing:8")
        assert held is not None
        assert one.sweep() == 0, "it is held"
        one.release(held)
        assert one.sweep() == 1
        assert one.hold("hashing:8") is None
        assert one.known("hashing:8") == "hashing:8", "an alias is known whatever is loaded"
        with pytest.raises(UnknownName):
            one.resolve("hashing:16")
