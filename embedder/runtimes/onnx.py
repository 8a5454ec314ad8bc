"""ONNX Runtime, on CPUs and, with `onnxruntime-gpu`, on CUDA; float32 and float16, since it has no bfloat16 on CPUs.

Exporting takes half a second for EfficientNet-Lite0 and 1.6 s for MiniLM, so nothing is kept on disk. It goes by way of
TorchScript: torch's newer exporter took 9 to 16 s for the same models and needs two more packages.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedder.runtimes._traced import Traced, arrays, tracing

MODULES = ("onnxruntime",)
DEVICES = ("cpu", "cuda")
OPSET = 18


def compile(
    network: Callable[..., Tensor], example: tuple[Tensor, ...], varying: tuple[int, ...], dtype: str, threads: int
) -> Callable[..., NDArray[np.floating[Any]]]:
    """Export a network and open a session on it; see `embedder.runtime.RuntimeKind`."""
    import onnxruntime

    names = [f"input_{i}" for i in range(len(example))]
    graph: Any = io.BytesIO()
    with tracing():
        torch.onnx.export(
            Traced(network), example, graph, dynamo=False, opset_version=OPSET, input_names=names,
            dynamic_axes={name: {axis: f"axis_{axis}" for axis in varying} for name in names},
        )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # threads that wait busily starve the decoders
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph.getvalue(), options, providers=_providers(example[0].device))
    # an input that the network does not use is not in the graph
    used = {given.name for given in session.get_inputs()}

    def run(*inputs: Tensor) -> NDArray[np.floating[Any]]:
        given = {name: array for name, array in zip(names, arrays(inputs), strict=True) if name in used}
        found: NDArray[np.floating[Any]] = session.run(None, given)[0]
        return found

    return run


def _providers(device: torch.device) -> list[Any]:
    import onnxruntime

    if device.type == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise RuntimeError("this onnxruntime has no CUDA; pip install onnxruntime-gpu in its place")
    return [("CUDAExecutionProvider", {"device_id": device.index or 0})]
