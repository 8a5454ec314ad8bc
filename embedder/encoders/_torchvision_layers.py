"""Where a torchvision model is cut: before its classifier, or at a node of its graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torchvision.models import VisionTransformer
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.ops.misc import Permute

from embedder.encoders._torch import Cut, Features
from embedder.errors import EncoderError, UnknownName, UsageError
from embedder.naming import EncoderName

POOLINGS = ("mean", "max", "cls", "none")
FINAL = "classifier input"
GONE = "was_the_classifier"
CHANNELS_LAST = (0, 2, 3, 1)


@dataclass(frozen=True)
class Trunk:
    """One pass through a model: the output of `run` and of each node that is asked for."""

    model: nn.Module
    nodes: tuple[str, ...]
    final: bool
    run: Callable[[Tensor], dict[str, Any]]

    def __call__(self, x: Tensor) -> dict[str, Any]:
        """Return the outputs by node, and under `FINAL` the model's own."""
        return self.run(x)


def join(trunks: Sequence[Trunk]) -> Trunk:
    """Return one pass that gives what each of these gives; all are of one model."""
    model, final = trunks[0].model, any(trunk.final for trunk in trunks)
    nodes = tuple(dict.fromkeys(node for trunk in trunks for node in trunk.nodes))
    last = get_graph_node_names(model)[1][-1]
    reader = create_feature_extractor(model, {node: node for node in (*nodes, *([last] if final else []))})

    def run(x: Tensor) -> dict[str, Any]:
        found: dict[str, Any] = reader(x)
        return {**found, FINAL: found[last]} if final else found

    return Trunk(model, nodes, final, run)


def cut(name: EncoderName, model: nn.Module, run: Callable[[Features], object]) -> tuple[Features, str, str]:
    """Return the features asked for by `layer` and `pooling`, with both as they count in the Space.

    By default: the input of the final classifier layer. A `layer` is a node of
    `torchvision.models.feature_extraction.get_graph_node_names`, or a module such as `layer4`, pooled over its
    positions by `mean` unless said otherwise: `max`; `cls`, the class token of a vision transformer, which the two
    others leave out; `none`, all values as one vector.

    Args:
        run: sends a picture through the features given, to see the shape of a layer.

    Raises:
        UnknownName: a layer that does not exist.
        UsageError: a pooling that the layer does not have, or a pooling without a layer.
    """
    asked = name.options.get("layer")
    if asked is None:
        if "pooling" in name.options:
            raise UsageError("pooling goes with layer= only", where=str(name), hint="add layer=, a node of the model")
        whole = _without_classifier(model)
        trunk = Trunk(model, (), True, lambda x: {FINAL: whole(x)})
        return Cut(trunk, lambda found: found[FINAL]), "classifier input", "head"
    pooling = name.choice("pooling", "mean", POOLINGS)
    nodes = get_graph_node_names(model)[1]
    # as in torchvision, a module's name stands for the last node inside it
    layer = asked if asked in nodes else next((n for n in reversed(nodes) if n.startswith(f"{asked}.")), None)
    if layer is None:
        raise UnknownName.of("layer", asked, nodes, where=str(name), hint=f"the last ones: {', '.join(nodes[-8:])}")
    reader = create_feature_extractor(model, {layer: layer})
    last = _channels_last(reader)
    shapes: list[tuple[int, ...]] = []

    def raw(x: Tensor) -> Tensor:
        out = reader(x)[layer]
        if not isinstance(out, Tensor):
            raise UsageError(f"layer {layer} gives no features", where=str(name), hint="choose another layer")
        shapes.append(tuple(out.shape))
        return out.flatten(1)

    run(raw)
    read = _pooled(name, shapes[0], pooling, _tokens(model), last)
    return Cut(Trunk(model, (layer,), False, reader), lambda found: read(found[layer])), layer, pooling


def _without_classifier(model: Any) -> Features:
    """Exchange the last linear (in SqueezeNet: convolution) layer, which makes the classes, for nothing, once."""
    if not any(hasattr(part, GONE) for part in model.modules()):
        _remove_classifier(model)

    def features(x: Tensor) -> Tensor:
        out = model(x)
        if not isinstance(out, Tensor) or out.ndim != 2:
            raise EncoderError(f"{type(model).__name__} gives no vector before its classifier", hint="choose a layer")
        return out

    return features


def _remove_classifier(model: Any) -> None:
    kinds: tuple[type[nn.Module], ...] = (nn.Linear,)
    if not any(isinstance(part, kinds) for part in model.modules()):
        kinds = (nn.Conv2d,)
    path = [key for key, part in model.named_modules() if isinstance(part, kinds)][-1]
    parent, _, key = path.rpartition(".")
    nothing = nn.Identity().eval()
    setattr(nothing, GONE, True)
    setattr(model.get_submodule(parent), key, nothing)


def _tokens(model: nn.Module) -> int:
    """Return how many tokens a vision transformer has with its class token; 0 for any other model."""
    return int(model.seq_length) if isinstance(model, VisionTransformer) else 0


def _channels_last(reader: fx.GraphModule) -> bool:
    """Say whether the maps that come out are (n, height, width, channels), as in Swin and inside ConvNeXt's blocks."""
    node = next(n for n in reversed(reader.graph.nodes) if n.op == "output").all_input_nodes[0]
    while node.all_input_nodes:
        dims = _permuted(reader, node)
        if len(dims) == len(CHANNELS_LAST):
            return dims == CHANNELS_LAST
        node = node.all_input_nodes[0]
    return False


def _permuted(reader: fx.GraphModule, node: fx.Node) -> tuple[Any, ...]:
    if node.op == "call_module":
        part = reader.get_submodule(str(node.target))
        return tuple(part.dims) if isinstance(part, Permute) else ()
    called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if called != "permute":
        return ()
    dims = node.args[1:]
    return tuple(dims[0]) if dims and isinstance(dims[0], (tuple, list)) else tuple(dims)


def _pooled(name: EncoderName, shape: tuple[int, ...], pooling: str, tokens: int, last: bool) -> Features:
    if pooling == "none" or len(shape) == 2:
        if pooling in ("cls", "max"):
            raise UsageError(f"this layer has nothing to pool by {pooling}", where=str(name), hint="leave out pooling")
        return lambda out: out.flatten(1)
    prefix = 1 if len(shape) == 3 and shape[1] == tokens else 0
    if len(shape) != 4 and not (len(shape) == 3 and tokens):
        raise UsageError(f"this layer gives {shape[1:]}, which has no positions", where=str(name), hint="pooling=none")
    if pooling == "cls" and not prefix:
        raise UsageError("pooling=cls needs a layer with a class token", where=str(name), hint="use pooling=mean")

    def read(out: Tensor) -> Tensor:
        if pooling == "cls":
            return out[:, 0]
        maps = out[:, prefix:] if out.ndim == 3 else (out if last else out.permute(0, 2, 3, 1)).flatten(1, 2)
        return maps.amax(1) if pooling == "max" else maps.mean(1)

    return read
