"""A head as a file that other programs read: ONNX, or the arrays of a plain estimator. Nothing is pickled."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.errors import UsageError
from heads.calibration import FLOOR, Calibration
from heads.kind import REGRESSION
from heads.kinds._affine import Affine
from heads.kinds.knn import Knn
from heads.kinds.mlp import LAYERS, Mlp
from heads.kinds.ordinal import Ordinal
from heads.neighbours import Neighbours
from heads.saved import Head
from heads.tags import Tags
from index import files

OPSET = 17
FORMATS = (".onnx", ".npz")
Layer = tuple[NDArray[np.float64], NDArray[np.float64]]


def export(head: Head, path: Path) -> dict[str, Any]:
    """Write a head as a map from vectors (n, dim) of its Space to probabilities (n, C), by the suffix of `path`.

    Of a head that gives several classes they do not sum to one, and the file has a threshold for each.

    Returns:
        `path format bytes inputs classes`.

    Raises:
        UsageError: another suffix, ONNX of `knn`, whose model is the stored vectors, or without the extra `onnx`.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"{path.name} is neither .onnx nor .npz", where="permafrost export-head")
    if head.task == REGRESSION:
        raise UsageError(
            f"head {head.name}@{head.version} predicts numbers, and only classifiers are exported",
            hint="value = x·coef + intercept: head.safetensors has the first, params of manifest.json the second",
        )
    if isinstance(head.model, Knn):
        if path.suffix == ".onnx":
            raise UsageError(
                f"a head of kind {head.kind} is no ONNX model: it is the vectors it was fitted to",
                where=f"head {head.name}@{head.version}", hint="export to .npz, which holds them",
            )  # fmt: skip
        data = _neighbours(head, head.model)
    else:
        data = _onnx(head) if path.suffix == ".onnx" else _npz(head)
    files.write_bytes(path, data)
    facts = {"path": str(path), "format": path.suffix[1:], "bytes": len(data), "dim": head.space.dim}
    return {**facts, "classes": head.classes}


def layers(model: Affine | Mlp | Ordinal) -> tuple[bool, list[Layer]]:
    """Return whether rows are first brought to unit length, and the layers (W, b), with a ReLU between two of them.

    Centre and scale are part of the first layer. Of an ordinal model they give the logits of being at most each class
    but the last.
    """
    if isinstance(model, Affine):
        W = model.coef_.T / model.scale_
        return model.UNIT, [(W, model.intercept_ - model.mean_ @ W)]
    if isinstance(model, Ordinal):
        w = model.coef_ / model.scale_
        return False, [(np.tile(-w[:, None], len(model.theta_)), model.theta_ + model.mean_ @ w)]
    W1, b1, W2, b2 = (getattr(model, f"{name}_") for name in LAYERS)
    first = W1 / model.scale_
    return False, [(first, b1 - model.mean_ @ first), (W2, b2)]


def _calibrated(head: Head) -> tuple[bool, list[Layer], Calibration | None]:
    """Return the layers with a temperature as part of the last one; a calibration by class comes after them."""
    assert isinstance(head.model, (Affine, Mlp, Ordinal))
    unit, parts = layers(head.model)
    found = head.guard.calibration if head.guard is not None else Calibration()
    if len(found.a) > 1 or isinstance(head.model, Ordinal):
        return unit, parts, found
    W, b = parts[-1]
    return unit, [*parts[:-1], (W * found.a[0], b * found.a[0] + found.b[0])], None


def _npz(head: Head) -> bytes:
    unit, parts, calibration = _calibrated(head)
    arrays: dict[str, Any] = {"classes": np.asarray(head.classes), "unit": np.asarray(unit)}
    arrays |= {f"{name}{k}": value for k, part in enumerate(parts) for name, value in zip("Wb", part, strict=True)}
    if isinstance(head.guard, Tags):
        arrays["thresholds"] = np.array(head.guard.thresholds)
    if isinstance(head.model, Ordinal):
        arrays["ordinal"] = np.asarray(True)
    if calibration is not None:
        arrays |= {"a": np.array(calibration.a), "c": np.array(calibration.b)}
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays, space=np.asarray(head.space.fingerprint))
    return out.getvalue()


