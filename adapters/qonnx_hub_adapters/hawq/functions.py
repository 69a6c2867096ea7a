"""Torch functions outside of HAWQ's layers, as ONNX operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from qonnx_hub_adapters.hawq.trace_data import RANK, Operand, Ref
from qonnx_hub_ir.quantizers import Array


class UntraceableError(Exception):
    """A call that has no ONNX form here; the text is the reason."""


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A torch function that was called on traced values.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        result: The tensor it returned.
        find: Tensor -> its number before the call, ``None`` for constants.
        emit: ``emit(operator, *inputs, **attributes)`` adds an operator and returns its value.
    """

    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    result: Any
    find: Callable[[Any], Ref | None]
    emit: Callable[..., Ref]

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument by its position or name."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def named(self, parameters: str) -> dict[str, Any]:
        """Return the arguments given, by the names of the function's parameters in order."""
        return {**dict(zip(parameters.split(), self.args, strict=False)), **self.kwargs}

    def operand(self, value: Any) -> Operand:
        """Return an argument as an input of an operator.

        Raises:
            UntraceableError: It is neither a float32 tensor nor a number.
        """
        if isinstance(value, (bool, complex)):
            raise UntraceableError(f"an argument {value!r}")
        if isinstance(value, (int, float)):
            return np.asarray(value, dtype=np.float32)
        found = self.find(value)
        if found is not None:
            return found
        if "out" in self.kwargs:
            raise UntraceableError("the argument out")
        if not hasattr(value, "detach"):
            raise UntraceableError(f"an argument of type {type(value).__name__}")
        array = value.detach().cpu().numpy()
        if array.dtype != np.float32:
            raise UntraceableError(f"a constant of type {array.dtype.name}")
        return np.array(array, dtype=np.float32)

    @property
    def x(self) -> Ref:
        """The first argument, which must be a traced value.

        Raises:
            UntraceableError: It is a constant.
        """
        found = self.find(self.get(0, "input"))
        if found is None:
            raise UntraceableError("argument 'input' is a constant")
        return found

    def constant(self, value: Any) -> Array:
        """Return an argument that must be a constant.

        Raises:
            UntraceableError: It is a traced value, or no float32.
        """
        operand = value if isinstance(value, np.ndarray) else self.operand(value)
        if isinstance(operand, Ref):
            raise UntraceableError("a computed value where a constant is needed")
        return operand

    @property
    def sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Spatial sizes of the first argument and of the result."""
        return tuple(self.args[0].shape)[2:], tuple(self.result.shape)[2:]


Handler: TypeAlias = Callable[[FunctionCall], Ref]


def _integers(values: Any) -> Array:
    return np.asarray(values, dtype=np.int64)


def _floats(value: float) -> Array:
    return np.asarray(value, dtype=np.float32)


def _unless(refuses: Callable[[FunctionCall], bool], reason: str, handler: Handler) -> Handler:
    """Return a handler that refuses some of the calls."""

    def handle(call: FunctionCall) -> Ref:
        if refuses(call):
            raise UntraceableError(reason)
        return handler(call)

    return handle


def _one_input(
    op_type: str, attributes: Callable[[FunctionCall], Mapping[str, Any]] = lambda _: {}
) -> Handler:
    return lambda call: call.emit(op_type, call.x, **attributes(call))


def _arithmetic(op_type: str, *, swapped: bool = False) -> Handler:
    def handle(call: FunctionCall) -> Ref:
        if call.kwargs.get("alpha", 1) != 1 or call.kwargs.get("rounding_mode") is not None:
            raise UntraceableError("the argument alpha or rounding_mode")
        first = call.operand(call.get(0, "input"))
        second = call.operand(call.get(1, "other"))
        return call.emit(op_type, *((second, first) if swapped else (first, second)))

    return handle


def _clip(call: FunctionCall, low: Any, high: Any) -> Ref:
    if low is None or high is None:
        raise UntraceableError("a clamp with one limit only")
    if hasattr(low, "detach") or hasattr(high, "detach"):
        raise UntraceableError("a clamp with tensors as limits")
    return call.emit("Clip", call.x, _floats(low), _floats(high))


def _clamp(low: str, high: str, defaults: tuple[Any, Any] = (None, None)) -> Handler:
    return lambda call: _clip(
        call, call.get(1, low, defaults[0]), call.get(2, high, defaults[1])
    )


def _gelu(call: FunctionCall) -> Ref:
    if call.kwargs.get("approximate", "none") != "none":
        raise UntraceableError("the tanh approximation of gelu")
    x = call.x
    curve = call.emit("Erf", call.emit("Mul", x, _floats(math.sqrt(0.5))))
    share = call.emit("Add", curve, _floats(1.0))
    return call.emit("Mul", call.emit("Mul", x, _floats(0.5)), share)


def _softmax(op_type: str) -> Handler:
    def handle(call: FunctionCall) -> Ref:
        axis = call.get(1, "dim")
        if axis is None or call.kwargs.get("dtype") is not None:
            raise UntraceableError("a softmax without dim, or with a dtype")
        return call.emit(op_type, call.x, axis=int(axis))

    return handle


def _reshaped(call: FunctionCall) -> Ref:
    before = tuple(call.args[0].shape)
    after = tuple(call.result.shape)
    if before == after:
        return call.x
    if len(after) == 2 and before[0] == after[0]:
        return call.emit("Flatten", call.x, axis=1)
    # Zero stands for the input's own size: the batch stays open.
    shape = (0, *after[1:]) if after and before[:1] == after[:1] else after
    return call.emit("Reshape", call.x, _integers(shape))


def _permuted(call: FunctionCall) -> Ref:
    given = call.get(1, "dims")
    order = given if isinstance(given, (tuple, list)) else call.args[1:]
    perm = [int(axis) % call.result.ndim for axis in order]
    return call.emit("Transpose", call.x, perm=perm)


def _transposed(call: FunctionCall) -> Ref:
    perm = list(range(call.result.ndim))
    given = call.named("input dim0 dim1")
    # swapaxes calls them axis0 and axis1.
    first, second = (given[name] for name in sorted(given) if name[:-1] in ("dim", "axis"))
    perm[first], perm[second] = perm[second], perm[first]
    return call.emit("Transpose", call.x, perm=perm)


def _mean(call: FunctionCall) -> Ref:
    axes = call.get(1, "dim")
    if axes is None or call.kwargs.get("dtype") is not None:
        raise UntraceableError("a mean over all axes, or with a dtype")
    axes = [axes] if isinstance(axes, int) else list(axes)
    rank = call.args[0].ndim
    keep = int(bool(call.get(2, "keepdim", False)))
    ordered = sorted(int(axis) % rank for axis in axes)
    return call.emit("ReduceMean", call.x, _integers(ordered), keepdims=keep)


_NORM = ("running_mean running_var", "weight bias")
"""Parameters of ``torch.nn.functional.batch_norm``; ``torch.batch_norm`` has the pairs in the
other order, and a ninth parameter that has no default."""


def _batch_norm(call: FunctionCall) -> Ref:
    is_functional = call.get(8, "cudnn_enabled") is None
    pairs = " ".join(_NORM if is_functional else _NORM[::-1])
    given = call.named(f"input {pairs} training momentum eps cudnn_enabled")
    mean, variance = given.get("running_mean"), given.get("running_var")
    if given.get("training", False) or mean is None or variance is None:
        raise UntraceableError("batch norm with the statistics of each batch")
    scale, shift = given.get("weight"), given.get("bias")
    size = tuple(mean.shape)
    scale = np.ones(size, dtype=np.float32) if scale is None else scale
    shift = np.zeros(size, dtype=np.float32) if shift is None else shift
    numbers = [call.constant(value) for value in (scale, shift, mean, variance)]
    settings = {"epsilon": float(given.get("eps", 1e-5)), RANK: call.args[0].ndim}
    return call.emit("BatchNormalization", call.x, *numbers, **settings)


def several(value: Any, count: int) -> list[int]:
    """Return a setting that is one number for all axes, or one for each."""
    values = list(value) if isinstance(value, (tuple, list)) else [value]
    return [int(v) for v in (values * count if len(values) == 1 else values)]


def window_attributes(
    before: Sequence[int], after: Sequence[int], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the ONNX attributes of a pooling window.

    Args:
        before: Spatial sizes of the input.
        after: Spatial sizes that torch made of it.
        settings: ``kernel_size``, ``stride``, ``padding`` and ``dilation`` as torch takes
            them; all but the first have its defaults.

    Raises:
        UntraceableError: A ``ceil_mode`` that adds windows.
    """
    rank, stride = len(before), settings.get("stride")
    sizes = several(settings["kernel_size"], rank)
    pads = several(settings.get("padding", 0), rank)
    steps = sizes if stride is None or stride == [] else several(stride, rank)
    gaps = several(settings.get("dilation", 1), rank)
    for axis in range(rank):
        reach = before[axis] + 2 * pads[axis] - gaps[axis] * (sizes[axis] - 1) - 1
        if reach // steps[axis] + 1 != after[axis]:
            raise UntraceableError("a pooling window beyond the end (ceil_mode)")
    found: dict[str, Any] = {"kernel_shape": sizes, "strides": steps, "pads": pads + pads}
    if any(gap != 1 for gap in gaps):
        found["dilations"] = gaps
    return found


