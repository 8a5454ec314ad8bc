"""OpenVINO, on CPUs: convolutions, and everything in bfloat16, are much faster than in torch.

A network is converted at each load, which takes about a second (EfficientNet-Lite0 1.2 s, MiniLM 0.9 s, on a core of
an AMD EPYC with AVX-512), so nothing is kept on disk.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import local
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedder.runtimes._traced import Traced, arrays, tracing

MODULES = ("openvino",)
DEVICES = ("cpu",)
PRECISION = {"float32": "f32", "bfloat16": "bf16", "float16": "f32"}
"""CPUs without float16 would compute in bfloat16 in its place, which is not precise enough for a float16 Space."""
TELEMETRY = "openvino_telemetry"


def compile(
    network: Callable[..., Tensor], example: tuple[Tensor, ...], varying: tuple[int, ...], dtype: str, threads: int
) -> Callable[..., NDArray[np.floating[Any]]]:
    """Convert a network and compile it for this CPU; see `embedder.runtime.RuntimeKind`."""
    openvino = _library()
    with tracing():
        graph: Any = torch.jit.trace(Traced(network), example, check_trace=False)  # type: ignore[no-untyped-call]
        _straighten(graph)
        model = openvino.convert_model(graph, example_input=example)
    for tensor, given in zip(example, model.inputs, strict=True):
        shape = [-1 if axis in varying else size for axis, size in enumerate(tensor.shape)]
        given.get_node().set_partial_shape(openvino.PartialShape(shape))
    model.validate_nodes_and_infer_types()
    compiled = openvino.Core().compile_model(
        model, "CPU",
        {
            # left alone it takes bfloat16 wherever the CPU has it
            "INFERENCE_PRECISION_HINT": PRECISION[dtype],
            # a pass is waited for, so that all threads belong to one
            "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads,
            # decoders work beside it
            "ENABLE_CPU_PINNING": False,
        },
    )  # fmt: skip
    own = local()

    def run(*inputs: Tensor) -> NDArray[np.floating[Any]]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        found: NDArray[np.floating[Any]] = own.request.infer(arrays(inputs), share_inputs=True)[0]
        return found

    return run


def _straighten(graph: Any) -> None:
    """Put weights into the order of their axes; OpenVINO read others (channels_last) as garbage in bfloat16."""
    for node in graph.graph.findAllNodes("prim::Constant"):
        if node.hasAttribute("value") and node.kindOf("value") == "t" and not node.t("value").is_contiguous():
            node.t_("value", node.t("value").contiguous())


def _library() -> Any:
    """Import OpenVINO without the package through which it tells its makers of every import and conversion."""
    if MODULES[0] in sys.modules:
        return sys.modules[MODULES[0]]
    held = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        del sys.modules[TELEMETRY]
        if held is not None:
            sys.modules[TELEMETRY] = held
    return openvino
