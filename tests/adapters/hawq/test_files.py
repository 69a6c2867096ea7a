"""ONNX files in the layout of HAWQ's own exporter, built here node by node."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.hawq.folding import FoldScales
from qonnx_hub_adapters.hawq.importer import HawqImporter
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_adapters.qonnx.importer import QonnxImporter
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.passes import DropUnused, run_passes

RANDOM = np.random.default_rng(5)
W1 = RANDOM.integers(-31, 32, (6, 8)).astype(np.float32)
B1 = RANDOM.integers(-32, 32, 8).astype(np.float32)
W2 = RANDOM.integers(-31, 32, (8, 3)).astype(np.float32)
B2 = RANDOM.integers(-32, 32, 3).astype(np.float32)
A1, S1, A2, S2 = (np.float32(v) for v in (0.11, 0.0013, 0.07, 0.0009))
"""Scales: of the input, of the first sums, of the hidden activation, of the second sums."""
X = (RANDOM.integers(-300, 300, (16, 6)) / np.float32(64)).astype(np.float32)

DOMAIN = "hawq2qonnx"


def quant(x, y, bits, domain=DOMAIN):
    """The exporter's Quant: integers, step one."""
    inputs = [x, "one", "zero", bits]
    return helper.make_node(
        "Quant", inputs, [y], y, domain=domain, signed=1, narrow=0, rounding_mode="ROUND"
    )


def layer(x, index, divide=True, rounded=False, domain=DOMAIN):
    """Div -> MatMul(Quant) -> Add(Quant) [-> Round] -> Mul, as one dense layer is exported."""
    name = f"d{index}"
    nodes = [helper.make_node("Div", [x, f"a{index}"], [f"{name}_x"])] if divide else []
    source = f"{name}_x" if divide else x
    nodes += [
        quant(f"w{index}", f"{name}_w", "six", domain),
        helper.make_node("MatMul", [source, f"{name}_w"], [f"{name}_m"], f"MatMul_{index}"),
        quant(f"b{index}", f"{name}_b", "six", domain),
        helper.make_node("Add", [f"{name}_m", f"{name}_b"], [f"{name}_s"]),
    ]
    if rounded:
        nodes.append(helper.make_node("Round", [f"{name}_s"], [f"{name}_r"], domain=domain))
    last = f"{name}_r" if rounded else f"{name}_s"
    return [*nodes, helper.make_node("Mul", [last, f"s{index}"], [f"{name}_y"])]


