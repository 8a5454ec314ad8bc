"""The quickstart's tour: real commands, each printed before its output, on real data with real frozen encoders."""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parent))
from samples import Samples, Unavailable, gather

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".quickstart"
PROGRAM = str(Path(sys.executable).with_name("permafrost"))
PICTURES, TEXTS = "bundled:efficientnet_lite0?fit=pad", "bundled:minilm"
PIXELS, JOINT = "pixels:32", "bundled:conse?fit=pad"
READY_S = 120
MEASURE_S = 4.0


class Stopped(Exception):
    """A command that did not end well, or said something else than it must."""


class Tour:
    """Runs commands in `.quickstart`, shows them, and keeps the time of each step."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.times: list[tuple[str, float]] = []

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print a title and, at the end, how long it took."""
        print(f"\n== {title}", flush=True)
        started = time.monotonic()
        yield
        self.times.append((title, time.monotonic() - started))
        print(f"({self.times[-1][1]:.1f} s)", flush=True)

    def run(self, *words: str) -> None:
        """Print a command and run it, its output going where ours goes. Raises `Stopped` where it fails."""
        print(f"$ {typed('permafrost', *words)}", flush=True)
        done = subprocess.run([PROGRAM, *words], cwd=HOME, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise Stopped(f"permafrost {words[0]} ended with {done.returncode}; its reason stands above")

    def document(self, *words: str) -> dict[str, Any]:
        """Print a command and run it with --json, and return the document."""
        print(f"$ {typed('permafrost', *words, '--json')}", flush=True)
        done = subprocess.run([PROGRAM, *words, "--json"], cwd=HOME, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        if done.returncode:
            raise Stopped(f"permafrost {words[0]} ended with {done.returncode}; its reason stands above")
        return dict(json.loads(done.stdout))

    def path(self, path: Path) -> str:
        """Return a path as it is typed in `.quickstart`."""
        return os.path.relpath(path, HOME)


def typed(*words: str) -> str:
    """Return words as a person would type them: double quotes around what holds single ones."""
    plain = [f'"{w}"' if "'" in w and not set(w) & set('"$`\\!') else shlex.quote(w) for w in words]
    return " ".join(plain)


def main() -> int:
    """Take the tour; 1 where a command fails, with its reason."""
    options = arguments()
    # as the command line does: the forward pass that is measured here is not to be slower than its own
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    started = time.monotonic() - options.install_seconds
    HOME.mkdir(exist_ok=True)
    try:
        need_disk(1.5)
        print("== data", flush=True)
        samples = gather(HOME / "data", options.data)
        tour = Tour(samples)
        tour.times = [
            ("install", options.install_seconds),
            ("data", time.monotonic() - started - options.install_seconds),
        ]
        show(tour)
    except (Stopped, Unavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n== times")
    for title, seconds in tour.times:
        print(f"{seconds:7.1f} s  {title}")
    print(f"{time.monotonic() - started:7.1f} s  in all")
    farewell(tour)
    return 0


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/quickstart", description=__doc__)
    parser.add_argument(
        "--data", choices=["auto", "debian", "pip"], default="auto", help="whose data; auto tries Debian's"
    )
    parser.add_argument("--install-seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser.parse_args()


def need_disk(gib: float) -> None:
    """Refuse to start what would fill the disk. Raises `Stopped`."""
    free = shutil.disk_usage(HOME).free / 2**30
    if free < gib:
        raise Stopped(f"{free:.1f} GiB of disk are free at {HOME}, {gib} GiB are needed for data and vectors")


def show(tour: Tour) -> None:
    """Every step, in order."""
    print("", *(f"data: {line}" for line in tour.samples.origin), "data: used here, part of no repository", sep="\n")
    print('\n$ cd .quickstart && export PATH="$PWD/../.venv/bin:$PATH"')
    embed(tour)
    search(tour)
    train(tour)
    classify(tour)
    doors(tour)


def embed(tour: Tour) -> None:
    """Pictures in two Spaces and texts in one, each beside its encoder's forward pass alone."""
    s = tour.samples
    chosen = ["--where", s.photos_where, "--label-levels", "2"] if s.photos_where else []
    with tour.step("embed a folder of photographs with a frozen encoder"), measured(tour, s.photos_name):
        tour.run("embed", tour.path(s.photos), "--into", s.photos_name, "--encoder", PICTURES, *chosen)
    with tour.step("embed the same photographs once more as raw pixels, to compare with"):
        tour.run("embed", s.photos_name, "--into", s.photos_name, "--encoder", PIXELS)
    if s.photo_words:
        with tour.step("embed the same photographs where words reach them too (ConSE, through ImageNet names)"):
            tour.run("embed", s.photos_name, "--into", s.photos_name, "--encoder", JOINT)
    with tour.step("embed texts"), measured(tour, s.texts_name):
        tour.run("embed", tour.path(s.texts), "--into", s.texts_name, "--encoder", TEXTS)


@contextmanager
def measured(tour: Tour, collection: str) -> Iterator[None]:
    """Print, after a run that embedded something, how fast its encoder's forward pass alone is at this moment."""
    before = runs(collection)
    yield
    fresh = [run for name, run in runs(collection).items() if name not in before and run["embedded"]]
    for run in fresh:
        beside(tour, run)
    if not fresh:
        print("nothing was embedded this time: all vectors are stored already", flush=True)


def runs(collection: str) -> dict[str, dict[str, Any]]:
    """Return what each run of a collection noted of itself, by its name."""
    files = sorted((HOME / "permafrost.store" / collection / "runs").glob("*/run.json"))
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in files}


def beside(tour: Tour, run: dict[str, Any]) -> None:
    """Print items a second of a run, and of its encoder's forward pass alone."""
    from embedder.encoder import load_encoder

    encoder = load_encoder(run["encoder"])
    alone = forward_alone(encoder, inputs(tour, encoder))
    whole = run["embedded"] / run["seconds"]
    unit = "pictures" if encoder.image else "texts"
    print(
        f"forward pass alone, on {unit} made ready beforehand: {alone:,.1f} {unit}/s on {encoder.device}\n"
        f"the run above, from file to committed row: {whole:,.1f} {unit}/s, {whole / alone:.2f} of it",
        flush=True,
    )


def inputs(tour: Tour, encoder: Any) -> list[list[Any]]:
    """Return stored items made ready for the forward pass, in batches as a run makes them on this device."""
    import permafrost as pf
    from embedder import packing, tuning

    kind = "cpu" if encoder.device == "cpu" else "cuda"
    name = tour.samples.photos_name if encoder.image else tour.samples.texts_name
    _, columns, _ = pf.open(str(HOME / "permafrost.store")).collection(name).features(columns=["source", "text"])
    if encoder.image:
        from PIL import Image

        ready = [encoder.prepare(Image.open(source))[1] for source in spread(columns["source"], 32)]
        size = tuning.PICTURES[kind].start
        return [ready[i : i + size] for i in range(0, len(ready), size)]
    ready = [encoder.prepare(text)[1] for text in spread(columns["text"], 2048)]
    ready.sort(key=encoder.text.length, reverse=True)
    lengths = [max(1, encoder.text.length(tokens)) for tokens in ready]
    stops = packing.cuts(lengths, tuning.TOKENS[kind].start, len(ready), packing.PASS_COST[kind])
    batches, start = [], 0
    while start < len(ready):
        batches.append(ready[start : int(stops[start])])
        start = int(stops[start])
    return batches


def spread(values: Sequence[Any], count: int) -> list[Any]:
    """Return about `count` values, evenly spaced."""
    return list(values[:: max(1, len(values) // count)])[:count]


def forward_alone(encoder: Any, batches: list[list[Any]]) -> float:
    """Return items a second of the forward pass, over whole rounds of the same batches, for a few seconds."""
    medium = "image" if encoder.image else "text"
    encoder.forward(medium, batches[0])
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < MEASURE_S:
        for batch in batches:
            encoder.forward(medium, batch)
            done += len(batch)
    return done / (time.perf_counter() - started)


def search(tour: Tour) -> None:
    """Pictures by a stored picture and by a file, texts by words."""
    s = tour.samples
    with tour.step("search pictures by picture"):
        tour.run("search", s.photos_name, "--id", s.photo_id, "-k", "5")
        tour.run("search", s.photos_name, "--image", tour.path(s.photo_query), "-k", "5")
    if s.photo_words:
        with tour.step("search pictures by words"):
            tour.run("search", s.photos_name, s.photo_words, "--space", JOINT, "-k", "5")
    with tour.step("search texts by words"):
        tour.run("search", s.texts_name, s.question, "-k", "5")


def train(tour: Tour) -> None:
    """Heads on both Spaces of the pictures and on the texts, and how much the frozen encoder is worth."""
    s = tour.samples
    words = ("--label", "label", "--min-class-size", "10")
    with tour.step("train linear heads on the stored vectors: nothing is encoded again"):
        tour.run("train", s.photos_name, *words, "--space", PICTURES)
        tour.run("train", s.photos_name, *words, "--space", PIXELS, "--name", "pixels")
        tour.run("train", s.texts_name, *words)
        import permafrost as pf

        store = pf.open(str(HOME / "permafrost.store"))
        pictures, texts = store.collection(s.photos_name), store.collection(s.texts_name)
        frozen, pixels = pictures.head("label").metrics, pictures.head("pixels").metrics
        print(f"{s.photos_name}: {worth(frozen)};")
        print(f"  raw pixels reach {accuracy(pixels)}: the frozen encoder is {gain(frozen, pixels)} above them")
        print(f"{s.texts_name}: {worth(texts.head('label').metrics)}", flush=True)


def accuracy(metrics: dict[str, Any]) -> str:
    """Return an accuracy with its interval."""
    low, high = metrics["accuracy_interval"]
    return f"{metrics['accuracy']:.3f} [{low:.3f}, {high:.3f}]"


def worth(metrics: dict[str, Any]) -> str:
    """Say how far a head is above the majority class, in points of accuracy."""
    points, low, high = (100 * x for x in (metrics["gain_over_majority"], *metrics["gain_over_majority_interval"]))
    base = f"the majority class reaches {metrics['majority']:.3f}"
    return f"accuracy {accuracy(metrics)}, held out; {base}: {points:+.0f} points [{low:+.0f}, {high:+.0f}]"


def gain(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Return the difference of two accuracies in points; its interval takes them as independent."""
    points = 100 * (one["accuracy"] - other["accuracy"])
    halves = [100 * (m["accuracy_interval"][1] - m["accuracy_interval"][0]) / 2 for m in (one, other)]
    half = math.hypot(*halves)
    return f"{points:+.0f} points [{points - half:+.0f}, {points + half:+.0f}]"


def classify(tour: Tour) -> None:
    """Pictures that were never stored, stored items without a label, and texts typed in."""
    s = tour.samples
    with tour.step("classify what has no label"):
        tour.run("classify", f"{s.photos_name}/label", *(tour.path(p) for p in s.photo_new), "-k", "3")
        stored = [word for id in s.text_ids for word in ("--id", id)]
        tour.run("classify", f"{s.texts_name}/label", *s.typed, *stored, "-k", "3")


def doors(tour: Tour) -> None:
    """One query through HTTP, the command line and Python: the same ids and scores."""
    import permafrost as pf

    s = tour.samples
    with tour.step("the same query over HTTP, by the command line and from Python"):
        with serving() as address:
            url = f"{address}/v1/collections/{s.texts_name}/search"
            body = json.dumps({"query": {"text": s.question}, "k": 5})
            print(f"$ curl -s {url} -H 'content-type: application/json' -d {shlex.quote(body)}")
            request = urllib.request.Request(url, body.encode(), {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=READY_S) as answer:
                http = json.load(answer)
        print(json.dumps(http)[:400] + " …", flush=True)
        line = tour.document("search", s.texts_name, s.question, "-k", "5")
        python = pf.open(str(HOME / "permafrost.store")).collection(s.texts_name).search(s.question, k=5)
        answers = [
            pairs(http["hits"]),
            pairs(line["hits"]),
            list(zip(python.ids, map(float, python.scores), strict=True)),
        ]
        if any(other != answers[0] for other in answers):
            raise Stopped(f"the three doors disagree: {answers}")
        print(f"the three doors gave the same {len(answers[0])} ids with the same scores", flush=True)


def pairs(hits: Sequence[dict[str, Any]]) -> list[tuple[str, float]]:
    """Return ids and scores."""
    return [(hit["id"], float(hit["score"])) for hit in hits]


@contextmanager
def serving() -> Iterator[str]:
    """Start `permafrost serve` on a free port, yield its address, and stop it. Raises `Stopped` where it cannot."""
    print("$ permafrost serve --port 0 &", flush=True)
    process = subprocess.Popen(
        [PROGRAM, "serve", "--port", "0"], cwd=HOME, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    watchdog = threading.Timer(READY_S, process.kill)
    watchdog.start()
    try:
        for line in cast(Any, process.stderr):
            print(line, end="", flush=True)
            if line.startswith("ready "):
                break
        else:
            raise Stopped(f"permafrost serve was not ready in {READY_S} s")
        yield line.split()[1]
    finally:
        watchdog.cancel()
        process.terminate()
        process.communicate()


def farewell(tour: Tour) -> None:
    """Print the three commands to try next."""
    s = tour.samples
    print(
        '\nTry next:\n\n  cd .quickstart && export PATH="$PWD/../.venv/bin:$PATH"\n\n'
        f'  permafrost search {s.texts_name} "{s.next_question}"\n'
        f"  permafrost search {s.photos_name} --image YOUR_PICTURE.jpg\n"
        f"  permafrost embed YOUR_FOLDER --into mine --encoder {shlex.quote(PICTURES)}"
    )


if __name__ == "__main__":
    sys.exit(main())
