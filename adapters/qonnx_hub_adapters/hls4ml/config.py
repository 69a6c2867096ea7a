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
    type_between,
    type_of_quantizer,
)
from qonnx_hub_adapters.hls4ml.options import Hls4mlOptions
from qonnx_hub_adapters.hls4ml.ranges import MERGED, TABLES, folded_norm, grids_of, step_behind
from qonnx_hub_adapters.hls4ml.weights import constant_of
from qonnx_hub_ir import operators
from qonnx_hub_ir.graph.queries import input_of, producer

FALLBACK = "fixed<32,16>"
"""Type of what has no entry of its own: nothing that holds numbers of the model."""

_NO_BIAS = FixedType(1, 1, False)

_TABLE = "ufixed<24,1,RND,SAT>"
_TABLE_SIZE = 4096

Grids = Mapping[Value, FixedGrid]
Types = dict[str, FixedType | None]
"""Name of a type in the config -> the type; ``None`` where hls4ml is to find it."""


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


def _layer(node: Node, grids: Grids, options: Hls4mlOptions) -> dict[str, Any]:
    grid = grids[node.outputs[0]]
    if node.op_type == "Softmax":
        return _softmax(node, options)
    readers = [usage.node for usage in node.outputs[0].uses()]
    if any(one.op_type == "MaxPool" and any(one.attributes["pads"].value) for one in readers):
        # It pads with the highest bit alone, which must be a sign.
        grid = replace(grid, low=np.minimum(grid.low, -(2.0**grid.lsb)))
    rule = _RULES.get(node.op_type)
    types: Types = {} if rule is None else rule(node, grid, grids)
    # What is passed on as bits keeps its type.
    types.setdefault("result", None if grid.bits else grid.type())
    if (result := types["result"]) is not None:
        types["result"] = result.reaching(step_behind(node.outputs[0]))
    texts = {name: "auto" if kind is None else str(kind) for name, kind in types.items()}
    entry: dict[str, Any] = {"Precision": texts}
    if operators.is_product(node, any_layout=True):
        entry["ReuseFactor"] = options.reuse_factor
        if options.strategy:
            entry["Strategy"] = options.strategy
    return entry


def _norm(node: Node, grid: FixedGrid, grids: Grids) -> Types:
    factor, offset = folded_norm(node)
    bias = _NO_BIAS if node.op_type == "Div" else constant_type(offset)
    return {"scale": constant_type(factor), "bias": bias, "result": grid.result_type()}


def _product(node: Node, grid: FixedGrid, grids: Grids) -> Types:
    values, maker = constant_of(node.inputs[1]), producer(node.inputs[1])
    assert values is not None
    assert node.inputs[0] is not None
    bias = constant_of(input_of(node, 2))
    total, weight = grid.type(), constant_type(values)
    if maker is not None and maker.op_type == "BipolarQuant":
        weight = FixedType(2, 2, True)
        if grids[node.inputs[0]].bits:
            # Equal bits are counted; twice that less all is the sum.
            total = type_between(-2.0 * len(values), 2.0 * len(values), 0)
    elif maker is not None and (kind := type_of_quantizer(maker)) is not None:
        weight = replace(kind, rounding="", saturation="")
    return {
        "weight": weight,
        "bias": _NO_BIAS if bias is None else constant_type(bias),
        "accum": total,
    }


def _softmax(node: Node, options: Hls4mlOptions) -> dict[str, Any]:
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


_RULES: Mapping[str, Callable[[Node, FixedGrid, Grids], Types]] = {
    **dict.fromkeys(MERGED, _norm),
    **dict.fromkeys(TABLES, lambda node, grid, grids: {"table": grid.type()}),
    "Conv": _product,
    "LeakyRelu": lambda node, grid, grids: {
        "param": constant_type(np.asarray(node.attributes["alpha"].value, dtype=np.float32)),
        "result": grid.result_type(),
    },
    "MatMul": _product,
    "MaxPool": lambda node, grid, grids: {"accum": grid.type()},
    "Quant": lambda node, grid, grids: {"result": type_of_quantizer(node)},
}
"""Operator -> its types beside that of the result, or that one where it is another."""
