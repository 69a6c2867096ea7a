"""Which calls the reference kernels take: what they refuse or get wrong is not read."""

from __future__ import annotations

import math
from collections.abc import Mapping

from qonnx_hub_adapters.tflite.kernels.functions import hard_swish_factors
from qonnx_hub_adapters.tflite.kernels.lstm import UNREAD
from qonnx_hub_adapters.tflite.kernels.pointwise import power_of_two_shifts, sum_factors
from qonnx_hub_adapters.tflite.kernels.windows import padding
from qonnx_hub_adapters.tflite.net import RELU6, RELU_N1_TO_1, KernelCall
from qonnx_hub_adapters.tflite.operators import OPERATORS as ROWS
from qonnx_hub_adapters.tflite.schema import TYPES
from qonnx_hub_ir.errors import SourceError

MOST_ELEMENTS = 2**28
"""The most elements of a tensor: what is larger does not fit beside its neighbours."""

_POSITIVE = (
    "stride_h",
    "stride_w",
    "dilation_h_factor",
    "dilation_w_factor",
    "filter_height",
    "filter_width",
)


def require_call(call: KernelCall) -> None:
    """Refuse what the reference kernels do not compute, or compute wrongly.

    Raises:
        SourceError: With operator and tensor.
    """
    where = f"{call.name} (tensor '{call.output.name}')"
    row = ROWS[call.name]
    for name in _POSITIVE:
        if call.options.get(name, 1) < 1:
            raise SourceError(f"{where}: {name} is {call.options[name]}")
    number = call.options.get("fused_activation_function", 0)
    if number not in ((0, 4) if call.name == "UNIDIRECTIONAL_SEQUENCE_LSTM" else (0, 1, 2, 3)):
        raise SourceError(f"{where}: fused activation {number} is not known")
    if call.options.get("padding", 0) not in (0, 1):
        raise SourceError(f"{where}: padding {call.options['padding']} is not known")
    if row.kernel(call) is None:
        raise SourceError(f"{where}: no kernel makes {call.output.type}")
    made = call.output
    if made.type in ("INT8", "UINT8", "INT16") and made.grid is not None:
        if made.type not in row.types:
            raise SourceError(f"{where}: the reference kernels do not take {made.type}")
        if made.grid.scale.size > 1:
            raise SourceError(f"{where}: activations with a scale per channel are not read")
        if made.type in row.one_grid:
            _require_one_grid(call, where)
    _require_types(call, where)
    _require_grids(call, where)
    _require_size(call, where)
    if call.options.get("batch_dims") or (call.name == "CONCATENATION" and number):
        raise SourceError(f"{where}: batch_dims and a fused activation are not read here")
    _require_product(call, where)
    _require_fixed_grid(call, where)
    _require_numbers(call, where)


_DENSE = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
"""Operators whose weights and biases have types of their own."""

_WEIGHTS = {
    "INT8": ("INT8", "INT4"),
    "UINT8": ("UINT8",),
    "INT16": ("INT8",),
    "FLOAT32": ("FLOAT32", "INT8", "UINT8", "INT4"),
}
"""Type of the data -> those of weights."""

_BIASES = {
    "INT8": ("INT32",),
    "UINT8": ("INT32",),
    "INT16": ("INT64", "INT32"),
    "FLOAT32": ("FLOAT32",),
}
"""Type of the data -> those of biases."""

_FROM: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "QUANTIZE": {
        "FLOAT32": ("INT8", "UINT8", "INT16"),
        "INT8": ("INT8", "UINT8", "INT16"),
        "UINT8": ("INT8", "UINT8", "INT16"),
        "INT16": ("INT8", "INT16", "INT32"),
        "INT32": ("INT8", "INT16"),
    },
    "DEQUANTIZE": dict.fromkeys(("INT4", "INT8", "UINT8", "INT16", "FLOAT16"), ("FLOAT32",)),
}
"""Operators that change types: type of the data -> those of what they make."""

_OTHER_TYPES = ("SHAPE", "UNIDIRECTIONAL_SEQUENCE_LSTM")
"""Operators whose types have rules of their own, elsewhere."""


_LONG_SETTINGS = (
    *("EXPAND_DIMS", "GATHER", "MIRROR_PAD", "PAD", "PADV2", "SLICE", "SPLIT", "SPLIT_V"),
)
"""Operators whose settings may be INT64 as well."""


