"""The transfer report as one HTML file: no script, nothing from outside, verdicts first. Everything is escaped."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from PIL import Image

from api import plots, show, told
from api.told import QUESTIONS
from embedder.records import Pixels

STYLE = """
:root{--ink:#1b1f24;--soft:#57606a;--paper:#fff;--line:#d0d7de;--ours:#0b62c4;--bar:#b35900;--wrong:#b3261e;
--band:#0b62c433;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa4ae;--paper:#0d1117;--line:#30363d;--ours:#58a6ff;
--bar:#f0a35e;--wrong:#ff8f87;--band:#58a6ff33}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.7rem;margin:0}h2{font-size:1.25rem;margin:2.2rem 0 .6rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1.2rem 0 .2rem}p{margin:.3rem 0 .6rem}.soft{color:var(--soft)}
.verdict{border-left:4px solid var(--ours);padding:.1rem 0 .1rem .9rem;margin:1rem 0;break-inside:avoid}
.verdict b{font-size:1.1rem}.verdict.alarm{border-color:var(--wrong)}.verdict.open{border-color:var(--line)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:.4rem 0}th,td{border-bottom:1px solid var(--line);padding:.25rem .7rem
.25rem 0;text-align:left;vertical-align:top}thead th{color:var(--soft);font-weight:500;white-space:nowrap}

caption{padding-top:1.4rem}
tbody th{font-weight:400;overflow-wrap:anywhere;min-width:14rem}td.n,th.n{text-align:right;white-space:nowrap}
svg{max-width:100%;height:auto;display:block}
@media(max-width:56rem){.plot svg{max-width:none}}
svg text{font:13px system-ui,sans-serif;fill:var(--ink)}
svg text.small{font-size:11px;fill:var(--soft)}svg text.over{fill:var(--paper)}
.grid{stroke:var(--line)}line.ours{stroke:var(--ours);stroke-width:2.5}
line.bar{stroke:var(--bar);stroke-width:2.5}circle.ours,rect.ours{fill:var(--ours)}circle.bar{fill:var(--bar)}
rect.wrong{fill:var(--wrong)}.band{fill:var(--band)}.fitted{fill:none;stroke:var(--ours);stroke-width:2}
.fine{fill:none;stroke:var(--bar);stroke-width:1.5;stroke-dasharray:5 4}
.items{display:flex;flex-wrap:wrap;gap:.8rem;padding:0;list-style:none}.items li{width:8rem;font-size:.78rem;
overflow-wrap:anywhere}.items img{width:96px;height:96px;image-rendering:auto;border:1px solid var(--line)}
details{margin:.6rem 0}summary{cursor:pointer}
@media print{.plot svg{max-width:100%}
body{margin:0;max-width:none;font-size:11pt}.scroll{overflow:visible}h2,h2+p,h2+p+p{break-after:avoid}
svg,table,.verdict{break-inside:avoid}}
"""
ALARMS, OPEN = {"hurts", "shifted", "absent", "leaking", "noisy_labels"}, {"undecided", "no_reference"}
KEYS = (("encoder, layer, pooling", "ours"), ("control", "bar"))
MOST_CLASSES = 40
FIGURE = re.compile(r"[-+]?[\d.]+( %| points)?( to [-+]?[\d.]+)?")


def html(made: Mapping[str, Any], thumbnails: Mapping[str, Pixels]) -> str:
    """Return the page of a report's document; `thumbnails` are small pictures by id of item."""
    title = f"Transfer report: {made['collection']}, {made['label']}"
    body = "".join(_body(made, thumbnails))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(_clean(title))}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def _body(made: Mapping[str, Any], thumbnails: Mapping[str, Pixels]) -> Iterator[str]:
    figures, tables = made["figures"], made["tables"]
    yield f"<header><h1>Transfer report: {text(made['collection'])}</h1>"
    classes = f"{show.count(len(figures['classes']))} classes"
    yield f'<p class="soft">{show.count(figures["items"], "item")}, {classes} of {text(made["label"])}'
    yield f", {show.count(figures['units'], 'group')} of copies or relatives" if "units" in figures else ""
    yield f"; seed {made['seed']}</p></header><main><h2>Verdicts</h2>"
    for name, question in QUESTIONS.items():
        yield verdict(question, made["verdicts"][name])
    if made["encoders"]:
        yield from _plots(figures, made["encoders"], tables)
        yield _items("Strangest items", "The farthest from the rest, or from the reference where one was named.",
                     tables["strangest"], thumbnails, "percentile")  # fmt: skip
        yield _items("Hard or mislabelled", "Held-out predictions contradict these labels most surely.",
                     tables["review"], thumbnails, "suggested")  # fmt: skip
        yield from _numbers(made)
    if made["notes"]:
        yield "<h2>What was left out</h2><ul>" + "".join(f"<li>{text(n)}</li>" for n in made["notes"]) + "</ul>"
    yield f"<h2>Method</h2>{method(figures)}</main>"


