"""`permafrost train C --label X`: a head from stored vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from api import options, show
from api.calls import Call, Result
from api.options import option

SCORES = (
    ("accuracy", "accuracy"), ("  without copies", "accuracy_without_copies"), ("  naive split", "naive_accuracy"),
    ("  naive is higher by", "naive_gap"), ("  majority", "majority"), ("  shuffled labels", "shuffled"),
    ("  10 neighbours", "knn_10"), ("  texts alone", "texts_alone"), ("  items alone", "items_alone"),
    ("balanced", "balanced_accuracy"), ("macro F1", "macro_f1"), ("top 5", "top_5"),
    ("log loss", "log_loss"),
    ("ranks off", "mae_ranks"), ("  always the median", "mae_ranks_of_median"), ("kappa", "quadratic_kappa"),
    ("R2", "r2"), ("  shuffled values", "shuffled_r2"), ("mean error", "mae"),
    ("  of the mean", "mae_of_mean"),
)  # fmt: skip
TAG_SCORES = (
    ("mean AP", "mean_average_precision"), ("  naive split", "naive_average_precision"),
    ("  naive is higher by", "naive_gap"), ("  chance", "chance_average_precision"), ("  shuffled labels", "shuffled"),
    ("  10 neighbours", "knn_10"), ("micro F1", "micro_f1"), ("  majority", "majority_micro_f1"),
    ("macro F1", "macro_f1"), ("all labels right", "subset_accuracy"), ("log loss", "log_loss"),
)  # fmt: skip
NAMED, WEAKEST = 5, 3
UNLIKE = "where an item is unlike the training ones"

Separator = Annotated[
    str | None, option("What stands between the classes of an item, unless it is a JSON list.", metavar="TEXT")
]

Order = Annotated[str | None, option("The order of the classes, the lowest first, with commas.", metavar="A,B,C")]

Templates = Annotated[
    list[str] | None,
    option("For --head blend: a text with {} where a class goes; may be repeated.", metavar="T"),
]


def run(
    call: Call,
    collection: options.Name,
    label: Annotated[str, option("The column to predict.", metavar="X")],
    head: Annotated[str, option("The kind of head.", metavar="KIND", show_default=True)] = "linear",
    space: options.Space = None,
    name: Annotated[str | None, option("The head's name; the label's, without one.", metavar="H")] = None,
    split: options.Split = None,
    group_column: options.Group = None,
    where: options.Where = None,
    min_class_size: Annotated[
        int, option("Leave out classes that have fewer.", metavar="N", min=1, show_default=True)
    ] = 5,
    coverage: Annotated[
        float, option("How often a prediction set must hold the true class.", metavar="P", show_default=True)
    ] = 0.9,
    per_class: Annotated[bool, option("Promise the coverage for every class.", "--per-class")] = False,
    max_risk: Annotated[
        float | None, option("Abstain so that at most this share of the answers is wrong.", metavar="P")
    ] = None,
    controls: Annotated[
        bool, option("Also score shuffled labels, neighbours and a naive split.", "--controls/--no-controls")
    ] = True,
    task: Annotated[
        Literal["classes", "regression", "multilabel", "ordinal"] | None,
        option("What to predict. Default: what the kind does, a number where the column measures and the kind can."),
    ] = None,
    separator: Separator = None,
    order: Order = None,
    template: Templates = None,
    seed: Annotated[int, option("For the split and the fit.", metavar="N", show_default=True)] = 0,
) -> Result:
    """Train a head on stored vectors.

    Nothing is embedded; the head is saved under a new version. It is scored on items that it did not see, copies and
    near copies of those included.
    """
    with call.service() as service:
        trained = service.train(
            collection, label=label, kind=head, space=space, name=name, split=split, where=where,
            min_class_size=min_class_size, seed=seed, group=group_column, coverage=coverage, per_class=per_class,
            max_risk=max_risk, controls=controls, task=task, separator=separator, templates=template or (),
            order=None if order is None else [name.strip() for name in order.split(",")],
        )  # fmt: skip
    return Result(trained, text(collection, trained))


def text(collection: str, trained: Mapping[str, Any]) -> str:
    """Return the head's name, what it was trained on, its score beside its controls, and its limits."""
    name = f"{collection}/{trained['head']}"
    title = f"{name}@{trained['version']}: {trained['kind']} in {show.duration(trained['seconds'])}"
    metrics, scores = trained["metrics"], TAG_SCORES if trained["task"] == "multilabel" else SCORES
    facts = [
        ("label", _label(trained)),
        ("items", _items(trained)),
        ("left out", _left_out(trained["left_out"])),
        *((said, _metric(name, metrics)) for said, name in scores if metrics.get(name) is not None),
        *LIMITS.get(trained["task"], _limits)(name, trained),
        ("space", trained["space"][:12]),
        ("next", f"permafrost classify {name} ITEM"),
    ]
    return show.block(title, facts)


