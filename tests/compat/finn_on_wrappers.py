"""FINN's conversion on wrappers, run by FINN's interpreter: MODEL X.npy Y.npy."""

from __future__ import annotations

import json
import sys

import numpy as np
from finn.transformation.qonnx.convert_qonnx_to_finn import ConvertQONNXtoFINN
from finn.transformation.streamline import Streamline
from qonnx.core.modelwrapper import ModelWrapper as TheirWrapper

from qonnx_hub.compat import ModelWrapper, execute_onnx
from qonnx_hub.compat.cleanup import cleanup_model

model = cleanup_model(ModelWrapper(sys.argv[1]))
x, y = np.load(sys.argv[2]), np.load(sys.argv[3])
converted = model.transform(ConvertQONNXtoFINN())
streamlined = converted.transform(Streamline())
found = [execute_onnx(m, {"global_in": x})["global_out"] for m in (converted, streamlined)]
print(
    json.dumps(
        {
            "is_theirs": isinstance(streamlined, TheirWrapper)
            and isinstance(model, ModelWrapper),
            "left": sum(node.op_type == "Quant" for node in streamlined.graph.node),
            "apart": [float(np.abs(one - y).max()) for one in found],
        }
    )
)
