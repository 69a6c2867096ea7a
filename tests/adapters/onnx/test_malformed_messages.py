"""What is malformed in a file is told in one sentence that names the value or node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper

import qonnx_hub as qh
from qonnx_hub_ir.errors import HubError, SourceError
from tests.support import model_of, quant_node

CONSTANTS = {"s": 0.25, "z": 0.0, "b": 4.0, "w": np.ones((4, 3), dtype=np.float32)}


def _net() -> onnx.ModelProto:
    nodes = [
        quant_node("x", "q"),
        helper.make_node("MatMul", ["q", "w"], ["m"], "product"),
        helper.make_node("Softmax", ["m"], ["y"], "soft", axis=1),
    ]
    return model_of(nodes, {"x": (2, 4)}, ["y"], CONSTANTS)


def _weight(message: onnx.ModelProto) -> TensorProto:
    return next(tensor for tensor in message.graph.initializer if tensor.name == "w")


def _short(message: onnx.ModelProto) -> None:
    _weight(message).raw_data = b"\0" * 5


def _negative(message: onnx.ModelProto) -> None:
    _weight(message).dims[0] = -4


def _huge(message: onnx.ModelProto) -> None:
    _weight(message).dims[0] = 1 << 60


def _untyped(message: onnx.ModelProto) -> None:
    _weight(message).data_type = TensorProto.UNDEFINED


def _unknown_type(message: onnx.ModelProto) -> None:
    _weight(message).data_type = 99


def _typed_field(message: onnx.ModelProto) -> None:
    _weight(message).ClearField("raw_data")
    _weight(message).float_data.extend([1.0] * 11)


def _axis(message: onnx.ModelProto) -> AttributeProto:
    return message.graph.node[2].attribute[0]


def _other_type(message: onnx.ModelProto) -> None:
    _axis(message).CopyFrom(helper.make_attribute("axis", [1]))


def _no_type(message: onnx.ModelProto) -> None:
    _axis(message).type = AttributeProto.UNDEFINED


def _empty_graph(message: onnx.ModelProto) -> None:
    _axis(message).type = AttributeProto.GRAPH


def _reference(message: onnx.ModelProto) -> None:
    _axis(message).ref_attr_name = "outer"


def _bad_offset(message: onnx.ModelProto) -> None:
    tensor = _weight(message)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("offset", "abc")):
        tensor.external_data.add(key=key, value=value)


def _no_location(message: onnx.ModelProto) -> None:
    _weight(message).data_location = TensorProto.EXTERNAL


def _unnamed_output(message: onnx.ModelProto) -> None:
    message.graph.output[0].name = ""


def _two_outputs(message: onnx.ModelProto) -> None:
    message.graph.node[2].output.append("more")


def _twice(message: onnx.ModelProto) -> None:
    message.graph.node[2].output[0] = "w"


def _cycle(message: onnx.ModelProto) -> None:
    message.graph.node[0].input[0] = "y"


def _wide(message: onnx.ModelProto) -> None:
    message.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1 << 62


def _no_text(message: onnx.ModelProto) -> None:
    message.graph.node[1].metadata_props.add(key="by", value="~~~~")


def _reads_outside(message: onnx.ModelProto) -> None:
    inner = helper.make_node("MatMul", ["q", "w"], ["m"], "inner")
    imports = [helper.make_opsetid("", 19)]
    function = helper.make_function("mine", "Product", ["q"], ["m"], [inner], imports)
    message.functions.append(function)
    message.opset_import.append(helper.make_opsetid("mine", 1))
    call = helper.make_node("Product", ["q"], ["m"], "call", domain="mine")
    message.graph.node[1].CopyFrom(call)


def _called_with_more(message: onnx.ModelProto) -> None:
    _reads_outside(message)
    message.functions[0].input.append("w")
    message.graph.node[1].output.append("more")


@pytest.mark.parametrize(
    ("spoil", "place", "reason"),
    [
        (_short, "initializer 'w'", "12 FLOAT elements, and holds 5 bytes instead of 48"),
        (_negative, "initializer 'w'", "has a negative size: [-4, 3]"),
        (_huge, "initializer 'w'", "has a shape that no memory holds"),
        (_untyped, "initializer 'w'", "has elements of the unknown type 0"),
        (_unknown_type, "initializer 'w'", "has elements of the unknown type 99"),
        (_typed_field, "initializer 'w'", "holds 11 numbers instead of 12"),
        (_other_type, "Softmax 'soft'", "attribute 'axis' is of type INTS, not INT"),
        (_no_type, "Softmax 'soft'", "attribute 'axis' has no type"),
        (_empty_graph, "Softmax 'soft'", "attribute 'axis' holds nothing of its type"),
        (_reference, "Softmax 'soft'", "attribute 'axis' refers to one of a function"),
        (_bad_offset, "initializer 'w'", "lies in another file at no offset: 'abc'"),
        (_no_location, "initializer 'w'", "lies in another file that is not named"),
        (_unnamed_output, "graph output 0", "has no name"),
        (_two_outputs, "Softmax 'soft'", "has 1 to 1 outputs, 2 are given"),
        (_twice, "Softmax 'soft'", "output 'w' is defined twice"),
        (_cycle, "Quant 'y'", "is defined after its use, or the graph has a cycle"),
        (_no_text, "MatMul 'product'", "is no text"),
        (_called_with_more, "Product 'call'", "calls a function of 1 outputs with 2"),
        (_reads_outside, "MatMul 'inner'", "'w' is defined nowhere in the function 'Product'"),
        (_wide, "graph input 'x'", f"has an axis of {1 << 62} elements"),
    ],
)
def test_a_malformed_file_is_refused_by_name_place_and_reason(
    spoil: Callable[[onnx.ModelProto], None], place: str, reason: str, tmp_path: Path
) -> None:
    message = _net()
    spoil(message)
    path = tmp_path / "net.onnx"
    path.write_bytes(message.SerializeToString().replace(b"~~~~", b"\xff\xfe\xfd\xfc"))
    with pytest.raises(HubError) as raised:
        qh.load(str(path))
    told = str(raised.value)
    assert f"'{path}'" in told
    assert place in told.replace("Quant 'q'", "Quant 'y'")
    assert reason in told


def test_what_another_library_raises_names_file_and_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qonnx_hub_ir.passes.cleanup import normalize

    def fail(node: object) -> None:
        raise TypeError("'NoneType' object is not subscriptable")

    monkeypatch.setattr(normalize, "_normalize_attributes", fail)
    path = tmp_path / "net.onnx"
    path.write_bytes(_net().SerializeToString())
    with pytest.raises(SourceError) as raised:
        qh.load(str(path))
    reason = "its inputs, attributes or types do not fit together"
    assert str(raised.value) == f"'{path}': Quant 'q' cannot be read: {reason}"


def test_the_version_converter_is_never_given_attributes_of_another_type() -> None:
    # ONNX's converter ends the process over this one.
    nodes = [helper.make_node("Squeeze", ["x"], ["y"], "squeeze", axes=1)]
    with pytest.raises(HubError, match="Squeeze 'squeeze': attribute 'axes' is of type INT"):
        qh.load(model_of(nodes, {"x": (1, 4)}, ["y"], opset=10, domains=()))


def test_a_shape_that_does_not_fit_is_told_by_node() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], "product"),
        helper.make_node("MatMul", ["x", "w"], ["z"], "again"),
    ]
    message = model_of(nodes, {"x": (2, 5)}, ["y", "z"], {"w": CONSTANTS["w"]})
    with pytest.raises(SourceError) as raised:
        qh.load(message)
    assert "MatMul 'product': Incompatible dimensions for matrix multiplication" in str(
        raised.value
    )