def _neighbours(head: Head, model: Knn) -> bytes:
    """Return the vectors that are left of those it was fitted to, with their classes, and how they vote."""
    kept = model.neighbours.rows() if isinstance(model.neighbours, Neighbours) else (model.rows_, model.codes_)
    found = head.guard.calibration if head.guard is not None else Calibration()
    arrays: dict[str, Any] = {
        "classes": np.asarray(head.classes), "rows": kept[0], "codes": kept[1], "k": np.asarray(model.k_),
        "temperature": np.asarray(model.temperature), "a": np.array(found.a), "c": np.array(found.b),
        "share": np.bincount(model.codes_, minlength=len(head.classes)) / len(model.codes_),
    }  # fmt: skip
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays, space=np.asarray(head.space.fingerprint))
    return out.getvalue()


def _onnx(head: Head) -> bytes:
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise UsageError("ONNX needs the package onnx", hint="pip install 'permafrost[onnx]'") from error
    unit, parts, calibration = _calibrated(head)
    nodes, constants, at = _layers(unit, parts)
    if isinstance(head.model, Ordinal):
        at = _between(head.model, nodes, constants, at)
    if calibration is not None:
        for name, values in (("a", calibration.a), ("c", calibration.b)):
            constants.append(numpy_helper.from_array(np.array(values, dtype=np.float32), name))
        nodes.append(helper.make_node("LogSoftmax", [at], ["logs"], axis=1))
        nodes += [
            helper.make_node("Mul", ["logs", "a"], ["scaled"]),
            helper.make_node("Add", ["scaled", "c"], ["moved"]),
        ]
        at = "moved"
    several = isinstance(head.guard, Tags)
    last = helper.make_node("Sigmoid", [at], ["probabilities"]) if several else None
    nodes.append(last or helper.make_node("Softmax", [at], ["probabilities"], axis=1))
    shapes = {"vectors": head.space.dim, "probabilities": len(head.classes)}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", d]) for name, d in shapes.items()]
    graph = helper.make_graph(nodes, head.name, ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="permafrost")
    model.ir_version = 8
    facts = {"space": head.space.fingerprint, "classes": "\n".join(head.classes), "label": head.label}
    if several:
        facts["thresholds"] = "\n".join(map(str, head.guard.thresholds))
    helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _layers(unit: bool, parts: list[Layer]) -> tuple[list[Any], list[Any], str]:
    """Return the nodes and constants of the layers, and the name of what comes out of the last one."""
    from onnx import helper, numpy_helper

    nodes, constants, at = [], [], "vectors"
    if unit:
        nodes, at = [helper.make_node("LpNormalization", [at], ["unit"], axis=1, p=2)], "unit"
    for k, (W, b) in enumerate(parts):
        if k:
            nodes.append(helper.make_node("Relu", [at], [f"hidden{k}"]))
            at = f"hidden{k}"
        constants += [numpy_helper.from_array(v.astype(np.float32), f"{n}{k}") for n, v in (("W", W), ("b", b))]
        nodes.append(helper.make_node("Gemm", [at, f"W{k}", f"b{k}"], [f"layer{k}"]))
        at = f"layer{k}"
    return nodes, constants, at


def _between(model: Ordinal, nodes: list[Any], constants: list[Any], at: str) -> str:
    """Add the logs of the probabilities between thresholds: differences of cumulative ones are a product, too."""
    from onnx import helper, numpy_helper

    C = len(model.classes_)
    values = {"D": np.eye(C - 1, C) - np.eye(C - 1, C, 1), "e": np.eye(C)[-1], "least": np.array(FLOOR)}
    constants += [numpy_helper.from_array(v.astype(np.float32), name) for name, v in values.items()]
    nodes += [
        helper.make_node("Sigmoid", [at], ["below"]),
        helper.make_node("Gemm", ["below", "D", "e"], ["between"]),
        helper.make_node("Max", ["between", "least"], ["positive"]),
        helper.make_node("Log", ["positive"], ["between_logs"]),
    ]
    return "between_logs"
