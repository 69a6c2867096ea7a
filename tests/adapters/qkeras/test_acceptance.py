"""Every quantizer, layer and option: the executor's answer on the IR is Keras' own.

Weights and inputs lie on dyadic grids, so that sums and products are exact whatever their
order: where every scale is a power of two the answers must be equal, bit for bit. Expected
numbers come from the framework itself, expected numbers of quantizers from counting them in
the layer.
"""

from __future__ import annotations

import pytest

from tests.adapters.qkeras.helpers import (
    ask_executor,
    ask_keras,
    convert,
    differences,
    quantizers,
    state,
)
from tests.adapters.qkeras.kit import GENERATION, Case, inputs_for, set_weights
from tests.adapters.qkeras.layer_cases import LAYERS
from tests.adapters.qkeras.model_cases import MODELS
from tests.adapters.qkeras.quantizer_cases import ACTIVATIONS, WEIGHTS

ALL = [*ACTIVATIONS, *WEIGHTS, *LAYERS, *MODELS]
CASES = [case for case in ALL if GENERATION in case.generations]


def test_there_are_enough_cases_and_each_has_a_name_of_its_own() -> None:
    assert len({case.name for case in ALL}) == len(ALL)
    assert len(CASES) >= 240


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_converted_model_answers_as_keras_does(case: Case, kit) -> None:
    model = case.build(kit)
    if case.weights == "dyadic":
        set_weights(model)
    feeds = inputs_for(model, case)
    before = state(model)

    ir = convert(model)

    assert state(model) == before
    expected = ask_keras(model, feeds)
    share, largest = differences(expected, ask_executor(ir, feeds), case.tolerance)
    assert share <= case.flips, f"{share:.2%} of the values differ, by up to {largest:g}"
    assert len(quantizers(ir)) == case.quantizers
