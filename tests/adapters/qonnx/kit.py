"""Self-contained files, and what stock runtimes and the qonnx package answer for them."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import qonnx_hub as qh
from tests.support import DOMAIN

Array = np.ndarray


def self_contained(source: Any) -> onnx.ModelProto:
    """Return the source as self-contained QONNX, passed by ONNX's strictest check."""
    model = qh.convert(source, None, "qonnx", self_contained=True, check=False).model
    assert model is not None
    proto = onnx_ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def on_onnxruntime(proto: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """Return the answers of a session with default options."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    answers: list[Array] = session.run(None, feeds)
    return answers


def on_reference(proto: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """Return the answers of onnx.reference."""
    with np.errstate(all="ignore"):
        return [np.asarray(y) for y in ReferenceEvaluator(proto).run(None, feeds)]


def on_qonnx(proto: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """Return the answers of the qonnx package after its cleanup, which renames inputs."""
    with warnings.catch_warnings():
        # What another package warns about is not ours to mend.
        warnings.simplefilter("ignore")
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
        from qonnx.util.cleanup import cleanup_model

        cleaned = cleanup_model(ModelWrapper(proto))
        names = [value.name for value in cleaned.graph.input]
        fed = dict(zip(names, feeds.values(), strict=True))
        with np.errstate(all="ignore"):
            return list(execute_onnx(cleaned, fed).values())


def on_executor(source: Any, feeds: dict[str, Array]) -> list[Array]:
    return list(qh.run(source, feeds).values())


def quantizers_model(
    op_type: str,
    settings: Iterable[tuple[dict[str, Any], list[Any]]],
    shape: tuple[int, ...],
    dtype: int = TensorProto.FLOAT,
    version: int = 2,
) -> onnx.ModelProto:
    """Return a model with one quantizer per (attributes, parameters) on the same input.

    Python numbers become float32 parameters; arrays stay as they are.
    """
    nodes, tensors, outputs = [], [], []
    for index, (attributes, parameters) in enumerate(settings):
        names = [f"p{index}_{position}" for position in range(len(parameters))]
        for name, value in zip(names, parameters, strict=True):
            array = value if isinstance(value, np.ndarray) else np.float32(value)
            tensors.append(numpy_helper.from_array(np.asarray(array), name))
        output = f"y{index}"
        nodes.append(
            helper.make_node(
                op_type, ["x", *names], [output], output, domain=DOMAIN, **attributes
            )
        )
        outputs.append(helper.make_tensor_value_info(output, dtype, shape))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", dtype, shape)], outputs, tensors
    )
    imports = [helper.make_opsetid("", 19), helper.make_opsetid(DOMAIN, version)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def telling_values(scales: Iterable[float], zeros: Iterable[float] = (0.0,)) -> Array:
    """Return every tie of small codes for these scales with its neighbours, and the extremes.

    The length is a multiple of 4, for parameters per channel.
    """
    found = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e30, -1e30, 3e38, 1e-40, -1e-40]
    for scale, zero in itertools.product(scales, zeros):
        ties = (np.arange(-70, 71, dtype=np.float64) / 2 - zero) * scale
        found += ties.tolist()
        found += [limit * scale for limit in (127, 127.5, 128, 255, 255.5, 32767.5, 65535.5)]
    centre = np.array(found, dtype=np.float32)
    below, above = np.nextafter(centre, np.float32(-np.inf)), np.nextafter(centre, np.inf)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 4, 400).astype(np.float32)
    values = np.concatenate([centre, below, above.astype(np.float32), noise])
    return values[: values.size // 4 * 4].astype(np.float32)
