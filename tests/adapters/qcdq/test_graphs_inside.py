"""Quantizers in the bodies of If and Loop, in local functions, and behind each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import ExportOptions, export_options
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_adapters.qlinear.exporter import QlinearExporter
from qonnx_hub_ir.errors import NotExactError
from tests.support import DOMAIN, model_of, quant_node

X = np.linspace(-3, 3, 6, dtype=np.float32).reshape(2, 3)


def _info(name: str, kind: int = TensorProto.FLOAT, shape: Any = (2, 3)) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(nodes: list[Any], *inputs: Any) -> onnx.ModelProto:
    numbers = {"s": 0.25, "z": 1.0, "b": 4.0}
    constants = [
        numpy_helper.from_array(np.array(n, dtype=np.float32), k) for k, n in numbers.items()
    ]
    constants.append(numpy_helper.from_array(np.array(3, dtype=np.int64), "count"))
    graph = helper.make_graph(nodes, "g", [_info("x"), *inputs], [_info("y")], constants)
    imports = [helper.make_opsetid("", 19), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def _branches() -> onnx.ModelProto:
    first = helper.make_graph([quant_node("x", "t")], "first", [], [_info("t")])
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        quant_node("r", "q", signed=0, rounding_mode="HALF_UP"),
        helper.make_node("BipolarQuant", ["q", "s"], ["u"], "u", domain=DOMAIN),
    ]
    second = helper.make_graph(nodes, "second", [], [_info("u")])
    node = helper.make_node("If", ["c"], ["y"], then_branch=first, else_branch=second)
    return _model([node], _info("c", TensorProto.BOOL, ()))


def _loop() -> onnx.ModelProto:
    nodes = [
        quant_node("v", "q", rounding_mode="FLOOR"),
        helper.make_node("Add", ["q", "x"], ["next"]),
        helper.make_node("Identity", ["going"], ["goes_on"]),
    ]
    ends = [_info("i", TensorProto.INT64, ()), _info("going", TensorProto.BOOL, ())]
    outputs = [_info("goes_on", TensorProto.BOOL, ()), _info("next")]
    body = helper.make_graph(nodes, "body", [*ends, _info("v")], outputs)
    return _model([helper.make_node("Loop", ["count", "", "x"], ["y"], body=body)])


CASES = {
    "then": (_branches, {"c": np.array(True)}),
    "else": (_branches, {"c": np.array(False)}),
    "loop": (_loop, {}),
}


@pytest.mark.parametrize("encoding", ["auto", "float"])
@pytest.mark.parametrize("exporter", [QcdqExporter(), QlinearExporter()])
@pytest.mark.parametrize("case", CASES)
def test_a_quantizer_in_a_body_is_written_as_well(
    case: str, exporter: Any, encoding: str
) -> None:
    build, more = CASES[case]
    model = read_model(build())
    written = exporter.export(model, export_options(encoding=encoding)).model
    assert not [node for node in written.graph.all_nodes() if node.domain == DOMAIN]
    feeds = {"x": X, **more}
    np.testing.assert_array_equal(
        Session(written).run(feeds)["y"], Session(model).run(feeds)["y"]
    )


def test_a_quantizer_in_a_local_function_is_refused_by_name() -> None:
    imports = [helper.make_opsetid("", 19), helper.make_opsetid(DOMAIN, 1)]
    inner = quant_node("x", "y")
    function = helper.make_function("own", "F", ["x", "s", "z", "b"], ["y"], [inner], imports)
    model = _model([helper.make_node("F", ["x", "s", "z", "b"], ["y"], domain="own")])
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    with pytest.raises(NotExactError, match="Quant 'y': is inside the local function 'F'"):
        QcdqExporter().export(onnx_ir.from_proto(model), ExportOptions())
    # Reading inlines it, whatever version of the operators it imports.
    written = QcdqExporter().export(read_model(model), ExportOptions()).model
    np.testing.assert_array_equal(
        Session(written).run({"x": X})["y"], Session(read_model(model)).run({"x": X})["y"]
    )


def test_a_quantizer_with_its_own_rounding_may_follow_another() -> None:
    nodes = [quant_node("x", "a"), quant_node("a", "y", rounding_mode="HALF_UP")]
    proto = model_of(nodes, {"x": (2, 3)}, ["y"], {"s": 0.25, "z": 0.0, "b": 4.0})
    model = read_model(proto)
    written = QcdqExporter().export(model, ExportOptions()).model
    np.testing.assert_array_equal(
        Session(written).run({"x": X})["y"], Session(model).run({"x": X})["y"]
    )
