"""Quantizer passes keep every output of public models bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_ir import Model, Node

import qonnx_hub as qh
from qonnx_hub import passes
from qonnx_hub.equivalence.inputs.generate import generate_inputs
from qonnx_hub_ir import dialect
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.passes import PruneChannels
from qonnx_hub_ir.passes.channels import prune_channels
from qonnx_hub_ir.passes.channels.channel_layers import LAYERS, output_channels
from qonnx_hub_ir.passes.channels.channel_plan import ChannelPlan
from qonnx_hub_ir.validity import verify
from tests.support import SHARED, corpus, needs_shared, shared_models

BACK = ("quant_to_multithreshold", "multithreshold_to_quant")

SAME = (
    ("cleanup",),
    ("remove_identity",),
    ("remove_redundant_quant",),
    ("fold_quantized_constants",),
    ("fold_quantized_constants:form=floats",),
    ("extract_scale",),
    ("quant_to_multithreshold",),
    BACK,
    ("give_names",),
)
"""Passes that promise the very same values, one after the other."""

FOLDERS = [*corpus("qonnx"), *corpus("qcdq")]
FILES = [*shared_models(), *(folder / "model.onnx" for folder in FOLDERS)]


def name_of(path: Path) -> str:
    return path.parent.name if path.name == "model.onnx" else path.stem


def outputs(model: Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return list(qh.run(model, feeds).values())


@needs_shared
@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_pass_keeps_every_output(path: Path) -> None:
    model = qh.load(path)
    feeds = generate_inputs(model, 1)
    wanted = outputs(model, feeds)
    for steps in SAME:
        after = model.clone()
        records = passes.run(after, steps)
        assert all(record.effect is Effect.EXACT for record in records)
        if not any(record.modified for record in records):
            continue
        assert verify(after) == []
        assert not passes.run(after, steps[-1:])[0].modified, steps
        found = outputs(after, feeds)
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=str(steps))
        if steps == BACK:
            assert [n.op_type for n in after.graph] == [n.op_type for n in model.graph]
            assert [n.name for n in after.graph] == [n.name for n in model.graph]


FIRES = {
    "remove_identity": "corpus/brevitas/cnv_2w2a__qonnx_ts/model.onnx",
    "remove_redundant_quant": "models/hls4ml_examples/branched_model_ch_last.onnx",
    "fold_quantized_constants": "models/zoo/TFC_2W2A.onnx",
    "extract_scale": "models/zoo/kwsmlp_w3a3.onnx",
    "quant_to_multithreshold": "models/zoo/TFC_1W1A.onnx",
    "give_names": "models/zoo/qkeras_jettagging.onnx",
}


@needs_shared
@pytest.mark.parametrize("name", FIRES)
def test_the_pass_finds_something_in_a_public_model(name: str) -> None:
    (record,) = passes.run(qh.load(SHARED / FIRES[name]), [name])
    assert record.modified


@needs_shared
@pytest.mark.parametrize("name", ["TFC_1W1A", "kwsmlp_w3a3", "qkeras_jettagging"])
def test_a_model_split_in_the_middle_is_the_same_merged(name: str) -> None:
    model = qh.load(SHARED / "models" / "zoo" / f"{name}.onnx")
    feeds = generate_inputs(model, 2)
    values = [v for node in model.graph for v in node.outputs if node.op_type == "MatMul"]
    first, second = passes.split_model(model, [str(values[1].name)])
    middle = qh.run(first, feeds)
    wanted = outputs(model, feeds)
    np.testing.assert_array_equal(outputs(second, middle)[0], wanted[0])
    np.testing.assert_array_equal(
        outputs(passes.merge_models(first, second), feeds)[0], wanted[0]
    )


def with_masked_readers(model: Model, layer: str, mask: np.ndarray) -> Model:
    """A copy in which every layer gets zeros for the channels that a mask removes."""
    copy = model.clone()
    node = next(node for node in copy.graph if node.name == layer)
    plan = ChannelPlan(copy.graph, {node: mask})
    for step in list(copy.graph):
        prune_channels._follow(step, plan)
    for reader in [n for n in copy.graph if (n.domain, n.op_type) in LAYERS]:
        value = reader.inputs[0]
        kept = None if value is None else plan.kept.get(value)
        if value is None or kept is None:
            continue
        shape = [-1 if axis == kept.axis else 1 for axis in range(len(value.shape or ()))]
        factor = kept.mask.astype(np.float32).reshape(shape)
        constant = dialect.add_initializer(copy.graph, f"{reader.name}_mask", factor)
        times = Node("", "Mul", [value, constant], name=f"{reader.name}_times")
        times.outputs[0].name = f"{reader.name}_masked"
        reader.prepend(times)
        reader.replace_input_with(0, times.outputs[0])
    passes.run(copy, ["infer_shapes"])
    return copy


@needs_shared
@pytest.mark.parametrize(
    ("path", "layers"),
    [
        ("models/zoo/TFC_2W2A.onnx", 3),
        ("models/zoo/kwsmlp_w3a3.onnx", 3),
        ("models/zoo/qkeras_jettagging.onnx", 3),
        ("models/qonnx_data/espcn_nn_resize_quant.onnx", 3),
        ("models/qonnx_data/residual_block_clean.onnx", 1),
        ("corpus/brevitas/cnv_2w2a__qonnx_ts/model.onnx", 8),
    ],
)
def test_a_pruned_model_is_the_one_whose_layers_get_zeros(path: str, layers: int) -> None:
    model = qh.load(SHARED / path)
    passes.run(model, ["fold_weight_layout"])
    feeds = generate_inputs(model, 1)
    pruned = 0
    for node in [n for n in model.graph if (n.domain, n.op_type) in LAYERS]:
        channels = output_channels(node) or 0
        mask = np.arange(channels) % 3 != 1
        after = model.clone()
        try:
            passes.run(after, [PruneChannels({str(node.name): mask})])
        except PassError:
            continue
        pruned += 1
        wanted = outputs(with_masked_readers(model, str(node.name), mask), feeds)
        for one, other in zip(outputs(after, feeds), wanted, strict=True):
            # Sums of fewer terms may be formed in another order: their last bits differ.
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())
    assert pruned == layers


@needs_shared
def test_integers_and_thresholds_run_on_the_qonnx_package(tmp_path: Path) -> None:
    pytest.importorskip("qonnx", reason="the qonnx package executes the model")
    path = SHARED / "models" / "zoo" / "TFC_2W2A.onnx"
    report = qh.transform(path, ["thresholds"], tmp_path / "out.onnx")
    kinds = {node.op_type for node in report.model.graph}
    assert "MultiThreshold" in kinds
    assert not kinds & {"Quant", "BipolarQuant"}
    # Inputs, and what qonnx 1.0.0 made of the untouched model, one sample after the other.
    with np.load(path.with_name("TFC_2W2A.io.npz")) as recorded:
        x, y = recorded["x"][:4], recorded["y"][:4]
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx

        wrapped = ModelWrapper(str(tmp_path / "out.onnx"))
        (name,) = [value.name for value in wrapped.graph.input]
        for sample, wanted in zip(x, y, strict=True):
            (found,) = execute_onnx(wrapped, {name: sample}).values()
            np.testing.assert_array_equal(found, wanted)
