"""FINN's steps on one file, for an interpreter that has finn-plus: nothing else is imported.

Usage: finn_steps.py FILE.onnx INPUTS.npy ANSWERS.npy [FOLDER]; prints JSON on the last line:
what is left after the layers of hardware were inferred, and the share of answers that differ
after each step. In the folder, the model after each step is kept as FINN's builder keeps it;
where all between the ends is hardware, after the steps as well that set it up for a device,
which nobody executes without FINN's simulators.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import importlib.machinery
import json
import sys
import types
import warnings

warnings.filterwarnings("ignore")


class _Stub(types.ModuleType):
    """A framework that FINN's modules import and these steps do not need."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}") or type(name, (), {})


class _Stubs:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "brevitas"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Stub(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, _Stubs())

import numpy as np  # noqa: E402
from finn.transformation.fpgadataflow import create_dataflow_partition as partition  # noqa: E402
from finn.transformation.fpgadataflow.insert_dwc import InsertDWC  # noqa: E402
from finn.transformation.fpgadataflow.insert_fifo import InsertFIFO  # noqa: E402
from finn.transformation.fpgadataflow.minimize_accumulator_width import (  # noqa: E402
    MinimizeAccumulatorWidth,
)
from finn.transformation.fpgadataflow.minimize_weight_bit_width import (  # noqa: E402
    MinimizeWeightBitWidth,
)
from finn.transformation.fpgadataflow.set_folding import SetFolding  # noqa: E402
from finn.transformation.fpgadataflow.specialize_layers import SpecializeLayers  # noqa: E402
from finn.transformation.move_reshape import RemoveCNVtoFCFlatten  # noqa: E402
from finn.transformation.qonnx.convert_qonnx_to_finn import ConvertQONNXtoFINN  # noqa: E402
from finn.transformation.streamline import Streamline, absorb  # noqa: E402
from finn.transformation.streamline.reorder import MakeMaxPoolNHWC  # noqa: E402
from qonnx.core.modelwrapper import ModelWrapper  # noqa: E402
from qonnx.core.onnx_exec import execute_onnx  # noqa: E402
from qonnx.custom_op.registry import getCustomOp  # noqa: E402
from qonnx.transformation import general  # noqa: E402
from qonnx.transformation.fold_constants import FoldConstants  # noqa: E402
from qonnx.transformation.infer_data_layouts import InferDataLayouts  # noqa: E402
from qonnx.transformation.infer_datatypes import InferDataTypes  # noqa: E402
from qonnx.transformation.infer_shapes import InferShapes  # noqa: E402
from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul  # noqa: E402
from qonnx.util.cleanup import cleanup_model  # noqa: E402

HARDWARE = (
    ("quantized_matrix_vector_activation", "InferQuantizedMatrixVectorActivation"),
    ("thresholding", "InferThresholdingLayer"),
    ("pool", "InferPool"),
    ("conv_inp_gen", "InferConvInpGen"),
)


def hardware(name, layer):
    module = importlib.import_module(f"finn.transformation.fpgadataflow.convert_to_hw.{name}")
    return getattr(module, layer)()


def set_up(model, folder):
    """Keep what FINN makes of layers of hardware: one partition, layers of a device, FIFOs."""
    for one in (
        *(hardware("elementwise_binary_operation", "InferElementwiseBinaryOperation"),),
        *(absorb.AbsorbConsecutiveTransposes(), RemoveCNVtoFCFlatten()),
        *(InferDataLayouts(), hardware("shuffle", "InferShuffle")),
        *(InferDataTypes(), InferShapes(), general.GiveUniqueNodeNames()),
        *(MinimizeWeightBitWidth(), MinimizeAccumulatorWidth()),
    ):
        model = model.transform(one)
    model.save(f"{folder}/step_minimize_bit_width_initial.onnx")
    parent = model.transform(partition.CreateDataflowPartition(f"{folder}/partitions"))
    parent.save(f"{folder}/dataflow_parent.onnx")
    [hole] = parent.get_nodes_by_op_type("StreamingDataflowPartition")
    model = ModelWrapper(getCustomOp(hole).get_nodeattr("model"))
    device = SpecializeLayers("xc7z020clg400-1")
    for name, step in {
        "create_dataflow_partition": [],
        "specialize_layers": [device, general.GiveUniqueNodeNames(), InferShapes()],
        "target_fps_parallelization": [SetFolding(1000)],
        "minimize_bit_width": [MinimizeWeightBitWidth(), MinimizeAccumulatorWidth()],
        "set_fifo_depths": [
            *(InsertDWC(), InsertFIFO(create_shallow_fifos=True), device),
            *(general.GiveUniqueNodeNames(), general.GiveReadableTensorNames()),
        ],
    }.items():
        for one in step:
            model = model.transform(one)
        model.save(f"{folder}/step_{name}.onnx")


def apart(model, inputs, answers):
    name, shape = model.graph.input[0].name, model.get_tensor_shape(model.graph.input[0].name)
    runs = [execute_onnx(model, {name: one.reshape(shape)}) for one in inputs]
    found = np.stack([run[model.graph.output[0].name].reshape(-1) for run in runs])
    wanted = answers.reshape(found.shape)
    return float(np.mean(np.abs(found - wanted) > 2e-5 * np.abs(wanted).max()))


KEPT = {
    "converted": "step_qonnx_to_finn",
    "tidied": "step_tidy_up",
    "streamlined": "step_streamline",
    "hardware": "step_convert_to_hw",
}


def main(file, inputs, answers, folder=None):
    inputs, answers = np.load(inputs), np.load(answers)
    steps = {
        "converted": [ConvertQONNXtoFINN()],
        "tidied": [
            *(InferShapes(), FoldConstants(), general.GiveUniqueNodeNames()),
            *(InferDataTypes(), general.RemoveStaticGraphInputs()),
        ],
        "streamlined": [
            *(absorb.AbsorbScalarBiasIntoMultiThreshold(), Streamline()),
            *(LowerConvsToMatMul(), MakeMaxPoolNHWC()),
            *(absorb.AbsorbTransposeIntoMultiThreshold(), MakeMaxPoolNHWC()),
            *(absorb.AbsorbConsecutiveTransposes(), Streamline()),
            *(InferDataLayouts(), general.RemoveUnusedTensors(), InferDataTypes()),
        ],
        "hardware": [*(hardware(*layer) for layer in HARDWARE), InferDataTypes()],
    }
    model, distances = cleanup_model(ModelWrapper(file)), {}
    for name, step in steps.items():
        for one in step:
            model = model.transform(one)
        if folder is not None:
            model.save(f"{folder}/{KEPT[name]}.onnx")
        distances[name] = apart(model, inputs, answers)
    left = collections.Counter(
        n.op_type for n in model.graph.node if not n.domain.startswith("finn")
    )
    if folder is not None and not left["MultiThreshold"] + left["MatMul"] + left["Im2Col"]:
        with contextlib.redirect_stdout(sys.stderr):
            set_up(model, folder)
    print(json.dumps({"apart": distances, "left": left}))


main(*sys.argv[1:])
