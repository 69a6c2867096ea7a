"""The operators that are read, a row each: their kernels, and what a file may ask of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from qonnx_hub_adapters.tflite.kernels import (
    dense,
    floats,
    functions,
    lstm,
    movement,
    pointwise,
    pools,
)
from qonnx_hub_adapters.tflite.net import KernelCall

TfliteKernel = Callable[..., Any]
"""Takes the call and the inputs' arrays; returns one array, or a tuple of several."""

_EIGHT, _WIDE = ("INT8", "UINT8"), ("INT8", "UINT8", "INT16")


@dataclass(frozen=True, slots=True)
class TfliteOperator:
    """One operator.

    Attributes:
        name: As the schema calls it.
        options: The table of its options, without "Options"; empty for none.
        inputs: Fewest and most inputs.
        on_codes: The kernel on codes; ``None`` where it only takes floats.
        on_floats: The kernel on floats; ``None`` where it only takes codes.
        version: The newest version that is known.
        types: Types of codes that the reference kernels take.
        copies: Types whose codes it copies or compares without a look at their grids.
        one_grid: Types of which the reference kernel takes all on one grid only.
        settings: Inputs that hold settings, axes and shapes and places, and no data.
    """

    name: str
    options: str
    inputs: tuple[int, int]
    on_codes: TfliteKernel | None
    on_floats: TfliteKernel | None
    version: int
    types: tuple[str, ...] = _WIDE
    copies: tuple[str, ...] = ()
    one_grid: tuple[str, ...] = ()
    settings: tuple[int, ...] = ()

    def kernel(self, call: KernelCall) -> TfliteKernel | None:
        """Return the kernel for a call; ``None`` where its types have none."""
        made = call.output.type
        if made not in ("FLOAT32", "FLOAT16"):
            return self.on_codes
        return self.on_floats


def _row(
    name: str,
    options: str,
    inputs: tuple[int, int],
    codes: Any,
    plain: Any,
    version: int,
    **k: Any,
) -> TfliteOperator:
    return TfliteOperator(name, options, inputs, codes, plain, version, **k)


def _moves(
    name: str, options: str, inputs: tuple[int, int], kernel: Any, version: int, **k: Any
) -> TfliteOperator:
    return TfliteOperator(name, options, inputs, kernel, kernel, version, copies=_WIDE, **k)


