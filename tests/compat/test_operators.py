"""Operators of QONNX' general domain, and operators that other distributions bring."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub_ir.operators import foreign
from qonnx_hub_ir.operators.foreign import ForeignOperator
from tests.compat.models import DOMAIN, info, model

RNG = np.random.default_rng(2)


def single(
    op: str, shape, out, inputs=("x",), constants=(), domain: str = DOMAIN, **attributes
):
    node = helper.make_node(
        op, list(inputs), ["y"], name=f"{op}_0", domain=domain, **attributes
    )
    proto = model([node], [info("x", shape)], [info("y", out)], list(constants))
    if domain != DOMAIN:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    return proto


def test_an_average_pool_of_integers_shifts_its_sums():
    # Sum of four 4-bit numbers, at most 60: 6 bits, shifted by 2 for 4 bits of output.
    proto = single(
        *("QuantAvgPool2d", [1, 1, 2, 2], None),
        stride=2,
        kernel=2,
        ibits=4,
        obits=4,
        signed=0,
    )
    x = np.array([[[[15, 15], [15, 14]]]], dtype=np.float32)
    assert qh.run(proto, {"x": x})["y"].tolist() == [[[[14.0]]]]


def test_an_average_pool_of_integers_shifts_negative_sums_down():
    proto = single(
        *("QuantAvgPool2d", [1, 1, 2, 2], None),
        stride=2,
        kernel=2,
        ibits=4,
        obits=4,
        signed=1,
    )
    x = np.array([[[[-1, 0], [0, 0]]]], dtype=np.float32)
    assert qh.run(proto, {"x": x})["y"].tolist() == [[[[-1.0]]]]


def test_channels_may_be_last():
    proto = single(
        "MaxPoolNHWC", [1, 2, 2, 3], None, kernel_shape=[2, 2], pads=[0] * 4, strides=[2, 2]
    )
    x = RNG.normal(size=(1, 2, 2, 3)).astype(np.float32)
    loaded = qh.load(proto)
    assert list(loaded.graph.outputs[0].shape) == [1, 1, 1, 3]
    assert np.array_equal(qh.run(loaded, {"x": x})["y"][0, 0, 0], x.max(axis=(0, 1, 2)))


def test_a_product_of_bits_counts_equal_ones():
    from tests.compat.models import constant

    w = RNG.integers(0, 2, size=(8, 3))
    x = RNG.integers(0, 2, size=(2, 8)).astype(np.float32)
    proto = single("XnorPopcountMatMul", [2, 8], [2, 3], ("x", "w"), [constant("w", w)])
    want = (x[:, :, None] == w[None]).sum(axis=1)
    assert np.array_equal(qh.run(proto, {"x": x})["y"], want)


def test_a_marker_hands_on_what_it_reads():
    x = RNG.normal(size=(1, 3)).astype(np.float32)
    proto = single("DebugMarker", [1, 3], [1, 3], export_debug_name="d")
    assert np.array_equal(qh.run(proto, {"x": x})["y"], x)


def test_a_marker_makes_a_tensor_of_its_name_in_the_full_context():
    from qonnx_hub.compat import execute_onnx

    x = RNG.normal(size=(1, 3)).astype(np.float32)
    proto = single("DebugMarker", [1, 3], [1, 3], export_debug_name="d")
    assert np.array_equal(execute_onnx(proto, {"x": x}, True)["d"], x)


def test_a_partition_runs_the_file_that_it_names(tmp_path):
    inner = single("DebugMarker", [1, 3], [1, 3], export_debug_name="d")
    onnx.save(inner, tmp_path / "inner.onnx")
    proto = single("GenericPartition", [1, 3], [1, 3], model=str(tmp_path / "inner.onnx"))
    x = RNG.normal(size=(1, 3)).astype(np.float32)
    assert np.array_equal(qh.run(proto, {"x": x})["y"], x)


def test_a_rule_of_an_unknown_attribute_is_a_rule_of_the_model():
    from qonnx_hub_ir.errors import InvalidModelError

    with pytest.raises(InvalidModelError, match="QuantAvgPool2d"):
        qh.load(single("QuantAvgPool2d", [1, 1, 2, 2], None, stride=2))


CASES = [
    ("QuantAvgPool2d", layout, {"stride": s, "kernel": k, "ibits": 4, "obits": o, "signed": g})
    for layout in ("NCHW", "NHWC")
    for s, k, o, g in ((1, 2, 4, 0), (2, 3, 2, 1), (2, 2, 8, 1))
]


@pytest.mark.parametrize(("op", "layout", "attributes"), CASES)
def test_the_qonnx_package_computes_the_same(op, layout, attributes):
    wrapper = pytest.importorskip("qonnx.core.modelwrapper").ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    shape = [2, 3, 7, 6] if layout == "NCHW" else [2, 7, 6, 3]
    proto = single(op, shape, None, data_layout=layout, **attributes)
    low = -8 if attributes["signed"] else 0
    x = RNG.integers(low, low + 16, size=shape).astype(np.float32)
    want = execute_onnx(wrapper(proto).transform(InferShapes()), {"x": x})["y"]
    assert np.array_equal(qh.run(proto, {"x": x})["y"], want)


def _times(attributes):
    return lambda x: x * np.float32(attributes.get("k", 2))


OPERATORS = (ForeignOperator("my.ops", "Times", _times, lambda sizes, attributes: [sizes[0]]),)


@pytest.fixture
def registered(monkeypatch):
    point = EntryPoint("mine", "some_package:OPERATORS", foreign.GROUP)
    monkeypatch.setattr(foreign, "entry_points", lambda group: (point,))
    monkeypatch.setitem(sys.modules, "some_package", SimpleNamespace(OPERATORS=OPERATORS))
    foreign.foreign_operators.cache_clear()
    yield
    foreign.foreign_operators.cache_clear()


@pytest.mark.usefixtures("registered")
def test_an_operator_of_another_distribution_runs_and_tells_its_shapes():
    proto = single("Times", [1, 4], None, domain="my.ops", k=3.0)
    loaded = qh.load(proto)
    assert list(loaded.graph.outputs[0].shape) == [1, 4]
    x = np.array([[1, -2, 3, 4]], dtype=np.float32)
    assert qh.run(loaded, {"x": x})["y"].tolist() == [[3, -6, 9, 12]]


@pytest.mark.usefixtures("registered")
def test_an_operator_of_another_distribution_survives_cleanup():
    proto = single("Times", [1, 4], [1, 4], domain="my.ops", k=3.0)
    done = qh.transform(proto, ["cleanup"], check=False).model
    assert [node.op_type for node in done.graph] == ["Times"]


def test_an_operator_that_nobody_has_is_refused_when_run():
    from qonnx_hub_ir.errors import UnsupportedGraphError

    proto = single("Nothing", [1, 4], [1, 4], domain="nobody.ops")
    with pytest.raises(UnsupportedGraphError, match="Nothing"):
        qh.run(proto, {"x": np.zeros((1, 4), dtype=np.float32)})


def test_a_class_of_the_registry_of_the_qonnx_package_runs():
    base = pytest.importorskip("qonnx.custom_op.base").CustomOp
    from qonnx.custom_op.registry import add_op_to_domain

    class Thrice(base):
        def get_nodeattr_types(self):
            return {"k": ("i", False, 3)}

        def make_shape_compatible_op(self, model):
            raise NotImplementedError

        def infer_node_datatype(self, model):
            raise NotImplementedError

        def verify_node(self):
            return []

        def execute_node(self, context, graph):
            # It changes its own node, as some classes do, and its input.
            self.onnx_node.op_type = "Changed"
            context[self.onnx_node.input[0]] *= self.get_nodeattr("k")
            assert context[self.onnx_node.output[0]].shape == (1, 4)
            context[self.onnx_node.output[0]] = context[self.onnx_node.input[0]]

    add_op_to_domain("our.ops", Thrice)
    x = np.array([[1, -2, 3, 4]], dtype=np.float32)
    proto = single("Thrice", [1, 4], [1, 4], domain="our.ops")
    for _ in range(2):
        assert qh.run(proto, {"x": x})["y"].tolist() == [[3, -6, 9, 12]]
    assert x.tolist() == [[1, -2, 3, 4]]


def test_the_version_that_a_file_imports_chooses_the_class():
    base = pytest.importorskip("qonnx.custom_op.base").CustomOp
    from qonnx.custom_op.registry import add_op_to_domain

    def times(name, factor):
        def execute(self, context, graph):
            node = self.onnx_node
            context[node.output[0]] = factor * context[node.input[0]]

        held = {
            "get_nodeattr_types": lambda self: {},
            "make_shape_compatible_op": lambda self, model: None,
            "infer_node_datatype": lambda self, model: None,
            "verify_node": lambda self: [],
            "execute_node": execute,
        }
        return type(name, (base,), held)

    add_op_to_domain("versions.ops", times("Scaled", 2))
    add_op_to_domain("versions.ops", times("Scaled_v3", 5))
    x = np.ones((1, 4), dtype=np.float32)
    for version, factor in ((1, 2), (2, 2), (3, 5), (4, 5)):
        proto = single("Scaled", [1, 4], [1, 4], domain="versions.ops")
        for one in proto.opset_import:
            if one.domain == "versions.ops":
                one.version = version
        assert np.array_equal(qh.run(proto, {"x": x})["y"], factor * x)


def test_the_command_line_runs_operators_of_a_module_that_is_named(tmp_path):
    pytest.importorskip("qonnx.custom_op.base")
    (tmp_path / "shop.py").write_text(
        "from qonnx.custom_op.base import CustomOp\n"
        "class Twice(CustomOp):\n"
        "    def get_nodeattr_types(self): return {}\n"
        "    def make_shape_compatible_op(self, model): pass\n"
        "    def infer_node_datatype(self, model): pass\n"
        "    def verify_node(self): return []\n"
        "    def execute_node(self, context, graph):\n"
        "        node = self.onnx_node\n"
        "        context[node.output[0]] = 2 * context[node.input[0]]\n"
    )
    onnx.save(single("Twice", [1, 4], [1, 4], domain="shop"), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=np.ones((1, 4), dtype=np.float32))
    folders = os.pathsep.join([str(tmp_path), *sys.path])
    call = [sys.executable, "-m", "qonnx_hub"]
    verb = ["run", "m.onnx", "--inputs", "x.npz", "--output", "y.npz"]
    for options, code in (
        ([], 3),
        (["--operators", "nobody"], 2),
        (["--operators", "shop"], 0),
    ):
        done = subprocess.run(
            [*call, *options, *verb],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": folders},
            capture_output=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
    assert np.load(tmp_path / "y.npz")["y"].tolist() == [[2, 2, 2, 2]]
