"""Batches on their way to a GPU, on any machine: a forward pass that only reads what was staged."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from embedder.encoder import Encoder, ImageTower
from embedder.encoders._torch import image_forward
from embedder.records import Item
from embedder.stages import Stages
from tests.embedder.spy import DIM, TRANSFORM, Ready, Spy, split


class Staged:
    """Reads pictures that were staged, and remembers in which thread that was done."""

    def __init__(self, fails: type[Exception] | None = None) -> None:
        self.fails = fails
        self.sizes: list[int] = []
        self.read: list[bool] = []
        self.threads: set[int] = set()

    def stage(self, images: Sequence[Any]) -> list[Any]:
        self.threads.add(threading.get_ident())
        if self.fails:
            raise self.fails("CUDA out of memory")
        return [("there", image) for image in images]

    def __call__(self, images: Sequence[Any]) -> Any:
        self.sizes.append(len(images))
        self.read += [isinstance(image, tuple) for image in images]
        pixels = [image[1] if isinstance(image, tuple) else image for image in images]
        return np.stack([np.full(DIM, 1.0 + p[0, 0, 0]) for p in pixels])


def ready(n: int) -> list[Item]:
    return [Item(str(k), "image", f"{k}.png", data=b"") for k in range(n)]


def on(device: str, forward: Any) -> Encoder:
    return replace(Spy(normalize=False, device=device).encoder, image=ImageTower(TRANSFORM, forward))


def vectors(encoder: Encoder, n: int) -> dict[str, np.ndarray]:
    from embedder import extract

    found = extract.extract(ready(n), encoder, "image", pool=Ready(), batch_size=16, stages=Stages())  # type: ignore[arg-type]
    return split(found)[0]


def test_on_a_gpu_every_batch_is_copied_ahead_in_another_thread() -> None:
    forward = Staged()
    found = vectors(on("cuda:0", forward), 100)
    assert list(found) == [str(k) for k in range(100)]
    assert all(row[0] == 1 + int(id) % 251 for id, row in found.items())
    assert (forward.sizes, set(forward.read)) == ([16] * 6 + [4], {True})
    assert threading.get_ident() not in forward.threads


def test_on_a_cpu_nothing_is_copied() -> None:
    forward = Staged()
    assert len(vectors(on("cpu", forward), 40)) == 40
    assert (set(forward.read), forward.threads) == ({False}, set())


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_a_batch_that_cannot_be_copied_ahead_is_encoded_all_the_same(error: type[Exception]) -> None:
    forward = Staged(error)
    assert len(vectors(on("cuda:0", forward), 40)) == 40
    assert set(forward.read) == {False}


def test_pictures_on_the_device_make_the_same_batch() -> None:
    transform = replace(TRANSFORM, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    forward = image_forward(lambda x: x.flatten(1), transform, torch.device("cpu"), "float32")
    pictures = [np.random.default_rng(n).integers(0, 256, (4, 4, 3), dtype=np.uint8) for n in range(3)]
    there = [torch.from_numpy(p) for p in pictures]
    assert np.array_equal(forward(there), forward(pictures))


@pytest.mark.parametrize("shape", [(4, 4), (6, 4), (1, 4)])
def test_scaling_equals_torchvisions_own_bit_for_bit(shape: tuple[int, int]) -> None:
    from torchvision.transforms import functional

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    forward = image_forward(
        lambda x: x.flatten(1), replace(TRANSFORM, mean=mean, std=std), torch.device("cpu"), "float32"
    )
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    wanted = functional.normalize(functional.to_tensor(picture), mean, std)
    assert np.array_equal(forward([picture])[0], wanted.flatten().numpy())