def _require_types(call: KernelCall, where: str) -> None:
    """Refuse types that do not go together: the reference kernels refuse them, or misread."""
    row, made = ROWS[call.name], call.output.type
    given = [(i, t) for i, t in enumerate(call.inputs) if t is not None]
    data = [t for i, t in given if i not in row.settings]
    settings = [t for i, t in given if i in row.settings]
    kinds = ("INT32", "INT64") if call.name in _LONG_SETTINGS else ("INT32",)
    for tensor in settings:
        if tensor.type not in kinds or (
            call.name == "SLICE" and tensor.type != settings[0].type
        ):
            raise SourceError(f"{where}: settings '{tensor.name}' are {tensor.type}")
    if call.name in _OTHER_TYPES or (call.name == "BATCH_MATMUL" and made == "FLOAT32"):
        return
    if call.name in _DENSE:
        first = call.tensor(2 if call.name == "TRANSPOSE_CONV" else 0)
        sides = [(_WEIGHTS, call.tensor(1))]
        sides += [(_BIASES, given[-1][1])] if len(given) == row.inputs[1] else []
        if call.name == "TRANSPOSE_CONV" and call.tensor(1).type == "INT4":
            sides.append(({}, call.tensor(1)))
        wrong = [t for known, t in sides if t.type not in known.get(first.type, ())]
        wrong += [call.output] if made != first.type else []
    elif call.name in _FROM:
        known = _FROM[call.name].get(data[0].type, ())
        wrong = [call.output] if made not in known else []
    else:
        wrong = [t for t in (*data, *call.outputs) if t.type != made]
        if not row.copies and made not in (*row.types, "FLOAT32"):
            wrong = [call.output]
    if wrong:
        listed = ", ".join(t.type for t in data)
        raise SourceError(
            f"{where}: '{wrong[0].name}' is {wrong[0].type}; the reference kernels do not "
            f"take {listed} to {made}"
        )


_FIXED_STEPS = {
    ("LOGISTIC", "INT8"): 256,
    ("LOGISTIC", "UINT8"): 256,
    ("SOFTMAX", "INT8"): 256,
    ("SOFTMAX", "UINT8"): 256,
    ("SOFTMAX", "INT16"): 32768,
    ("LOGISTIC", "INT16"): 32768,
    ("TANH", "INT16"): 32768,
}
"""Operator, type -> the steps of one that it makes; no other grid is taken."""


def _require_fixed_grid(call: KernelCall, where: str) -> None:
    made, steps = call.output, _FIXED_STEPS.get((call.name, call.output.type))
    if steps is None or made.grid is None:
        return
    zero = -128 if made.type == "INT8" else 0
    most = 0.001 if call.name == "SOFTMAX" and made.type != "UINT8" else 0.0
    if made.zero != zero or abs(float(made.scale) * steps - 1) > most:
        raise SourceError(
            f"{where}: makes steps of 1/{steps} from {zero}, and its output has scale "
            f"{float(made.scale):g}, zero point {made.zero}: the reference kernels refuse it"
        )


_INT32 = 2.0**31

_TOP_OF = {RELU_N1_TO_1: 1.0, RELU6: 6.0}
"""Fused activations -> the value whose code 32 bits must hold."""


def _require_numbers(call: KernelCall, where: str) -> None:
    """Refuse grids and settings whose factors the reference kernels do not take."""
    made, why = call.output, ""
    is_codes = made.type in _CODES and made.grid is not None
    top = _TOP_OF.get(call.options.get("fused_activation_function", 0))
    if is_codes and top is not None and top / float(made.scale) >= _INT32:
        why = f"has no code of 32 bits for {top:g}, where it is cut"
    elif is_codes and call.name in ("ADD", "SUB"):
        shifts = power_of_two_shifts(call)
        if shifts is not None and min(shifts) != 0:
            why = "has sides that both have other scales than the output"
        elif shifts is None and sum_factors(call)[2].exponent > 0:
            why = "has an output scale far below those of its sides"
    elif is_codes and call.name == "HARD_SWISH" and hard_swish_factors(call)[0].exponent > 0:
        why = "has an output scale far below that of its input"
    elif call.name == "RESIZE_BILINEAR" and (
        call.options.get("align_corners") and call.options.get("half_pixel_centers")
    ):
        why = "asks for aligned corners and for half pixels"
    elif call.name in ("CONV_2D", "DEPTHWISE_CONV_2D") and not call.has(2):
        if call.name == "CONV_2D" or len(call.inputs) > 2:
            why = "has no bias (write one of zeros)"
    elif call.name == "TRANSPOSE_CONV" and not _is_window_count(call):
        why = "asks for a size that its windows do not give"
    if why:
        raise SourceError(f"{where}: {why}, which the reference kernels refuse")


def _is_window_count(call: KernelCall) -> bool:
    """Return whether TRANSPOSE_CONV asks for a size over which its cells are the windows.

    A size that is computed is not known here.
    """
    wanted, window, given = (call.tensor(i) for i in range(3))
    if (
        wanted.data is None
        or not wanted.data.size == len(given.shape) == len(window.shape) == 4
    ):
        return wanted.data is None
    strides = (call.options["stride_h"], call.options["stride_w"])
    return all(
        padding(call.options["padding"], int(wanted.data[i]), window.shape[i], strides[i - 1])[
            0
        ]
        == given.shape[i]
        for i in (1, 2)
    )


