"""The passes that make a graph of channels-last layers one of channels-first operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_ir import Model

from qonnx_hub.executor.session import Session
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.passes import ChangeLayout, FoldWeightLayout, InferShapes, SinkTransposes
from qonnx_hub_ir.validity import verify

DOMAIN = "qonnx.custom_op.general"
SHAPE = (2, 3, 4, 5)
X = (np.arange(120, dtype=np.float32).reshape(SHAPE) - 60) / 8


def node(op: str, inputs: str, output: str, **attributes: Any) -> Any:
    domain = DOMAIN if op.endswith("Quant") else ""
    return helper.make_node(
        op, inputs.split(), [output], name=f"{op}_{output}", domain=domain, **attributes
    )


def made(nodes: list[Any], outputs: str, shape: Any = SHAPE, **constants: Any) -> Model:
    scalars = {"zero": np.float32(0), "bits": np.float32(4), "step": np.float32(0.5)}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in outputs.split()
        ],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in {**scalars, **constants}.items()
        ],
    )
    imports = [helper.make_opsetid("", 19), helper.make_opsetid(DOMAIN, 1)]
    model = onnx_ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=9))
    InferShapes()(model)
    return model


def ops(model: Model) -> list[str]:
    return [node.op_type for node in model.graph]


def answers(model: Model, x: Any = X) -> list[Any]:
    return list(Session(model).run({"x": x}).values())


def changed(model: Model, *passes: Any) -> list[bool]:
    """Run passes; the answer stays bit for bit and the model sound."""
    before = answers(model)
    modified = [step(model).modified for step in passes]
    assert verify(model) == []
    assert all(np.array_equal(a, b) for a, b in zip(before, answers(model), strict=True))
    return modified


def quant(source: str, output: str, scale: str = "step") -> Any:
    return node(
        "Quant",
        f"{source} {scale} zero bits",
        output,
        signed=1,
        narrow=0,
        rounding_mode="ROUND",
    )


LAST = {"perm": [0, 2, 3, 1]}
FIRST = {"perm": [0, 3, 1, 2]}
PER_CHANNEL = np.array([0.25, 0.5, 1.0], dtype=np.float32)


def test_a_pair_around_a_quantizer_is_cancelled_and_its_scale_turned() -> None:
    nodes = [
        node("Transpose", "x", "a", **LAST),
        quant("a", "b", "scale"),
        node("Transpose", "b", "y", **FIRST),
    ]
    model = made(nodes, "y", scale=PER_CHANNEL)
    assert changed(model, SinkTransposes()) == [True]
    assert ops(model) == ["Quant"]
    scale = next(iter(model.graph)).inputs[1].const_value
    assert scale.shape == (1, 3, 1, 1)


def test_a_pair_around_a_factor_and_an_offset_is_cancelled() -> None:
    nodes = [
        node("Transpose", "x", "a", **LAST),
        node("Mul", "a scale", "b"),
        node("Add", "scale b", "c"),
        node("Transpose", "c", "y", **FIRST),
    ]
    model = made(nodes, "y", scale=PER_CHANNEL)
    assert changed(model, SinkTransposes()) == [True]
    assert ops(model) == ["Mul", "Add"]


def test_a_quantized_offset_is_turned_with_its_quantizer() -> None:
    nodes = [
        quant("scale", "q"),
        node("Transpose", "x", "a", **LAST),
        node("Add", "a q", "b"),
        node("Transpose", "b", "y", **FIRST),
    ]
    model = made(nodes, "y", scale=PER_CHANNEL)
    assert changed(model, SinkTransposes()) == [True]
    assert sorted(ops(model)) == ["Add", "Quant"]


def test_a_residual_branch_ends_with_one_transpose_at_each_end() -> None:
    nodes = [
        quant("x", "q"),
        node("Transpose", "q", "first", **FIRST),
        node("Conv", "first w", "c"),
        node("Transpose", "c", "last", **LAST),
        node("Add", "q last", "sum"),
        node("Transpose", "sum", "again", **FIRST),
        node("Conv", "again w", "d"),
        node("Transpose", "d", "y", **LAST),
    ]
    w = np.ones((5, 5, 1, 1), dtype=np.float32)
    model = made(nodes, "y", w=w)
    assert changed(model, SinkTransposes()) == [True]
    assert ops(model).count("Transpose") == 2
    assert SinkTransposes()(model).modified is False


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
def test_a_concatenation_is_renamed(axis) -> None:
    nodes = [
        node("Transpose", "x", "a", **LAST),
        node("Relu", "a", "b"),
        node("Concat", "a b", "c", axis=axis),
        node("Transpose", "c", "y", **FIRST),
    ]
    model = made(nodes, "y")
    assert changed(model, SinkTransposes()) == [True]
    assert "Transpose" not in ops(model)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[1, 2], [3], [0, 3], [-1, -2]])
def test_a_reduction_is_renamed(axes, keepdims) -> None:
    nodes = [
        node("Transpose", "x", "a", **LAST),
        node("ReduceMax", "a axes", "y", keepdims=keepdims),
    ]
    model = made(nodes, "y", axes=np.array(axes, dtype=np.int64))
    assert changed(model, SinkTransposes()) == [True]
    assert ops(model)[0] == "ReduceMax"


def test_a_transpose_in_front_of_a_reshape_stays() -> None:
    nodes = [node("Transpose", "x", "a", **LAST), node("Reshape", "a flat", "y")]
    model = made(nodes, "y", flat=np.array([2, -1], dtype=np.int64))
    assert changed(model, SinkTransposes()) == [False]


def test_a_sum_with_something_in_another_layout_stays() -> None:
    nodes = [
        node("Transpose", "x", "a", perm=[0, 1, 3, 2]),
        node("ReduceMax", "x axes", "b", keepdims=1),
        node("Add", "a b", "y"),
    ]
    model = made(nodes, "y", axes=np.array([2, 3], dtype=np.int64))
    assert changed(model, SinkTransposes()) == [False]


def test_outputs_keep_their_names_and_values() -> None:
    nodes = [
        node("Transpose", "x", "a", **LAST),
        quant("a", "y"),
        node("Transpose", "y", "z", **FIRST),
    ]
    model = made(nodes, "y z")
    assert changed(model, SinkTransposes()) == [True]
    assert [value.name for value in model.graph.outputs] == ["y", "z"]


WEIGHT = ((np.arange(24, dtype=np.float32) - 12) / 8).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("op", "attributes", "extra", "shape"),
    [
        ("Transpose", {"perm": [2, 0, 1]}, None, (4, 2, 3)),
        ("Reshape", {}, [6, 4], (6, 4)),
        ("Reshape", {}, [0, -1], (2, 12)),
        ("Unsqueeze", {}, [1], (2, 1, 3, 4)),
        ("Flatten", {"axis": 2}, None, (6, 4)),
    ],
)
@pytest.mark.parametrize("scale_shape", [(), (4,), (3, 1), (2, 1, 4)])
def test_a_weight_moves_with_the_scales_of_its_elements(
    op, attributes, extra, shape, scale_shape
) -> None:
    count = int(np.prod(scale_shape))
    scale = np.exp2(np.arange(count, dtype=np.float32) - 3).reshape(scale_shape)
    inputs = "q" if extra is None else "q extra"
    nodes = [quant("w", "q", "scale"), node(op, inputs, "m", **attributes)]
    nodes.append(node("ReduceMax", "x", "s", keepdims=0))
    nodes.append(node("Mul", "m s", "y"))
    constants = {} if extra is None else {"extra": np.array(extra, dtype=np.int64)}
    model = made(nodes, "y", w=WEIGHT, scale=scale, **constants)
    assert changed(model, FoldWeightLayout()) == [True]
    first = next(n for n in model.graph if n.op_type == "Quant")
    assert op not in ops(model)
    assert tuple(first.outputs[0].shape) == shape
    assert FoldWeightLayout()(model).modified is False


def test_a_quantized_activation_is_not_folded() -> None:
    model = made([quant("x", "q"), node("Transpose", "q", "y", **LAST)], "y")
    assert changed(model, FoldWeightLayout()) == [False]


def images() -> Model:
    nodes = [
        node("Transpose", "x", "a", **FIRST),
        node("Conv", "a w", "b"),
        node("Transpose", "b", "c", **LAST),
        quant("c", "y"),
    ]
    return made(nodes, "y", w=np.ones((5, 5, 1, 1), dtype=np.float32))


def test_images_are_taken_and_given_channels_first() -> None:
    model = images()
    before = answers(model)[0]
    assert ChangeLayout("nchw")(model).modified
    assert ops(model) == ["Conv", "Quant"]
    assert tuple(model.graph.inputs[0].shape) == (2, 5, 3, 4)
    after = answers(model, np.ascontiguousarray(np.moveaxis(X, -1, 1)))[0]
    assert np.array_equal(np.moveaxis(before, -1, 1), after)


def test_the_layout_is_kept_where_that_is_asked_for() -> None:
    model = images()
    assert ChangeLayout("keep")(model).modified is False


def test_one_input_alone_can_be_turned() -> None:
    model = images()
    ChangeLayout("nchw", inputs=("x",), outputs=())(model)
    assert [str(value.name) for value in model.graph.outputs] == ["y"]
    assert tuple(model.graph.outputs[0].shape) == SHAPE


@pytest.mark.parametrize(("layout", "inputs"), [("nhcw", None), ("nchw", ("nothing",))])
def test_a_layout_or_name_that_does_not_exist_is_refused(layout, inputs) -> None:
    with pytest.raises(PassError, match="there are"):
        ChangeLayout(layout, inputs=inputs)(images())


def test_a_weight_that_is_turned_twice_becomes_two_weights() -> None:
    weight = (np.arange(9, dtype=np.float32).reshape(3, 3) - 4) / 4
    model = made(
        [
            quant("w", "q"),
            node("Transpose", "q", "a", perm=[1, 0]),
            node("Transpose", "q", "b", perm=[1, 0]),
            node("MatMul", "x a", "first"),
            node("MatMul", "first b", "y"),
        ],
        "y",
        shape=(2, 3),
        w=weight,
    )
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    before = answers(model, x)
    assert FoldWeightLayout()(model).modified
    assert verify(model) == []
    assert "Transpose" not in ops(model)
    np.testing.assert_array_equal(answers(model, x)[0], before[0])
