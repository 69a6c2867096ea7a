"""Operators that nothing here knows, in the verbs: passed through, run where a runtime can."""

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub.cli import app
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub_ir.errors import ConversionError, UnsupportedGraphError
from tests.fuzz.planted_equalities import renamed
from tests.ir.test_opaque import around
from tests.support import DOMAIN, model_of, quant_node

CONTRIB = "com.microsoft"
X = np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32)


def gelu() -> onnx.ModelProto:
    """Return a file with an operator that only onnxruntime has, behind a quantizer."""
    nodes = [
        quant_node("x", "q"),
        helper.make_node("BiasGelu", ["q", "bias"], ["y"], "gelu", domain=CONTRIB),
    ]
    bias = np.arange(4, dtype=np.float32)
    constants = {"s": 0.25, "z": 0.0, "b": 4.0, "bias": bias}
    return model_of(nodes, {"x": (1, 4)}, ["y"], constants, domains=(DOMAIN, CONTRIB))


def on_onnxruntime(model, feeds):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


@pytest.mark.parametrize("to", ["qonnx", "qcdq", "qlinear"])
def test_a_node_that_nothing_can_run_is_written_as_it_was_and_said_to_be_not_compared(
    to, tmp_path
):
    source, made = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(around("MyOp", "com.example"), source)
    report = qh.convert(source, made, to=to)
    assert report.verdict is Verdict.INCOMPLETE
    assert "MyOp 'foreign' was not run" in report.conclusion()
    assert {output.verdict for output in report.check.outputs} == {Verdict.EQUAL}
    assert not report
    assert any("1 com.example::MyOp" in note for note in report.notes)
    (node,) = [n for n in onnx.load(made).graph.node if n.op_type == "MyOp"]
    assert node.domain == "com.example"
    assert node.attribute[0].i == 3


def test_a_node_that_nothing_can_run_is_named_by_run():
    with pytest.raises(UnsupportedGraphError, match=r"com\.example::MyOp"):
        qh.run(around("MyOp", "com.example"), {"x": X})


def test_an_operator_that_only_onnxruntime_has_is_run_by_it():
    pytest.importorskip("onnxruntime")
    bias = np.arange(4, dtype=np.float32)
    stairs = (np.clip(np.rint(X / 0.25), -8, 7) * 0.25).astype(np.float32)
    node = helper.make_node("BiasGelu", ["x", "bias"], ["y"], domain=CONTRIB)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(bias, "bias")],
    )
    imports = [helper.make_opsetid("", 19), helper.make_opsetid(CONTRIB, 1)]
    alone = helper.make_model(graph, opset_imports=imports, ir_version=9)
    wanted = on_onnxruntime(alone.SerializeToString(), {"x": stairs})
    np.testing.assert_array_equal(qh.run(gelu(), {"x": X})["y"], wanted)


@pytest.mark.parametrize("to", ["qcdq", "qlinear"])
def test_a_conversion_around_such_a_node_is_compared(to, tmp_path):
    pytest.importorskip("onnxruntime")
    report = qh.convert(gelu(), tmp_path / "b.onnx", to=to)
    assert report.check is not None
    wanted = qh.run(gelu(), {"x": X})["y"]
    np.testing.assert_allclose(
        on_onnxruntime(str(tmp_path / "b.onnx"), {"x": X}), wanted, 1e-6
    )


def test_a_self_contained_file_keeps_such_a_node(tmp_path):
    pytest.importorskip("onnxruntime")
    qh.convert(gelu(), tmp_path / "b.onnx", to="qonnx", self_contained=True)
    wanted = qh.run(gelu(), {"x": X})["y"]
    np.testing.assert_allclose(
        on_onnxruntime(str(tmp_path / "b.onnx"), {"x": X}), wanted, 1e-6
    )


def test_samples_do_not_pass_an_unknown_node_together():
    pytest.importorskip("onnxruntime")
    many = np.concatenate([X, -X, 2 * X])
    single = [qh.run(gelu(), {"x": row[None]})["y"] for row in many]
    np.testing.assert_array_equal(qh.run(gelu(), {"x": many})["y"], np.concatenate(single))


def foreign() -> onnx.ModelProto:
    return around("MyOp", "com.example")


