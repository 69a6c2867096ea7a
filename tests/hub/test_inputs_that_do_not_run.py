"""Files whose generated inputs no graph takes: written, and said to be not compared."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub.cli import app
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub_ir.errors import ExecutionError

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def graph_of(node, inputs, constants=(), domain="", outputs=("y",)) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants],
    )
    imports = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] * bool(domain))]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def indexed(op="GatherElements") -> onnx.ModelProto:
    node = helper.make_node(op, ["x", "at"], ["y"], "pick")
    return graph_of(node, {"x": (FLOAT, [2, 2]), "at": (INT64, [2, 2])})


def shaped() -> onnx.ModelProto:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"], "reshape")
    return graph_of(node, {"x": (FLOAT, [2, 3, 4]), "shape": (INT64, [2])})


@pytest.mark.parametrize("model", [indexed(), indexed("GatherND"), shaped()])
@pytest.mark.parametrize("to", ["qonnx", "qcdq", "qlinear"])
def test_a_file_that_generated_indices_do_not_fit_is_written_and_not_compared(
    model, to, tmp_path
):
    made = tmp_path / "b.onnx"
    report = qh.convert(model, made, to=to)
    assert report.verdict is None
    [note] = [note for note in report.notes if note.startswith("not compared")]
    assert "generated inputs do not run in the source" in note
    assert f"{model.graph.node[0].op_type} '{model.graph.node[0].name}'" in note
    assert onnx.load(made).graph.node[-1].op_type == model.graph.node[0].op_type


def test_what_was_not_compared_is_no_failure_of_the_command(tmp_path):
    source, made = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(indexed(), source)
    answer = CliRunner().invoke(app, ["convert", str(source), "-o", str(made)])
    assert answer.exit_code == 0
    assert "not compared: generated inputs do not run" in " ".join(answer.output.split())


def test_the_file_written_computes_what_its_source_does_on_inputs_that_run(tmp_path):
    qh.convert(indexed(), tmp_path / "b.onnx", to="qonnx")
    feeds = {"x": np.float32([[1, 2], [3, 4]]), "at": np.int64([[0, 0], [1, 0]])}
    assert np.array_equal(qh.run(tmp_path / "b.onnx", feeds)["y"], [[1, 2], [3, 2]])


def test_a_source_of_floats_that_runs_on_nothing_is_refused_as_before(tmp_path):
    node = helper.make_node("Gather", ["x", "at"], ["y"], "pick", axis=1)
    model = graph_of(node, {"x": (FLOAT, [1, 4])}, [("at", np.int64([7]))])
    with pytest.raises(ExecutionError, match="Gather 'pick'"):
        qh.convert(model, tmp_path / "b.onnx", to="qonnx")
    assert not (tmp_path / "b.onnx").exists()


def test_a_training_operator_that_nothing_runs_is_named_as_not_compared():
    domain = "ai.onnx.preview.training"
    names = ["rate", "step", "x", "slope", "moment"]
    options = {"alpha": 0.9, "beta": 1.0, "norm_coefficient": 0.0, "mode": "standard"}
    node = helper.make_node(
        "Momentum", names, ["y", "after"], "train", domain=domain, **options
    )
    kinds = {"rate": (FLOAT, []), "step": (INT64, [])}
    kinds |= {name: (FLOAT, [3]) for name in names[2:]}
    report = qh.convert(
        graph_of(node, kinds, domain=domain, outputs=("y", "after")), to="qonnx"
    )
    assert report.verdict is Verdict.INCOMPLETE
    assert "Momentum 'train' was not run" in report.conclusion()


def test_a_model_without_inputs_runs_on_none():
    node = helper.make_node("Add", ["a", "b"], ["y"], "add")
    model = graph_of(node, {}, [("a", np.float32([1, 2])), ("b", np.float32([3, 5]))])
    assert np.array_equal(qh.run(model, {})["y"], [4, 7])
