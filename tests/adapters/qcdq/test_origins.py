"""What a file said of a quantizer, after the quantizer became another one.

Expected values are calculated by hand; the written file runs on onnxruntime.
"""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from onnx.helper import make_node

from qonnx_hub_adapters.protocol import ExportOptions, ImportOptions
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_adapters.qcdq.importer import QcdqImporter
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from tests.adapters.qcdq.importer_graphs import pair
from tests.support import model_of


def test_a_type_too_narrow_for_wider_integers_is_not_kept_behind_a_clip() -> None:
    """The values leave the old type's range, although a Clip holds them behind it."""
    ort = pytest.importorskip("onnxruntime")
    step = 2.0**-4
    constants = {"s": step, "z": np.zeros((), dtype=np.int8), "low": -20.0, "high": 20.0}
    nodes = pair()
    nodes[-1].output[0] = "d"
    nodes.append(make_node("Clip", ["d", "low", "high"], ["y"]))
    proto = model_of(nodes, {"x": (4,)}, ["y"], constants)
    model = QcdqImporter().load(proto, ImportOptions())
    [node] = [node for node in model.graph if dialect.is_quantizer(node)]
    node.replace_input_with(3, Emitter(node).constant("wide", np.float32(16)))
    written = QcdqExporter().export(model, ExportOptions()).model
    x = np.array([-30, 0.4, 12.3, 19.97], dtype=np.float32)
    expected = np.clip(np.rint(x / step) * step, -20, 20).astype(np.float32)
    session = ort.InferenceSession(onnx_ir.to_proto(written).SerializeToString())
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], expected)
