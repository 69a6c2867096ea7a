"""The schema of TFLite files as a table: what lies where in a flatbuffer."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

IDENTIFIER = b"TFL3"
"""Bytes 4 to 7 of every file."""

SCHEMA_VERSION = 3

_TABLES: Mapping[str, str] = {
    "Model": (
        "0:version:I 1:operator_codes:*OperatorCode 2:subgraphs:*SubGraph "
        "3:description:s 4:buffers:*Buffer 5:metadata_buffer:*i 6:metadata:*Metadata "
        "7:signature_defs:*SignatureDef 8:external_buffer_groups:*table "
        "9:external_buffers:*table"
    ),
    "OperatorCode": (
        "0:deprecated_builtin_code:b 1:custom_code:s 2:version:i=1 3:builtin_code:i"
    ),
    "SubGraph": (
        "0:tensors:*Tensor 1:inputs:*i 2:outputs:*i 3:operators:*Operator 4:name:s "
        "5:debug_metadata_index:i=-1"
    ),
    "Tensor": (
        "0:shape:*i 1:type:b 2:buffer:I 3:name:s 4:quantization:QuantizationParameters "
        "5:is_variable:? 6:sparsity:table 7:shape_signature:*i 8:has_rank:? "
        "9:variant_tensors:*table 10:external_buffer:I"
    ),
    "QuantizationParameters": (
        "0:min:*f 1:max:*f 2:scale:*f 3:zero_point:*q 4:details_type:B 5:details:table "
        "6:quantized_dimension:i"
    ),
    "Operator": (
        "0:opcode_index:I 1:inputs:*i 2:outputs:*i 3:builtin_options_type:B "
        "4:builtin_options:table 5:custom_options:*B 6:custom_options_format:b "
        "7:mutating_variable_inputs:*? 8:intermediates:*i "
        "9:large_custom_options_offset:Q 10:large_custom_options_size:Q "
        "11:builtin_options2_type:B 12:builtin_options2:table "
        "13:debug_metadata_index:i=-1"
    ),
    "Buffer": "0:data:*B 1:offset:Q 2:size:Q",
    "Metadata": "0:name:s 1:buffer:I",
    "SignatureDef": (
        "0:inputs:*TensorMap 1:outputs:*TensorMap 2:signature_key:s 4:subgraph_index:I"
    ),
    "TensorMap": "0:name:s 1:tensor_index:I",
    "Conv2DOptions": (
        "0:padding:b 1:stride_w:i 2:stride_h:i 3:fused_activation_function:b "
        "4:dilation_w_factor:i=1 5:dilation_h_factor:i=1 6:quantized_bias_type:b"
    ),
    "DepthwiseConv2DOptions": (
        "0:padding:b 1:stride_w:i 2:stride_h:i 3:depth_multiplier:i "
        "4:fused_activation_function:b 5:dilation_w_factor:i=1 6:dilation_h_factor:i=1"
    ),
    "Pool2DOptions": (
        "0:padding:b 1:stride_w:i 2:stride_h:i 3:filter_width:i 4:filter_height:i "
        "5:fused_activation_function:b"
    ),
    "FullyConnectedOptions": (
        "0:fused_activation_function:b 1:weights_format:b 2:keep_num_dims:? "
        "3:asymmetric_quantize_inputs:? 4:quantized_bias_type:b 5:quant_spec:*B"
    ),
    "SoftmaxOptions": "0:beta:f",
    "ConcatenationOptions": "0:axis:i 1:fused_activation_function:b",
    "AddOptions": "0:fused_activation_function:b 1:pot_scale_int16:?=1",
    "SubOptions": "0:fused_activation_function:b 1:pot_scale_int16:?=1",
    "MulOptions": "0:fused_activation_function:b",
    "DivOptions": "0:fused_activation_function:b",
    "ReshapeOptions": "0:new_shape:*i",
    "SqueezeOptions": "0:squeeze_dims:*i",
    "ResizeBilinearOptions": "2:align_corners:? 3:half_pixel_centers:?",
    "ResizeNearestNeighborOptions": "0:align_corners:? 1:half_pixel_centers:?",
    "LeakyReluOptions": "0:alpha:f",
    "BatchMatMulOptions": "0:adj_x:? 1:adj_y:? 2:asymmetric_quantize_inputs:?",
    "StridedSliceOptions": (
        "0:begin_mask:i 1:end_mask:i 2:ellipsis_mask:i 3:new_axis_mask:i "
        "4:shrink_axis_mask:i 5:offset:?"
    ),
    "SplitOptions": "0:num_splits:i",
    "SplitVOptions": "0:num_splits:i",
    "ReducerOptions": "0:keep_dims:?",
    "UnidirectionalSequenceLSTMOptions": (
        "0:fused_activation_function:b 1:cell_clip:f 2:proj_clip:f 3:time_major:? "
        "4:asymmetric_quantize_inputs:? 5:diagonal_recurrent_tensors:?"
    ),
    "MirrorPadOptions": "0:mode:b",
    "GatherOptions": "0:axis:i 1:batch_dims:i",
    "PackOptions": "0:values_count:i 1:axis:i",
    "UnpackOptions": "0:num:i 1:axis:i",
    "CastOptions": "0:in_data_type:b 1:out_data_type:b",
    "ShapeOptions": "0:out_type:b",
    "TransposeConvOptions": (
        "0:padding:b 1:stride_w:i 2:stride_h:i 3:fused_activation_function:b "
        "4:quantized_bias_type:b"
    ),
    "GeluOptions": "0:approximate:?",
    "PadOptions": "",
    "PadV2Options": "",
    "TransposeOptions": "",
    "ExpandDimsOptions": "",
    "SliceOptions": "",
    "MaximumMinimumOptions": "",
    "DequantizeOptions": "",
    "QuantizeOptions": "",
    "HardSwishOptions": "",
}
"""Table -> its fields, as ``slot:name:type=default``. A type is a letter of :mod:`struct`,
``s`` for a string, a table's name, or ``table`` for one that is not looked into; a star
makes it a vector. A default that is not written is 0, false or absent."""

_OPERATORS = (
    "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE "
    "DEQUANTIZE EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION "
    "L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM MAX_POOL_2D MUL "
    "RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH "
    "CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD "
    "UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE "
    "MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE "
    "BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE "
    "BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 "
    "GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE "
    "TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT "
    "REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK "
    "REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE "
    "RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE "
    "CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG "
    "QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 "
    "NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL - "
    "CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE "
    "HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE "
    "VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL "
    "BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 "
    "UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 "
    "UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC "
    "STABLEHLO_ADD STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM "
    "STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE STABLEHLO_BROADCAST_IN_DIM "
    "STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE "
    "STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR "
    "STABLEHLO_LOG STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER "
    "STABLEHLO_REMAINDER STABLEHLO_RSQRT STABLEHLO_SELECT STABLEHLO_SUBTRACT "
    "STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT "
    "STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA "
    "STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE "
    "STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE STABLEHLO_RNG_BIT_GENERATOR "
    "REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT STABLEHLO_CASE "
)

OPERATORS: tuple[str, ...] = tuple(_OPERATORS.split())
"""The built-in operators, by their code."""

_OPTIONS = (
    "NONE Conv2D DepthwiseConv2D ConcatEmbeddings LSHProjection Pool2D SVDF RNN "
    "FullyConnected Softmax Concatenation Add L2Norm LocalResponseNormalization LSTM "
    "ResizeBilinear Call Reshape SkipGram SpaceToDepth EmbeddingLookupSparse Mul Pad "
    "Gather BatchToSpaceND SpaceToBatchND Transpose Reducer Sub Div Squeeze SequenceRNN "
    "StridedSlice Exp TopKV2 Split LogSoftmax Cast Dequantize MaximumMinimum ArgMax Less "
    "Neg PadV2 Greater GreaterEqual LessEqual Select Slice TransposeConv SparseToDense "
    "Tile ExpandDims Equal NotEqual Shape Pow ArgMin FakeQuant Pack LogicalOr OneHot "
    "LogicalAnd LogicalNot Unpack FloorDiv Square ZerosLike Fill "
    "BidirectionalSequenceLSTM BidirectionalSequenceRNN UnidirectionalSequenceLSTM "
    "FloorMod Range ResizeNearestNeighbor LeakyRelu SquaredDifference MirrorPad Abs "
    "SplitV Unique ReverseV2 AddN GatherNd Cos Where Rank ReverseSequence MatrixDiag "
    "Quantize MatrixSetDiag HardSwish If While DepthToSpace NonMaxSuppressionV4 "
    "NonMaxSuppressionV5 ScatterNd SelectV2 Densify SegmentSum BatchMatMul Cumsum "
    "CallOnce BroadcastTo Rfft2d Conv3D Hashtable HashtableFind HashtableImport "
    "HashtableSize VarHandle ReadVariable AssignVariable Random Bucketize Gelu "
    "DynamicUpdateSlice UnsortedSegmentProd UnsortedSegmentMax UnsortedSegmentMin "
    "UnsortedSegmentSum ATan2 Sign Bitcast BitwiseXor RightShift "
)

OPTIONS: tuple[str, ...] = tuple(_OPTIONS.split())
"""The options of built-in operators, by their place in the union."""

_TYPES = (
    "FLOAT32 FLOAT16 INT32 UINT8 INT64 STRING BOOL INT16 COMPLEX64 INT8 FLOAT64 "
    "COMPLEX128 UINT64 RESOURCE VARIANT UINT32 UINT16 INT4 BFLOAT16 INT2 UINT4 "
    "FLOAT8_E4M3FN FLOAT8_E5M2"
)

TYPES: tuple[str, ...] = tuple(_TYPES.split())
"""The types of tensors, by their number."""


@dataclass(frozen=True, slots=True)
class TableField:
    """One field of a table.

    Attributes:
        slot: Its place in the table's list of offsets.
        name: How it is called.
        kind: Its type, without the star of a vector.
        is_vector: Whether it holds several.
        default: What a number is where it is not written.
    """

    slot: int
    name: str
    kind: str
    is_vector: bool
    default: int | float | bool


@functools.cache
def fields_of(table: str) -> tuple[TableField, ...] | None:
    """Return the fields of a table; ``None`` for one that is not known.

    Example:
        >>> fields_of("SoftmaxOptions")
        (TableField(slot=0, name='beta', kind='f', is_vector=False, default=0.0),)
    """
    text = _TABLES.get(table)
    return None if text is None else tuple(map(_field, text.split()))


def _field(text: str) -> TableField:
    slot, name, rest = text.split(":")
    kind, _, written = rest.partition("=")
    default = int(written or 0)
    value = bool(default) if kind == "?" else float(default) if kind in "fd" else default
    return TableField(int(slot), name, kind.lstrip("*"), kind.startswith("*"), value)


def options_table(number: int) -> str:
    """Return the name of the table of options; empty for none and the unknown."""
    name = OPTIONS[number] if 0 < number < len(OPTIONS) else ""
    return f"{name}Options" if name and fields_of(f"{name}Options") is not None else ""
