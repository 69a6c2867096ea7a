"""Checkpoints: into a module that a builder makes, and into a chain of layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.hawq.importer import HawqImporter
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError, UsageError
from tests.adapters.hawq import corpus
from tests.adapters.hawq import hawq_standin as standin
from tests.adapters.hawq.nets import (
    Branches,
    ConvNet,
    JetTagger,
    Residual,
    calibrated,
    observe,
    sample,
)

CHAIN = [
    *("quant_input", "dense_1", "relu", "quant_act_1", "dense_2", "relu", "quant_act_2"),
    *("dense_3", "relu", "quant_act_3", "dense_4", "softmax"),
]


def load(path, *args, **options):
    return HawqImporter().load(str(path), ImportOptions(args=args, extra=options))


def run(model, x):
    return Session(model).run({"x": np.asarray(x)}, all_tensors=True)


def saved(module, path, prefix="", **beside):
    """A training checkpoint."""
    state = {prefix + name: value for name, value in module.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3, **beside}, path)
    return path


def saved_quantized(module, path):
    """HAWQ's quantized checkpoint: one table for each kind of buffer."""
    state = module.state_dict()
    kinds = ("convbn_scaling_factor", "fc_scaling_factor", "weight_integer", "bias_integer")
    kinds = (*kinds, "act_scaling_factor")
    torch.save({kind: {k: v for k, v in state.items() if kind in k} for kind in kinds}, path)
    return path


def used(net):
    """A calibrated net that has run once with its ranges fixed, as after validation."""
    module = calibrated(net, standin)
    observe(module, sample(net))
    return module


def assert_same(model, module, net):
    x = sample(net, 16)
    seen, outputs = observe(module, x), run(model, x)
    compared = 0
    for name, part in module.named_modules():
        if type(part).__name__ == "QuantAct" and name in outputs:
            np.testing.assert_array_equal(outputs[name], seen[name].numpy(), err_msg=name)
            compared += 1
    assert compared >= 4
    bound = 1e-7 if net is JetTagger else 0.0
    np.testing.assert_allclose(outputs["output"], seen[""].numpy(), rtol=0, atol=bound)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("net", [JetTagger, ConvNet, Residual, Branches])
def test_a_checkpoint_and_a_builder_give_the_trained_net(net, prefix, tmp_path):
    module = used(net)
    path = saved(module, tmp_path / "checkpoint.pth.tar", prefix)
    model = load(path, sample(net), builder=lambda: net(standin))
    assert_same(model, module, net)


@pytest.mark.parametrize("name", corpus.NAMES)
def test_recorded_checkpoints_fit_freshly_built_nets(name, layers):
    values = corpus.recorded(name)
    x = torch.from_numpy(values["x"])
    path = corpus.state_path(name)
    model = load(path, x, builder=lambda: corpus.fresh(name, layers))
    outputs = run(model, values["x"])
    acts = [key.removesuffix(".act_scaling_factor") for key in values if "act_scaling" in key]
    assert acts
    for act in acts:
        scale = values[f"{act}.act_scaling_factor"]
        ours, theirs = outputs[act] / scale, values[f"{act}.out"] / scale
        np.testing.assert_array_equal(np.rint(ours), np.rint(theirs), err_msg=act)


def test_layers_with_dots_in_their_names_are_loaded(tmp_path):
    def build():
        net = JetTagger(standin)
        net._modules = {name.replace("_", "."): part for name, part in net._modules.items()}

        def forward(x):
            x, scale = net._modules["quant.input"](x)
            return net._modules["dense.1"](x, scale)

        net.forward = forward
        return net

    module = used(JetTagger)
    x = sample(JetTagger)
    state = {}
    for name, value in module.state_dict().items():
        owner, _, key = name.partition(".")
        state[f"{owner.replace('_', '.')}.{key}"] = value
    torch.save(state, tmp_path / "c.pt")
    model = load(tmp_path / "c.pt", x, builder=build)
    expected = observe(module, x)["dense_1"].numpy()
    np.testing.assert_array_equal(run(model, x)["output"], expected)