def _label(trained: Mapping[str, Any]) -> str:
    each = {"multilabel": ", several an item", "ordinal": f": {_ranks(trained)}"}.get(trained["task"], "")
    what = "a number" if trained["task"] == "regression" else f"{show.count(len(trained['classes']))} classes{each}"
    return f"{show.safe(trained['label'])}, {what}"


def _ranks(trained: Mapping[str, Any]) -> str:
    shown = [show.safe(name) for name in trained["classes"]]
    return " < ".join(shown if len(shown) <= NAMED else [*shown[:2], "…", shown[-1]])


def _limits(name: str, trained: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("calibration", _calibration(trained)),
        ("sets", _sets(trained)),
        ("abstains", _abstains(trained)),
        ("weakest", _weakest(trained["per_class"])),
        ("confused", _confused(trained["confusion"]["pairs"])),
        ("labels", _labels(name, trained["metrics"])),
    ]


def _several(name: str, trained: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("calibration", _calibration(trained)),
        ("sets", _sets(trained, "all true classes")),
        ("abstains", UNLIKE),
        ("weakest", _weakest(trained["per_class"])),
    ]


def _margin(name: str, trained: Mapping[str, Any]) -> list[tuple[str, str]]:
    half, asked = trained["sets"]["half"], f"{trained['sets']['coverage']:.0%} asked"
    size = "endless: too few rows to promise more" if half is None else f"value ± {half:.4g}"
    held = f"{size}; {_metric('coverage', trained['metrics'])} held the true number, {asked}"
    return [("intervals", held), ("abstains", UNLIKE)]


def _items(trained: Mapping[str, Any]) -> str:
    near = trained["near_duplicates"]
    joined = (
        f"; {show.count(near['items'])} are near-duplicates (cosine {near['threshold']:.3f})" if near["items"] else ""
    )
    counts = f"{show.count(trained['n_train'])} trained on, {show.count(trained['n_test'])} held out"
    return f"{counts} ({show.safe(trained['split'])}){joined}"


def _left_out(classes: Mapping[str, int]) -> str:
    if not classes:
        return ""
    largest = sorted(classes.items(), key=lambda pair: -pair[1])[:NAMED]
    names = ", ".join(f"{show.safe(name)} ({n})" for name, n in largest) + (", …" if len(classes) > NAMED else "")
    return f"{len(classes)} classes too small, {show.count(sum(classes.values()))} items: {names}"


def _metric(name: str, metrics: Mapping[str, Any]) -> str:
    interval = metrics.get(f"{name}_interval")
    return f"{metrics[name]:.3f}" + (f"  [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _calibration(trained: Mapping[str, Any]) -> str:
    how, metrics = trained["calibration"], trained["metrics"]
    method = f"temperature {how['temperature']:.2f}" if how["temperature"] is not None else how["method"]
    return f"{method}; ECE {metrics['ece_uncalibrated']:.3f} before, {metrics['ece']:.3f} after"


def _sets(trained: Mapping[str, Any], what: str = "the true class") -> str:
    sets, metrics = trained["sets"], trained["metrics"]
    asked = f"{sets['coverage']:.0%} asked" + (" for every class" if sets["per_class"] else "")
    size = f"{metrics['set_size']:.2f} classes on average"
    endless = sum(value is None for value in sets["most"])
    always = f"; {endless} classes are in every set: too few rows to promise more" if endless else ""
    return f"{_metric('coverage', metrics)} held {what}, {asked}; {size}{always}"


def _abstains(trained: Mapping[str, Any]) -> str:
    metrics = trained["metrics"]
    if "answered" not in metrics:
        return UNLIKE
    if not metrics["answered"]:
        return "always: no threshold keeps the risk that was asked; label more, or allow more"
    risk = (
        f"{metrics['answered_risk']:.3f} of them wrong, below {metrics['answered_risk_bound']:.3f} with 95 % confidence"
    )
    return f"on {1 - metrics['answered']:.0%} as unsure ({risk}), and {UNLIKE}"


def _weakest(table: Sequence[Mapping[str, Any]]) -> str:
    scored = sorted((row for row in table if row["f1"] is not None), key=lambda row: row["f1"])[:WEAKEST]
    return ", ".join(f"{show.safe(row['class'])} F1 {row['f1']:.2f} of {row['n']}" for row in scored)


def _confused(pairs: Sequence[Mapping[str, Any]]) -> str:
    first = pairs[:WEAKEST]
    return ", ".join(f"{show.safe(p['true'])} as {show.safe(p['predicted'])} ({p['n']})" for p in first)


def _labels(name: str, metrics: Mapping[str, Any]) -> str:
    n = metrics["suspicious_labels"]
    return f"{show.count(n)} hard or mislabelled: permafrost label-errors {name}" if n else ""


LIMITS = {"regression": _margin, "multilabel": _several}
