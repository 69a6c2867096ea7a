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
from tests.adapters.tflite.random_nets import TRIED, Case

litert = pytest.importorskip("ai_edge_litert.interpreter")

CASES = int(os.environ.get("QONNX_HUB_TFLITE_CASES", "20"))


def reference(data: bytes, codes: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any] | None:
    """Return what the reference kernels give; ``None`` for what they refuse."""
    kinds = litert.OpResolverType
    session = litert.Interpreter(
        model_content=data, experimental_op_resolver_type=kinds.BUILTIN_REF, num_threads=1
    )
    try:
        session.allocate_tensors()
    except RuntimeError:
        return None
    for place, values in zip(session.get_input_details(), codes, strict=True):
        session.set_tensor(place["index"], values)
    session.invoke()
    made: np.ndarray[Any, Any] = session.get_tensor(session.get_output_details()[0]["index"])
    return made


@pytest.mark.parametrize(("write", "name", "type_"), TRIED)
def test_the_kernel_gives_the_reference_kernels_codes(
    write: Callable[[Case, str], None], name: str, type_: str
):
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
        np.testing.assert_array_equal(made, expected, err_msg=f"case {seed}")
        compared += 1
    assert compared > CASES // 2
