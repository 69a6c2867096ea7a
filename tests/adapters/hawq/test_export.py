"""HAWQ nets as QONNX and as QCDQ files, run by the qonnx package and by onnxruntime."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnx_ir
import pytest

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.hawq.importer import HawqImporter
from qonnx_hub_adapters.protocol import ExportOptions, ImportOptions
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_adapters.qonnx.exporter import QonnxExporter
from tests.adapters.hawq import hawq_standin
from tests.adapters.hawq.nets import (
    Branches,
    ConvNet,
    JetTagger,
    Residual,
    calibrated,
    observe,
    sample,
)

NETS = [JetTagger, ConvNet, Residual, Branches]
MODES = ["exact", "quant"]
SOFTMAX = 1e-7  # onnxruntime's and torch's softmax differ in the last bits


def loaded(net, mode):
    module = calibrated(net, hawq_standin)
    options = ImportOptions(args=(sample(net),), extra={"mode": mode})
    return module, HawqImporter().load(module, options)


def act_values(module, model, x):
    """(Name in the graph, HAWQ's own integers, step) of each QuantAct."""
    seen = observe(module, x)
    names = {value.name for node in model.graph for value in node.outputs}
    for name, part in module.named_modules():
        if type(part).__name__ == "QuantAct" and name in names:
            scale = part.act_scaling_factor.numpy()
            yield name, np.rint(seen[name].numpy() / scale), scale


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("net", NETS)
def test_the_qonnx_package_executes_the_file_equally(net, mode):
    pytest.importorskip("qonnx")
    with warnings.catch_warnings():
        # What the oracle warns about while it is imported and runs is not ours to mend.
        warnings.simplefilter("ignore")
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
        from qonnx.util.cleanup import cleanup_model

        module, model = loaded(net, mode)
        artifact = QonnxExporter().export(model, ExportOptions())
        x = sample(net, 4)
        proto = onnx_ir.to_proto(artifact.model)
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = len(x)
        del proto.graph.value_info[:]
        wrapper = cleanup_model(ModelWrapper(proto))
        feed, result = wrapper.graph.input[0].name, wrapper.graph.output[0].name
        answer = execute_onnx(wrapper, {feed: x.numpy()})[result]
    expected = observe(module, x)[""].numpy()
    ours = Session(model).run({"x": x.numpy()})["output"]
    bound = SOFTMAX if net is JetTagger else 0.0
    if mode == "quant":
        bound = max(bound, 1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(answer, expected, rtol=0, atol=bound)
    np.testing.assert_allclose(answer, ours, rtol=0, atol=bound)


def ort_session(ort, proto):
    options = ort.SessionOptions()
    # The default optimizations fuse quantized operators, which changes numbers by design.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("net", NETS)
def test_onnxruntime_runs_the_qcdq_file_equally(net, mode):
    ort = pytest.importorskip("onnxruntime")
    module, model = loaded(net, mode)
    artifact = QcdqExporter().export(model, ExportOptions())
    proto = onnx_ir.to_proto(artifact.model)
    onnx.checker.check_model(proto, full_check=True)
    assert {node.domain for node in proto.graph.node} == {""}
    ort.InferenceSession(proto.SerializeToString())  # default options load it
    x = sample(net, 16)
    wanted = list(act_values(module, artifact.model, x))
    for name, _, _ in wanted:
        proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    answers = ort_session(ort, proto).run(None, {"x": x.numpy()})
    expected = observe(module, x)[""].numpy()
    bound = SOFTMAX if net is JetTagger else 0.0
    if mode == "quant":
        bound = max(bound, 1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(answers[0], expected, rtol=0, atol=bound)
    compared = 0
    for (name, integers, scale), value in zip(wanted, answers[1:], strict=True):
        steps = np.abs(np.rint(value / scale) - integers)
        wide = mode == "quant" and name == "sum_1"
        assert steps.max() <= int(wide), name
        compared += 1
    assert compared >= 4


@pytest.mark.parametrize("net", NETS)
def test_every_quantizer_of_the_qcdq_file_is_exact(net):
    _, model = loaded(net, "exact")
    records = QcdqExporter().export(model, ExportOptions()).quantizers
    assert records
    assert all(record.exact for record in records)
