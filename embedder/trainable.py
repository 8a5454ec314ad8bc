"""Which weights of an encoder are tuned: those that its vectors depend on, how deep each lies, low-rank additions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from embedder.errors import EncoderError, UsageError

BLOCK = re.compile(r"((?:\d+\.)*(?:[^.\d][^.]*\.)+?(?:\d+|[a-z_]+_\d+))\.")
RUNS = 12
LORA_A, LORA_B = ".lora_A", ".lora_B"


def taking_part(module: nn.Module, loss: Callable[[], Tensor]) -> list[str]:
    """Return the parameters that a loss depends on, in the order in which the forward pass uses them.

    They are those that a backward pass reaches; it reaches the last ones first. All of them are left without gradients.
    """
    reached: list[str] = []
    hooks = []
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(parameter.is_floating_point())
        if parameter.requires_grad:
            hooks.append(cast(Any, parameter).register_post_accumulate_grad_hook(lambda _, at=name: reached.append(at)))
    try:
        with torch.enable_grad():
            cast(Any, loss()).backward()
    finally:
        for hook in hooks:
            hook.remove()
        module.requires_grad_(False)
        module.zero_grad(set_to_none=True)
    return list(dict.fromkeys(reversed(reached)))


def depths(names: Sequence[str]) -> dict[str, int]:
    """Return the depth of each parameter, counted from 1 at the output; 0 is left to the head.

    Numbered blocks (`blocks.3`, `encoder.layer.5`, `layer2.0`) are one layer each; what comes before the first of them
    is the deepest layer, and what comes after the last of them has depth 0, as the head does (Bao et al. 2022, BEiT).
    A network without such blocks is cut into 12 runs of parameters.

    Args:
        names: in the order of use.
    """
    found = [BLOCK.match(name) for name in names]
    blocks = list(dict.fromkeys(match[1] for match in found if match))
    if len(blocks) < 2:
        runs = min(RUNS, len(names))
        return {name: runs - at * runs // len(names) for at, name in enumerate(names)}
    level = {block: len(blocks) - at for at, block in enumerate(blocks)}
    numbered = [at for at, match in enumerate(found) if match]
    deep: dict[str, int] = {}
    last = len(blocks) + 1
    for at, (name, match) in enumerate(zip(names, found, strict=True)):
        last = level[match[1]] if match else last if at < numbered[-1] else 0
        deep[name] = last
    return deep


def scales(names: Sequence[str], decay: float) -> dict[str, float]:
    """Return what the learning rate of each parameter is multiplied by: decay to the power of its depth."""
    return {name: decay**depth for name, depth in depths(names).items()}


class LowRank(nn.Module):
    """Adds B·A to a weight (Hu et al. 2021): A (rank, in) is drawn, B (out, rank) begins at zero.

    B·A is multiplied by `scale`, alpha over rank.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        out, inside = weight.shape
        bound = (3 / inside) ** 0.5
        drawn = (2 * torch.rand((rank, inside), generator=generator) - 1) * bound
        self.scale = scale
        self.A = nn.Parameter(drawn.to(weight.device))
        self.B = nn.Parameter(torch.zeros((out, rank), device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the sum."""
        return weight + self.scale * (self.B @ self.A)


def add_low_rank(
    module: nn.Module, names: Sequence[str], rank: int, alpha: float, generator: torch.Generator
) -> dict[str, LowRank]:
    """Put a low-rank addition on every linear layer inside a block whose weight takes part, by the weight's name.

    Raises:
        UsageError: there is no such layer.
    """
    inside = {name for name in names if BLOCK.match(name)}
    added: dict[str, LowRank] = {}
    for path, part in list(module.named_modules()):
        name = f"{path}.weight"
        if isinstance(part, nn.Linear) and name in inside:
            added[name] = LowRank(part.weight, rank, alpha / rank, generator)
            parametrize.register_parametrization(part, "weight", added[name])
    if not added:
        raise UsageError(
            "lora adds to linear layers inside a transformer's blocks, and this encoder has none",
            hint="--method lp_ft tunes any torch encoder",
        )
    return added


def remove_low_rank(module: nn.Module, names: Sequence[str]) -> None:
    """Give each weight back as it was before `add_low_rank`."""
    for name in names:
        part = module.get_submodule(name.removesuffix(".weight"))
        parametrize.remove_parametrizations(part, "weight", leave_parametrized=False)


def apply(module: nn.Module, tensors: Mapping[str, Tensor], share: float = 1.0) -> None:
    """Write tuned tensors into a module: a parameter under its own name, or what is added to it as two factors.

    With a `share` below 1, only so far from the module's own weights to the tuned ones (Wortsman et al. 2022).

    Raises:
        EncoderError: a tensor that the module has no place for.
    """
    places = dict(module.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name.endswith(LORA_A):
                continue
            weight = name.removesuffix(LORA_B)
            change = tensor @ tensors[weight + LORA_A] if weight != name else tensor
            place = places.get(weight)
            if place is None or place.shape != change.shape:
                raise EncoderError(
                    f"the encoder that was tuned has no weight {weight} of shape {tuple(change.shape)}",
                    hint="it was tuned from another version of its base; tune it again: permafrost finetune",
                )
            given = change.to(place.device, place.dtype)
            whole = given if weight == name else place + given
            place.copy_(whole if share == 1 else torch.lerp(place, whole, share))