def test_a_bit_config_is_applied(tmp_path):
    module = JetTagger(standin)
    module.dense_1.weight_bit, module.quant_act_1.activation_bit = 3, 5
    module.quant_act_2.activation_bit, module.quant_act_2.quant_mode = 4, "asymmetric"
    from tests.adapters.hawq.nets import calibrate

    calibrate(module, sample(JetTagger, 64))
    observe(module, sample(JetTagger))
    path = saved(module, tmp_path / "c.pth")
    bits = {"dense_1": 3, "quant_act_1": (5, "hook"), "quant_act_2": 4}
    model = load(path, sample(JetTagger), builder=lambda: JetTagger(standin), bits=bits)
    assert_same(model, module, JetTagger)


def test_a_yaml_of_jet_tagging_is_applied(tmp_path):
    pytest.importorskip("yaml")
    module = used(JetTagger)
    path = saved(module, tmp_path / "c.pth")
    names = ("quant_input", "quant_act_1", "quant_act_2", "quant_act_3")
    lines = ["data:", "  preprocess: standardize", "model:"]
    lines += [f"  {name}:\n    activation_bit: 6" for name in names]
    lines += [f"  dense_{k}:\n    weight_bit: 6\n    bias_bit: 6" for k in (1, 2, 3, 4)]
    (tmp_path / "bits.yml").write_text("\n".join(lines), encoding="utf-8")
    options = {"chain": CHAIN, "weight_scales": False, "bits": str(tmp_path / "bits.yml")}
    assert_same(load(path, **options), module, JetTagger)


def test_other_bits_than_the_builders_are_found_out(tmp_path):
    path = saved(used(JetTagger), tmp_path / "c.pth")

    def build():
        net = JetTagger(standin)
        net.quant_act_2.activation_bit = net.dense_3.weight_bit = 8
        return net

    message = r"'quant_act_2' is symmetric 8 bit, its scale says symmetric 6 or asymmetric 5"
    message = message.replace("6 or", "6 bit or").replace("asymmetric 5", "asymmetric 5 bit")
    with pytest.raises(SourceError, match=message) as caught:
        load(path, sample(JetTagger), builder=build)
    assert "'dense_3' has 8 bit weights, their scale says 6 bit" in str(caught.value)
    bits = {"quant_act_2": 8, "dense_3": 8}
    with pytest.warns(UserWarning, match="the bits given are used"):
        load(path, sample(JetTagger), builder=build, bits=bits)


def test_a_state_of_another_net_is_refused(tmp_path):
    path = saved(used(JetTagger), tmp_path / "c.pth")
    with pytest.raises(SourceError, match=r"'dense_1\.weight' has no place in the module"):
        load(path, sample(ConvNet), builder=lambda: ConvNet(standin))


def test_a_state_of_another_size_is_refused(tmp_path):
    module = used(JetTagger)
    module.dense_2.weight = torch.nn.Parameter(torch.zeros(7, 64))
    path = saved(module, tmp_path / "c.pth")
    with pytest.raises(SourceError, match=r"'dense_2.weight' is \[7, 64\]"):
        load(path, sample(JetTagger), builder=lambda: JetTagger(standin))


@pytest.mark.parametrize("mode", ["exact", "quant"])
def test_a_chain_gives_the_trained_net_without_a_module(mode, tmp_path):
    module = used(JetTagger)
    path = saved(module, tmp_path / "c.pth")
    bits = {name: {"activation_bit": 6} for name in CHAIN if "quant" in name}
    model = load(path, chain=CHAIN, weight_scales=False, bits=bits, mode=mode)
    assert_same(model, module, JetTagger)


def test_bit_widths_of_a_chain_are_recovered(tmp_path):
    module = used(JetTagger)
    path = saved(module, tmp_path / "c.pth")
    model = load(path, chain=CHAIN, weight_scales=False)
    assert_same(model, module, JetTagger)
    weights = next(n for n in model.graph if n.name == "dense_1/weight_quant")
    assert dialect.read_quantizer(weights).bits == 6


