"""The verb: tune an encoder on labelled items, beginning with a head that was fitted to its frozen vectors.

Linear probing first, then all weights (Kumar et al. 2022, LP-FT), or low-rank additions alone (Hu et al. 2021, LoRA);
afterwards, if asked, on the line between frozen and tuned weights (Wortsman et al. 2022, WiSE-FT). The module stays in
eval mode throughout: statistics of BatchNorm do not move and nothing is dropped, so that a seed decides everything.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from embedder.batches import is_memory
from embedder.encoder import Encoder
from embedder.errors import OutOfResource, UsageError
from embedder.recipe import Recipe, Step
from embedder.records import Medium
from embedder.runtime import Steps
from embedder.trainable import LORA_A, LORA_B, LowRank, add_low_rank, apply, remove_low_rank, scales, taking_part

LARGEST_NORM = 1.0
TOO_LARGE = "one item alone does not fit into memory"
SMALLER = "tune a smaller encoder, read smaller inputs (image_size=, max_length=), or use a larger machine"
Rows = NDArray[np.intp]


class Inputs(Protocol):
    """Prepared inputs of n items, by position."""

    def take(self, rows: Sequence[int]) -> list[Any]:
        """Return those of some items, in the order given."""


@dataclass(frozen=True)
class Labels:
    """What is learned from: (n,) codes, the positions to fit, and those that say when to stop; none is in both."""

    y: Rows
    fit: Rows
    validation: Rows


@dataclass(frozen=True)
class Tuned:
    """What came of it; the encoder that was given has these weights now.

    Attributes:
        tensors: what `embedder.trainable.apply` makes the tuned encoder from, on the CPU, float32.
        weight, bias: (C, d) and (C,) of the head that was tuned along, on vectors as the Space stores them.
        history: a line for each epoch: `epoch loss validation accuracy`; epoch 0 is the frozen encoder.
        best: the epoch whose weights were kept, 1 or later: the one of the least validation loss.
    """

    tensors: dict[str, Tensor]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    history: list[dict[str, float]]
    best: int
    seconds: float


def require_module(encoder: Encoder, medium: Medium) -> nn.Module:
    """Return the module to tune.

    Raises:
        UsageError: an encoder that is no torch module, is not in float32, or cuts texts into parts.
    """
    module: nn.Module | None = encoder.module
    forward: Any = encoder.tower(medium).forward
    what = None
    if module is None or not isinstance(forward, Steps):
        what = "has no weights here that could be tuned"
    elif encoder.space.dtype != "float32":
        what = f"runs in {encoder.space.dtype}, and weights are tuned in float32"
    elif encoder.text is not None and encoder.text.split is not None:
        what = "cuts texts into parts, and a label belongs to a whole text"
    if module is None or what is not None:
        raise UsageError(
            f"{encoder.name} {what}",
            hint="timm, torchvision, open_clip, transformers, sentence_transformers, bundled:efficientnet_lite0 to 2, "
            "bundled:minilm and bundled:smollm2 can be tuned, without dtype= and chunk=",
        )
    return module


def finetune(
    encoder: Encoder,
    medium: Medium,
    inputs: Inputs,
    labels: Labels,
    head: tuple[NDArray[Any], NDArray[Any]],
    recipe: Recipe,
    watch: Callable[[Step], None] = lambda step: None,
    clock: Callable[[], float] = time.monotonic,
) -> Tuned:
    """Tune an encoder in place.

    Args:
        encoder: not shared with anybody: its weights are changed.
        head: weight (C, d) and bias (C,) of logits, fitted to the frozen vectors of the rows to fit.
        watch: is told of every step; what it raises ends the tuning.

    Raises:
        UsageError: see `require_module`; or the encoder has nothing that `recipe.method` tunes.
        OutOfResource: not even one item fits into memory.
    """
    return _Tuning(encoder, medium, inputs, labels, head, recipe, watch, clock).run()


class _Tuning:
    """The state of one tuning."""

    def __init__(
        self, encoder: Encoder, medium: Medium, inputs: Inputs, labels: Labels,
        head: tuple[NDArray[Any], NDArray[Any]], recipe: Recipe, watch: Callable[[Step], None],
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.module = require_module(encoder, medium)
        self.forward: Any = encoder.tower(medium).forward
        self.unit = bool(encoder.space.identity["normalize"])
        self.inputs, self.recipe, self.watch, self.clock = inputs, recipe, watch, clock
        device = torch.device(encoder.device)
        self.y, self.fit, self.validation = torch.from_numpy(labels.y.copy()).to(device), labels.fit, labels.validation
        self.weight, self.bias = (nn.Parameter(torch.tensor(part, dtype=torch.float32, device=device)) for part in head)
        self.size = recipe.batch_size
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.started = clock()

    def run(self) -> Tuned:
        """Tune, keep the best epoch, and leave its weights in the module."""
        names = self._taking_part()
        whole = dict(self.module.named_parameters())
        before = {name: whole[name].detach().clone() for name in names} if self.recipe.method == "lp_ft" else {}
        start = self.weight.detach().clone(), self.bias.detach().clone()
        added = self._added(names)
        trained = self._trained(names, added)
        try:
            history, best, kept = self._epochs(trained, scales(names, self.recipe.layer_decay))
        finally:
            remove_low_rank(self.module, list(added))
            self.module.requires_grad_(False)
            with torch.no_grad():
                for name, tensor in before.items():
                    whole[name].copy_(tensor)
        tensors = self._between(before, kept, added)
        apply(self.module, tensors)
        weight, bias = (
            torch.lerp(a, kept[name].to(a.device), self.recipe.interpolate).cpu().numpy()
            for a, name in zip(start, ("", "bias"), strict=True)
        )
        return Tuned(tensors, weight, bias, history, best, self.clock() - self.started)

    def _taking_part(self) -> list[str]:
        try:
            return taking_part(self.module, lambda: self._loss(self.fit[:1].tolist()))
        except (RuntimeError, MemoryError) as error:
            if is_memory(error):
                raise OutOfResource(TOO_LARGE, where="fine-tuning", hint=SMALLER) from error
            raise

    def _added(self, names: Sequence[str]) -> dict[str, LowRank]:
        chosen = self.recipe
        if chosen.method != "lora":
            return {}
        return add_low_rank(self.module, names, chosen.rank, chosen.alpha, self.generator)

    def _trained(self, names: Sequence[str], added: Mapping[str, LowRank]) -> dict[str, nn.Parameter]:
        """Return what is trained, by name: the head's weight is called "", its bias `bias`."""
        head: dict[str, nn.Parameter] = {"": self.weight, "bias": self.bias}
        if added:
            factors = {f"{name}{LORA_A}": part.A for name, part in added.items()}
            return {**head, **factors, **{f"{name}{LORA_B}": part.B for name, part in added.items()}}
        whole = dict(self.module.named_parameters())
        for name in names:
            whole[name].requires_grad_(True)
        return {**head, **{name: whole[name] for name in names}}

    def _epochs(
        self, trained: Mapping[str, nn.Parameter], scale: Mapping[str, float]
    ) -> tuple[list[dict[str, float]], int, dict[str, Tensor]]:
        optimizer = torch.optim.AdamW(self._groups(trained, scale), lr=self.recipe.rate)
        rates = [group["lr"] for group in optimizer.param_groups]
        per_epoch = math.ceil(len(self.fit) / self.recipe.batch_size)
        steps, done = self.recipe.epochs * per_epoch, 0
        history = [{"epoch": 0.0, **self._validated()}]
        best, kept, least = 0, dict[str, Tensor](), math.inf
        for epoch in range(1, self.recipe.epochs + 1):
            losses = []
            for rows in self._batches():
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * self.recipe.factor(done, steps)
                losses.append(self._step(rows, optimizer, list(trained.values())))
                done += 1
                self._tell(epoch, done, steps, losses)
                if self._late():
                    break
            line = {"epoch": float(epoch), "loss": float(np.mean(losses)), **self._validated()}
            history.append(line)
            self._tell(epoch, done, steps, losses, line)
            if line["validation"] < least or not kept:
                least, best = line["validation"], epoch
                kept = {name: part.detach().to("cpu", copy=True) for name, part in trained.items()}
            if self._late() or epoch - best >= self.recipe.patience:
                break
        return history, best, kept

    def _groups(self, trained: Mapping[str, nn.Parameter], scale: Mapping[str, float]) -> list[dict[str, Any]]:
        """Return a group for each parameter: its rate by its depth, and no weight decay where it is a vector."""
        rate, decay = self.recipe.rate, self.recipe.weight_decay
        plain = {name: name.removesuffix(LORA_A).removesuffix(LORA_B) for name in trained}
        return [
            {"params": [part], "lr": rate * scale.get(plain[name], 1.0), "weight_decay": decay if part.ndim > 1 else 0}
            for name, part in trained.items()
        ]

    def _batches(self) -> Iterator[list[int]]:
        order = self.fit[torch.randperm(len(self.fit), generator=self.generator).numpy()].tolist()
        for start in range(0, len(order), self.recipe.batch_size):
            yield order[start : start + self.recipe.batch_size]

    def _step(self, rows: list[int], optimizer: torch.optim.Optimizer, parts: list[nn.Parameter]) -> float:
        """Take one step; where the batch does not fit into memory, the sum of the gradients of smaller ones."""
        while True:
            optimizer.zero_grad(set_to_none=True)
            try:
                loss = 0.0
                with torch.enable_grad():
                    for start in range(0, len(rows), self.size):
                        part = rows[start : start + self.size]
                        share = self._loss(part) * (len(part) / len(rows))
                        share.backward()  # type: ignore[no-untyped-call]
                        loss += float(share.detach())
                break
            except (RuntimeError, MemoryError) as error:
                self._halve(error)
        nn.utils.clip_grad_norm_(parts, LARGEST_NORM)
        optimizer.step()
        return loss

    def _halve(self, error: Exception) -> None:
        if not is_memory(error):
            raise error
        if self.size == 1:
            raise OutOfResource(TOO_LARGE, where="fine-tuning", hint=SMALLER) from error
        self.size = (self.size + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _logits(self, rows: Sequence[int]) -> Tensor:
        vectors: Tensor = self.forward.network(*self.forward.inputs(self.inputs.take(rows))).float()
        return functional.linear(functional.normalize(vectors, dim=1) if self.unit else vectors, self.weight, self.bias)

    def _loss(self, rows: Sequence[int]) -> Tensor:
        return functional.cross_entropy(self._logits(rows), self.y[list(rows)])

    @torch.no_grad()
    def _validated(self) -> dict[str, float]:
        """Return the mean loss and the accuracy on the validation rows."""
        loss = right = 0.0
        at, rows = 0, self.validation.tolist()
        while at < len(rows):
            part = rows[at : at + self.size]
            try:
                logits = self._logits(part)
            except (RuntimeError, MemoryError) as error:
                self._halve(error)
                continue
            loss += float(functional.cross_entropy(logits, self.y[part], reduction="sum"))
            right += float((logits.argmax(1) == self.y[part]).sum())
            at += len(part)
        return {"validation": loss / len(rows), "accuracy": right / len(rows)}

    def _late(self) -> bool:
        minutes = self.recipe.minutes
        return minutes is not None and self.clock() - self.started >= 60 * minutes

    def _tell(
        self, epoch: int, done: int, steps: int, losses: list[float], line: Mapping[str, float] | None = None
    ) -> None:
        told = line or {}
        self.watch(Step(
            epoch, self.recipe.epochs, done, steps, float(np.mean(losses)), self.clock() - self.started,
            told.get("validation"), told.get("accuracy"),
        ))  # fmt: skip

    def _between(
        self, before: Mapping[str, Tensor], kept: Mapping[str, Tensor], added: Mapping[str, LowRank]
    ) -> dict[str, Tensor]:
        """Return the tensors to save, `interpolate` of the way from frozen to tuned ones; B has the scale in it."""
        a = self.recipe.interpolate
        if not added:
            return {n: torch.lerp(old.cpu(), kept[n], a).contiguous() for n, old in before.items()}
        scale = {f"{name}{LORA_B}": a * part.scale for name, part in added.items()}
        return {n: (part * scale.get(n, 1.0)).contiguous() for n, part in kept.items() if n.endswith((LORA_A, LORA_B))}
