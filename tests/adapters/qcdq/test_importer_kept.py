"""What moves integers is moved behind the quantizer; what changes them stays, and says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.helper import make_node

from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_adapters.qcdq.importer import QcdqImporter, kept_reasons
from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import IntQuant
from tests.adapters.qcdq.importer_graphs import (
    CLIP,
    DEQUANTIZE,
    QUANTIZE,
    f32,
    i8,
    load,
    ops,
    pair,
    quantizers,
    summaries,
    u8,
)


def moving(op_type: str, *more: str, **attributes: Any) -> onnx.NodeProto:
    return make_node(op_type, ["q", *more], ["m"], "move", **attributes)


@pytest.mark.parametrize(
    "move",
    [
        moving("MaxPool", kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 0, 0]),
        moving("Transpose", perm=[0, 2, 3, 1]),
        moving("Reshape", "flat"),
        moving("Flatten"),
        moving("Slice", "one", "two", "two"),
        moving("Gather", "picks", axis=2),
        moving("DepthToSpace", blocksize=2),
        moving("Expand", "wider"),
    ],
    ids=lambda node: node.op_type,
)
def test_integers_are_moved_as_values(move: onnx.NodeProto) -> None:
    constants = {
        "s": 0.1,
        "z": u8(3),
        "flat": np.array([0, -1], dtype=np.int64),
        "one": np.array([1], dtype=np.int64),
        "two": np.array([2], dtype=np.int64),
        "picks": np.array([[1, -1]], dtype=np.int64),
        "wider": np.array([3, 2, 4, 4, 4], dtype=np.int64),
    }
    model = load(pair(move, last="m"), constants, shape=(2, 4, 4, 4))
    assert kept_reasons(model) == {}
    assert ops(model) == ["Quant", move.op_type]


def test_a_clip_behind_a_move_is_the_range() -> None:
    pool = moving("MaxPool", kernel_shape=[2, 2])
    clip = make_node("Clip", ["m", "low", "high"], ["c"])
    constants = {"s": 0.25, "z": i8(0), "low": i8(-8), "high": i8(7)}
    model = load(pair(pool, clip, last="c"), constants, shape=(1, 2, 4, 4))
    assert ops(model) == ["Quant", "MaxPool"]
    assert summaries(model) == [(4, "int", 0.0)]


def test_channels_are_followed_through_a_transpose_and_a_pool() -> None:
    pool = make_node("MaxPool", ["q"], ["p"], kernel_shape=[2, 2])
    turn = make_node("Transpose", ["p"], ["m"], perm=[0, 2, 3, 1])
    nodes = pair(pool, turn, last="m", axis=1)
    nodes[-1] = make_node(DEQUANTIZE, ["m", "s", "z"], ["y"], axis=3)
    constants = {"s": f32(0.1, 0.5, 0.3), "z": i8(0, 0, 0)}
    model = load(nodes, constants, shape=(2, 3, 4, 4))
    assert ops(model) == ["Quant", "MaxPool", "Transpose"]
    nodes[-1] = make_node(DEQUANTIZE, ["m", "s", "z"], ["y"], "dequantize", axis=1)
    kept = load(nodes, constants, shape=(2, 3, 4, 4))
    assert "another scale" in kept_reasons(kept)["dequantize"]


@pytest.mark.parametrize(
    ("move", "reason"),
    [
        (moving("MaxPool", kernel_shape=[2, 2], ceil_mode=1), "ceil_mode"),
        (
            moving("MaxPool", kernel_shape=[2, 2], dilations=[2, 2], pads=[1, 1, 1, 1]),
            "padding and dilations at once",
        ),
        (moving("Pad", "pads"), "Pad 'move' computes its integers"),
        (moving("Add", "ones"), "Add 'move' computes its integers"),
        (moving("Clip", "", "top"), "bound of Clip 'move' is computed at run time"),
    ],
)
def test_what_changes_integers_otherwise_stays(move: onnx.NodeProto, reason: str) -> None:
    nodes = pair(move, last="m")
    constants = {
        "s": 0.1,
        "z": u8(3),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], dtype=np.int64),
        "ones": u8(1),
    }
    if move.op_type == "Clip":
        nodes = [
            make_node("ReduceMax", ["x"], ["top_value"], keepdims=0),
            make_node("Cast", ["top_value"], ["top"], to=TensorProto.UINT8),
            *nodes,
        ]
    model = load(nodes, constants, shape=(1, 2, 4, 4))
    assert not any(dialect.is_quantizer(node) for node in model.graph)
    reasons = kept_reasons(model)
    assert reason in reasons["dequantize"]
    assert reasons["quantize"] == f"its integers go to {move.op_type}"


@pytest.mark.parametrize(
    ("scale", "zero"), [(0.5, i8(0)), (0.25, i8(1)), (f32(0.25, 0.25, 0.5), i8(0, 0, 0))]
)
def test_two_grids_are_not_one_quantizer(scale: Any, zero: np.ndarray) -> None:
    nodes = pair()
    nodes[1].input[1:] = ["s2", "z2"]
    model = load(nodes, {"s": 0.25, "z": i8(0), "s2": scale, "z2": zero})
    assert ops(model) == [QUANTIZE, DEQUANTIZE]
    assert "another scale or zero point" in kept_reasons(model)["dequantize"]
    assert kept_reasons(model)["quantize"] == "its integers go to DequantizeLinear"


def test_a_cast_that_can_wrap_around_stays() -> None:
    cast = make_node("Cast", ["q"], ["c"], "cast", to=TensorProto.INT8)
    nodes = pair(cast, last="c")
    nodes[-1].input[2] = "z8"
    model = load(nodes, {"s": 0.05, "z": u8(0), "z8": i8(0)})
    assert kept_reasons(model)["dequantize"] == "Cast 'cast' to INT8 can wrap around"


def test_a_dynamic_quantizer_stays() -> None:
    nodes = [
        make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "dynamic"),
        make_node(DEQUANTIZE, ["q", "s", "z"], ["y"], "dequantize"),
    ]
    model = load(nodes, {})
    assert ops(model) == ["DynamicQuantizeLinear", DEQUANTIZE]
    assert set(kept_reasons(model)) == {"dynamic", "dequantize"}


def test_a_dynamic_scale_becomes_a_dynamic_scale() -> None:
    nodes = [
        make_node("ReduceMax", ["x"], ["s"], keepdims=0),
        *pair(CLIP, last="c"),
    ]
    model = load(nodes, {"z": i8(0), "low": i8(-7), "high": i8(7)})
    assert ops(model) == ["ReduceMax", "Quant"]
    (quant,) = quantizers(model)
    assert isinstance(quant, IntQuant)
    assert quant.scale is None
    assert (quant.narrow, float(np.asarray(quant.bits))) == (True, 4.0)


def test_two_dynamic_scales_are_not_one_quantizer() -> None:
    nodes = [
        make_node("ReduceMax", ["x"], ["s"], keepdims=0),
        make_node("ReduceSum", ["x"], ["s2"], keepdims=0),
        *pair(),
    ]
    nodes[-1].input[1] = "s2"
    model = load(nodes, {"z": i8(0)})
    assert "another scale" in kept_reasons(model)["dequantize"]


def test_a_dynamic_scale_with_an_odd_range_stays() -> None:
    nodes = [make_node("ReduceMax", ["x"], ["s"], keepdims=0), *pair(CLIP, last="c")]
    model = load(nodes, {"z": u8(3), "low": u8(3), "high": u8(200)})
    assert "dynamic scale and a range" in kept_reasons(model)["dequantize"]


def test_a_dynamic_scale_keeps_its_zero_point() -> None:
    nodes = [make_node("ReduceMax", ["x"], ["s"], keepdims=0), *pair()]
    model = load(nodes, {"z": u8(3)})
    assert ops(model) == ["ReduceMax", "Quant"]
    assert summaries(model) == [(8, "uint", 3.0)]


def test_half_precision_stays() -> None:
    nodes = [
        make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        *pair(),
        make_node("Cast", ["y"], ["out"], to=TensorProto.FLOAT),
    ]
    nodes[1].input[0] = "h"
    constants = {"s": np.array(0.25, dtype=np.float16), "z": i8(0)}
    model = load(nodes, constants, outputs=("out",))
    assert kept_reasons(model)["dequantize"] == "its scale is FLOAT16, not FLOAT"


def test_a_scale_that_is_not_above_zero_stays() -> None:
    model = load(pair(), {"s": -0.25, "z": i8(0)})
    assert "above zero" in kept_reasons(model)["dequantize"]


def test_integers_from_outside_and_to_the_outside_stay() -> None:
    graph = onnx.helper.make_graph(
        [
            make_node(DEQUANTIZE, ["a", "s", "z"], ["y"], "from_outside"),
            make_node(QUANTIZE, ["y", "s", "z"], ["b"], "to_outside"),
        ],
        "graph",
        [onnx.helper.make_tensor_value_info("a", TensorProto.INT8, [3])],
        [onnx.helper.make_tensor_value_info("b", TensorProto.INT8, [3])],
        [
            onnx.numpy_helper.from_array(f32(0.5), "s"),
            onnx.numpy_helper.from_array(i8(0), "z"),
        ],
    )
    imports = [onnx.helper.make_opsetid("", 19)]
    proto = onnx.helper.make_model(graph, opset_imports=imports, ir_version=9)
    model = QcdqImporter().load(proto, ImportOptions())
    assert kept_reasons(model) == {
        "from_outside": "its integers come from outside, as 'a'",
        "to_outside": "its integers are an output of the graph",
    }


def test_pairs_inside_a_subgraph_are_read() -> None:
    branches = [
        onnx.helper.make_graph(
            [
                make_node(QUANTIZE, ["x", "s", "z"], ["q"], f"q_{name}"),
                make_node(DEQUANTIZE, ["q", "s", "z"], ["out"], f"dq_{name}"),
            ],
            name,
            [],
            [onnx.helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        )
        for name in ("then", "else")
    ]
    nodes = [
        make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        make_node("Cast", ["top"], ["yes"], to=TensorProto.BOOL),
        make_node("If", ["yes"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    model = load(nodes, {"s": 0.25, "z": i8(0)})
    assert kept_reasons(model) == {}
    assert [node.op_type for node in model.graph.all_nodes()].count("Quant") == 2
