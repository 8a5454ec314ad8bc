"""What the torch encoders share: devices, precision, frozen modules, and the forward pass over pixels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedder.encoder import Encoder, Forward, ImageTower
from embedder.errors import EncoderError, UsageError
from embedder.shared import Shared
from embedder.transform import ImageTransform

Module = TypeVar("Module", bound=nn.Module)
Features = Callable[[Tensor], Tensor]
"""A normalised batch (n, 3, height, width) to features (n, dim)."""


@dataclass(frozen=True)
class Cut:
    """Features in two steps: `trunk` runs the model, `read` makes (n, dim) of what comes out.

    `joint`, where there is one, is the trunk of several encoders, and gives at least what each of their own gives.
    """

    trunk: Callable[[Tensor], Any]
    read: Callable[[Any], Tensor]
    joint: Callable[[Tensor], Any] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Run the model for these features alone."""
        return self.read(self.trunk(x))


def device_of(text: str) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda` or `cuda:N` means here.

    Raises:
        UsageError: another word, or a GPU that this machine does not have.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise UsageError(f"device must be auto, cpu, cuda or cuda:N, not {text!r}")
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(text)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"{text} was asked for, and this machine has {torch.cuda.device_count()} CUDA devices that torch can use",
            hint="use --device cpu or --device auto, or install a torch build and driver for this GPU",
        )
    return device


def dtype_of(name: str) -> torch.dtype:
    """Return the torch dtype of `float32`, `bfloat16` or `float16`."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


@contextmanager
def own_rng(seed: int | None) -> Iterator[None]:
    """Build a module from `seed` (0 if None) and leave the caller's random numbers as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed or 0)
        yield


def frozen(module: Module, device: torch.device, dtype: str) -> Module:
    """Return the module in eval mode, without gradients, its weights cast to `dtype`, on `device`."""
    module.requires_grad_(False)
    module.eval()
    module.to(device=device, dtype=dtype_of(dtype))
    # pixels arrive as height, width, channel; convolutions on CPU took twice as long in the other order
    module.to(memory_format=torch.channels_last)
    return module


@dataclass(frozen=True, eq=False)
class Pixels:
    """Lists of (height, width, 3) uint8 arrays, or of such tensors on the device, to one normalised batch.

    The batch is (n, 3, height, width), float32.

    Scaling and normalising repeat torchvision's `ToTensor` and `Normalize`, operation for operation, over rows of
    pixels: `mean` and `std` are (3 * width,). Over three channels at a time they take four times as long.
    """

    mean: Tensor
    std: Tensor
    varying = (0,)

    def __call__(self, images: Sequence[Any]) -> tuple[Tensor]:
        """Return the batch."""
        there = isinstance(images[0], Tensor)
        batch = torch.stack(list(images)) if there else torch.from_numpy(np.stack(images)).to(self.mean.device)
        n, height, width, channels = batch.shape
        rows = batch.view(n, height, width * channels).to(torch.float32)
        rows.div_(255).sub_(self.mean).div_(self.std)
        return (rows.view(n, height, width, channels).permute(0, 3, 1, 2),)


@dataclass(frozen=True)
class Padded:
    """Lists of token ids to ids and mask, both (n, longest) int64; padding is on the right, `longest` at least 1."""

    pad: int
    device: torch.device
    varying = (0, 1)

    def __call__(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return ids and mask; the mask is 1 at real tokens."""
        shape = (len(rows), max(1, *(len(row) for row in rows)))
        ids, mask = torch.full(shape, self.pad, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
            mask[i, : len(row)] = 1
        return ids.to(self.device), mask.to(self.device)


@dataclass(frozen=True)
class Stacked:
    """Arrays of token ids, all of one length, to one tensor (n, length)."""

    device: torch.device
    varying = (0,)

    def __call__(self, rows: Sequence[Any]) -> tuple[Tensor]:
        """Return the ids."""
        return (torch.from_numpy(np.stack(rows)).to(self.device),)


@dataclass(frozen=True, eq=False)
class ImageForward:
    """A forward pass over pictures: `inputs`, then `features` in the precision `dtype`."""

    features: Features
    inputs: Pixels
    dtype: torch.dtype

    @torch.inference_mode()
    def __call__(self, images: Sequence[Any]) -> NDArray[np.floating[Any]]:
        """Return (n, dim)."""
        cut = self.features
        if isinstance(images, Shared) and isinstance(cut, Cut) and cut.joint is not None:
            joint = cut.joint
            return as_numpy(cut.read(images.once(joint, lambda: joint(self.inputs(images)[0].to(self.dtype)))))
        return as_numpy(self.network(*self.inputs(images)))

    def network(self, pixels: Tensor) -> Tensor:
        """Return features (n, dim) of a normalised batch."""
        return self.features(pixels.to(self.dtype))

    def stage(self, images: Sequence[Any]) -> list[Any]:
        """Copy pictures to the GPU through pinned memory, on a stream of their own; they are there on return."""
        device = self.inputs.mean.device
        stream = _copies(device)
        with torch.cuda.stream(stream):
            pinned = torch.from_numpy(np.stack(images)).pin_memory()
            batch = pinned.to(device, non_blocking=True)
        stream.synchronize()
        return list(batch.unbind())


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    # one for each GPU: every stream keeps the memory that was allocated on it
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def image_forward(features: Features, transform: ImageTransform, device: torch.device, dtype: str) -> ImageForward:
    """Return the forward pass of these features over pictures made by `transform`."""
    mean, std = (
        torch.tensor(facts, dtype=torch.float32, device=device).repeat(transform.width)
        for facts in (transform.mean, transform.std)
    )
    return ImageForward(features, Pixels(mean, std), dtype_of(dtype))


def joined(encoders: Sequence[Encoder], join: Callable[[list[Any]], Callable[[Tensor], Any]]) -> list[Encoder]:
    """Return image encoders of one model with a joint trunk, which `join` makes of their trunks; all are `Cut`."""
    towers = [cast(ImageTower, encoder.image) for encoder in encoders]
    forwards = [cast(ImageForward, tower.forward) for tower in towers]
    cuts = [cast(Cut, forward.features) for forward in forwards]
    joint = join([cut.trunk for cut in cuts])
    return [
        replace(e, image=replace(tower, forward=replace(forward, features=replace(cut, joint=joint))))
        for e, tower, forward, cut in zip(encoders, towers, forwards, cuts, strict=True)
    ]


def as_numpy(vectors: Tensor) -> NDArray[np.floating[Any]]:
    """Return features as float32 on the CPU."""
    return vectors.to(torch.float32).cpu().numpy()


def width_of(forward: Forward, example: Any, what: str) -> int:
    """Return the dimension of the features, by encoding one example.

    Raises:
        EncoderError: the model refuses the example, or does not give one vector for it.
    """
    try:
        vector = np.asarray(forward([example]))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(f"{what} cannot encode: {reason}", hint="try another image_size, layer or dtype") from error
    if vector.ndim != 2 or len(vector) != 1:
        raise EncoderError(
            f"{what} gives features of shape {vector.shape[1:]} for one input, not one vector",
            hint="choose how to pool them: pooling=mean, or another layer",
        )
    return int(vector.shape[1])


def grey(transform: ImageTransform) -> NDArray[np.uint8]:
    """Return a plain picture of the size that the encoder reads."""
    return np.full((transform.height, transform.width, 3), 128, dtype=np.uint8)
