"""What the graph looks like: names, provenance, layout, folded constants."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from qonnx_hub_ir import dialect
from qonnx_hub_ir.passes.layout.change_layout import ChangeLayout
from tests.adapters.qkeras.helpers import ask_executor, ask_keras, convert, operators
from tests.adapters.qkeras.kit import Case, inputs_for, set_weights
from tests.adapters.qkeras.model_cases import branches, cnn, residual, several_outputs, shared


def built(kit, build):
    model = build(kit)
    set_weights(model)
    return model


def test_a_small_cnn_is_the_graph_one_would_draw(kit) -> None:
    ir = convert(built(kit, cnn))
    plain = [name for name in operators(ir) if name != "Quant"]
    assert plain == [
        "Transpose",  # the images come channels last
        *("Conv", "Relu", "MaxPool", "Conv", "Relu"),
        "Transpose",  # Flatten reads them channels last
        *("Reshape", "MatMul", "Add"),
    ]


@pytest.mark.parametrize("build", [residual, branches])
def test_a_pure_cnn_keeps_one_transpose_at_each_end(kit, build) -> None:
    names = operators(convert(built(kit, build)))
    assert names.count("Transpose") == 2


def test_values_are_called_after_their_layers(kit) -> None:
    ir = convert(built(kit, cnn))
    assert [str(v.name) for v in ir.graph.outputs] == ["out"] or "out" in str(
        ir.graph.outputs[0].name
    )
    weights = {str(v.name) for v in ir.graph.initializers.values()}
    assert {"c1/kernel", "c1/bias", "c2/kernel", "out/kernel", "out/bias"} <= weights
    names = [str(node.name) for node in ir.graph]
    assert {"c1/kernel_quant", "c1/Conv", "a1/activation_quant", "p1/MaxPool"} <= set(names)


def test_every_value_carries_a_provenance_of_its_own(kit) -> None:
    ir = convert(built(kit, cnn))
    sources = [
        value.metadata_props.get(dialect.PROVENANCE)
        for node in ir.graph
        for value in node.outputs
    ]
    assert None not in sources
    assert len(set(sources)) == len(sources)
    assert {"c1", "a1", "p1", "c2", "a2", "out"} <= set(sources)


def test_the_same_model_gives_the_same_bytes(kit) -> None:
    model = built(kit, residual)
    first, second = (
        onnx_ir.to_proto(convert(model)).SerializeToString(deterministic=True) for _ in "ab"
    )
    assert first == second


def test_inputs_and_outputs_keep_their_names_and_order(kit) -> None:
    ir = convert(built(kit, shared))
    assert [str(v.name) for v in ir.graph.inputs] == ["a", "b"]
    ir = convert(built(kit, several_outputs))
    assert [tuple(v.shape)[1] for v in ir.graph.outputs] == [3, 2]


def test_the_batch_axis_stays_open(kit) -> None:
    ir = convert(built(kit, cnn))
    assert ir.graph.inputs[0].shape is not None
    assert str(ir.graph.inputs[0].shape[0]) == "batch"


def test_a_batch_normalization_of_qkeras_becomes_one_factor_and_one_offset(kit) -> None:
    model = kit.model((4, 4, 3), kit.q.QBatchNormalization(name="norm"))
    set_weights(model)
    names = operators(convert(model))
    assert [name for name in names if name != "Transpose"] == ["Mul", "Add"]


def test_stored_weights_are_already_quantized(kit) -> None:
    dense = kit.q.QDense(5, kernel_quantizer="quantized_bits(3,0,alpha=1)", use_bias=False)
    model = kit.model((6,), dense)
    set_weights(model)
    kernel = convert(model).graph.initializers[f"{dense.name}/kernel"].const_value.numpy()
    # Three bits without an integer bit: multiples of 1/4 from -1 to 3/4.
    assert set(np.unique(kernel * 4)) <= set(range(-4, 4))
    assert kernel.dtype == np.float32


@pytest.mark.parametrize("build", [cnn, residual, branches])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_layout_of_the_ends_can_be_chosen(kit, build, layout) -> None:
    model = built(kit, build)
    feeds = inputs_for(model, Case("layout", build, 0))
    expected = ask_keras(model, feeds)
    ir = convert(model)
    if layout == "nhwc":
        ChangeLayout("nchw")(ir)
        ChangeLayout("nhwc")(ir)
        turned = ask_executor(ir, feeds)
    else:
        ChangeLayout("nchw")(ir)
        turned = ask_executor(ir, [np.moveaxis(x, -1, 1) for x in feeds])
        turned = [np.moveaxis(y, 1, -1) if y.ndim == 4 else y for y in turned]
        if build is not cnn:
            assert "Transpose" not in operators(ir)
    assert all(np.array_equal(a, b) for a, b in zip(expected, turned, strict=True))


def test_one_dimensional_convolutions_stay_one_dimensional(kit) -> None:
    def conv(name):
        return kit.q.QConv1D(
            4,
            3,
            padding="same",
            kernel_quantizer="quantized_bits(4,0)",
            bias_quantizer="quantized_bits(6,2)",
            name=name,
        )

    act = kit.q.QActivation("quantized_relu(4,2)")
    model = kit.model((9, 3), conv("one"), act, conv("two"))
    set_weights(model)
    ir = convert(model)
    plain = [name for name in operators(ir) if name != "Quant"]
    assert plain == ["Transpose", "Conv", "Relu", "Conv", "Transpose"]
    shapes = {str(n.name): tuple(n.inputs[1].shape) for n in ir.graph if n.op_type == "Conv"}
    assert shapes == {"one/Conv": (4, 3, 3), "two/Conv": (4, 4, 3)}


def test_resizing_by_whole_factors_is_said_in_standard_words(kit) -> None:
    model = kit.model((4, 4, 3), kit.layers.UpSampling2D(2))
    for node in convert(model).graph:
        if node.op_type == "Resize":
            mode = node.attributes["coordinate_transformation_mode"].as_string()
            assert (mode, node.attributes["nearest_mode"].as_string()) == (
                "asymmetric",
                "floor",
            )


def test_steps_beyond_the_unrolled_ones_become_a_loop(kit) -> None:
    cell = kit.q.QSimpleRNN(
        3, kernel_quantizer="quantized_bits(4,0)", recurrent_quantizer="quantized_bits(4,0)"
    )
    model = kit.model((70, 2), cell)
    set_weights(model)
    feeds = inputs_for(model, Case("loop", cnn, 0), samples=2)
    ir = convert(model)
    assert "Loop" in operators(ir)
    assert np.array_equal(ask_executor(ir, feeds)[0], ask_keras(model, feeds)[0])
