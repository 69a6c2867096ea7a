"""Recorded HAWQ models, converted and run: against what HAWQ itself computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.hawq.comparison import read_differences
from qonnx_hub_adapters.hawq.importer import HawqImporter
from qonnx_hub_adapters.protocol import ImportOptions
from tests.adapters.hawq import corpus
from tests.adapters.hawq.nets import observe

LAST_BEFORE_SOFTMAX = {
    **dict.fromkeys(("jet_w6a6", "jet_asym_pc_w4a4", "jet_w2a2"), "dense_4"),
    "jet_bn_w6a6": "bn4",
}


def converted(module, x, **options):
    given = ImportOptions(args=(x,), extra=options)
    return HawqImporter().load(module, given)


def integers(values, name, outputs):
    """(Ours, HAWQ's) integers of a QuantAct."""
    scale = values[f"{name}.act_scaling_factor"]
    return np.rint(outputs[name] / scale), np.rint(values[f"{name}.out"] / scale)


def acts(module):
    return [n for n, part in module.named_modules() if type(part).__name__ == "QuantAct"]


@pytest.mark.parametrize("name", corpus.NAMES)
def test_in_exact_mode_every_integer_is_hawqs(name, layers):
    module, values = corpus.build(name, layers), corpus.recorded(name)
    model = converted(module, torch.from_numpy(values["x"]))
    outputs = Session(model).run({"x": values["x"]}, all_tensors=True)
    assert acts(module)
    for act in acts(module):
        ours, theirs = integers(values, act, outputs)
        np.testing.assert_array_equal(ours, theirs, err_msg=act)
        np.testing.assert_array_equal(outputs[act], values[f"{act}.out"], err_msg=act)


@pytest.mark.parametrize("name", corpus.NAMES)
def test_in_exact_mode_the_output_is_bit_identical_before_a_softmax(name, layers):
    module, values = corpus.build(name, layers), corpus.recorded(name)
    model = converted(module, torch.from_numpy(values["x"]))
    outputs = Session(model).run({"x": values["x"]}, all_tensors=True)
    last = LAST_BEFORE_SOFTMAX.get(name)
    if last is None:
        np.testing.assert_array_equal(outputs["output"], values["y"])
        return
    recorded = values.get(f"{last}.out")
    if recorded is None:
        # Of a batch norm of torch's own nothing is recorded: the module says what it computes.
        recorded = observe(module, torch.from_numpy(values["x"]))[last].numpy()
    np.testing.assert_array_equal(outputs[last], recorded)
    np.testing.assert_allclose(outputs["output"], values["y"], rtol=0, atol=1e-7)


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "two quantizers"])
@pytest.mark.parametrize("name", corpus.NAMES)
def test_in_quant_mode_every_integer_of_these_models_is_hawqs_as_well(name, merge, layers):
    module, values = corpus.build(name, layers), corpus.recorded(name)
    x = torch.from_numpy(values["x"])
    model = converted(module, x, mode="quant", merge_requant=merge)
    outputs = Session(model).run({"x": values["x"]}, all_tensors=True)
    for act in acts(module):
        ours, theirs = integers(values, act, outputs)
        np.testing.assert_array_equal(ours, theirs, err_msg=act)
    bound = 5e-7 * np.abs(values["y"]).max()
    np.testing.assert_allclose(outputs["output"], values["y"], rtol=0, atol=bound)


@pytest.mark.parametrize("name", corpus.NAMES)
def test_the_report_counts_every_act(name, layers):
    module, values = corpus.build(name, layers), corpus.recorded(name)
    model = converted(module, torch.from_numpy(values["x"]), mode="quant")
    report = read_differences(model)
    assert [one.layer for one in report] == acts(module)
    assert all(one.steps == 0 and one.elements > 0 for one in report)


@pytest.mark.parametrize("name", corpus.NAMES)
def test_a_recorded_model_runs_with_another_batch(name, layers):
    module, values = corpus.build(name, layers), corpus.recorded(name)
    model = converted(module, torch.from_numpy(values["x"][:3]))
    outputs = Session(model).run({"x": values["x"]})
    np.testing.assert_allclose(outputs["output"], values["y"], rtol=0, atol=1e-7)
