"""Plots as inline SVG: described in words, coloured by the page's own variables, escaped, and of fixed size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

WIDTH, LEFT, RIGHT, ROW = 860, 360, 70, 26
TALL, TOP, BOTTOM = 300, 16, 44
SERIES = ("ours", "bar")
LONGEST = 46
FAR = 0.3


def figure(name: str, title: str, description: str, marks: Iterable[str], height: float, width: float = WIDTH) -> str:
    """Return an SVG with a title and a description, which screen readers say instead; a narrow page scrolls it."""
    body = "".join(marks)
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return (
        f'<div class="scroll plot"><svg role="img" aria-labelledby="{name}-t {name}-d" {size}>'
        f'<title id="{name}-t">{escape(title)}</title>'
        f'<desc id="{name}-d">{escape(description)}</desc>{body}</svg></div>'
    )


def label(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    """Return text at a place; `kind` is a class of the page's style."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Return a straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def short(text: str, most: int = LONGEST) -> str:
    """Return a text of at most so many characters, its middle left out."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def intervals(name: str, title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Plot accuracies with their intervals, a row each: `name accuracy interval` and `bar` for a control."""
    shown = [row for row in rows if row["accuracy"] is not None and row["interval"] is not None]
    low = math.floor(10 * min(row["interval"][0] for row in _near(shown))) / 10
    span = (1.0 - low) or 1.0
    height = ROW * len(shown) + TOP + BOTTOM

    def at(share: float) -> float:
        return float(LEFT + (share - low) / span * (WIDTH - LEFT - RIGHT))

    marks = _ticks(low, at, height)
    for k, row in enumerate(shown):
        y = TOP + ROW * (k + 0.5)
        kind = SERIES[bool(row.get("bar"))]
        place = (
            [label(LEFT + 4, y + 4, "◂ off the scale", kind="small")] if row["accuracy"] < low else
            [line(max(LEFT, at(row["interval"][0])), y, at(row["interval"][1]), y, kind),
             f'<circle cx="{at(row["accuracy"]):.1f}" cy="{y:.1f}" r="4.5" class="{kind}"/>']
        )  # fmt: skip
        marks += [
            label(LEFT - 10, y + 4, short(row["name"]), "end"),
            *place,
            label(WIDTH - RIGHT + 8, y + 4, f"{100 * row['accuracy']:.1f} %"),
        ]
    said = "; ".join(f"{row['name']} {100 * row['accuracy']:.1f} %" for row in shown)
    return figure(name, title, said, marks, height)


