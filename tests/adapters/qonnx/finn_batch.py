"""FINN's conversion of many files, for an interpreter that has finn-plus and nothing of ours.

Usage: finn_batch.py FOLDER; every NAME.onnx there has inputs in NAME.npy, the first axis over
samples. Prints JSON on the last line, per name: the answers of the qonnx package, and how far
FINN's are from those with ties taken upward, as MultiThreshold does: after the conversion and
after Streamline, as shares of each sample's values; and how many values that rule changes.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
from finn.transformation.qonnx.convert_qonnx_to_finn import ConvertQONNXtoFINN  # noqa: E402
from finn.transformation.streamline import Streamline  # noqa: E402
from qonnx.core.modelwrapper import ModelWrapper  # noqa: E402
from qonnx.core.onnx_exec import execute_onnx  # noqa: E402
from qonnx.custom_op.general import intquant  # noqa: E402
from qonnx.transformation.fold_constants import FoldConstants  # noqa: E402
from qonnx.util.cleanup import cleanup_model  # noqa: E402

QUANTIZERS = {"Quant", "BipolarQuant", "IntQuant", "FloatQuant", "Trunc"}
named = intquant.resolve_rounding_mode


def upward(mode):
    return (lambda x: np.floor(x + np.float32(0.5))) if mode == "ROUND" else named(mode)


def answers(model, inputs):
    name, result = model.graph.input[0].name, model.graph.output[0].name
    shape = model.get_tensor_shape(name)
    runs = [execute_onnx(model, {name: one.reshape(shape)})[result] for one in inputs]
    return np.stack([run.reshape(-1) for run in runs]).astype(float)


def apart(found, wanted):
    # What float32 sums in another order may be off by.
    return np.mean(np.abs(found - wanted) > 2e-5 * max(np.abs(wanted).max(), 1e-9), axis=1)


def outcome(path):
    inputs, model = np.load(path.with_suffix(".npy")), cleanup_model(ModelWrapper(str(path)))
    plain = answers(model, inputs)
    # Weights are rounded as they are: only activations become thresholds.
    folded = model.transform(FoldConstants(exclude_op_types=[]))
    intquant.resolve_rounding_mode = upward
    try:
        wanted = answers(folded, inputs)
    finally:
        intquant.resolve_rounding_mode = named
    converted = model.transform(ConvertQONNXtoFINN())
    left = sorted({node.op_type for node in converted.graph.node} & QUANTIZERS)
    after = {"convert": converted, "streamline": converted.transform(Streamline())}
    distances = {
        step: apart(answers(one, inputs), wanted).tolist() for step, one in after.items()
    }
    counts = {"values": wanted.size, "ties": round(apart(plain, wanted).mean() * wanted.size)}
    return {"answers": plain.tolist(), "left": left, "apart": distances, **counts}


found = {}
for file in sorted(Path(sys.argv[1]).glob("*.onnx")):
    try:
        found[file.stem] = outcome(file)
    except Exception as error:  # noqa: PERF203  (whatever FINN raises is the answer)
        found[file.stem] = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
print(json.dumps(found))
