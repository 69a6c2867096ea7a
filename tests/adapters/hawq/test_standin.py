"""The stand-in computes what HAWQ computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("name", corpus.NAMES)
def test_a_recorded_model_is_reproduced_bit_for_bit(name, layers):
    module, values = corpus.build(name, layers), corpus.recorded(name)
    found = observe(module, torch.from_numpy(values["x"]))
    compared = 0
    for key, value in values.items():
        owner, _, what = key.rpartition(".")
        if key == "y":
            ours = found[""].numpy()
        elif what == "out":
            ours = found[owner].numpy()
        elif what in {"x", "in_scale", "out_scale"}:
            continue
        else:
            ours = getattr(module.get_submodule(owner), what).detach().numpy()
        assert ours.dtype == value.dtype, key
        np.testing.assert_array_equal(ours, value, err_msg=key)
        compared += 1
    assert compared >= 10


@pytest.mark.parametrize("name", corpus.NAMES)
def test_layers_are_given_and_return_the_recorded_scales(name, layers):
    module, values = corpus.build(name, layers), corpus.recorded(name)
    seen: dict[str, torch.Tensor] = {}

    def keep(layer):
        def hook(_module, args, output):
            packed = args[0] if isinstance(args[0], tuple) else args
            if len(packed) > 1 and isinstance(packed[1], torch.Tensor):
                seen[f"{layer}.in_scale"] = packed[1].clone()
            if isinstance(output, tuple):
                seen[f"{layer}.out_scale"] = output[1].clone()

        return hook

    for layer, part in module.named_modules():
        if type(part).__name__.startswith("Quant"):
            part.register_forward_hook(keep(layer))
    with torch.no_grad():
        module(torch.from_numpy(values["x"]))
    wanted = [key for key in values if key.endswith(("in_scale", "out_scale"))]
    assert wanted
    for key in wanted:
        np.testing.assert_array_equal(seen[key].numpy(), values[key], err_msg=key)


@pytest.mark.parametrize("net", [JetTagger, ConvNet, Residual, Branches])
def test_the_stand_in_computes_what_a_checkout_computes_also_while_calibrating(net, checkout):
    x = sample(net, 32)
    ours, theirs = (observe(calibrated(net, kind), x) for kind in (standin, checkout))
    assert len(ours) == len(theirs) >= 8
    for name, value in ours.items():
        np.testing.assert_array_equal(value.numpy(), theirs[name].numpy(), err_msg=name)
