"""QKeras networks in either layout, against the answers of QKeras itself."""

from __future__ import annotations

import numpy as np
import pytest

from qonnx_hub_ir.passes import ToChannelsFirst, ToChannelsLast
from qonnx_hub_ir.validity import verify
from tests.adapters.qkeras.helpers import ask_executor, ask_keras, convert, operators
from tests.adapters.qkeras.kit import Case, inputs_for, set_weights
from tests.adapters.qkeras.model_cases import branches, cnn, residual


@pytest.mark.parametrize("build", [cnn, residual, branches])
def test_a_network_goes_to_channels_first_and_last_without_transposes(kit, build) -> None:
    model = build(kit)
    set_weights(model)
    feeds = inputs_for(model, Case("channels", build, 0))
    expected = ask_keras(model, feeds)
    ir = convert(model)
    for step, axis in ((ToChannelsFirst(), 1), (ToChannelsLast(), -1), (ToChannelsFirst(), 1)):
        assert step(ir).modified
        assert verify(ir) == []
        assert "Transpose" not in operators(ir)
        answers = ask_executor(ir, [np.moveaxis(x, -1, axis) for x in feeds])
        for ours, theirs in zip(answers, expected, strict=True):
            back = np.moveaxis(ours, axis, -1) if ours.ndim == 4 else ours
            np.testing.assert_array_equal(back, theirs)
        assert not step(ir).modified
