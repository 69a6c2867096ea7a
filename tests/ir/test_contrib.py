"""The rules of onnxruntime's own operators are those that onnxruntime itself registers."""

from __future__ import annotations

from typing import Any

import pytest

from qonnx_hub_ir.lowering import onnxruntime_operators


def registered() -> dict[str, Any]:
    state = pytest.importorskip("onnxruntime.capi.onnxruntime_pybind11_state")
    return {
        s.name: s
        for s in state.get_all_operator_schema()
        if s.domain == onnxruntime_operators.DOMAIN
    }


@pytest.mark.parametrize("op_type", sorted(onnxruntime_operators.OPERATORS))
def test_an_operator_has_the_inputs_and_attributes_of_its_schema(op_type: str) -> None:
    schema, signature = registered()[op_type], onnxruntime_operators.OPERATORS[op_type]
    assert signature.lowest == schema.min_input
    # A list of any length has the largest number of its language.
    assert signature.most == min(schema.max_input, 1 << 30)
    assert signature.attributes == set(schema.attributes)
    required = {name for name, attr in schema.attributes.items() if attr.required}
    assert signature.required == required
    assert schema.since_version == 1