def text(value: Any) -> str:
    """Return a value as text of the page: escaped, and without what XML cannot hold."""
    return escape(_clean(str(value)))


def _clean(value: str) -> str:
    return show.safe(value)


def verdict(question: str, one: Mapping[str, Any]) -> str:
    """Return a question with its answer, its sentences and its interval."""
    kind = " alarm" if one["value"] in ALARMS else " open" if one["value"] in OPEN else ""
    tied = f' <span class="soft">tied with {text(", ".join(one["tied_with"]))}</span>' if one.get("tied_with") else ""
    return (
        f'<section class="verdict{kind}"><h3>{escape(question)}</h3>'
        f"<p><b>{text(told.answer(one['value']))}</b>{tied}</p>"
        f"<p>{text(one['sentence'])}</p></section>"
    )


def _plots(
    figures: Mapping[str, Any], encoders: Sequence[Mapping[str, Any]], tables: Mapping[str, Any]
) -> Iterator[str]:
    key = " ".join(
        f'<svg width="14" height="14" viewBox="0 0 14 14" aria-hidden="true"><circle cx="7" cy="8" r="5" '
        f'class="{kind}"/></svg> {name}'
        for name, kind in KEYS
    ).replace("<svg width", '<svg style="display:inline" width')
    rows = [*encoders, *({**one, "bar": True} for one in tables["controls"])]
    yield f"<h2>Ranking</h2><p class='soft'>Held-out accuracy with 95 % intervals. {key}</p>"
    yield plots.intervals("ranking", "Held-out accuracy of encoders and controls", rows)
    names = figures["base"], figures["control"]
    yield f"<h2>Learning curves</h2><p>{text(figures['labels_saved']['sentence'])}</p>"
    yield f"<p class='soft'>Error with more labels: {text(names[0])} with its fitted curve and band; dashed: "
    yield f"{text(names[1])}.</p>"
    yield plots.curves("curves", "Error with more labels", figures["curve"], figures["control_curve"], names)
    if tables["layers"]:
        yield "<h2>Layers and poolings</h2>"
        yield plots.intervals("layers", "Held-out accuracy by layer and pooling", tables["layers"])
    if figures["domain"]:
        found = figures["domain"]
        yield "<h2>Domain</h2><p>How far out the items are among the reference's own.</p>"
        yield plots.shares("domain", "Percentiles of the items", found["shares"], found["expected"])
    if 1 < len(figures["classes"]) <= MOST_CLASSES:
        yield f"<h2>Confusion</h2><p class='soft'>Rows are labels, columns predictions of {text(names[0])}.</p>"
        yield plots.matrix("confusion", "Labels against predictions", figures["confusion"], figures["classes"])


def _items(
    title: str, about: str, items: Sequence[Mapping[str, Any]], thumbnails: Mapping[str, Pixels], beside: str
) -> str:
    shown = items[:12]
    if not shown:
        return ""
    lines = "".join(
        f"<li>{_picture(one['id'], thumbnails)}{text(one['id'])}<br/><span class='soft'>{text(one['label'])}"
        f"{_beside(one, beside)}</span></li>"
        for one in shown
    )
    return f"<h2>{title}</h2><p class='soft'>{about}</p><ul class='items'>{lines}</ul>"


def _beside(one: Mapping[str, Any], name: str) -> str:
    value = one[name]
    if value is None:
        return ""
    return f", beyond {100 * (1 - value):.1f} %" if name == "percentile" else f", looks like {text(value)}"