_CODES = ("INT4", "INT8", "UINT8", "INT16")


def _require_grids(call: KernelCall, where: str) -> None:
    """Refuse codes without a scale, where more is done than to copy them."""
    computes = call.output.type in _CODES and call.output.type not in ROWS[call.name].copies
    if not computes and call.name != "DEQUANTIZE":
        return
    for tensor in (*call.inputs, *call.outputs):
        if tensor is not None and tensor.type in _CODES and tensor.grid is None:
            raise SourceError(f"{where}: '{tensor.name}' has no scale")
        if tensor is not None and tensor.type == "INT16" and tensor.zero:
            raise SourceError(f"{where}: '{tensor.name}' has 16 bits and a zero point")
        is_float = tensor is not None and tensor.type == "FLOAT32"
        if computes and is_float and call.name != "QUANTIZE":
            raise SourceError(f"{where}: makes codes of floats")


_SIZED = {"RESIZE_BILINEAR": 1, "RESIZE_NEAREST_NEIGHBOR": 1, "TRANSPOSE_CONV": 0}
"""Operator -> the input that holds sizes of what it makes."""


def _require_size(call: KernelCall, where: str) -> None:
    """Refuse to make more than fits: sizes are settings, and not those of the output."""
    index = 1 if "PAD" in call.name else _SIZED.get(call.name)
    numbers = None if index is None else call.tensor(index).data
    if numbers is None:
        return
    given = call.tensor(2 if call.name == "TRANSPOSE_CONV" else 0).shape
    sizes = [int(n) for n in numbers.reshape(-1)]
    if "PAD" in call.name:
        if min(sizes, default=0) < 0 or len(sizes) != 2 * len(given):
            raise SourceError(f"{where}: pads {sizes[:16]} of shape {list(given)}")
        sizes = [n + a + b for n, a, b in zip(given, sizes[::2], sizes[1::2], strict=True)]
    elif call.name.startswith("RESIZE") and len(given) == 4:
        sizes = [given[0], *sizes, given[3]]
    if min(sizes, default=1) < 0 or math.prod(sizes) > MOST_ELEMENTS:
        raise SourceError(f"{where}: makes shape {sizes[:16]}")


def _require_one_grid(call: KernelCall, where: str) -> None:
    own = call.output.grid
    for tensor in (*call.inputs, *call.outputs):
        grid = None if tensor is None or tensor.type != call.output.type else tensor.grid
        if grid is not None and own is not None and not own.same(grid):
            raise SourceError(
                f"{where}: '{'' if tensor is None else tensor.name}' lies on another grid, "
                "which the reference kernels refuse"
            )


def _require_product(call: KernelCall, where: str) -> None:
    made = call.output
    weights = call.inputs[1] if len(call.inputs) > 1 else None
    grid = None if weights is None else weights.grid
    is_codes = call.name == "BATCH_MATMUL" and made.type != "FLOAT32"
    if is_codes and grid is not None and grid.scale.size > 1:
        raise SourceError(
            f"{where}: the reference kernel answers zeros where the right side has a scale "
            "per channel; it is not read"
        )
    types = {t.type for t in call.inputs if t is not None}
    if call.name == "BATCH_MATMUL" and made.type == "FLOAT32" and types != {"FLOAT32"}:
        raise SourceError(
            f"{where}: floats times {', '.join(sorted(types - {'FLOAT32'}))} quantize the "
            "floats while they run; it is not read"
        )
    if call.name in ("DEPTHWISE_CONV_2D", "TRANSPOSE_CONV") and made.type == "INT16":
        last = call.inputs[-1] if len(call.inputs) == ROWS[call.name].inputs[1] else None
        if last is not None and last.type == "INT32":
            raise SourceError(f"{where}: 16-bit data takes a bias of INT64, not of INT32")
    if call.name in ("CONV_2D", "FULLY_CONNECTED") and made.type == "INT16" and call.has(2):
        said = TYPES.index("INT32") == call.options.get("quantized_bias_type")
        if call.tensor(2).type == "INT32" and not said:
            raise SourceError(
                f"{where}: has a bias of INT32 beside 16-bit data, and no "
                "quantized_bias_type says so: the reference kernels read it as INT64"
            )
    if call.name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        unread = [i for i in UNREAD if call.has(i)]
        if unread:
            raise SourceError(
                f"{where}: peephole, projection, layer norm are not read (input {unread[0]})"
            )
    if call.name == "FULLY_CONNECTED" and call.options.get("weights_format"):
        raise SourceError(f"{where}: shuffled weights are not read")
