"""torchao's PT2E: prepared and converted graphs, exported programs and their files."""

import copy
import functools

import numpy as np
import pytest
import torch
from torchao.quantization.pt2e import move_exported_model_to_eval
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

import qonnx_hub as qh
from qonnx_hub_adapters.pytorch.importer import PyTorchImporter
from tests.adapters.pytorch.kit import (
    FUSED,
    PLAIN,
    PTQ,
    Mixed,
    answers,
    load,
    normal_inputs,
    pt2e,
    quantizer_nodes,
)


@functools.cache
def _converted(bits, symmetric):
    return convert_pt2e(pt2e(bits, PTQ, symmetric=symmetric))


def converted(bits, *, symmetric=False):
    return copy.deepcopy(_converted(bits, symmetric))


def in_evaluation(model):
    own = copy.deepcopy(model)
    move_exported_model_to_eval(own)
    for child in own.modules():
        if hasattr(child, "observer_enabled"):
            child.observer_enabled.zero_()
    return own


def torch_answer(model, x):
    """The graph insists on batches of four."""
    with torch.no_grad():
        parts = [model(torch.from_numpy(x[k : k + 4])).numpy() for k in range(0, len(x), 4)]
    return np.concatenate(parts)


def close(ours, expected):
    """Whether all but flipped samples agree to the order of sums; see test_fx."""
    differs = np.abs(ours - expected) > 2e-6 * np.abs(expected).max()
    return np.mean(differs.any(axis=1)) <= 0.25 and np.unique(expected).size > 2


@pytest.mark.parametrize(("bits", "fake", "symmetric"), [(8, PLAIN, False), (4, FUSED, True)])
def test_a_prepared_graph_is_torch(bits, fake, symmetric):
    model = pt2e(bits, fake, symmetric=symmetric)
    x = normal_inputs(16)
    ours, own = answers(model, x)
    expected = torch_answer(in_evaluation(model), x)
    assert np.array_equal(own, expected)
    assert close(ours, expected)


@pytest.mark.parametrize(("bits", "symmetric"), [(8, False), (4, True), (2, False)])
def test_a_converted_graph_is_torch(bits, symmetric):
    model = converted(bits, symmetric=symmetric)
    x = normal_inputs(16) * 3
    ours, _ = answers(model, x)
    assert close(ours, torch_answer(in_evaluation(model), x))


@pytest.mark.slow
def test_a_graph_converted_after_training_is_torch():
    # torchao itself takes half a minute to fold the batch norms.
    model = convert_pt2e(pt2e(4, PLAIN))
    x = normal_inputs(16)
    ours, _ = answers(model, x)
    assert close(ours, torch_answer(in_evaluation(model), x))


def test_a_range_of_four_bits_in_eight_bit_integers_saturates():
    # The range that torch's own ONNX exporter drops: inputs far beyond it tell.
    model = in_evaluation(converted(4))
    x = normal_inputs(8) * 50
    ours, _ = answers(model, x)
    expected = torch_answer(model, x)
    assert np.abs(ours - expected).max() <= 2e-6 * np.abs(expected).max()


def test_integer_weights_keep_the_bits_of_their_range():
    ir = load(converted(4), None)
    weights = {n.name: n for n in quantizer_nodes(ir) if n.inputs[0].is_initializer()}
    assert set(weights) == {"conv.weight_quant", "depthwise.weight_quant", "fc.weight_quant"}
    for node in weights.values():
        assert float(node.inputs[3].const_value.numpy()) == 4.0
        assert node.attributes["narrow"].value == 1


def test_observers_alone_quantize_nothing():
    ir = load(pt2e(4, PTQ), None)
    assert not quantizer_nodes(ir)


def test_a_traced_graph_needs_no_sample():
    ir = load(converted(4), None)
    assert [list(value.shape) for value in ir.graph.inputs] == [[4, 3, 8, 8]]


def test_an_exported_program_and_its_file_are_the_same_model(tmp_path):
    model = in_evaluation(converted(4))
    program = torch.export.export(model, (torch.zeros(4, 3, 8, 8),))
    path = tmp_path / "net.pt2"
    torch.export.save(program, path)
    x = normal_inputs(8)
    expected = torch_answer(model, x)
    for source in (program, path):
        ir = qh.load(source)
        assert close(qh.run(ir, {"x": x})["output"], expected)
        own = PyTorchImporter().run_source(source, {"x": x})
        assert own is not None
        assert np.array_equal(own["output"], expected)


def test_a_program_with_fused_quantizers_is_read_where_observers_are_off():
    model = in_evaluation(pt2e(4, FUSED))
    program = torch.export.export(model, (torch.zeros(4, 3, 8, 8),), strict=False)
    ir = load(program, None)
    x = normal_inputs(8)
    assert close(qh.run(ir, {"x": x})["output"], torch_answer(model, x))
    assert len(quantizer_nodes(ir)) == 6


def test_a_program_with_an_open_batch_keeps_it_open():
    net = Mixed().eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        net, (torch.zeros(4, 3, 8, 8),), dynamic_shapes=({0: batch},)
    )
    ir = load(program, None)
    x = normal_inputs(7)
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    answer = qh.run(ir, {"x": x})["output"]
    assert np.abs(answer - expected).max() <= 2e-6 * np.abs(expected).max()
