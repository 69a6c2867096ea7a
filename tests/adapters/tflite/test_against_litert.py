"""Random single operators against the reference kernels of ai-edge-litert.

``QONNX_HUB_TFLITE_CASES`` says how many of each operator and type; 20 by default.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qonnx_hub_adapters.tflite.interpreter import run_net
from qonnx_hub_adapters.tflite.net_writer import write_net
from qonnx_hub_adapters.tflite.reader import read_net
from qonnx_hub_ir.errors import ExecutionError, SourceError
from tests.adapters.tflite import odd_nets
from tests.adapters.tflite.random_nets import TRIED, Case

litert = pytest.importorskip("ai_edge_litert.interpreter")

CASES = int(os.environ.get("QONNX_HUB_TFLITE_CASES", "20"))


Arrays = list[np.ndarray[Any, Any]]
Write = Callable[[Case, str], None]


def reference(data: bytes, codes: Arrays) -> Arrays | None:
    """Return what the reference kernels give; ``None`` for what they refuse."""
    kinds = litert.OpResolverType
    session = litert.Interpreter(
        model_content=data, experimental_op_resolver_type=kinds.BUILTIN_REF, num_threads=1
    )
    try:
        session.allocate_tensors()
        for place, values in zip(session.get_input_details(), codes, strict=True):
            session.set_tensor(place["index"], values)
        session.invoke()
    except RuntimeError:
        return None
    return [session.get_tensor(place["index"]) for place in session.get_output_details()]


@pytest.mark.parametrize(("write", "name", "type_"), TRIED)
def test_the_kernel_gives_the_reference_kernels_codes(write: Write, name: str, type_: str):
    compared = 0
    for seed in range(CASES):
        case = Case(type_, [seed, len(name), len(type_)])
        write(case, name)
        net, codes = case.finished()
        data = write_net(net)
        expected = reference(data, codes)
        if expected is None:
            continue
        feeds = {f"x{i}": values for i, values in enumerate(codes)}
        made = run_net(read_net(data), feeds)[net.outputs[0]]
        np.testing.assert_array_equal(made, expected[0], err_msg=f"case {seed}")
        compared += 1
    assert compared > CASES // 2


def outcome(case: Case) -> str:
    """Return whether a case is refused by both, or gives equal codes; anything else fails."""
    net, given = odd_nets.whole_net(case)
    data = write_net(net)
    try:
        read = read_net(data)
    except SourceError:
        # never handed on: the interpreter ends its process on some of these
        return "refused"
    try:
        values = run_net(read, {f"x{i}": x for i, x in enumerate(given)})
    except ExecutionError:
        assert reference(data, given) is None
        return "refused"
    expected = reference(data, given)
    assert expected is not None, "the reference kernels refuse it"
    for index, numbers in zip(net.outputs, expected, strict=True):
        assert values[index].dtype == numbers.dtype
        np.testing.assert_array_equal(values[index], numbers)
    return "equal"


@pytest.mark.parametrize(("write", "name", "type_"), odd_nets.TRIED)
def test_odd_settings_give_the_reference_kernels_codes_or_are_refused(
    write: Write, name: str, type_: str
):
    found = []
    for seed in range(CASES // 2):
        case = Case(type_, [seed, len(name), len(type_), 77])
        write(case, name)
        try:
            found.append(outcome(case))
        except AssertionError as error:
            raise AssertionError(f"case {seed}: {error}") from error
    assert "equal" in found or (name, type_) in odd_nets.REFUSED


@pytest.mark.parametrize(("write", "name", "type_"), odd_nets.TRIED)
def test_a_tensor_of_another_type_is_refused_or_computed_alike(
    write: Write, name: str, type_: str
):
    for seed in range(CASES // 8 or 1):
        case = Case(type_, [seed, len(name), len(type_), 78])
        write(case, name)
        odd_nets.retype(case)
        try:
            outcome(case)
        except AssertionError as error:
            raise AssertionError(f"case {seed}: {error}") from error
