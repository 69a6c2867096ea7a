"""TFLite's own operators, on codes: what a net is run with, as it is written."""

from __future__ import annotations

from qonnx_hub_ir import dialect
from qonnx_hub_ir.operators.row import Family, Operator, rows

OPERATORS: tuple[Operator, ...] = (
    *rows(
        *(dialect.TFLITE_DOMAIN, Family.PRODUCT),
        "CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED BATCH_MATMUL",
        "data weight +bias",
    ),
    *rows(dialect.TFLITE_DOMAIN, Family.PRODUCT, "TRANSPOSE_CONV", "shape weight data +bias"),
    *rows(
        *(dialect.TFLITE_DOMAIN, Family.ARITHMETIC),
        "ADD SUB MUL DIV MAXIMUM MINIMUM PRELU",
        "left right",
    ),
    *rows(dialect.TFLITE_DOMAIN, Family.QUANTIZER, "QUANTIZE DEQUANTIZE", "data"),
    *rows(
        *(dialect.TFLITE_DOMAIN, Family.FUNCTION),
        "RELU RELU6 RELU_N1_TO_1 LEAKY_RELU LOGISTIC TANH HARD_SWISH",
        "data",
    ),
    *rows(dialect.TFLITE_DOMAIN, Family.SOFTMAX, "SOFTMAX", "data"),
    *rows(dialect.TFLITE_DOMAIN, Family.POOLING, "AVERAGE_POOL_2D MAX_POOL_2D", "data"),
    *rows(
        *(dialect.TFLITE_DOMAIN, Family.REDUCTION),
        "MEAN SUM REDUCE_MAX REDUCE_MIN",
        "data axes",
    ),
    *rows(
        *(dialect.TFLITE_DOMAIN, Family.MOVEMENT),
        "CONCATENATION PAD PADV2 MIRROR_PAD TRANSPOSE RESHAPE SQUEEZE EXPAND_DIMS SPLIT "
        "SPLIT_V SLICE STRIDED_SLICE PACK UNPACK GATHER RESIZE_NEAREST_NEIGHBOR",
        "data*",
    ),
    *rows(dialect.TFLITE_DOMAIN, Family.OTHER, "RESIZE_BILINEAR SHAPE", "data +size"),
    *rows(
        *(dialect.TFLITE_DOMAIN, Family.RECURRENT, "UNIDIRECTIONAL_SEQUENCE_LSTM", "data*"),
    ),
)
"""Their rows."""
