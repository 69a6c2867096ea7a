"""Tables of integers, read back: what they hold is quantized, and the layers behind it too.

The reference is the file itself, run in integers by the executor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
import pytest

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_adapters.qlinear.importer import QlinearImporter
from tests.adapters.qlinear.kit import Net, export, inputs_of, net, ops

RNG = np.random.default_rng


def net_with_tables() -> Net:
    """A table of one value, a layer, a table of two values, and a layer."""
    n = net()
    n.quant("x", "a", 0.3, 5)
    n.add("LeakyRelu", ["a"], "leaky", alpha=0.3)
    n.quant("leaky", "b", 0.25, 5)
    n.weight("w", RNG(1).normal(0, 1, (12, 12)), 0.25, 4)
    n.add("MatMul", ["b", "w"], "acc")
    n.quant("acc", "c", 0.7, 5)
    n.add("Add", ["a", "c"], "sum")
    n.add("Relu", ["sum"], "relu")
    n.quant("relu", "d", 0.5, 4, signed=0)
    n.weight("v", RNG(2).normal(0, 1, (12, 7)), 0.25, 4)
    n.add("MatMul", ["d", "v"], "last")
    n.quant("last", "y", 1.0, 6)
    return n


def read_back(artifact: Any) -> Any:
    return QlinearImporter().load(onnx_ir.to_proto(artifact.model), ImportOptions())


def test_tables_are_looked_up_by_values_that_have_quantizers() -> None:
    model = net_with_tables().model(("N", 12), "y")
    artifact = export(model)
    assert ops(artifact).count("Gather") == 2
    back = read_back(artifact)
    tables = [n for n in back.graph if n.op_type == "Gather"]
    assert len(tables) == 2
    for node in tables:
        value = node.outputs[0]
        assert value.dtype is onnx_ir.DataType.FLOAT
        assert [reader.op_type for reader in value.consumers()] == ["Quant"]
    # Every layer's input has a quantizer, so that each is integer again.
    again = export(back)
    assert "in float" not in again.notes[0]
    assert again.notes[0].startswith("2 of 2 layers integer-only")


@pytest.mark.parametrize("seed", range(3))
def test_values_behind_tables_are_those_of_the_file(seed: int) -> None:
    model = net_with_tables().model((40, 12), "y")
    artifact = export(model)
    feeds = inputs_of(model, seed)
    file = Session(read_model(onnx_ir.to_proto(artifact.model))).run(feeds)["y"]
    assert len(np.unique(file)) > 10
    back = read_back(artifact)
    np.testing.assert_array_equal(Session(back).run(feeds)["y"], file)
    second = export(back)
    again = Session(read_model(onnx_ir.to_proto(second.model))).run(feeds)["y"]
    np.testing.assert_array_equal(again, file)
