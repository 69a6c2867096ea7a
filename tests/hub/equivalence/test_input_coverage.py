"""What generated inputs are said to reach, against counts by hand."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import qonnx_hub as qh
from qonnx_hub.equivalence.inputs.meter import CoverageMeter

QONNX = "qonnx.custom_op.general"


def chain(*nodes, shape=("N", 1), out=None, **constants):
    """Return a model whose nodes, given as (operator, further inputs, attributes), follow."""
    made, read = [], "x"
    for k, (operator, inputs, attributes) in enumerate(nodes):
        name = f"v{k}"
        domain = QONNX if operator.endswith("Quant") else ""
        made.append(
            helper.make_node(
                operator, [read, *inputs], [name], name, domain=domain, **attributes
            )
        )
        read = name
    graph = helper.make_graph(
        made,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(read, out or TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(c), n) for n, c in constants.items()],
    )
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid(QONNX, 1)]
    return qh.load(helper.make_model(graph, opset_imports=opsets, ir_version=9))


def quant(bits=3, signed=1):
    names = [f"s{bits}", "z", f"b{bits}"]
    constants = {f"s{bits}": np.float32(1), "z": np.float32(0), f"b{bits}": np.float32(bits)}
    return ("Quant", names, {"signed": signed, "narrow": 0}), constants


def covered(model, *values, ranges=None):
    meter = CoverageMeter(model, ranges)
    meter.add({"x": np.array(values, dtype=np.float32).reshape(-1, 1)})
    return meter.coverage()


def test_a_threshold_counts_where_codes_on_both_sides_came():
    node, constants = quant()
    row = covered(chain(node, **constants), -4, -3, 0, 2).quantizers[0]
    assert (row.reached, row.reachable, row.total) == (1, 7, 7)
    assert (row.ends, row.reachable_ends) == (1, 2)


def test_thresholds_below_zero_cannot_be_reached_behind_a_relu():
    node, constants = quant()
    coverage = covered(chain(("Relu", [], {}), node, **constants), 0, 1, 2, 3)
    # Codes 0 to 3 of -4 to 3.
    assert (coverage.quantizers[0].reached, coverage.quantizers[0].reachable) == (3, 3)
    assert coverage.share == 1.0
    assert coverage.quantizers[0].reachable_ends == 1


def test_a_quantizer_behind_a_coarser_one_has_the_codes_of_its_values_only():
    first, constants = quant(3)
    second, more = quant(6)
    constants = {**constants, **more, "two": np.float32(2)}
    model = chain(first, ("Mul", ["two"], {}), second, **constants)
    # 2 * (-4..3) are 8 codes, none next to another.
    assert covered(model, *range(-4, 4)).quantizers[1].reachable == 0


def test_the_range_of_an_input_bounds_what_can_be_reached():
    node, constants = quant()
    row = covered(chain(node, **constants), 0, 1, ranges={"x": (-0.25, 1.25)}).quantizers[0]
    assert (row.reached, row.reachable) == (1, 1)


def test_wide_quantizers_are_counted_in_bands():
    node, constants = quant(12)
    row = covered(chain(node, **constants), -2048, -2033, -2032).quantizers[0]
    assert (row.reached, row.total) == (1, 255)


@pytest.mark.parametrize(("values", "reached"), [((1, 2), 1), ((-1, 2), 2), ((-3, -1), 1)])
def test_a_relu_has_two_sides(values, reached):
    row = covered(chain(("Relu", [], {})), *values).bends[0]
    assert (row.reached, row.reachable) == (reached, 2)


def test_a_relu_behind_a_relu_has_one_side_to_reach():
    coverage = covered(chain(("Relu", [], {}), ("Relu", [], {})), -1, 1)
    assert (coverage.bends[1].reached, coverage.bends[1].reachable) == (1, 1)
    assert coverage.one_sided == ()


def test_zero_itself_is_on_no_side_of_a_relu():
    assert covered(chain(("Relu", [], {})), 0, -0.0).bends[0].reached == 0


def test_a_clip_has_three_pieces():
    model = chain(("Clip", ["lo", "hi"], {}), lo=np.float32(-1), hi=np.float32(1))
    coverage = covered(model, -2, 0)
    assert (coverage.bends[0].reached, coverage.bends[0].reachable) == (2, 3)
    assert coverage.one_sided == ("v0",)


def test_an_output_that_never_changed_is_named():
    model = chain(("Clip", ["lo"], {}), lo=np.float32(5))
    assert covered(model, -1, 0, 4).unchanged == ("v0",)
    assert covered(model, -1, 0, 6).unchanged == ()


def test_behind_argmax_the_scores_are_what_changes():
    model = chain(
        ("ArgMax", [], {"axis": 1, "keepdims": 0}), shape=("N", 3), out=TensorProto.INT64
    )
    meter = CoverageMeter(model)
    meter.add({"x": np.array([[0, 0, 1], [0, 0, 2]], dtype=np.float32)})
    assert meter.coverage().unchanged == ()


def test_a_model_that_does_not_run_on_the_inputs_is_not_measured():
    meter = CoverageMeter(chain(("Relu", [], {})))
    meter.add({"x": np.zeros((2, 1), dtype=np.int64)})
    assert not meter.coverage().measured