def average_attributes(
    before: Sequence[int], after: Sequence[int], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the attributes of AveragePool for the settings of an ``AvgPool2d``.

    Raises:
        UntraceableError: A divisor of its own, or a window beyond the end.
    """
    if settings.get("divisor_override") is not None:
        raise UntraceableError("average pooling with a divisor of its own")
    attributes = window_attributes(before, after, settings)
    if any(attributes["pads"]):
        attributes["count_include_pad"] = int(bool(settings.get("count_include_pad", True)))
    return attributes


def adaptive_window(before: Sequence[int], after: Sequence[int]) -> tuple[str, dict[str, Any]]:
    """Return the operator and attributes of an adaptive average pooling.

    Raises:
        UntraceableError: The windows are not all of one size.
    """
    if all(size == 1 for size in after):
        return "GlobalAveragePool", {}
    if any(size % out for size, out in zip(before, after, strict=True)):
        raise UntraceableError("adaptive pooling with windows of several sizes")
    kernel = [size // out for size, out in zip(before, after, strict=True)]
    return "AveragePool", {"kernel_shape": kernel, "strides": kernel}


def _pool(op_type: str, attributes: Callable[..., dict[str, Any]], names: str) -> Handler:
    names = f"input kernel_size {names}"
    return _one_input(op_type, lambda call: attributes(*call.sizes, call.named(names)))


def _adaptive_average(call: FunctionCall) -> Ref:
    op_type, attributes = adaptive_window(*call.sizes)
    return call.emit(op_type, call.x, **attributes)


def _linear(call: FunctionCall) -> Ref:
    weight = call.constant(call.get(1, "weight"))
    y = call.emit("MatMul", call.x, np.ascontiguousarray(weight.T))
    bias = call.get(2, "bias")
    return y if bias is None else call.emit("Add", y, call.constant(bias))


def conv_attributes(kernel: Sequence[int], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of Conv.

    Args:
        kernel: Spatial sizes of the weights.
        settings: ``stride``, ``padding``, ``dilation`` and ``groups`` as torch takes them; all
            have its defaults.
    """
    rank, padding = len(kernel), settings.get("padding", 0)
    gaps = several(settings.get("dilation", 1), rank)
    if padding == "same":
        total = [gap * (size - 1) for gap, size in zip(gaps, kernel, strict=True)]
        pads = [t // 2 for t in total] + [t - t // 2 for t in total]
    else:
        pads = several(0 if padding == "valid" else padding, rank) * 2
    return {
        "kernel_shape": [int(size) for size in kernel],
        "strides": several(settings.get("stride", 1), rank),
        "pads": pads,
        "dilations": gaps,
        "group": int(settings.get("groups", 1)),
    }


def _convolution(call: FunctionCall) -> Ref:
    given = call.named("input weight bias stride padding dilation groups")
    parts = [given["weight"], given.get("bias")]
    inputs = [call.constant(part) for part in parts if part is not None]
    attributes = conv_attributes(inputs[0].shape[2:], given)
    return call.emit("Conv", call.x, *inputs, **attributes)


_ROWS: Mapping[str, Handler] = {
    "clone contiguous detach data alias": lambda call: call.x,
    "to float type type_as cpu": lambda call: call.x,
    "dropout dropout2d feature_dropout dropout_": _unless(
        lambda call: call.get(2, "training", True),
        "dropout in training mode",
        lambda call: call.x,
    ),
    "relu relu_": _one_input("Relu"),
    "hardtanh hardtanh_": _clamp("min_val", "max_val", (-1.0, 1.0)),
    "relu6 relu6_": lambda call: _clip(call, 0.0, 6.0),
    "clamp clamp_ clip clip_": _clamp("min", "max"),
    "leaky_relu leaky_relu_": _one_input(
        "LeakyRelu", lambda call: {"alpha": float(call.get(1, "negative_slope", 0.01))}
    ),
    "sigmoid sigmoid_": _one_input("Sigmoid"),
    "tanh tanh_": _one_input("Tanh"),
    "neg __neg__": _one_input("Neg"),
    "silu": lambda call: call.emit("Mul", call.x, call.emit("Sigmoid", call.x)),
    "gelu": _gelu,
    "softmax": _softmax("Softmax"),
    "log_softmax": _softmax("LogSoftmax"),
    "add add_ __add__ __iadd__ __radd__": _arithmetic("Add"),
    "sub sub_ subtract __isub__": _arithmetic("Sub"),
    "__rsub__": _arithmetic("Sub", swapped=True),
    "mul mul_ multiply __imul__ __rmul__": _arithmetic("Mul"),
    "div div_ divide true_divide": _arithmetic("Div"),
    "__rdiv__ __rtruediv__": _arithmetic("Div", swapped=True),
    "cat concat concatenate": lambda call: call.emit(
        "Concat",
        *map(call.operand, call.get(0, "tensors")),
        axis=int(call.get(1, "dim", 0)) % call.result.ndim,
    ),
    "view reshape flatten unflatten squeeze unsqueeze": _reshaped,
    "permute": _permuted,
    "transpose swapaxes": _transposed,
    "mean": _mean,
    "batch_norm": _batch_norm,
    "max_pool1d max_pool2d": _unless(
        lambda call: call.get(6, "return_indices", False),
        "max pooling with indices",
        _pool("MaxPool", window_attributes, "stride padding dilation"),
    ),
    "avg_pool1d avg_pool2d": _pool(
        *("AveragePool", average_attributes),
        "stride padding ceil_mode count_include_pad divisor_override",
    ),
    "adaptive_avg_pool1d adaptive_avg_pool2d": _adaptive_average,
    "linear": _linear,
    "conv1d conv2d": _convolution,
}

HANDLERS: Mapping[str, Handler] = {
    name: handler for names, handler in _ROWS.items() for name in names.split()
}
"""Name of a torch function -> what makes ONNX operators of a call of it."""

READS_NUMBERS = frozenset(
    {"item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__", "__array__"}
)
"""Functions that turn values into Python numbers, on which the program could then depend."""
