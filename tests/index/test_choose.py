"""Choosing: what budgets rule out, what is measured, and what is said about what was not taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedder.errors import Refused
from index import build, choose, derived, measure, memory
from index.choose import Targets
from index.kinds.flat import Flat
from tests.index.tools import filled


def rows(n: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), dtype=np.float32)


def chosen(matrix: np.ndarray, folder: Path, kind: str = "auto", **targets: float) -> choose.Choice:
    wanted = Targets(targets.pop("recall", 0.95), **targets)  # type: ignore[arg-type]
    return choose.choose(matrix, folder, kind, {}, wanted, seed=0, where="c")


def test_few_vectors_are_searched_exactly_unless_a_target_rules_it_out(tmp_path: Path) -> None:
    matrix = rows(3000)
    assert [c.name for c in choose.candidates(3000, 16, "auto", {}, Targets(0.9))] == ["flat"]
    tight = choose.candidates(3000, 16, "auto", {}, Targets(0.9, memory=matrix.nbytes - 1))
    assert [c.name for c in tight] != ["flat"]
    found = chosen(matrix, tmp_path, memory=matrix.nbytes // 4, recall=0.9)
    assert found.won.cost.bytes <= matrix.nbytes // 4
    why = {c.name: c.why_not for c in found.considered}
    assert why["flat"] == f"needs {matrix.nbytes:,} bytes, {matrix.nbytes // 4:,} allowed"
    assert all(c.rows is None for c in found.considered if c.why_not and "needs" in c.why_not)


def test_the_fastest_that_meets_the_targets_is_taken_and_the_rest_say_why_not(tmp_path: Path) -> None:
    found = chosen(rows(2000), tmp_path, latency_ms=1000, recall=0.9)
    measured = [c for c in found.considered if c.rows]
    assert {c.name for c in measured} == set(choose.offered())
    good = [c for c in measured if (c.recall or 0) >= 0.9]
    assert found.won is min(good, key=lambda c: (c.p50_ms, c.cost.bytes))
    assert [c.chosen for c in found.considered].count(True) == 1
    assert all((c.why_not is None) is c.chosen for c in found.considered)
    kept = {p.name for p in tmp_path.iterdir()}
    assert kept == set(found.won.kind.FILES), "only the winner's files are left"
    assert found.won.kind.load(tmp_path, rows(2000), found.won.args) is not None


def test_many_vectors_are_tried_on_a_sample_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "SAMPLE", 800)
    monkeypatch.setattr(choose, "EXACT_UP_TO", 800)
    built: list[str] = []
    found = choose.choose(rows(3000), tmp_path, "auto", {}, Targets(0.9), seed=0, where="c", say=built.append)
    assert [line.split(" over ")[1] for line in built].count("800 rows") == len(choose.offered())
    in_full = [line.split()[0] for line in built if line.endswith("3,000 rows")]
    assert in_full[-1] == found.won.name
    assert found.won.rows == 3000
    passed_over = [c for c in found.considered if c.why_not == "slower on the sample"]
    assert all(c.rows == 800 for c in passed_over)
    assert passed_over


def test_a_refusal_names_the_nearest_that_is_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = rows(2000)
    with pytest.raises(Refused, match=r"(?s)needs 128,000 bytes, 5,000 allowed.*the least of all: --memory \d+") as no:
        chosen(matrix, tmp_path, memory=5000)
    least = int(str(no.value).split("--memory ")[1])
    assert chosen(matrix, tmp_path, memory=least, recall=0.3).won.cost.bytes == least
    with pytest.raises(Refused, match=r"(?s)flat: needs.*: --kind \w+"):
        chosen(matrix, tmp_path, "flat", memory=100_000)
    with pytest.raises(Refused, match=r"(?s)0\.0001 ms wanted.*the nearest is \w+: recall@10 \d"):
        chosen(matrix, tmp_path, latency_ms=0.0001)
    monkeypatch.setattr(choose, "available", lambda: 1000)
    monkeypatch.setattr("index.kinds.faiss_hnsw.build", lambda *a: pytest.fail("it was built"))
    with pytest.raises(Refused, match=r"building needs [\d,]+ bytes, 1,000 are free on this machine"):
        chosen(matrix, tmp_path, "faiss_hnsw")


def test_what_is_set_by_hand_is_not_tuned(tmp_path: Path) -> None:
    matrix = rows(3000)
    values = {"probes": 1, "dims_per_code": "4"}
    with pytest.raises(Refused, match=r"faiss_ivf_pq: recall@10 0\.\d+, 0\.95 wanted"):
        choose.choose(matrix, tmp_path, "faiss_ivf_pq", values, Targets(0.95), seed=0, where="c")
    found = choose.choose(matrix, tmp_path, "faiss_ivf_pq", values, Targets(0.1), seed=0, where="c")
    assert (found.won.args.probes, found.won.args.dims_per_code) == (1, 4)


def test_tuning_finds_the_least_value_and_another_half_judges() -> None:
    matrix = rows(1200)
    tuning, judging = measure.held_out(matrix, 3)
    assert not set(tuning.rows) & set(judging.rows)
    assert len(tuning.rows) == len(judging.rows) == measure.PROBES

    class Staged:
        """Finds the share `level` per cent of the neighbours."""

        args: object

        def __init__(self) -> None:
            from index.kinds.faiss_rabitq import Args

            self.args, self.flat = Args(shortlist=1), Flat(matrix)

        def search(self, queries, k, allowed=None):  # type: ignore[no-untyped-def]
            positions, scores = self.flat.search(queries, k, allowed)
            lost = np.random.default_rng(0).random(positions.shape) >= self.args.shortlist / 100  # type: ignore[attr-defined]
            return np.where(lost, -1, positions), scores

    engine = Staged()
    found = measure.tuned(engine, {"shortlist": tuple(range(10, 101, 10))}, (), tuning, judging, 0.75)
    assert engine.args.shortlist == 80  # type: ignore[attr-defined]
    assert 0.75 <= found < 0.9


def test_the_threshold_of_filters_is_where_recall_or_speed_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = rows(1000)
    _, judging = measure.held_out(matrix, 0)
    flat = Flat(matrix)
    times = {id(flat): 1.0}
    monkeypatch.setattr(measure, "median_ms", lambda engine, queries, allowed: times.get(id(engine), 2.0))
    assert measure.min_selectivity(flat, judging, 0.95, 0) == min(measure.SHARES)

    class Loses(Flat):
        """Finds nothing where fewer than a quarter of the rows are allowed."""

        def search(self, queries, k, allowed=None):  # type: ignore[no-untyped-def]
            positions, scores = super().search(queries, k, allowed)
            return (np.full_like(positions, -1) if allowed.mean() < 0.2 else positions), scores

    lossy = Loses(matrix)
    times[id(lossy)] = 1.0
    assert measure.min_selectivity(lossy, judging, 0.95, 0) == 0.25
    times[id(lossy)] = 3.0
    assert measure.min_selectivity(lossy, judging, 0.95, 0) == 1.0


def test_free_memory_is_the_machine_s_or_the_group_s(tmp_path: Path) -> None:
    meminfo, group = tmp_path / "meminfo", tmp_path / "group"
    group.mkdir()
    assert memory.available(meminfo, group) is None
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert memory.available(meminfo, group) == 4_096_000
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("900000\n")
    assert memory.available(meminfo, group) == 4_096_000
    (group / "memory.max").write_text("1000000\n")
    assert memory.available(meminfo, group) == 100_000
    (group / "memory.stat").write_text("anon 5\nactive_file 20000\ninactive_file 30000\n")
    assert memory.available(meminfo, group) == 150_000
    assert memory.available() is not None


def test_a_manifest_has_what_was_measured(tmp_path: Path) -> None:
    collection = filled(tmp_path, 300)
    space = collection.space()
    for kind in ("flat", "faiss_hnsw"):
        built = build.build(collection, space, kind=kind, recall=0.9, seed=4)
        manifest = derived.manifest_of(collection, space)
        assert manifest is not None
        assert manifest["min_selectivity"] in {0.0} if kind == "flat" else {*measure.SHARES, 1.0}
        assert manifest["measured"]["recall_at_10"] == built.recall_at_10
        assert (manifest["measured"]["seed"], manifest["measured"]["wanted"]["recall"]) == (4, 0.9)
        assert manifest["args"] == built.args
