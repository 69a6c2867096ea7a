"""The config: every type of every layer, from what the values can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.hls4ml.fixed_point import (
    FixedGrid,
    FixedType,
    constant_type,
    quantizer_type,
    type_between,
    weight_values_type,
)
from qonnx_hub_adapters.hls4ml.options import Hls4mlOptions
from qonnx_hub_adapters.hls4ml.ranges import folded_norm, grids_of, inverse_divisor
from qonnx_hub_adapters.hls4ml.weights import constant_of
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.quantizers import BipolarQuant, IntQuant

FALLBACK = "fixed<32,16>"
"""Type of what has no entry of its own: nothing that holds numbers of the model."""

_NO_BIAS = FixedType(1, 1, False)

_TABLE = "ufixed<24,1,RND,SAT>"
_TABLE_SIZE = 4096

Precision = dict[str, str]
Rule = Callable[[Node, FixedGrid, Mapping[Value, FixedGrid]], Precision]


def hls_config(
    model: Model, inputs: Mapping[str, FixedType], options: Hls4mlOptions
) -> dict[str, Any]:
    """Return what hls4ml calls HLSConfig, with an entry for every layer that computes.

    Args:
        model: The lowered graph, with the names that hls4ml will see.
        inputs: Type of every input, by name.
        options: What the caller asked for.
    """
    grids = grids_of(model, inputs)
    layers: dict[str, dict[str, Any]] = {
        name: {"Precision": {"result": str(kind)}} for name, kind in inputs.items()
    }
    for node in model.graph:
        if constant_of(node.outputs[0]) is not None:
            continue
        layers[str(node.name)] = _layer(node, grids, options)
    if options.trace:
        for entry in layers.values():
            entry["Trace"] = True
    overall: dict[str, Any] = {
        "Precision": {"default": FALLBACK},
        "ReuseFactor": options.reuse_factor,
        "Strategy": options.strategy or "Latency",
    }
    return {"Model": overall, "LayerName": layers}


def _layer(
    node: Node, grids: Mapping[Value, FixedGrid], options: Hls4mlOptions
) -> dict[str, Any]:
    grid = grids[node.outputs[0]]
    if node.op_type == "Softmax":
        return _softmax(node, grids, options)
    rule = _RULES.get(node.op_type, _result)
    if any(_pads_with_lowest(usage.node) for usage in node.outputs[0].uses()):
        grid = replace(grid, low=np.minimum(grid.low, -(2.0**grid.lsb)))
    entry: dict[str, Any] = {"Precision": rule(node, grid, grids)}
    if operators.is_product(node, any_layout=True):
        entry["ReuseFactor"] = options.reuse_factor
        if options.strategy:
            entry["Strategy"] = options.strategy
    return entry


def _pads_with_lowest(reader: Node) -> bool:
    """Return whether a node pads with the highest bit alone, which must be a sign."""
    return reader.op_type == "MaxPool" and any(reader.attributes["pads"].value)


def _result(node: Node, grid: FixedGrid, grids: Mapping[Value, FixedGrid]) -> Precision:
    # What is passed on as bits keeps its type.
    return {"result": "auto" if grid.bits else str(grid.type())}


def _norm(node: Node, grid: FixedGrid, grids: Mapping[Value, FixedGrid]) -> Precision:
    factor, offset = folded_norm(node)
    return {
        "scale": str(constant_type(factor)),
        "bias": str(constant_type(offset)),
        "result": str(grid.result_type()),
    }


def _division(node: Node, grid: FixedGrid, grids: Mapping[Value, FixedGrid]) -> Precision:
    return {
        "scale": str(constant_type(inverse_divisor(node))),
        "bias": str(_NO_BIAS),
        "result": str(grid.result_type()),
    }


def _product(node: Node, grid: FixedGrid, grids: Mapping[Value, FixedGrid]) -> Precision:
    values = constant_of(node.inputs[1])
    assert values is not None
    maker = None if node.inputs[1] is None else node.inputs[1].producer()
    quant = None if maker is None else dialect.read_quantizer(maker)
    assert quant is None or isinstance(quant, (IntQuant, BipolarQuant))
    bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    given = grids[node.inputs[0]] if node.inputs[0] is not None else grid
    both = given.bits and isinstance(quant, BipolarQuant)
    total = _matches(values.shape[0]) if both else grid.type()
    return {
        "weight": str(weight_values_type(values, quant)),
        "bias": str(_NO_BIAS if bias is None else constant_type(bias)),
        "accum": str(total),
        "result": str(grid.type()),
    }


def _matches(terms: int) -> FixedType:
    """Return the type in which equal bits are counted; twice that less all is the sum."""
    return type_between(-2.0 * terms, 2.0 * terms, 0)


def _quantizer(node: Node, grid: FixedGrid, grids: Mapping[Value, FixedGrid]) -> Precision:
    quant = dialect.read_quantizer(node)
    if isinstance(quant, IntQuant):
        return {"result": str(quantizer_type(quant))}
    return {"result": "auto"}


def _pool(node: Node, grid: FixedGrid, grids: Mapping[Value, FixedGrid]) -> Precision:
    return {"accum": str(grid.type()), **_result(node, grid, grids)}


def _leaky(node: Node, grid: FixedGrid, grids: Mapping[Value, FixedGrid]) -> Precision:
    alpha = np.asarray(node.attributes["alpha"].value, dtype=np.float32)
    return {"param": str(constant_type(alpha)), "result": str(grid.result_type())}


def _table(node: Node, grid: FixedGrid, grids: Mapping[Value, FixedGrid]) -> Precision:
    return {"table": str(grid.type()), **_result(node, grid, grids)}


def _softmax(
    node: Node, grids: Mapping[Value, FixedGrid], options: Hls4mlOptions
) -> dict[str, Any]:
    """Return the entry of a Softmax; tuned tables are indexed by their types' highest bits.

    Numbers below the largest are normalized to their distance from it: what is 16 below has
    no share worth a bit. The sum of exponentials lies between 1 and their number.
    """
    if options.softmax == "skip":
        return {"Skip": True}
    if options.softmax == "keep":
        return {}
    shape = node.outputs[0].shape
    count = 1 if shape is None else int(shape[-1])  # type: ignore[arg-type]
    whole = count.bit_length()
    return {
        "Precision": {
            "result": "ufixed<24,1,RND,SAT>",
            "accum": f"ufixed<{24 + whole},{whole}>",
        },
        "TableSize": _TABLE_SIZE,
        "Implementation": "stable",
        # hls4ml takes these types of a Softmax as attributes only.
        "exp_table_t": _TABLE,
        "inv_table_t": _TABLE,
        "inp_norm_t": "ufixed<20,4,RND,SAT>",
        "inv_inp_t": f"ufixed<{20 + whole},{whole},RND,SAT>",
    }


_RULES: Mapping[str, Rule] = {
    "BatchNormalization": _norm,
    "BipolarQuant": _quantizer,
    "Conv": _product,
    "Div": _division,
    "LeakyRelu": _leaky,
    "MatMul": _product,
    "MaxPool": _pool,
    "Quant": _quantizer,
    "Sigmoid": _table,
    "Softplus": _table,
    "Softsign": _table,
    "Tanh": _table,
}
