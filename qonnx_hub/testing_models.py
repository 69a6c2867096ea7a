"""A small model for every feature of quantization, to hold adapters' claims against."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from qonnx_hub_adapters.protocol import Feature
from qonnx_hub_ir import dialect

_OPSETS = [
    helper.make_opsetid("", 19),
    helper.make_opsetid(dialect.DOMAIN, 2),
    helper.make_opsetid(dialect.CHANNELS_LAST_DOMAIN, 19),
]

_USUAL: Mapping[str, Any] = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"}


def feature_models() -> Mapping[Feature, ModelProto]:
    """Return feature -> a model of one quantizer that has it, and no other unusual one.

    A Relu stands behind it, and the quantizer once more: some targets make a quantizer of an
    input part of its type, and some want one behind every layer.

    Inputs have shape (1, 4), for channels last (1, 4, 4, 1); scales are powers of two.
    """
    names = ["x", "scale", "exponent", "mantissa", "bias", "largest"]
    modes = {"has_subnormal": 1, "saturation": 1, "rounding_mode": "ROUND"}
    minifloat = _node("FloatQuant", names, **modes)
    names = ["x", "scale", "zero", "in_bits", "out_scale", "out_bits"]
    trunc = _node("Trunc", names, **{**_USUAL, "rounding_mode": "FLOOR"})
    widths: Mapping[str, Any] = {"in_bits": 8.0, "out_scale": 1.0, "out_bits": 6.0}
    return {
        Feature.BITS_2_TO_8: _quantizer(bits=4),
        Feature.BITS_9_TO_16: _quantizer(bits=12),
        Feature.BITS_17_TO_32: _quantizer(bits=20),
        Feature.UNSIGNED_1_BIT: _quantizer(bits=1, signed=0),
        Feature.BIPOLAR: _model([_node("BipolarQuant", ["x", "scale"])], scale=0.5),
        Feature.NARROW: _quantizer(narrow=1),
        Feature.PER_CHANNEL: _quantizer(scale=[[0.5, 0.25, 1.0, 0.125]]),
        Feature.ZERO_POINT: _quantizer(zero=3.0, signed=0),
        Feature.ZERO_POINT_AFTER_ROUNDING: _quantizer(
            zero=3.0, signed=0, zero_point_after_rounding=1
        ),
        Feature.ROUNDING_MODES: _quantizer(rounding_mode="CEIL"),
        Feature.DYNAMIC: _dynamic(),
        Feature.MINIFLOAT: _model(
            [minifloat], scale=1.0, exponent=4.0, mantissa=3.0, bias=7.0, largest=480.0
        ),
        Feature.TRUNC: _model([trunc], scale=0.25, zero=0.0, **widths),
        Feature.CHANNELS_LAST: _channels_last(),
    }


def _node(op_type: str, inputs: list[str], **attributes: Any) -> Any:
    domain = dialect.DOMAIN
    return helper.make_node(op_type, inputs, ["v"], name="q", domain=domain, **attributes)


def _quantizer(
    bits: float = 4, scale: Any = 0.5, zero: float = 0.0, **attributes: Any
) -> ModelProto:
    node = _node("Quant", ["x", "scale", "zero", "bits"], **{**_USUAL, **attributes})
    return _model([node], scale=scale, zero=zero, bits=bits)


def _dynamic() -> ModelProto:
    largest = helper.make_node("ReduceMax", ["x"], ["largest"], name="m", keepdims=0)
    above = helper.make_node("Max", ["largest", "least"], ["s"], name="above")
    node = _node("Quant", ["x", "s", "zero", "bits"], **_USUAL)
    return _model([largest, above, node], zero=0.0, bits=4.0, least=0.125)


def _channels_last() -> ModelProto:
    pool = helper.make_node(
        "MaxPool",
        ["x"],
        ["p"],
        name="pool",
        domain=dialect.CHANNELS_LAST_DOMAIN,
        kernel_shape=[2, 2],
        strides=[2, 2],
    )
    node = _node("Quant", ["p", "scale", "zero", "bits"], **_USUAL)
    shapes = ((1, 4, 4, 1), (1, 2, 2, 1))
    return _model([pool, node], shapes, scale=0.5, zero=0.0, bits=4.0)


def _model(
    nodes: list[Any], shapes: tuple[tuple[int, ...], ...] = ((1, 4), (1, 4)), **constants: Any
) -> ModelProto:
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(("x", "y"), shapes, strict=True)
    ]
    tensors = [
        numpy_helper.from_array(np.asarray(value, dtype=np.float32), name)
        for name, value in constants.items()
    ]
    again = copy.deepcopy(nodes[-1])
    again.name, again.input[0], again.output[0] = "again", "r", "y"
    nodes = [*nodes, helper.make_node("Relu", ["v"], ["r"], name="act"), again]
    graph = helper.make_graph(nodes, "feature", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=_OPSETS, ir_version=9)