def changed(position: int, name: str, value: object) -> onnx.ModelProto:
    """Return the file with one attribute of one node changed."""
    model = foreign()
    kept = [a for a in model.graph.node[position].attribute if a.name != name]
    del model.graph.node[position].attribute[:]
    model.graph.node[position].attribute.extend([*kept, helper.make_attribute(name, value)])
    return model


def test_what_is_around_a_node_that_nothing_runs_is_compared_and_never_called_equal():
    result = qh.check(foreign(), foreign())
    assert result.verdict is Verdict.INCOMPLETE
    assert not result
    assert "MyOp 'foreign' was not run" in result.reason
    assert [(o.name, o.verdict) for o in result.outputs] == [
        ("y", Verdict.EQUAL),
        ("MyOp:foreign.input0", Verdict.EQUAL),
    ]
    assert any("MyOp 'foreign' gives equal" in a for a in result.certificate["assumptions"])


@pytest.mark.parametrize(("position", "output"), [(0, "MyOp:foreign.input0"), (2, "y")])
def test_a_difference_before_or_behind_a_node_that_nothing_runs_is_seen(position, output):
    result = qh.check(foreign(), changed(position, "rounding_mode", "FLOOR"))
    assert result.verdict is Verdict.DIFFERENT
    assert "in the place of MyOp 'foreign'" in result.reason
    assert [o.name for o in result.outputs if o.verdict is Verdict.DIFFERENT] == [output]


def test_a_conversion_that_changes_what_a_node_that_nothing_runs_reads_is_refused(monkeypatch):
    from qonnx_hub.conversion import convert

    right = convert._export

    def spoiled(model, exporter, options):
        made = right(model, exporter, options)
        quant = next(n for n in made.model.graph if n.op_type == "DequantizeLinear")
        scale = quant.inputs[1]
        scale.const_value = onnx_ir.tensor(scale.const_value.numpy() * 2)
        return made

    monkeypatch.setattr(convert, "_export", spoiled)
    with pytest.raises(ConversionError, match="computes other values"):
        qh.convert(foreign(), None, to="qcdq")


def test_a_conversion_is_not_compared_where_nothing_tells_such_nodes_apart(monkeypatch):
    from qonnx_hub.equivalence import opaque_nodes

    monkeypatch.setattr(opaque_nodes, "_cut", lambda *_: False)
    report = qh.convert(foreign(), None, to="qcdq")
    assert report.verdict is None
    assert any("nothing here runs MyOp 'foreign'" in note for note in report.notes)


def test_the_command_line_says_that_what_no_one_ran_is_not_compared(tmp_path):
    source = tmp_path / "a.onnx"
    onnx.save(foreign(), source)
    words = ["convert", str(source), "-o", str(tmp_path / "b.onnx"), "--to", "qcdq"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "INCOMPLETE" in done.output
    assert "MyOp 'foreign'" in done.output
    assert (tmp_path / "b.onnx").exists()


def test_a_conversion_around_a_node_that_nothing_runs_can_be_checked(tmp_path):
    qh.convert(foreign(), tmp_path / "b.onnx", to="qcdq")
    result = qh.check(foreign(), tmp_path / "b.onnx")
    assert result.verdict is Verdict.INCOMPLETE
    assert {o.verdict for o in result.outputs} == {Verdict.EQUAL}


def test_another_attribute_of_a_node_that_nothing_runs_is_no_equal_function():
    with pytest.raises(UnsupportedGraphError, match=r"com\.example::MyOp 'foreign'"):
        qh.check(foreign(), changed(1, "k", 4))


def test_nodes_that_nothing_runs_and_no_name_tells_apart_are_not_paired():
    twice = foreign()
    twice.graph.node.insert(
        1, helper.make_node("MyOp", ["q"], ["more"], "more", domain="com.example", k=3)
    )
    twice.graph.node.append(quant_node("more", "z2"))
    twice.graph.output.append(helper.make_tensor_value_info("z2", TensorProto.FLOAT, None))
    assert qh.check(twice, twice).verdict is Verdict.INCOMPLETE
    other = onnx.ModelProto.FromString(twice.SerializeToString())
    renamed(other, np.random.default_rng(0))
    with pytest.raises(UnsupportedGraphError, match="MyOp"):
        qh.check(twice, other)
