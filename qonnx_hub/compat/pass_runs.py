"""Passes of this project on a ModelProto."""

from __future__ import annotations

import onnx
import onnx_ir

from qonnx_hub.passes import Step, run
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.onnx_writer import finish


def run_pass(proto: onnx.ModelProto, step: Step) -> onnx.ModelProto:
    """Return what a pass makes of a model, in the model's own opset where that can say it.

    Raises:
        UsageError: No such pass.
        PassError: The pass cannot transform the model.
        HubError: The model cannot be read.
    """
    model = read_model(proto, keep_versions=True)
    run(model, [step])
    return onnx_ir.to_proto(finish(model))
