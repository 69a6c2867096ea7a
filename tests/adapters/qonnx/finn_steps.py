"""FINN's steps on one file, for an interpreter that has finn-plus: nothing else is imported.

Usage: finn_steps.py FILE.onnx INPUTS.npy ANSWERS.npy [FOLDER]; prints JSON on the last line:
what is left after the layers of hardware were inferred, and the share of answers that differ
after each step. In the folder, the model after each step is kept as FINN's builder keeps it.
"""

from __future__ import annotations

import collections
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
from finn.transformation.qonnx.convert_qonnx_to_finn import ConvertQONNXtoFINN  # noqa: E402
from finn.transformation.streamline import Streamline, absorb  # noqa: E402
from finn.transformation.streamline.reorder import MakeMaxPoolNHWC  # noqa: E402
from qonnx.core.modelwrapper import ModelWrapper  # noqa: E402
from qonnx.core.onnx_exec import execute_onnx  # noqa: E402
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
    print(json.dumps({"apart": distances, "left": left}))


main(*sys.argv[1:])
