"""What is honest about a tuned encoder: which rows are seen, the head it begins with, intervals, and heads after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from embedder import checkpoint
from embedder.encoder import Encoder
from embedder.errors import EncoderError, UsageError
from heads import tuning
from heads.folds import assign
from heads.kinds.linear import Linear
from heads.report import pilot
from heads.report.compare import nadeau_bengio
from heads.train import train
from index import tuned
from index.store import Collection
from tests.heads.tools import animals, labelled, task_of, worded


def test_a_fold_of_heads_is_held_out_and_units_stay_whole(tmp_path: Path) -> None:
    texts = {f"{w}{i}": f"{w} {i // 2}" for w in ("ape", "bee", "cow") for i in range(30)}
    task = task_of(labelled(tmp_path, texts, {id: text.split()[0] for id, text in texts.items()}))
    parts = tuning.split(task, np.ones(len(task.y), dtype=bool), 0)
    assert sorted([*parts.fit, *parts.validation, *parts.test]) == list(range(len(task.y)))
    assert parts.test.tolist() == np.flatnonzero(assign(task.units, task.y, 5, 0) == 0).tolist()
    units = [{task.units[i] for i in rows} for rows in (parts.fit, parts.validation, parts.test)]
    assert not units[0] & units[1]
    assert not units[0] & units[2]
    assert not units[1] & units[2]
    unreadable = np.ones(len(task.y), dtype=bool)
    unreadable[[*parts.test[:3], *parts.fit[:3]]] = False
    fewer = tuning.split(task, unreadable, 0)
    assert not {*fewer.fit, *fewer.validation, *fewer.test} & set(np.flatnonzero(~unreadable).tolist())


def test_a_users_split_is_kept_without_copies_of_what_is_seen(tmp_path: Path) -> None:
    texts = {f"{w}{i}": f"{w} {i}" for w in ("ape", "bee", "cow") for i in range(30)}
    texts |= {f"copy{w}": f"{w} 1" for w in ("ape", "bee", "cow")}
    part = {id: "test" if id.startswith("copy") or id[3:] > "2" else "train" for id in texts}
    labels = {id: text.split()[0] for id, text in texts.items()}
    task = task_of(labelled(tmp_path, texts, labels, more={"part": part}), split="part")
    parts = tuning.split(task, np.ones(len(task.y), dtype=bool), 0)
    assert set(parts.test) < set(task.test)
    assert len(parts.test) == len(task.test) - 3
    assert sorted(parts.seen) == task.train.tolist()


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    task = task_of(animals(tmp_path, 8))
    with pytest.raises(UsageError, match="too few to tune on"):
        tuning.split(task, np.ones(len(task.y), dtype=bool), 0)


def test_the_first_head_says_what_the_linear_kind_says(tmp_path: Path) -> None:
    task = task_of(animals(tmp_path, 20))
    rows = np.flatnonzero(task.y != 1)[5:]
    weight, bias = tuning.first_head(task, rows, 0)
    model = Linear(seed=0).fit(task.X[rows], task.y[rows], groups=[task.units[i] for i in rows])
    logits = task.X @ weight.T + bias
    assert np.allclose((logits[:, 2] - logits[:, 0]), model.decision_function(task.X), atol=1e-6)
    assert (logits.argmax(axis=1) != 1).all(), "a class that was not fitted is never said at first"


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 300))
def test_the_interval_excludes_zero_only_where_mcnemars_test_does(a: int, b: int, more: int) -> None:
    n = a + b + more
    if not n:
        return
    low, high = pilot.exact(a, b, n, 0.05)
    p = stats.binomtest(a, a + b).pvalue if a + b else 1.0
    assert low <= (a - b) / n <= high
    if abs(p - 0.05) > 1e-9:
        assert (low > 0 or high < 0) == (p < 0.05)


def test_no_difference_on_few_items_is_not_certain() -> None:
    same = np.ones(20, dtype=bool)
    found = pilot.compared(same, same, [str(i) for i in range(20)], ("a", "b"), 0)
    assert found.sure == pytest.approx((-(1 - 0.025 ** (1 / 20)), 1 - 0.025 ** (1 / 20)))
    assert found.direction() == "undecided", "not a tie: 20 items cannot show one"
    many = np.ones(200, dtype=bool)
    assert pilot.compared(many, many, [str(i) for i in range(200)], ("a", "b"), 0).direction() == "tie"


def test_one_fold_has_nothing_to_say_of_its_spread() -> None:
    found = nadeau_bengio(np.array([0.3]), 0.25)
    assert (found.p, found.df) == (1.0, 0)


def test_rows_of_touched_units_are_neither_seen_nor_free() -> None:
    train, test = pilot.parts(["u", "u", "v", "w", "w"], ["1", "2", "3", "4", "5"], frozenset({"1", "9"}))
    assert train.tolist() == [0]
    assert test.tolist() == [2, 3, 4]


def test_words_follow_the_interval() -> None:
    def said(a: list[bool], b: list[bool]) -> str:
        right, wrong = np.array(a), np.array(b)
        gain = pilot.compared(right, wrong, [str(i) for i in range(len(a))], ("t", "f"), 0)
        return tuning.sentence(gain, {"accuracy": float(right.mean()), "frozen_accuracy": float(wrong.mean())})

    half, whole = [True, False] * 50, [True] * 100
    assert said(whole, half).startswith("Fine-tuning gains 50.0 points (")
    assert said(half, whole).startswith("Fine-tuning loses 50.0 points (")
    assert said(whole * 5, whole * 5).startswith("Fine-tuning and frozen are tied within ±3.0 points")
    few = said([True] * 10 + [False], [True] * 11)
    assert few.startswith("No gain is shown")
    assert "held out; here are 11" in few


def seen_by(collection: Collection, texts: list[str]) -> Encoder:
    """Give the collection's only Space a tuned encoder that saw some texts."""
    import hashlib

    base = worded(3.0)
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    facts = {"method": "lp_ft", "label": "label", "metrics": {}}
    space = replace(base.space, identity={**base.space.identity, "weights": {"sha256": "0"}})
    name, contents = checkpoint.pack({"w": np.ones(2, np.float32)}, space, {"seen": hashes, "held_out": []}, facts)
    place = tuned.save(collection.path / tuned.HOME, name, contents)
    digest = checkpoint.read(place).digest
    identity = {**base.space.identity, "salt": "tuned", "weights": {"tuned": digest}}
    return replace(base, space=replace(base.space, encoder=f"tuned:{name}", identity=identity))


