"""The document of a report: tables of what was compared, and the figures behind every verdict, with ids of items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from heads.folds import Ints
from heads.report.answers import Answers
from heads.report.candidates import Candidate
from heads.report.gather import Gathered
from heads.report.information import online_code, permutation_test, selectivity, v_information
from heads.report.probes import Plan, Probe
from heads.report.scores import agreement, scores
from heads.report.strange import OUTSIDE
from heads.report.terms import TermCounts
from heads.report.verdict import LEVEL, MARGIN, plain

REVIEWED, STRANGEST, COPIES, PAIRS = 100, 20, 100, 20
MOST_CODED, TYPES = 2000, 50
BINS = 20


def document(found: Gathered, answers: Answers, verdicts: Mapping[str, Any]) -> dict[str, Any]:
    """Return `verdicts encoders tables figures notes`. Positions of items are told as ids."""
    probed = answers.probed
    scored = {
        c.name: scores(c, probed.on) for c in probed.candidates.values() if c.kind != "majority" and c.head == "linear"
    }
    accuracy = {name: probe.accuracy for name, probe in probed.probes.items()}
    tables = {
        "controls": _controls(answers, scored),
        "layers": [plain(line) for line in answers.task.layers],
        "heads": _heads(answers),
        "agreement": plain(agreement(scored, accuracy)),
        "classes": _classes(found, _base(answers)),
        "confused": _confused(found, _base(answers)),
        "strangest": _strangest(found, answers),
        "review": _review(found, answers),
        "copies": _copies(found, answers),
    }
    return {
        "verdicts": _without_positions(verdicts),
        "encoders": _encoders(answers, scored), "tables": tables, "figures": _figures(found, answers),
        "notes": found.notes,
    }  # fmt: skip


def _base(answers: Answers) -> Probe:
    return answers.probed.probes[answers.base]


def _without_positions(verdicts: Mapping[str, Any]) -> dict[str, Any]:
    evidence = verdicts["task"]["evidence"]
    kept = {name: value for name, value in evidence.items() if name not in ("noise", "leakage")}
    for name, positions in (("noise", ("review", "suggested")), ("leakage", ("pairs",))):
        kept[name] = {k: v for k, v in (evidence[name] or {}).items() if k not in positions}
    return {**verdicts, "task": {**verdicts["task"], "evidence": kept}}


def _encoders(answers: Answers, scored: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return the ranking, best first, then what was left out after the ridge probe."""
    probed, ranked = answers.probed, answers.ranking.ranked
    lines = [line.as_json() | _facts(answers, probed.candidates[line.name], scored) for line in ranked]
    for name, ridge in sorted(answers.ranking.left_out.items(), key=lambda pair: -pair[1]):
        it = probed.candidates[name]
        cost = {"items_per_second": it.items_per_second, "bytes_per_vector": it.bytes_per_vector}
        nothing = {"accuracy": None, "interval": None, "behind": None, "p": None}
        lines.append({"name": name, **nothing, "standing": "left out", **cost, "ridge": ridge} | _facts(
            answers, it, scored,
        ))  # fmt: skip
    return [plain(line) for line in lines]