def _picture(id: str, thumbnails: Mapping[str, Pixels]) -> str:
    if id not in thumbnails:
        return ""
    out = io.BytesIO()
    Image.fromarray(thumbnails[id]).save(out, format="PNG", optimize=True)
    data = base64.b64encode(out.getvalue()).decode()
    return f'<img alt="{text(id)}" src="data:image/png;base64,{data}"/>'


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table with a caption; the first cell of a row is its header, numbers stand right."""
    top = "".join(f'<th scope="col">{text(head)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>' + "".join(_cell(value) for value in row[1:]) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><caption>{text(caption)}</caption><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f'<td class="n">{value:.4g}</td>'
    if isinstance(value, int):
        return f'<td class="n">{value:,}</td>'
    kind = ' class="n"' if value is None or FIGURE.fullmatch(str(value)) else ""
    return f"<td{kind}>{text('-' if value is None else value)}</td>"


def _interval(ends: Sequence[float] | None) -> str | None:
    return None if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.1f} %"


def _points(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:+.1f} points"


def _numbers(made: Mapping[str, Any]) -> Iterator[str]:
    figures, tables = made["figures"], made["tables"]
    yield "<h2>All numbers</h2>"
    yield table(
        "Encoders, layers and poolings",
        ("name", "accuracy", "95 %", "standing", "p (Holm)", "items/s", "bytes", "bits", "on training rows", "ridge"),
        ((e["name"], _percent(e["accuracy"]), _interval(e["interval"]), e["standing"], e["p"], e["items_per_second"],
          e["bytes_per_vector"], e["bits"], _percent(e["train_accuracy"]), _percent(e["ridge"]))
         for e in made["encoders"]),
    )  # fmt: skip
    yield table(
        "Controls", ("name", "accuracy", "95 %", "encoder is over it by", "95 % of that", "p (Holm)", "bits"),
        ((c["name"], _percent(c["accuracy"]), _interval(c["interval"]), _points(c["gain"] and c["gain"]["difference"]),
          _interval(c["gain"] and c["gain"]["sure"]), c["p"], c["bits"]) for c in tables["controls"]),
    )  # fmt: skip
    yield from _scores(made["encoders"], tables)
    yield table("Heads on the best encoder", ("head", "accuracy", "95 %"),
                ((h["head"], _percent(h["accuracy"]), _interval(h["interval"])) for h in tables["heads"]))  # fmt: skip
    yield table("Classes", ("class", "items", "recall", "precision"),
                ((c["class"], c["n"], _percent(c["recall"]), _percent(c["precision"]))
                 for c in tables["classes"]))  # fmt: skip
    yield table("Confused pairs", ("label", "predicted", "items"),
                ((c["true"], c["predicted"], c["n"]) for c in tables["confused"]))  # fmt: skip
    yield table("Figures", ("figure", "value"), _facts(figures))
    for name, one in made["verdicts"].items():
        yield f"<details><summary>Evidence: {text(QUESTIONS[name])}</summary>"
        yield table(f"What the rule of {name} read", ("figure", "value"), flat(one["evidence"])) + "</details>"


def _scores(encoders: Sequence[Mapping[str, Any]], tables: Mapping[str, Any]) -> Iterator[str]:
    rows = [one for one in [*encoders, *tables["controls"]] if one["scores"]]
    names = sorted({name for one in rows for name in one["scores"]})
    yield table(
        "Scores without training, which decide nothing; last row: Kendall's tau with the probes here",
        ("name", *names),
        [*((one["name"], *(one["scores"].get(name) for name in names)) for one in rows),
         ("agreement (tau)", *(tables["agreement"].get(name) for name in names))],
    )  # fmt: skip


def _facts(figures: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    simple = ("items", "units", "folds", "repeats", "near_duplicates", "near_threshold", "margin", "level", "delta",
              "base", "present", "control")  # fmt: skip
    yield from ((name, figures[name]) for name in simple)
    for name in ("permutation", "selectivity", "code", "labels_saved"):
        yield from flat({name: figures[name]})


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a document as (path, value), lists of numbers as one text, long ones cut."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for k, inner in enumerate(value):
            yield from flat(inner, f"{name}[{k}]")
    elif isinstance(value, list):
        shown = ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in value[:20])
        yield name, shown + (", …" if len(value) > 20 else "")
    else:
        yield name, value


def method(figures: Mapping[str, Any]) -> str:
    """Return how the verdicts were made."""
    folds = f"{figures['folds']} folds, dealt {figures['repeats']} times" if "folds" in figures else "folds"
    margin, delta = 100 * figures.get("margin", 0.03), 100 * figures.get("delta", 0.02)
    return (
        f"<p>Every candidate was probed with logistic regression on the same {folds}: stratified, with copies, "
        "near-duplicates and groups kept whole, and every choice made inside the training rows. Differences are "
        "paired; their intervals are bootstrapped over groups, and widened to cover Student's t and Nadeau and "
        f"Bengio's corrected interval. A tie is a 90 % interval inside ±{margin:g} points; a large p is never one. "
        "Several "
        "comparisons are corrected after Holm, and the accuracy of the best is that of the whole procedure, choosing "
        f"included. The smallest gain taken as worth paying for is {delta:g} points. Controls decide whether "
        "pretraining helps: the same architecture untrained, pixels and colours, or words, and the shares of the "
        "classes. The learning curve is a model, and is never read beyond twice the labels. "
        "“Not enough data to say” is an answer."
        "</p>"
    )
