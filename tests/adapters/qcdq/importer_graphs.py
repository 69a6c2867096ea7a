"""Small QCDQ graphs, imported, and what is in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx.helper import make_node
from onnx_ir import Model

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_adapters.qcdq.importer import QcdqImporter, kept_reasons
from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import IntQuant, Quantizer
from tests.support import model_of

Nodes = list[onnx.NodeProto]
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def i8(*values: int) -> np.ndarray:
    return np.array(values if len(values) != 1 else values[0], dtype=np.int8)


def u8(*values: int) -> np.ndarray:
    return np.array(values if len(values) != 1 else values[0], dtype=np.uint8)


def f32(*values: float) -> np.ndarray:
    return np.array(values if len(values) != 1 else values[0], dtype=np.float32)


def pair(*between: onnx.NodeProto, last: str = "q", **attributes: Any) -> Nodes:
    """Q of `x` to `q`, nodes between, DQ of `last` to `y`; parameters `s` and `z`."""
    return [
        make_node(QUANTIZE, ["x", "s", "z"], ["q"], "quantize", **attributes),
        *between,
        make_node(DEQUANTIZE, [last, "s", "z"], ["y"], "dequantize", **attributes),
    ]


def load(
    nodes: Nodes,
    constants: dict[str, Any],
    shape: tuple[Any, ...] = (2, 3),
    opset: int = 19,
    outputs: tuple[str, ...] = ("y",),
) -> Model:
    """Return the imported graph, once it is shown to compute what the file says."""
    proto = model_of(nodes, {"x": shape}, list(outputs), constants, opset, domains=())
    imported = QcdqImporter().load(proto, ImportOptions())
    x = np.random.default_rng(5).normal(0, 3, [d if isinstance(d, int) else 7 for d in shape])
    feeds = {"x": (np.rint(x * 8) / 8).astype(np.float32)}
    ours, written = (Session(m).run(feeds) for m in (imported, read_model(proto)))
    assert list(ours) == list(written) == list(outputs)
    for name in outputs:
        np.testing.assert_array_equal(ours[name], written[name])
    return imported


def ops(model: Model) -> list[str]:
    return [node.op_type for node in model.graph]


def quantizers(model: Model) -> list[Quantizer]:
    return [dialect.read_quantizer(n) for n in model.graph if dialect.is_quantizer(n)]


def summary(quant: Quantizer) -> tuple[int, str, float | list[float]]:
    """(bits, sign and narrowness, zero point) of an integer quantizer."""
    assert isinstance(quant, IntQuant)
    kind = ("int" if quant.signed else "uint") + (" narrow" if quant.narrow else "")
    zero = np.asarray(quant.zero_point).tolist()
    return int(np.asarray(quant.bits)), kind, zero


def summaries(model: Model) -> list[tuple[int, str, float | list[float]]]:
    assert kept_reasons(model) == {}
    return [summary(quant) for quant in quantizers(model)]


CLIP = make_node("Clip", ["q", "low", "high"], ["c"], "clip")
