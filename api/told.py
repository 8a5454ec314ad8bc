"""The transfer report as a page of text: verdicts first, then what was compared, then where to look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from api import show

QUESTIONS = {
    "encoder": "Which encoder?", "transfer": "Does pretraining help?", "domain": "Does the domain fit?",
    "task": "Does the task fit?", "freeze": "What next?",
}  # fmt: skip
SHOWN = 5
WIDTH = 100


def text(made: Mapping[str, Any]) -> str:
    """Return the whole page."""
    return "\n".join(_lines(made))


def answer(value: str) -> str:
    """Return a verdict's word as people write it."""
    return value if ":" in value else value.replace("_", " ")


def _lines(made: Mapping[str, Any]) -> Iterator[str]:
    figures = made["figures"]
    groups = figures.get("units", figures["items"])
    beside = f" in {show.count(groups)} groups" if groups < figures["items"] else ""
    items = show.count(figures["items"], "item")
    yield f"{show.safe(made['collection'])}: {items}{beside}, {show.count(len(figures['classes']))} classes of " + (
        f"{show.safe(made['label'])!r}"
    )
    for name, question in QUESTIONS.items():
        verdict = made["verdicts"][name]
        yield ""
        yield f"{question}  {show.safe(answer(verdict['value']))}"
        yield from _wrapped(show.safe(verdict["sentence"]))
    if made["encoders"]:
        yield from _section("encoders", _ranking(made["encoders"]))
        yield from _section("controls", _controls(made["tables"]["controls"]))
        yield from _section("labels and error", _curve(figures))
        yield from _wrapped(figures["labels_saved"]["sentence"])
        yield from _section("strangest items", _strangest(made["tables"]["strangest"]))
        yield from _section("hard or mislabelled", _review(made["tables"]["review"]))
    for note in made["notes"]:
        yield from ("", *_wrapped(show.safe(note), indent="note: "))


def _wrapped(sentence: str, indent: str = "  ") -> list[str]:
    room = min(show.columns() or WIDTH, WIDTH)
    lines, line = [], indent.rstrip("\n")
    for word in sentence.split():
        if show.width(line) + 1 + show.width(word) > room and line.strip():
            lines.append(line)
            line = "  "
        line += word if line.endswith(" ") else f" {word}"
    return [*lines, line]


def _section(title: str, rows: Sequence[Sequence[str]]) -> list[str]:
    room = show.columns()
    if len(rows) < 2:
        return []
    head, *rest = ("  " + line for line in show.aligned(rows))
    return ["", *(show.cut(line, room) for line in (f"{title}:", head, *rest))]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _interval(ends: Sequence[float] | None) -> str:
    return "-" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"


def _ranking(encoders: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows = [["accuracy", "95 %", "standing", "items/s", "bytes", "encoder"]]
    for one in encoders:
        speed = "-" if one["items_per_second"] is None else f"{one['items_per_second']:.0f}"
        size = "-" if one["bytes_per_vector"] is None else show.count(one["bytes_per_vector"])
        rows.append([_share(one["accuracy"]), _interval(one["interval"]), one["standing"], speed, size,
                     show.safe(one["name"])])  # fmt: skip
    return rows


def _controls(controls: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows = [["accuracy", "95 %", "encoder is over it by", "control"]]
    for one in controls:
        gain = one["gain"]
        over = "-" if gain is None else f"{100 * gain['difference']:+.1f} points ({_interval(gain['sure'])})"
        rows.append([_share(one["accuracy"]), _interval(one["interval"]), over, show.safe(one["name"])])
    return rows


def _curve(figures: Mapping[str, Any]) -> list[list[str]]:
    ours, bar = figures["curve"]["measured"], figures["control_curve"]["measured"]
    rows = [["labels", "error", f"of {show.safe(figures['control'])}"]]
    mean = [[sum(column) / len(column) for column in zip(*one["errors"], strict=True)] for one in (ours, bar)]
    for n, a, b in zip(ours["sizes"], *mean, strict=True):
        rows.append([show.count(n), _share(a), _share(b)])
    return rows


def _strangest(items: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows = [["percentile", "label", "item"]]
    for one in items[:SHOWN]:
        place = "-" if one["percentile"] is None else f"{100 * one['percentile']:.1f} %"
        rows.append([place, show.safe(one["label"]), show.safe(one["id"])])
    return rows


def _review(items: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows = [["label", "looks like", "item"]]
    return rows + [[show.safe(one[name]) for name in ("label", "suggested", "id")] for one in items[:SHOWN]]
