"""Every quantizer, layer and topology: the executor's answer on the IR is torch's own.

Quantizers alone, and nets whose scales are powers of two, give the same numbers bit for bit.
Elsewhere sums are added up in another order; what that may change is the case's tolerance.
Expected numbers come from the module itself, expected numbers of quantizers from counting
them in it.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

from qonnx_hub.executor.session import Session
from qonnx_hub_ir import dialect
from tests.adapters.brevitas.activation_cases import ACTIVATIONS
from tests.adapters.brevitas.kit import (
    Case,
    ask_executor,
    ask_torch,
    differences,
    feeds_for,
    load,
    make,
    samples_of,
    state_of,
)
from tests.adapters.brevitas.layer_cases import LAYERS
from tests.adapters.brevitas.topology_cases import TOPOLOGIES
from tests.adapters.brevitas.weight_cases import WEIGHTS

CASES = [*ACTIVATIONS, *WEIGHTS, *LAYERS, *TOPOLOGIES]


def test_there_are_enough_cases_and_each_has_a_name_of_its_own():
    assert len({case.name for case in CASES}) == len(CASES) >= 100


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_converted_module_answers_as_torch_does(case: Case):
    module = make(case)
    before = state_of(module)

    ir = load(module, *samples_of(case))

    assert state_of(module) == before
    session = Session(ir)
    own = copy.deepcopy(module)
    answers = set()
    compared = wrong = 0
    largest = 0.0
    for feeds in feeds_for(case, ir):
        expected = ask_torch(own, feeds)
        gaps, count = differences(expected, ask_executor(session, ir, feeds))
        answers.add(expected[0].tobytes())
        wrong += int(np.sum(gaps > (0 if case.exact else case.tolerance)))
        compared += count
        largest = max(largest, float(gaps.max()))
    assert compared > 0
    assert len(answers) > 1, "a net that answers the same to everything shows nothing"
    assert wrong <= case.flips * compared, f"{wrong} of {compared} differ, by up to {largest}"
    if case.quantizers is not None:
        found = [node for node in ir.graph if dialect.is_quantizer(node)]
        assert len(found) == case.quantizers