_ROWS = (
    _row("CONV_2D", "Conv2D", (2, 3), dense.conv_2d, floats.dense, 8),
    _row(
        "DEPTHWISE_CONV_2D",
        "DepthwiseConv2D",
        (2, 3),
        dense.depthwise_conv_2d,
        floats.dense,
        7,
    ),
    _row("FULLY_CONNECTED", "FullyConnected", (2, 3), dense.fully_connected, floats.dense, 14),
    _row(
        "TRANSPOSE_CONV",
        "TransposeConv",
        (3, 4),
        dense.transpose_conv,
        floats.transpose_conv,
        5,
        settings=(0,),
    ),
    _row(
        "BATCH_MATMUL",
        "BatchMatMul",
        (2, 2),
        dense.batch_matmul,
        floats.batch_matmul,
        4,
        types=("INT8", "INT16"),
    ),
    _row("ADD", "Add", (2, 2), pointwise.add, floats.pair, 5),
    _row("SUB", "Sub", (2, 2), pointwise.add, floats.pair, 5),
    _row("MUL", "Mul", (2, 2), pointwise.multiply, floats.pair, 7),
    _row("DIV", "Div", (2, 2), None, floats.pair, 2),
    _row(
        "MAXIMUM",
        "MaximumMinimum",
        (2, 2),
        pointwise.larger,
        pointwise.larger,
        4,
        copies=_WIDE,
    ),
    _row(
        "MINIMUM",
        "MaximumMinimum",
        (2, 2),
        pointwise.larger,
        pointwise.larger,
        4,
        copies=_WIDE,
    ),
    _row("QUANTIZE", "Quantize", (1, 1), pointwise.quantize, None, 4),
    _row("DEQUANTIZE", "Dequantize", (1, 1), None, pointwise.dequantize, 6),
    _row("RELU", "", (1, 1), pointwise.relu, floats.unary, 3),
    _row("RELU6", "", (1, 1), pointwise.relu, floats.unary, 3),
    _row("RELU_N1_TO_1", "", (1, 1), pointwise.relu, floats.unary, 1, types=_EIGHT),
    _row("LEAKY_RELU", "LeakyRelu", (1, 1), pointwise.leaky_relu, floats.unary, 2),
    _row("PRELU", "", (2, 2), pointwise.prelu, floats.prelu, 1, types=_EIGHT),
    _row("LOGISTIC", "", (1, 1), functions.curve, floats.unary, 3),
    _row("TANH", "", (1, 1), functions.curve, floats.unary, 3),
    _row(
        "HARD_SWISH", "HardSwish", (1, 1), functions.hard_swish, floats.unary, 1, types=_EIGHT
    ),
    _row("SOFTMAX", "Softmax", (1, 1), functions.softmax, floats.softmax, 3),
    _row(
        "AVERAGE_POOL_2D",
        "Pool2D",
        (1, 1),
        pools.average_pool,
        floats.average_pool,
        3,
        copies=_WIDE,
    ),
    _row("MAX_POOL_2D", "Pool2D", (1, 1), pools.max_pool, floats.max_pool, 3, copies=_WIDE),
    _row("MEAN", "Reducer", (2, 2), pools.mean, floats.mean, 3, settings=(1,)),
    _row("SUM", "Reducer", (2, 2), pools.mean, floats.mean, 2, settings=(1,)),
    *(
        _row(
            *(name, "Reducer", (2, 2), pools.reduce_max, pools.reduce_max, 3),
            copies=_WIDE,
            one_grid=_WIDE,
            settings=(1,),
        )
        for name in ("REDUCE_MAX", "REDUCE_MIN")
    ),
    _row(
        "RESIZE_BILINEAR",
        "ResizeBilinear",
        (2, 2),
        pools.resize_bilinear,
        pools.resize_bilinear,
        4,
        copies=_WIDE,
        settings=(1,),
    ),
    _row(
        "RESIZE_NEAREST_NEIGHBOR",
        "ResizeNearestNeighbor",
        (2, 2),
        pools.resize_nearest,
        pools.resize_nearest,
        4,
        copies=_WIDE,
        settings=(1,),
    ),
    _row(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "UnidirectionalSequenceLSTM",
        (20, 24),
        lstm.lstm,
        None,
        4,
        types=("INT8",),
    ),
    _row(
        "CONCATENATION",
        "Concatenation",
        (1, 1000),
        movement.concatenation,
        movement.concatenation,
        4,
        copies=("INT8", "INT16"),
        one_grid=("INT8",),
    ),
    _moves("PAD", "Pad", (2, 2), movement.pad, 4, settings=(1,)),
    _moves("PADV2", "PadV2", (3, 3), movement.pad, 4, settings=(1,)),
    _moves(
        "MIRROR_PAD",
        "MirrorPad",
        (2, 2),
        movement.mirror_pad,
        3,
        one_grid=_WIDE,
        settings=(1,),
    ),
    _moves("TRANSPOSE", "Transpose", (2, 2), movement.transpose, 7, settings=(1,)),
    _moves("RESHAPE", "Reshape", (1, 2), movement.reshape, 2, settings=(1,)),
    _moves("SQUEEZE", "Squeeze", (1, 1), movement.squeeze, 2),
    _moves(
        "EXPAND_DIMS",
        "ExpandDims",
        (2, 2),
        movement.expand_dims,
        1,
        one_grid=_WIDE,
        settings=(1,),
    ),
    _moves("SPLIT", "Split", (2, 2), movement.split, 4, settings=(0,)),
    _moves("SPLIT_V", "SplitV", (3, 3), movement.split_v, 2, settings=(1, 2)),
    _moves("SLICE", "Slice", (3, 3), movement.cut, 6, settings=(1, 2)),
    _moves(
        "STRIDED_SLICE", "StridedSlice", (4, 4), movement.strided_slice, 8, settings=(1, 2, 3)
    ),
    _moves("PACK", "Pack", (1, 1000), movement.pack, 4, one_grid=_WIDE),
    _moves("UNPACK", "Unpack", (1, 1), movement.unpack, 4),
    _moves("GATHER", "Gather", (2, 2), movement.gather, 7, settings=(1,)),
    _row("SHAPE", "Shape", (1, 1), movement.shape_of, None, 1, types=("INT32", "INT64")),
)

OPERATORS: Mapping[str, TfliteOperator] = {row.name: row for row in _ROWS}
"""Name -> row."""
