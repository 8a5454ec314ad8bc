"""The one thing that would help: the written rules, on both sides of each of their borders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from embedder import machine
from embedder.stages import FASTER_DISK, FASTER_STORE, FASTER_TEXTS, SHORT_S, Setup, Stages

PICTURES = Setup("image", "cpu", cores=8, side=224)
TEXTS = Setup("text", "cpu", cores=8)
AUTO = "--runtime auto, which takes the fastest that is installed"
REMOTE = "the endpoint sets the pace: a faster one, or an encoder that runs here"


def advice(setup: Setup = PICTURES, workers: int = 2, **seconds: float) -> str | None:
    return Stages(setup=setup, workers=workers, **seconds).advice()


def test_nothing_is_said_of_a_short_run_or_an_unknown_one() -> None:
    assert advice(encode=SHORT_S - 0.01) is None
    assert advice(encode=SHORT_S) is not None
    assert advice(encode=1, wait=0.5, write=0.5) is not None
    assert Stages(encode=100).advice() is None


def test_writing_and_reading_are_helped_by_disks() -> None:
    assert advice(write=10) == FASTER_STORE
    assert advice(read=11, decode=10, wait=9, encode=1) == FASTER_DISK
    assert advice(read=10, decode=11, wait=9, encode=1) != FASTER_DISK
    # two workers explain half of what they took together
    assert advice(read=0, decode=10, wait=10.1, encode=1) == FASTER_DISK
    assert advice(read=0, decode=10, wait=9.9, encode=1) != FASTER_DISK


@pytest.mark.parametrize(
    ("workers", "cores", "encode", "said"),
    [
        (2, 8, 30, "--workers 4"),
        (2, 8, 20, "--workers 5"),
        (2, 8, 29.999, "--workers 5"),
        (2, 8, 0, "--workers 8"),
        (2, 3, 0.1, "--workers 3"),
        (7, 8, 29, "--workers 8"),
        (8, 8, 20, "keep the pictures smaller: this encoder reads 224 pixels a side"),
    ],
)
def test_as_many_workers_as_would_keep_up_while_there_are_cores(
    workers: int, cores: int, encode: float, said: str
) -> None:
    setup = replace(PICTURES, cores=cores)
    assert advice(setup, workers, decode=30 * workers, wait=30, encode=encode) == said


def test_texts_have_no_workers() -> None:
    assert (Stages(setup=TEXTS).batch_of(), Stages(setup=PICTURES).batch_of()) == ("tokens", "pictures")
    assert advice(TEXTS, 0, decode=10, wait=9, encode=1) == FASTER_TEXTS
    assert advice(TEXTS, 0, read=11, decode=10, wait=9, encode=1) == FASTER_DISK


@pytest.mark.parametrize(
    ("setup", "said"),
    [
        (replace(PICTURES, given=7), "--batch-size auto, which measures the fastest"),
        (replace(PICTURES, given=8), "a GPU, or a smaller encoder"),
        (replace(PICTURES, device="cuda:1", given=63), "--batch-size auto, which measures the fastest"),
        (replace(PICTURES, device="cuda:1", given=64), "a smaller encoder, or a faster GPU"),
        (replace(PICTURES, runtimes=("openvino", "onnx"), half=True), AUTO),
        (replace(PICTURES, half=True), "dtype=bfloat16 in the encoder's name (a Space of its own)"),
        (replace(PICTURES, half=True, dtype="bfloat16"), "a GPU, or a smaller encoder"),
        (replace(PICTURES, device="cuda", half=True, dtype="float16"), "a smaller encoder, or a faster GPU"),
        (replace(TEXTS, device="remote", given=1), REMOTE),
    ],
)  # fmt: skip
def test_the_cheapest_help_for_the_forward_pass_comes_first(setup: Setup, said: str) -> None:
    assert advice(setup, encode=10, wait=9) == said


def test_half_precision_is_faster_where_the_processor_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = tmp_path / "cpuinfo"
    facts.write_text("processor : 0\nflags : fpu avx512f avx512_bf16\n")
    assert machine._has_half(facts)
    (tmp_path / "old").write_text("processor : 0\nflags : fpu avx2\n")
    assert not machine._has_half(tmp_path / "old")
    assert not machine._has_half(tmp_path / "none")
    assert machine.fast_half("cuda:0")
    assert not machine.fast_half("remote")
    assert machine.cores() >= 1