def _near(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows that make the scale: the best encoder and the best control, and what is not far behind.

    Of others the plot says that they are off the scale: they would leave no room for the differences that matter.
    """
    firsts = [max(part, key=lambda row: row["accuracy"]) for bar in (False, True)
              if (part := [row for row in rows if bool(row.get("bar")) is bar])]  # fmt: skip
    best = max(row["accuracy"] for row in firsts)
    return [*firsts, *(row for row in rows if row["accuracy"] > best - FAR)]


def _ticks(low: float, at: Any, height: float) -> list[str]:
    steps = round((1 - low) * 10)
    every = 1 if steps <= 6 else 2
    marks = []
    for k in range(0, steps + 1, every):
        share = low + k / 10
        marks += [line(at(share), TOP, at(share), height - BOTTOM + 8, "grid"),
                  label(at(share), height - BOTTOM + 24, f"{100 * share:.0f} %", "middle", "small")]  # fmt: skip
    return marks


def curves(name: str, title: str, ours: Mapping[str, Any], bar: Mapping[str, Any], names: tuple[str, str]) -> str:
    """Plot two learning curves: mean errors as measured, the fitted one with its band to twice the labels."""
    sizes, most = ours["sizes"], max(*_means(ours), *_means(bar), *(high or 0 for high in ours["high"]))
    ends = math.log(sizes[0]), math.log(sizes[-1])

    def x(n: float) -> float:
        return 70 + (math.log(n) - ends[0]) / ((ends[1] - ends[0]) or 1) * (WIDTH - 90)

    def y(error: float) -> float:
        return TOP + (1 - error / (most or 1)) * (TALL - TOP - BOTTOM)

    marks = _axes(sizes, most, x, y)
    band = [(n, v) for n, v in zip(sizes, ours["low"], strict=True)]
    band += [(n, v) for n, v in zip(reversed(sizes), reversed(ours["high"]), strict=True)]
    marks.append(f'<polygon points="{_points((x(n), y(v or 0)) for n, v in band)}" class="band"/>')
    marks.append(f'<polyline points="{_points((x(n), y(v)) for n, v in zip(sizes, ours["error"], strict=True))}" '
                 'class="fitted"/>')  # fmt: skip
    said = []
    for one, kind, what in ((ours, "ours", names[0]), (bar, "bar", names[1])):
        steps = list(zip(one["measured"]["sizes"], _means(one), strict=True))
        if kind == "bar":
            marks.append(f'<polyline points="{_points((x(n), y(e)) for n, e in steps)}" class="bar fine"/>')
        marks += [f'<circle cx="{x(n):.1f}" cy="{y(e):.1f}" r="4" class="{kind}"/>' for n, e in steps]
        said.append(f"{what}: " + ", ".join(f"{n} labels {100 * e:.1f} %" for n, e in steps))
    return figure(name, title, "; ".join(said), marks, TALL)


def _axes(sizes: Sequence[int], most: float, x: Any, y: Any) -> list[str]:
    marks = []
    for k in range(5):
        error = most * k / 4
        marks += [line(70, y(error), WIDTH - 20, y(error), "grid"),
                  label(62, y(error) + 4, f"{100 * error:.0f} %", "end", "small")]  # fmt: skip
    marks += [label(x(n), TALL - BOTTOM + 20, f"{n:,}", "middle", "small") for n in sizes]
    return [*marks, label(WIDTH / 2, TALL - 6, "labels (the last: extrapolated)", "middle", "small")]


def _means(curve: Mapping[str, Any]) -> list[float]:
    return [sum(column) / len(column) for column in zip(*curve["measured"]["errors"], strict=True)]


def _points(pairs: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in pairs)


def shares(name: str, title: str, found: Sequence[float], expected: float) -> str:
    """Plot the shares of equal bins as bars, and what each would be if the two were alike."""
    most = max(*found, expected)
    wide = (WIDTH - 90) / len(found)

    def y(share: float) -> float:
        return TOP + (1 - share / most) * (TALL - TOP - BOTTOM)

    base = TALL - BOTTOM
    marks = [
        f'<rect x="{70 + k * wide + 1:.1f}" y="{y(v):.1f}" width="{wide - 2:.1f}" height="{base - y(v):.1f}" '
        f'class="ours"/>'
        for k, v in enumerate(found)
    ]
    marks += [
        line(70, y(expected), WIDTH - 20, y(expected), "bar"), label(62, y(expected) + 4, "alike", "end", "small"),
        label(70, base + 18, "0 % (strangest)", "start", "small"),
        label(WIDTH - 20, base + 18, "100 %", "end", "small"),
        label(WIDTH / 2, TALL - 6, "percentile among the reference's own items", "middle", "small"),
    ]  # fmt: skip
    said = ", ".join(f"{100 * v:.1f} %" for v in found)
    return figure(name, title, f"Shares from the strangest bin on: {said}; {100 * expected:.1f} % each if alike.",
                  marks, TALL)  # fmt: skip


def matrix(name: str, title: str, counts: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Plot a confusion matrix: rows are labels, columns predictions, each row's shares as shades."""
    size = max(14.0, min(40.0, 520 / len(classes)))
    longest = max(len(short(name, 22)) for name in classes)
    left, top = 24 + 6.0 * longest, 24 + 5.5 * min(longest, 18)
    marks = []
    for i, row in enumerate(counts):
        marks.append(label(left - 8, top + (i + 0.6) * size, short(classes[i], 22), "end", "small"))
        x = left + (i + 0.6) * size
        marks.append(
            f'<text x="{x:.1f}" y="{top - 8:.1f}" class="small" '
            f'transform="rotate(-60 {x:.1f} {top - 8:.1f})">{escape(short(classes[i], 18))}</text>'
        )
        total = sum(row) or 1
        for j, n in enumerate(row):
            kind = "ours" if i == j else "wrong"
            marks.append(
                f'<rect x="{left + j * size:.1f}" y="{top + i * size:.1f}" width="{size - 1:.1f}" '
                f'height="{size - 1:.1f}" class="{kind}" fill-opacity="{max(0.04, n / total):.2f}"/>'
            )
            if n and size >= 22:
                over = "small over" if 2 * n > total else "small"
                marks.append(label(left + (j + 0.5) * size, top + (i + 0.6) * size, str(n), "middle", over))
    right = sum(row[i] for i, row in enumerate(counts))
    said = f"{right} of {sum(map(sum, counts))} on the diagonal; the table of confused pairs has the rest."
    side = size * len(classes)
    return figure(name, title, said, marks, top + side + 10, left + side + 60)