def _facts(answers: Answers, it: Candidate, scored: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    probe = answers.probed.probes.get(it.name)
    bits = None if probe is None else v_information(probe, answers.probed.on)
    trained = None if probe is None else float(probe.train_accuracy.mean())
    cost = {"items_per_second": it.items_per_second, "bytes_per_vector": it.bytes_per_vector}
    return {"kind": it.kind, "bits": bits, "train_accuracy": trained, "scores": scored.get(it.name, {}), **cost}


def _controls(answers: Answers, scored: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return each control with its accuracy, and by how much the encoders, chosen inside the folds, are over it."""
    probed, moved = answers.probed, answers.transfer
    lines = []
    for gap, p in zip(moved.against, moved.adjusted, strict=True):
        probe = probed.probes[gap.b]
        interval = probed.on.resampler.interval(probe.correct.mean(axis=0))
        line = {"name": gap.b, "accuracy": probe.accuracy, "interval": interval, "gain": gap, "p": p}
        lines.append(plain(line | _facts(answers, probed.candidates[gap.b], scored)))
    left = [c for c in probed.candidates.values() if c.control and c.name not in probed.probes]
    lines += [plain({"name": c.name, "accuracy": None, "interval": None, "gain": None, "p": None,
                     "ridge": probed.cheap[c.name].accuracy} | _facts(answers, c, scored)) for c in left]  # fmt: skip
    return sorted(lines, key=lambda line: -(line["accuracy"] or 0))


def _heads(answers: Answers) -> list[dict[str, Any]]:
    on, probes = answers.probed.on, [_base(answers), *answers.signs.contrasts]
    return [
        {"head": p.head, "accuracy": p.accuracy, "interval": plain(on.resampler.interval(p.correct.mean(axis=0)))}
        for p in probes
    ]  # fmt: skip


def _said(probe: Probe) -> Ints:
    return np.asarray(probe.probabilities.mean(axis=0).argmax(axis=1), dtype=np.intp)


def confusion(probe: Probe, n_classes: int) -> Ints:
    """Return (C, C) counts: rows are given classes, columns the ones predicted held out, mean over repeats."""
    codes = probe.y * n_classes + _said(probe)
    return np.bincount(codes, minlength=n_classes**2).reshape(n_classes, n_classes)


def _classes(found: Gathered, probe: Probe) -> list[dict[str, Any]]:
    names = _names(found)
    counts = confusion(probe, len(names))
    rows = []
    for k, name in enumerate(names):
        right, given, said = int(counts[k, k]), int(counts[k].sum()), int(counts[:, k].sum())
        rows.append({"class": name, "n": given, "recall": right / given if given else None,
                     "precision": right / said if said else None})  # fmt: skip
    return rows


def _names(found: Gathered) -> list[str]:
    assert found.task is not None
    return found.task.classes


def _confused(found: Gathered, probe: Probe) -> list[dict[str, Any]]:
    names = _names(found)
    counts = confusion(probe, len(names)) * (1 - np.eye(len(names), dtype=np.intp))
    order = np.argsort(-counts, axis=None, kind="stable")[:PAIRS]
    pairs = [divmod(int(at), len(names)) for at in order if counts.flat[at]]
    return [{"true": names[a], "predicted": names[b], "n": int(counts[a, b])} for a, b in pairs]


def _strangest(found: Gathered, answers: Answers) -> list[dict[str, Any]]:
    strange, names = answers.domain.strange, _names(found)
    return [
        {"id": found.ids[i], "label": names[answers.probed.on.y[i]],
         "percentile": None if strange is None else float(strange.percentile[i])}
        for i in answers.domain.order[:STRANGEST].tolist()
    ]  # fmt: skip


def _review(found: Gathered, answers: Answers) -> list[dict[str, Any]]:
    doubt, names, y = answers.signs.noise, _names(found), answers.probed.on.y
    order = [] if doubt is None else doubt.order[:REVIEWED].tolist()
    return [
        {"id": found.ids[i], "label": names[y[i]], "suggested": names[doubt.suggested[i]]} for i in order if doubt
    ]  # fmt: skip


def _copies(found: Gathered, answers: Answers) -> list[list[str]]:
    leak = answers.signs.leakage
    return [] if leak is None else [[found.ids[a], found.ids[b]] for a, b in leak.pairs[:COPIES].tolist()]


def _figures(found: Gathered, answers: Answers) -> dict[str, Any]:
    on, names, task = answers.probed.on, _names(found), found.task
    assert task is not None
    base = answers.probed.candidates[answers.base]
    figures = {
        "items": len(on), "units": len(on.resampler.sizes), "folds": int(on.fold.max()) + 1, "repeats": len(on.fold),
        "classes": names, "left_out": task.left_out, "near_duplicates": task.near,
        "near_threshold": task.near_threshold, "base": answers.base, "present": answers.present,
        "margin": MARGIN, "level": LEVEL, "delta": answers.asked.delta,
        "seed": on.seed,
        "curve": answers.signs.curve, "control_curve": answers.control_curve,
        "control": answers.transfer.verdict.evidence["control"], "labels_saved": answers.saved,
        "permutation": permutation_test(base, on),
        "selectivity": _selectivity(answers, base),
        "code": _code(answers, base),
        "confusion": confusion(_base(answers), len(names)),
        "domain": _domain(answers),
    }  # fmt: skip
    return {name: plain(value) for name, value in figures.items()}


def _code(answers: Answers, base: Candidate) -> dict[str, Any]:
    """Return the length of the labels as an online code of the base and of the best control; of small sets only."""
    on = answers.probed.on
    if len(on) > MOST_CODED:
        return {}
    control = answers.probed.candidates[answers.transfer.verdict.evidence["control"]]
    return {c.name: online_code(c, on) for c in (base, control) if c.head == "linear"}


def _selectivity(answers: Answers, base: Candidate) -> dict[str, Any] | None:
    """Return the base's selectivity; types are clusters of the densest raw control, of the base itself without one."""
    raw = [c for c in answers.probed.candidates.values() if c.kind in ("pixels", "random")]
    source = raw[0] if raw else base
    return selectivity(base, answers.probed.on, clusters(source, answers.probed.on))


def clusters(candidate: Candidate, on: Plan) -> Ints:
    """Return a type for each row by k-means: at most 50, at least 10 rows each in the mean."""
    assert not isinstance(candidate.X, TermCounts)
    k = min(TYPES, max(2, len(on) // 10))
    made = MiniBatchKMeans(k, n_init=1, random_state=on.seed, batch_size=1024).fit(candidate.X)
    return np.asarray(made.labels_, dtype=np.intp)


def _domain(answers: Answers) -> dict[str, Any] | None:
    """Return the share of items in each twentieth of the reference's percentiles: 0.05 each where they are alike."""
    strange = answers.domain.strange
    if strange is None:
        return None
    counts = np.histogram(strange.percentile, bins=BINS, range=(0, 1))[0]
    return {"shares": counts / counts.sum(), "expected": 1 / BINS, "outside": strange.outside,
            "outside_interval": strange.interval, "level": OUTSIDE, "tests": answers.domain.tests}  # fmt: skip
