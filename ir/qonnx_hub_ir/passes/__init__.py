"""Passes: model -> model, one per module, in place; run them with :func:`run_passes`."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_ir import Model
from onnx_ir.passes import InPlacePass

from qonnx_hub_ir.passes.channels.prune_channels import PruneChannels
from qonnx_hub_ir.passes.cleanup.drop_unused import DropUnused
from qonnx_hub_ir.passes.cleanup.fold_constants import FoldConstants
from qonnx_hub_ir.passes.cleanup.merge_equal import MergeEqual
from qonnx_hub_ir.passes.cleanup.normalize import NormalizeDialect
from qonnx_hub_ir.passes.cleanup.remove_identity import RemoveIdentity
from qonnx_hub_ir.passes.constants.div_to_mul import DivToMul
from qonnx_hub_ir.passes.constants.double_to_single import DoubleToSingle
from qonnx_hub_ir.passes.constants.sort_commutative import SortCommutative
from qonnx_hub_ir.passes.constants.sub_to_add import SubToAdd
from qonnx_hub_ir.passes.constants.unique_parameters import UniqueParameters
from qonnx_hub_ir.passes.insertion.insert_identity import InsertIdentity
from qonnx_hub_ir.passes.insertion.insert_topk import InsertTopk
from qonnx_hub_ir.passes.insertion.quantize_graph import QuantizeGraph
from qonnx_hub_ir.passes.layers.extract_bias import ExtractBias
from qonnx_hub_ir.passes.layers.fold_batchnorm import FoldBatchnorm
from qonnx_hub_ir.passes.layers.gemm_to_matmul import GemmToMatmul
from qonnx_hub_ir.passes.layers.lower_conv_to_matmul import LowerConvToMatmul
from qonnx_hub_ir.passes.layers.matmul_to_gemm import MatmulToGemm
from qonnx_hub_ir.passes.layers.rebalance_im2col import RebalanceIm2col
from qonnx_hub_ir.passes.layers.resize_conv_to_deconv import ResizeConvToDeconv
from qonnx_hub_ir.passes.layers.subpixel_to_deconv import SubpixelToDeconv
from qonnx_hub_ir.passes.layout.change_layout import ChangeLayout
from qonnx_hub_ir.passes.layout.fold_weight_layout import FoldWeightLayout
from qonnx_hub_ir.passes.layout.infer_data_layouts import InferDataLayouts
from qonnx_hub_ir.passes.layout.lower_channels_last import LowerChannelsLast
from qonnx_hub_ir.passes.layout.quant_avgpool_nhwc import QuantAvgpoolNhwc
from qonnx_hub_ir.passes.layout.sink_transposes import SinkTransposes
from qonnx_hub_ir.passes.layout.to_channels_first import ToChannelsFirst
from qonnx_hub_ir.passes.layout.to_channels_last import ToChannelsLast
from qonnx_hub_ir.passes.names.annotate_datatype import AnnotateDatatype
from qonnx_hub_ir.passes.names.expose import Expose
from qonnx_hub_ir.passes.names.give_names import GiveNames
from qonnx_hub_ir.passes.names.name_nodes import NameNodes
from qonnx_hub_ir.passes.names.rename_tensors import RenameTensors
from qonnx_hub_ir.passes.names.sort_by_depth import SortByDepth
from qonnx_hub_ir.passes.opset.inline_functions import InlineFunctions
from qonnx_hub_ir.passes.opset.lower_opset import LowerOpset
from qonnx_hub_ir.passes.opset.raise_opset import RaiseOpset
from qonnx_hub_ir.passes.quantizers.bipolar_to_xnor import BipolarToXnor
from qonnx_hub_ir.passes.quantizers.fold_quantized_constants import FoldQuantizedConstants
from qonnx_hub_ir.passes.quantizers.lower_thresholds import LowerThresholds
from qonnx_hub_ir.passes.quantizers.multithreshold_to_quant import MultithresholdToQuant
from qonnx_hub_ir.passes.quantizers.quant_to_multithreshold import QuantToMultithreshold
from qonnx_hub_ir.passes.quantizers.quantize_fixed_point import QuantizeFixedPoint
from qonnx_hub_ir.passes.quantizers.remove_redundant_quant import RemoveRedundantQuant
from qonnx_hub_ir.passes.quantizers.spell_rounding import SpellOutRounding
from qonnx_hub_ir.passes.quantizers.symmetrize import Symmetrize
from qonnx_hub_ir.passes.quantizers.zero_bits import SpellZeroBits
from qonnx_hub_ir.passes.quantizers.zero_point_pairs import JoinZeroPoint, SplitZeroPoint
from qonnx_hub_ir.passes.scales.extract_scale import ExtractScale
from qonnx_hub_ir.passes.scales.power_of_two_scales import PowerOfTwoScales
from qonnx_hub_ir.passes.scales.streamline import Streamline
from qonnx_hub_ir.passes.shapes.change_3d_to_4d import Change3dTo4d
from qonnx_hub_ir.passes.shapes.change_batch import ChangeBatch
from qonnx_hub_ir.passes.shapes.fold_shapes import FoldShapes
from qonnx_hub_ir.passes.shapes.infer_shapes import InferShapes
from qonnx_hub_ir.passes.shapes.open_axes import OpenAxes
from qonnx_hub_ir.passes.shapes.set_input_shape import SetInputShape

__all__ = [
    "IMPORT_PIPELINE",
    "AnnotateDatatype",
    "BipolarToXnor",
    "Change3dTo4d",
    "ChangeBatch",
    "ChangeLayout",
    "DivToMul",
    "DoubleToSingle",
    "DropUnused",
    "Expose",
    "ExtractBias",
    "ExtractScale",
    "FoldBatchnorm",
    "FoldConstants",
    "FoldQuantizedConstants",
    "FoldShapes",
    "FoldWeightLayout",
    "GemmToMatmul",
    "GiveNames",
    "InferDataLayouts",
    "InferShapes",
    "InlineFunctions",
    "InsertIdentity",
    "InsertTopk",
    "JoinZeroPoint",
    "LowerChannelsLast",
    "LowerConvToMatmul",
    "LowerOpset",
    "LowerThresholds",
    "MatmulToGemm",
    "MergeEqual",
    "MultithresholdToQuant",
    "NameNodes",
    "NormalizeDialect",
    "OpenAxes",
    "PowerOfTwoScales",
    "PruneChannels",
    "QuantAvgpoolNhwc",
    "QuantToMultithreshold",
    "QuantizeFixedPoint",
    "QuantizeGraph",
    "RaiseOpset",
    "RebalanceIm2col",
    "RemoveIdentity",
    "RemoveRedundantQuant",
    "RenameTensors",
    "ResizeConvToDeconv",
    "SetInputShape",
    "SinkTransposes",
    "SortByDepth",
    "SortCommutative",
    "SpellOutRounding",
    "SpellZeroBits",
    "SplitZeroPoint",
    "Streamline",
    "SubToAdd",
    "SubpixelToDeconv",
    "Symmetrize",
    "ToChannelsFirst",
    "ToChannelsLast",
    "UniqueParameters",
    "run_passes",
]

IMPORT_PIPELINE: tuple[InPlacePass, ...] = (
    NameNodes(),  # every later message points at nodes by name
    NormalizeDialect(),  # the version converter fails on domains without an import
    RaiseOpset(),  # every later pass reads one form of each operator
    NormalizeDialect(),  # the converter writes Constant nodes
    FoldConstants(),  # parameters must be known before they can be verified
    InferShapes(),  # reads small constants: after folding
    SpellZeroBits(),  # reads constants and shapes
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
