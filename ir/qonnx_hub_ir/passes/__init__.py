"""Passes: model -> model, one per module, in place; run them with :func:`run_passes`."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_ir import Model
from onnx_ir.passes import InPlacePass

from qonnx_hub_ir.passes.change_batch import ChangeBatch
from qonnx_hub_ir.passes.change_layout import ChangeLayout
from qonnx_hub_ir.passes.drop_unused import DropUnused
from qonnx_hub_ir.passes.extract_bias import ExtractBias
from qonnx_hub_ir.passes.extract_scale import ExtractScale
from qonnx_hub_ir.passes.fold_batchnorm import FoldBatchnorm
from qonnx_hub_ir.passes.fold_constants import FoldConstants
from qonnx_hub_ir.passes.fold_quantized_constants import FoldQuantizedConstants
from qonnx_hub_ir.passes.fold_weight_layout import FoldWeightLayout
from qonnx_hub_ir.passes.gemm_to_matmul import GemmToMatmul
from qonnx_hub_ir.passes.give_names import GiveNames
from qonnx_hub_ir.passes.infer_shapes import InferShapes
from qonnx_hub_ir.passes.lower_channels_last import LowerChannelsLast
from qonnx_hub_ir.passes.lower_conv_to_matmul import LowerConvToMatmul
from qonnx_hub_ir.passes.matmul_to_gemm import MatmulToGemm
from qonnx_hub_ir.passes.multithreshold_to_quant import MultithresholdToQuant
from qonnx_hub_ir.passes.name_nodes import NameNodes
from qonnx_hub_ir.passes.normalize import NormalizeDialect
from qonnx_hub_ir.passes.prune_channels import PruneChannels
from qonnx_hub_ir.passes.quant_to_multithreshold import QuantToMultithreshold
from qonnx_hub_ir.passes.quantize_fixed_point import QuantizeFixedPoint
from qonnx_hub_ir.passes.raise_opset import RaiseOpset
from qonnx_hub_ir.passes.remove_identity import RemoveIdentity
from qonnx_hub_ir.passes.remove_redundant_quant import RemoveRedundantQuant
from qonnx_hub_ir.passes.rename_tensors import RenameTensors
from qonnx_hub_ir.passes.sink_transposes import SinkTransposes
from qonnx_hub_ir.passes.spell_rounding import SpellOutRounding
from qonnx_hub_ir.passes.streamline import Streamline
from qonnx_hub_ir.passes.to_channels_first import ToChannelsFirst
from qonnx_hub_ir.passes.to_channels_last import ToChannelsLast

__all__ = [
    "IMPORT_PIPELINE",
    "ChangeBatch",
    "ChangeLayout",
    "DropUnused",
    "ExtractBias",
    "ExtractScale",
    "FoldBatchnorm",
    "FoldConstants",
    "FoldQuantizedConstants",
    "FoldWeightLayout",
    "GemmToMatmul",
    "GiveNames",
    "InferShapes",
    "LowerChannelsLast",
    "LowerConvToMatmul",
    "MatmulToGemm",
    "MultithresholdToQuant",
    "NameNodes",
    "NormalizeDialect",
    "PruneChannels",
    "QuantToMultithreshold",
    "QuantizeFixedPoint",
    "RaiseOpset",
    "RemoveIdentity",
    "RemoveRedundantQuant",
    "RenameTensors",
    "SinkTransposes",
    "SpellOutRounding",
    "Streamline",
    "ToChannelsFirst",
    "ToChannelsLast",
    "run_passes",
]

IMPORT_PIPELINE: tuple[InPlacePass, ...] = (
    NameNodes(),  # every later message points at nodes by name
    NormalizeDialect(),  # the version converter fails on domains without an import
    RaiseOpset(),  # every later pass reads one form of each operator
    NormalizeDialect(),  # the converter writes Constant nodes
    FoldConstants(),  # parameters must be known before they can be verified
    InferShapes(),  # reads small constants: after folding
    DropUnused(),
    NameNodes(),  # the converter adds nodes
)
"""What every imported ONNX graph goes through, in this order."""


def run_passes(model: Model, passes: Sequence[InPlacePass]) -> bool:
    """Run passes over the model, in place, and return whether any changed it."""
    modified = False
    for step in passes:
        modified |= step(model).modified
    return modified
