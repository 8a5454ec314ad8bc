"""Aliases, tags, restores, clean-up and backups at the doors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import permafrost as pf
from tests.api.conftest import NOTES, Run

NEEDLE = "qqneedleqq"


def test_an_alias_at_the_command_line(run: Run, store: Path) -> None:
    run("--store", store, "embed", "notes", "--into", "notes", "--encoder", "hashing:32")
    said = run("--store", store, "alias", "notes", "small", "hashing:32", "--json")
    assert said.json["alias"] == "small"
    assert said.json["before"] is None
    assert (
        run("--store", store, "search", "notes", "boat", "--space", "small", "--json").json["encoder"] == "hashing:32"
    )
    assert run("--store", store, "alias", "notes").out.splitlines()[1].startswith("small")
    assert run("--store", store, "alias", "notes", "small", "hashing:33").code == 2
    assert run("--store", store, "alias", "notes", "small").code == 2
    assert run("--store", store, "alias", "notes", "--delete").code == 2
    assert run("--store", store, "alias", "notes", "small", "--delete").code == 0
    said = run("--store", store, "alias", "notes", "default", "--delete")
    assert said.code == 3
    assert "do:    point it elsewhere" in said.err


def test_a_tag_and_a_restore_at_the_command_line(run: Run, store: Path) -> None:
    assert run("--store", store, "tag", "notes").err == "no tags\n"
    assert "to come back: permafrost restore notes good" in run("--store", store, "tag", "notes", "good").out
    run("--store", store, "delete", "notes", "--where", "label = 'boat'")
    said = run("--store", store, "restore", "notes", "good")
    assert f"{NOTES} items, {NOTES // 2} changed" in said.out
    assert "to undo this: permafrost restore notes before-restore-1" in said.out
    assert "stale" not in said.out
    said = run("--store", store, "restore", "notes", "before-restore-1")
    assert "head subject@1 is stale" in said.out
    facts = run("--store", store, "info", "notes", "--json").json
    assert facts["items"] == NOTES // 2
    assert [tag["name"] for tag in facts["tags"]] == ["good", "before-restore-1", "before-restore-2"]
    assert "train again" in facts["heads"][0]["stale"]
    shown = run("--store", store, "info", "notes").out
    assert "stale: of" in shown
    assert "tags" in shown
    assert run("--store", store, "restore", "notes").code == 2
    assert "did you mean good" in run("--store", store, "restore", "notes", "goo").err
    assert run("--store", store, "restore", "notes", "--version", 123456).code == 2
    assert run("--store", store, "tag", "notes", "good", "--delete").out == "tag good is gone\n"


def test_counts_agree_between_ls_info_search_and_filters(run: Run, store: Path) -> None:
    run("--store", store, "delete", "notes", "--where", "year < 2005")
    wanted = NOTES - 5
    facts = run("--store", store, "info", "notes", "--json").json
    (row,) = [c for c in run("--store", store, "ls", "--json").json["collections"] if c["name"] == "notes"]
    found = run("--store", store, "search", "notes", "boat", "-k", 100, "--json").json
    kept = run("--store", store, "search", "notes", "boat", "-k", 100, "--where", "year >= 2000", "--json").json
    assert [facts["items"], facts["spaces"][0]["vectors"], row["items"]] == [wanted] * 3
    assert [found["rows"], len(found["hits"]), kept["searched"], len(kept["hits"])] == [wanted] * 4


def test_a_vacuum_and_a_purge_at_the_command_line(run: Run, store: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra.jsonl"
    extra.write_text(json.dumps({"id": "x", "text": f"about {NEEDLE}", "label": NEEDLE, "year": 1}) + "\n")
    run("--store", store, "embed", extra, "--into", "notes", "--prefix", "p-")
    for n in range(6):
        run("--store", store, "label", "notes", "--id", f"n{n}", "--set", f"label={NEEDLE}")
    run("--store", store, "label", "notes", "--id", "p-x", "--set", f"label={NEEDLE}2")
    assert run("--store", store, "train", "notes", "--label", "label", "--name", "needle").code == 0
    assert run("--store", store, "index", "notes", "--kind", "flat").code == 0
    run("--store", store, "delete", "notes", "--where", f"label LIKE '{NEEDLE}%'")
    said = run("--store", store, "vacuum", "notes", "--json").json
    assert (said["swept"], said["purged"]) == (7, False)
    said = run("--store", store, "vacuum", "notes", "--purge", "--json").json
    states = {(head["head"], head["state"]) for head in said["heads"]}
    assert states == {("needle", "removed"), ("subject", "stale")}
    assert [row["built"] for row in said["rebuilt"]] == [True]
    folder = store / "notes"
    assert [p for p in folder.rglob("*") if p.is_file() and NEEDLE.encode() in p.read_bytes()] == []
    assert run("--store", store, "search", "notes", "boat").code == 0
    assert "purged" in run("--store", store, "vacuum", "notes", "--purge").out
    assert run("--store", store, "vacuum", "notes", "--purge", "--keep", 1).code == 2


def test_a_backup_at_the_command_line(run: Run, store: Path, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    made = run("--store", store, "backup", "--all", dest, "--json").json
    assert [c["collection"] for c in made["collections"]] == ["notes", "pics"]
    assert run("--store", store, "backup", "--check", dest).out.endswith("sound\n")
    elsewhere = tmp_path / "elsewhere"
    said = run("--store", elsewhere, "restore", "notes", "--from", dest, "--as", "again", "--json")
    assert said.json["root"] == made["collections"][0]["root"]
    hits = run("--store", elsewhere, "search", "again", "boat", "--json").json["hits"]
    assert hits == run("--store", store, "search", "notes", "boat", "--json").json["hits"]
    assert run("--store", elsewhere, "classify", "again/subject", "a red boat").code == 0
    assert run("--store", store, "restore", "notes", "--from", dest).code == 3
    assert run("--store", store, "backup", dest).code == 2
    assert run("--store", store, "backup", "--check", "notes", dest).code == 2
    assert run("--store", store, "restore", "notes", "x", "--from", dest).code == 2
    assert run("--store", store, "restore", "notes", "--as", "y").code == 2
    victim = next((dest / "pics").rglob("*.lance"))
    data = bytearray(next(p for p in victim.rglob("*") if p.is_file()).read_bytes())
    data[len(data) // 2] ^= 1
    next(p for p in victim.rglob("*") if p.is_file()).write_bytes(data)
    said = run("--store", store, "backup", "--check", dest)
    assert said.code == 1
    assert "fails its checksum" in said.err


def test_the_doctor_mends(run: Run, store: Path) -> None:
    (store / "notes" / "keys.json").unlink()
    (store / "notes" / ".tmp-999999999-1").write_text("x")
    said = run("--store", store, "doctor", "--json")
    assert said.code == 1
    assert [c["detail"] for c in said.json["checks"] if not c["ok"]] == [
        "keys.json, the counter of keys, is lost or damaged"
    ]
    said = run("--store", store, "doctor", "--mend")
    assert said.code == 0
    assert "mended notes: keys.json" in said.out
    assert run("--store", store, "doctor", "--json").json["mended"] == []


def test_the_python_door(store: Path, tmp_path: Path) -> None:
    opened = pf.open(store)
    notes = opened.collection("notes")
    notes.tag("good")
    notes.delete(ids=["n1"])
    assert notes.vacuum().swept == 1
    done = notes.restore("good")
    assert (done["items"], done.changed, done.vectors) == (NOTES, 1, 1)
    assert [tag.name for tag in notes.tags()] == ["good", done.undo]
    notes.restore(version=done.before)
    notes.drop_tag("good")
    assert notes.alias("main", "hashing:64").before is None
    assert set(notes.aliases()) == {"default", "main"}
    notes.drop_alias("main")
    with pytest.raises(pf.PermafrostError, match="would keep"):
        notes.vacuum(purge=True)
    roots = {c["collection"]: c["root"] for c in opened.backup(tmp_path / "b").collections}
    assert opened.check_backup(tmp_path / "b").ok
    assert opened.restore("notes", tmp_path / "b", name="copy").root == roots["notes"]
    assert opened.collection("copy").info()["items"] == NOTES - 1
    assert opened.doctor(mend=True).ok
    opened.close()
