"""onnxruntime's own integer operators: the ones that are read and written, and their rules.

Their documents are part of onnxruntime, not of ONNX: no ``onnx`` schema knows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qonnx_hub_ir import dialect

DOMAIN = dialect.ONNXRUNTIME_DOMAIN
"""The domain of onnxruntime's own operators."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a node of an operator may have.

    Attributes:
        lowest: Least number of inputs.
        most: Largest number of inputs.
        attributes: Names of its attributes.
        required: Those that have no default.
    """

    lowest: int
    most: int
    attributes: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()


_POOL = frozenset(
    {"auto_pad", "ceil_mode", "channels_last", "count_include_pad", "kernel_shape", "pads"}
    | {"strides"}
)

OPERATORS: Mapping[str, Signature] = {
    "DequantizeLinear": Signature(2, 3, frozenset({"axis"})),
    "DynamicQuantizeMatMul": Signature(3, 5),
    "MatMulIntegerToFloat": Signature(4, 7),
    "QGemm": Signature(6, 9, frozenset({"alpha", "transA", "transB"})),
    "QLinearAdd": Signature(7, 8),
    "QLinearAveragePool": Signature(4, 5, _POOL, frozenset({"kernel_shape"})),
    "QLinearConcat": Signature(3, 1 << 30, frozenset({"axis"}), frozenset({"axis"})),
    "QLinearGlobalAveragePool": Signature(5, 5, frozenset({"channels_last"})),
    "QLinearLeakyRelu": Signature(4, 5, frozenset({"alpha"})),
    "QLinearMul": Signature(7, 8),
    "QLinearReduceMean": Signature(
        4, 5, frozenset({"axes", "keepdims"}), frozenset({"axes", "keepdims"})
    ),
    "QLinearSigmoid": Signature(4, 5),
    "QLinearSoftmax": Signature(5, 5, frozenset({"axis", "opset"}), frozenset({"opset"})),
    "QLinearWhere": Signature(9, 9),
    "QuantizeLinear": Signature(2, 3, frozenset({"axis"})),
}
"""Operator -> its rules, version 1 of the domain."""