def model(merged=False, rounded=False, domain=DOMAIN, imported=DOMAIN):
    """Two dense layers; merged: the second one's Div is in the first one's Mul."""
    nodes = layer("global_in", 1, rounded=rounded, domain=domain)
    nodes.append(helper.make_node("Relu", ["d1_y"], ["h"]))
    nodes += layer("h", 2, divide=not merged, rounded=rounded, domain=domain)
    numbers = {
        "w1": W1,
        "b1": B1,
        "w2": W2,
        "b2": B2,
        "a1": A1,
        "a2": A2,
        "s2": S2,
        "s1": np.float32(S1 / A2) if merged else S1,
        "one": np.float32(1),
        "zero": np.float32(0),
        "six": np.float32(6),
    }
    for node in nodes:
        if node.op_type == "Round":
            node.domain = ""
    graph = helper.make_graph(
        nodes,
        "torch-jit-export",
        [helper.make_tensor_value_info("global_in", TensorProto.FLOAT, [16, 6])],
        [helper.make_tensor_value_info("d2_y", TensorProto.FLOAT, [16, 3])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in numbers.items()],
    )
    imports = [helper.make_opsetid("", 11), helper.make_opsetid(imported, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=7)


def literally(x, quantize_1=None, quantize_2=None, rounded=False):
    """What the file says, in numpy: sums of integers on scaled inputs."""
    keep = (lambda v: v) if not rounded else np.rint
    x = x if quantize_1 is None else quantize_1(x)
    h = np.maximum(keep((x / A1) @ W1 + B1) * S1, 0).astype(np.float32)
    h = h if quantize_2 is None else quantize_2(h)
    return (keep((h / A2) @ W2 + B2) * S2).astype(np.float32)


def load(source, **options):
    return HawqImporter().load(source, ImportOptions(extra=options))


def quiet(source, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return load(source, **options)


def run(ir):
    (answer,) = Session(ir).run({"global_in": X}).values()
    return answer


@pytest.mark.parametrize("domain", [DOMAIN, "qonnx.custom_op.general", "onnx.brevitas"])
@pytest.mark.parametrize("rounded", [False, True])
def test_a_file_is_read_literally(domain, rounded):
    ir = quiet(model(domain=domain, rounded=rounded))
    expected = literally(X, rounded=rounded)
    np.testing.assert_allclose(run(ir), expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_a_merged_file_is_read_literally():
    expected = literally(X)
    answer = run(quiet(model(merged=True)))
    np.testing.assert_allclose(answer, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_the_lost_quantizers_are_warned_of_and_the_layers_are_named():
    with pytest.warns(UserWarning, match=r"no activation quantizer.*MatMul_1, MatMul_2"):
        load(model())


def test_a_file_with_activation_quantizers_is_read_without_a_warning():
    proto = model()
    first = next(node for node in proto.graph.node if node.op_type == "Div")
    proto.graph.node.insert(0, quant("global_in", "q", "six"))
    first.input[0] = "q"
    load(proto)


def test_files_are_recognized_by_the_domain(tmp_path):
    importer = HawqImporter()
    onnx.save(model(), tmp_path / "hawq.onnx")
    # The exporter's own cleaning renames the nodes' domain and leaves the import behind.
    onnx.save(model(domain="qonnx.custom_op.general"), tmp_path / "cleaned.onnx")
    other = model(domain="qonnx.custom_op.general", imported="qonnx.custom_op.general")
    onnx.save(other, tmp_path / "other.onnx")
    (tmp_path / "empty.onnx").touch()
    assert importer.accepts(str(tmp_path / "hawq.onnx"))
    assert importer.accepts(tmp_path / "cleaned.onnx")
    assert importer.accepts(model())
    assert importer.accepts(quiet(model())) is False  # canonical already
    assert not importer.accepts(tmp_path / "other.onnx")
    assert not importer.accepts(tmp_path / "empty.onnx")
    assert not importer.accepts(tmp_path / "missing.onnx")


@pytest.mark.parametrize("merged", [False, True])
def test_given_bit_widths_put_the_quantizers_back(merged):
    def signed_six(x):
        return np.clip(np.rint(x / A1), -32, 31) * A1

    def unsigned_four(h):
        return np.clip(np.rint(h / A2), 0, 15) * A2

    ir = load(model(merged=merged), act_bits={"MatMul_1": 6, "MatMul_2": -4})
    expected = literally(X, signed_six, unsigned_four)
    np.testing.assert_allclose(run(ir), expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    assert not np.allclose(expected, literally(X), rtol=0, atol=1e-2)


def test_one_bit_width_may_stand_for_all_layers():
    ir = load(model(), act_bits=8)
    quantizers = [node for node in ir.graph if dialect.is_quantizer(node)]
    assert len(quantizers) == 6


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ({"MatMul_1": 6}, "missing: MatMul_2"),
        ({"MatMul_1": 6, "MatMul_2": 6, "MatMul_3": 6}, "unknown: MatMul_3"),
        (1, "act_bits of 'MatMul_1' is 1"),
    ],
)
def test_bit_widths_that_do_not_fit_are_refused(bits, message):
    with pytest.raises(UsageError, match=message):
        load(model(), act_bits=bits)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("rounded", [False, True])
def test_folded_scales_compute_the_same_up_to_float32(merged, rounded):
    literal = quiet(model(merged=merged, rounded=rounded))
    folded = quiet(model(merged=merged, rounded=rounded), fold_scales=True)
    kinds = [node.op_type for node in folded.graph]
    assert "Div" not in kinds
    assert "Mul" not in kinds
    assert kinds.count("Quant") == (6 if rounded else 4)
    bound = 3e-6 * np.abs(run(literal)).max() + (float(S2) if rounded else 0.0)
    np.testing.assert_allclose(run(folded), run(literal), rtol=0, atol=bound)


def test_folded_weights_have_the_scale_as_their_step():
    folded = quiet(model(), fold_scales=True)
    weights = next(node for node in folded.graph if node.op_type == "Quant")
    quantizer = dialect.read_quantizer(weights)
    assert quantizer.scale == np.float32(S1 / A1)
    stored = dialect.constant_value(weights.inputs[0])
    np.testing.assert_array_equal(np.rint(stored / quantizer.scale), W1)


def test_folding_leaves_a_folded_graph_alone():
    folded = quiet(model(), fold_scales=True)
    assert not FoldScales()(folded).modified


def test_folding_leaves_a_value_that_is_read_elsewhere_alone():
    proto = model()
    proto.graph.output.append(helper.make_empty_tensor_value_info("d1_m"))
    ir = QonnxImporter().load(proto, ImportOptions())
    run_passes(ir, [FoldScales(), DropUnused()])  # the second layer only
    assert [node.op_type for node in ir.graph].count("Div") == 1


def test_act_bits_and_folded_scales_go_together():
    bits = {"MatMul_1": 6, "MatMul_2": -4}
    plain, folded = (
        load(model(), act_bits=bits),
        load(model(), act_bits=bits, fold_scales=True),
    )
    assert "Div" not in [node.op_type for node in folded.graph]
    bound = 3e-6 * np.abs(run(plain)).max()
    np.testing.assert_allclose(run(folded), run(plain), rtol=0, atol=bound)


def test_a_warning_on_the_command_line_is_one_line_of_ours(tmp_path):
    path = tmp_path / "hawq.onnx"
    onnx.save(model(), path)
    command = [sys.executable, "-m", "qonnx_hub", "inspect", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    (line,) = done.stderr.splitlines()
    assert line.startswith("qonnx-hub: warning: ")
    assert "has no activation quantizer" in line