def test_a_head_in_a_tuned_space_is_scored_on_unseen_rows_only(tmp_path: Path) -> None:
    texts = {f"{w}{i:03d}": f"{w} {i}" for w in ("ape", "bee", "cow") for i in range(20)}
    frozen = animals(tmp_path / "frozen", 20)
    known = [text for text in texts.values() if int(text.split()[1]) < 15]
    encoder = seen_by(frozen, known)
    from tests.index.tools import Rows, run

    values = {id: {"label": text.split()[0]} for id, text in texts.items()}
    run(frozen, Rows(texts, values, {"label": "string"}), encoder)
    made = train(frozen, label="label", space=encoder.space)
    assert (made.n_train, made.n_test) == (60, 15)
    assert "did not see" in made.split
    assert train(frozen, label="label", space=worded(3.0).space).n_test == 60
    (frozen.path / tuned.HOME / encoder.space.encoder.removeprefix("tuned:") / checkpoint.ROWS).unlink()
    with pytest.raises(EncoderError, match="cannot be read"):
        train(frozen, label="label", space=encoder.space)


def test_where_every_row_was_seen_there_is_no_honest_score(tmp_path: Path) -> None:
    collection = animals(tmp_path, 20)
    encoder = seen_by(collection, [f"{w} {i}" for w in ("ape", "bee", "cow") for i in range(20)])
    from tests.index.tools import Rows, run

    texts = {f"{w}{i:03d}": f"{w} {i}" for w in ("ape", "bee", "cow") for i in range(20)}
    run(collection, Rows(texts, {id: {"label": t.split()[0]} for id, t in texts.items()}, {"label": "string"}), encoder)
    with pytest.raises(UsageError, match="no score would be honest"):
        train(collection, label="label", space=encoder.space)