@pytest.mark.parametrize("name", ["jet_w6a6", "jet_asym_pc_w4a4", "jet_w2a2", "jet_bn_w6a6"])
@pytest.mark.skipif(not corpus.NAMES, reason="no recorded models beside the project")
def test_recorded_jet_taggers_are_read_as_chains(name):
    values = corpus.recorded(name)
    chain = list(CHAIN)
    if "bn" in name:
        for k in (1, 2, 3, 4):
            chain.insert(chain.index(f"dense_{k}") + 1, f"bn{k}")
        with pytest.warns(UserWarning, match="does not say the eps of batch norm"):
            model = load(corpus.state_path(name), chain=chain, weight_scales=False)
    else:
        model = load(corpus.state_path(name), chain=chain, weight_scales=False)
    outputs = run(model, values["x"])
    for act in (entry for entry in chain if entry.startswith("quant")):
        np.testing.assert_array_equal(outputs[act], values[f"{act}.out"], err_msg=act)
    np.testing.assert_allclose(outputs["output"], values["y"], rtol=0, atol=1e-7)


@pytest.mark.skipif(not corpus.NAMES, reason="no recorded models beside the project")
def test_a_chain_whose_acts_are_told_the_weights_scale():
    values = corpus.recorded("mlp_wscale_w4a4")
    path = corpus.state_path("mlp_wscale_w4a4")
    outputs = run(load(path, chain=CHAIN[:-1], weight_scales=True), values["x"])
    np.testing.assert_array_equal(outputs["output"], values["y"])


def test_whether_the_weights_scale_is_told_is_asked_for(tmp_path):
    path = saved(used(JetTagger), tmp_path / "c.pth")
    with pytest.raises(UsageError, match=r"weight_scales=False"):
        load(path, chain=CHAIN)


def test_an_ambiguous_bit_width_is_reported(tmp_path):
    # Without the relu, the range from zero leaves open whether the act is signed.
    path = saved(used(JetTagger), tmp_path / "c.pth")
    chain = [name for name in CHAIN if name != "relu"]
    with pytest.raises(SourceError, match="symmetric 6 bit or asymmetric 5 bit"):
        load(path, chain=chain, weight_scales=False)


def test_a_quantized_checkpoint_is_read_as_a_chain(tmp_path):
    module = used(JetTagger)
    path = saved_quantized(module, tmp_path / "quantized_checkpoint.pth.tar")
    with pytest.raises(SourceError, match="the range is not in"):
        load(path, chain=CHAIN, weight_scales=False)
    bits = dict.fromkeys((name for name in CHAIN if "quant" in name), 6)
    model = load(path, chain=CHAIN, weight_scales=False, bits=bits)
    assert_same(model, module, JetTagger)


def test_a_quantized_checkpoint_fits_no_module(tmp_path):
    path = saved_quantized(used(JetTagger), tmp_path / "quantized_checkpoint.pth.tar")
    with pytest.raises(SourceError, match="integers and scales only"):
        load(path, sample(JetTagger), builder=lambda: JetTagger(standin))


@pytest.mark.parametrize("options", [{}, {"builder": lambda: None, "chain": CHAIN}])
def test_a_topology_is_asked_for(options, tmp_path):
    path = saved(used(JetTagger), tmp_path / "c.pth")
    with pytest.raises(UsageError, match="a checkpoint holds no topology"):
        load(path, **options)


def test_an_unknown_layer_of_a_chain_is_named(tmp_path):
    path = saved(used(JetTagger), tmp_path / "c.pth")
    with pytest.raises(UsageError, match="no layer 'dense_9'"):
        load(path, chain=["quant_input", "dense_9"])


def test_checkpoints_are_recognized_by_hawqs_buffers(tmp_path):
    importer = HawqImporter()
    path = saved(used(JetTagger), tmp_path / "c.pth.tar")
    assert importer.accepts(str(path))
    old = tmp_path / "old.pth"
    torch.save(torch.load(path), old, _use_new_zipfile_serialization=False)
    assert importer.accepts(old)
    torch.save({"state_dict": torch.nn.Linear(2, 2).state_dict()}, tmp_path / "other.pt")
    assert not importer.accepts(tmp_path / "other.pt")
    assert not importer.accepts(tmp_path / "missing.pt")


@pytest.mark.parametrize("content", [b"", b"act_scaling_factor, but no pickle"])
def test_a_file_that_is_no_checkpoint_is_refused(content, tmp_path):
    path = tmp_path / "c.pth"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"no file of tensors alone|cannot be read"):
        load(path, chain=CHAIN)


def test_a_checkpoint_without_acts_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "c.pth")
    with pytest.raises(SourceError, match="holds no QuantAct"):
        load(tmp_path / "c.pth", chain=CHAIN)
