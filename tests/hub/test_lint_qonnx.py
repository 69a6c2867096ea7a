"""What the qonnx package 1.0 refuses: a small model for every row of its table."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub_adapters.lint.finding import LintFinding
from qonnx_hub_adapters.lint.qonnx import TARGET
from qonnx_hub_adapters.lint.rules import find
from tests.support import model_of, quant_node

CHANNELS_LAST = "qonnx.custom_op.channels_last"
ARRAYS = {"s": 0.25, "z": 0.0, "b": 4.0, "w": np.ones((2, 2, 2, 1))}


def _model(
    node: onnx.NodeProto, shape: tuple[int, ...] = (1, 4, 4, 1), **imports: int
) -> onnx.ModelProto:
    arrays = {name: np.asarray(value, np.float32) for name, value in ARRAYS.items()}
    model = model_of([node], {"x": shape}, ["y"], arrays)
    if node.domain:
        model.opset_import.append(helper.make_opsetid(node.domain, imports.get("version", 1)))
    return model


def _conv(**attributes: object) -> onnx.NodeProto:
    return helper.make_node(
        "Conv", ["x", "w"], ["y"], "conv", domain=CHANNELS_LAST, **attributes
    )


def _pool(**attributes: object) -> onnx.NodeProto:
    given = {"kernel_shape": [2, 2], **attributes}
    return helper.make_node("MaxPool", ["x"], ["y"], "pool", domain=CHANNELS_LAST, **given)


def _symbolic() -> onnx.ModelProto:
    model = _model(helper.make_node("Relu", ["x"], ["y"], "relu"))
    shape = model.graph.input[0].type.tensor_type.shape
    shape.dim[0].dim_param = "n"
    return model


CASES = {
    "symbolic size": (_symbolic(), "refused", "x", "has a symbolic size"),
    "attributes left out": (
        _model(_conv(kernel_shape=[2, 2], strides=[1, 1], pads=[0] * 4, group=1)),
        *("refused", "conv", "leaves out dilations"),
    ),
    "rounding": (
        _model(quant_node("x", "y", "s", "z", "b", rounding_mode="DPU")),
        *("refused", "y", "rounds with DPU"),
    ),
    "old opset": (
        _model(_pool(ceil_mode=0), version=1),
        *("refused", "pool", "has ceil_mode, under an opset below 10"),
    ),
}


def _found(model: onnx.ModelProto) -> tuple[LintFinding, ...]:
    return qh.lint(model, "qonnx").findings


@pytest.mark.parametrize("case", CASES)
def test_the_table_finds_what_the_package_cannot_do(case: str) -> None:
    model, severity, node, reason = CASES[case]
    (found,) = _found(model)
    assert (found.severity.value, found.node) == (severity, node)
    assert reason in found.reason
    assert found.remedy


def test_an_operator_of_a_foreign_domain_is_refused() -> None:
    model = qh.load(_model(helper.make_node("Relu", ["x"], ["y"], "relu")))
    model.graph[0].domain = "some.where"  # no file of this domain can be loaded
    (found,) = find(TARGET.rules, model)
    assert (found.severity.value, found.reason) == ("refused", "is of domain some.where")


@pytest.mark.parametrize("version", [1, 10])
def test_the_package_itself_refuses_what_the_row_on_old_opsets_says(version: int) -> None:
    pytest.importorskip("qonnx")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx

    model = _model(_pool(ceil_mode=0, strides=[2, 2], pads=[0] * 4), version=version)
    model.graph.output[0].type.tensor_type.shape.CopyFrom(
        helper.make_tensor_value_info(
            "y", onnx.TensorProto.FLOAT, (1, 2, 2, 1)
        ).type.tensor_type.shape
    )
    feeds = {"x": np.ones((1, 4, 4, 1), np.float32)}
    if not _found(model):
        assert execute_onnx(ModelWrapper(model), feeds)["y"].shape == (1, 2, 2, 1)
        return
    with pytest.raises(Exception, match="Unrecognized attribute: ceil_mode"):
        execute_onnx(ModelWrapper(model), feeds)


def test_what_the_package_can_do_is_no_finding() -> None:
    given = {"kernel_shape": [2, 2], "strides": [1, 1], "pads": [0] * 4}
    conv = _conv(**given, dilations=[1, 1], group=1)
    nodes = [conv, _pool(ceil_mode=0), quant_node("x", "y", "s", "z", "b")]
    assert [_found(_model(node, version=10)) for node in nodes] == [(), (), ()]
    assert _found(_model(_pool(), version=1)) == ()
