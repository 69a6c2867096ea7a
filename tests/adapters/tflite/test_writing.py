"""Files that are written: read again, run again, and refused where TFLite cannot say it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qonnx_hub as qh
from qonnx_hub.api import load_to_run
from qonnx_hub_adapters.tflite.container import read_container
from qonnx_hub_adapters.tflite.container_writer import write_container
from qonnx_hub_adapters.tflite.reader import read_file
from qonnx_hub_ir.errors import NotExactError
from tests.adapters.tflite.shared_files import path_of, recorded
from tests.support import model_of, quant_node

WEIGHT = np.ones((4, 4, 1, 1), dtype=np.float32)
NUMBERS = {"s": 0.5, "z": 0.0, "b": 8.0}
TRIPS = ("tflm_simple_add_int8", "made_mlp2_int8", "made_arith1_int8", "op_softmax_int8_11")


def constants(**arrays: np.ndarray) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


def layer(weights: np.ndarray, bits: float = 8, scale: float = 0.5) -> onnx.ModelProto:
    """A fully connected layer between quantizers of 8 bits, with weights of some bits."""
    quant = {"domain": "qonnx.custom_op.general"}
    usual = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"}
    nodes = [
        helper.make_node("Quant", ["x", "s", "z", "b"], ["xq"], name="xq", **usual, **quant),
        helper.make_node("Quant", ["w", "s", "z", "wb"], ["wq"], name="wq", **usual, **quant),
        helper.make_node("MatMul", ["xq", "wq"], ["m"], name="m"),
        helper.make_node("Quant", ["m", "t", "z", "b"], ["y"], name="yq", **usual, **quant),
    ]
    made = constants(
        w=weights.astype(np.float32),
        s=np.float32(scale),
        t=np.float32(2.0),
        z=np.float32(0),
        b=np.float32(8),
        wb=np.float32(bits),
    )
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", (1, weights.shape[0])), ("y", (1, weights.shape[1])))
    ]
    graph = helper.make_graph(nodes, "layer", ends[:1], ends[1:], made)
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("qonnx.custom_op.general", 2)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def written(model: onnx.ModelProto, path: Path) -> Path:
    qh.convert(model, path, to="tflite", allow_lossy=True)
    return path


def test_what_is_written_is_what_is_read():
    table = {
        "description": "a text",
        "operator_codes": [{"builtin_code": 9, "version": 3}],
        "buffers": [{}, {"data": b"\1\2\3"}],
        "subgraphs": [{"inputs": np.array([0, 1], dtype=np.int32), "name": "main"}],
    }
    again = read_container(write_container(table))
    assert again["description"] == "a text"
    assert again["operator_codes"][0]["version"] == 3
    assert [buffer["data"] for buffer in again["buffers"]] == [b"", b"\1\2\3"]
    assert again["subgraphs"][0]["inputs"].tolist() == [0, 1]


def test_a_convolution_without_bias_is_written_with_zeros(tmp_path: Path):
    # CONV_2D does not do without, on any of TFLite's kernels
    nodes = [
        quant_node("x", "xq"),
        quant_node("w", "wq"),
        helper.make_node("Conv", ["xq", "wq"], ["c"], name="c"),
        quant_node("c", "y"),
    ]
    model = model_of(nodes, {"x": (1, 2, 3, 3)}, ["y"], {"w": WEIGHT[:2, :2], **NUMBERS})
    net = read_file(written(model, tmp_path / "net.tflite"))
    (conv,) = [one for one in net.operations if one.name == "CONV_2D"]
    assert not net.tensors[conv.inputs[2]].data.any()


def test_a_layer_of_whole_numbers_computes_what_its_source_does(tmp_path: Path):
    weights = np.array([[1, -2], [3, 4], [0.5, -1]])
    path = written(layer(weights), tmp_path / "layer.tflite")
    x = np.array([[2, 3, -4]], dtype=np.float32)
    # 2*1 + 3*3 - 4*0.5 = 9 and -4 + 12 + 4 = 12, in steps of 2: 9 is a tie, and goes away
    assert qh.run(str(path), {"x": x})["y"].tolist() == [[10, 12]]


def test_weights_of_four_bits_and_fewer_are_stored_as_int4(tmp_path: Path):
    weights = np.array([[0.5, -0.5], [-1, 0.5]])
    for bits, expected in ((4, "INT4"), (2, "INT4"), (5, "INT8")):
        net = read_file(written(layer(weights, bits), tmp_path / f"{bits}.tflite"))
        stored = [t for t in net.tensors if t.name.endswith("/weights")]
        assert [t.type for t in stored] == [expected]
        # rows are outputs there, and a step is a half
        assert stored[0].data is not None
        assert stored[0].data.tolist() == [[1, -2], [-1, 1]]


def test_a_layer_without_a_quantizer_behind_it_is_refused_by_name():
    model = layer(np.eye(2))
    del model.graph.node[-1]
    model.graph.node[-1].output[0] = "y"
    with pytest.raises(NotExactError, match="without a quantizer"):
        qh.convert(model, to="tflite", allow_lossy=True)


def test_nothing_near_is_written_unasked():
    with pytest.raises(NotExactError, match="rounds the sums of a layer twice"):
        qh.convert(layer(np.eye(2)), to="tflite")


def test_a_file_that_was_read_is_written_with_the_same_numbers(tmp_path: Path):
    source, out = path_of("made_convnet1_w4a8"), tmp_path / "again.tflite"
    report = qh.convert(str(source), out, to="tflite")
    before, after = read_file(source), read_file(out)
    assert [o.name for o in before.operations] == [o.name for o in after.operations]
    for first, second in zip(before.tensors, after.tensors, strict=True):
        assert (first.name, first.type, first.shape) == (
            second.name,
            second.type,
            second.shape,
        )
        if first.data is not None and second.data is not None:
            np.testing.assert_array_equal(first.data, second.data)
    assert report.check is not None
    assert report.check.verdict.name == "PROVEN"


@pytest.mark.parametrize("name", TRIPS)
def test_qdq_and_back_gives_the_same_codes(name: str, tmp_path: Path):
    source, middle, out = path_of(name), tmp_path / "qdq.onnx", tmp_path / "out.tflite"
    qh.convert(str(source), middle, to="qcdq", encoding="qdq", allow_lossy=True, check=False)
    qh.convert(middle, out, to="tflite", allow_lossy=True, check=False)
    given, expected = recorded(name)
    inputs = [value.name for value in load_to_run(str(out)).graph.inputs]
    made = qh.run(str(out), {n: x[0] for n, x in zip(inputs, given, strict=True)})
    for value, codes in zip(made.values(), expected, strict=True):
        np.testing.assert_array_equal(value, codes[0])


def layered(nodes, held, x=(1, 4, 4, 4)):
    """Return a net of quantizers of one byte around some nodes, from x to y."""
    held = {"s": 0.1, "z": 0.0, "b": 8.0, **held}
    first = quant_node("x", "q", "s", "z", "b")
    last = quant_node("r", "y", "s", "z", "b")
    return qh.load(model_of([first, *nodes, last], {"x": x}, ["y"], held))


@pytest.mark.parametrize(
    ("nodes", "held"),
    [
        # A row is added along the width, not to the channels.
        (
            [
                quant_node("w", "v", "s", "z", "b"),
                helper.make_node("Conv", ["q", "v"], ["c"]),
                helper.make_node("Add", ["c", "row"], ["r"]),
            ],
            {"w": WEIGHT, "row": np.arange(4, dtype=np.float32)},
        ),
        # Scales along the axis of inputs.
        (
            [
                quant_node("w", "v", "by_input", "z", "b"),
                helper.make_node("Conv", ["q", "v"], ["r"]),
            ],
            {"w": WEIGHT, "by_input": np.arange(1, 5, dtype=np.float32).reshape(1, 4, 1, 1)},
        ),
        # Windows that reach over elements.
        (
            [
                helper.make_node(
                    "AveragePool", ["q"], ["r"], kernel_shape=[2, 2], dilations=[2, 2]
                )
            ],
            {},
        ),
    ],
    ids=["row", "axis", "dilations"],
)
def test_what_tflite_says_otherwise_is_refused(nodes, held, tmp_path):
    with pytest.raises(NotExactError):
        qh.convert(layered(nodes, held), tmp_path / "n.tflite", to="tflite", allow_lossy=True)
    assert not list(tmp_path.iterdir())
