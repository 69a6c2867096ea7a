"""Operations of Keras 3, and those of TensorFlow in Keras 2: functions between layers.

Arguments lie in the call, partly in the configuration, and partly by name: they are looked for
in all three.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx_ir import DataType, Value

from qonnx_hub_adapters.keras_files.kinds import Kind, Use
from qonnx_hub_adapters.keras_files.layers import selection
from qonnx_hub_adapters.keras_files.layers.activations import (
    FUNCTIONS_OF_KERAS,
    gelu,
    relu_layer,
)
from qonnx_hub_adapters.keras_files.layers.arguments import (
    FLOAT,
    Arguments,
    Writes,
    of_one_type,
)
from qonnx_hub_adapters.keras_files.scope import Scope


def _binary(op_type: str) -> Writes:
    def write(s: Scope, a: Arguments) -> Value:
        return s.op(op_type, *of_one_type(s, a, op_type))

    return write


def _any(s: Scope, a: Arguments) -> Any:
    """Return whether anything is not 0, by the largest of 0 and 1."""
    holds = s.op("Cast", a.tensor(0, "x"), to=int(DataType.BOOL))
    a.args[:1] = [s.op("Cast", holds, to=FLOAT)]
    return s.op("Greater", _reduction("ReduceMax")(s, a), 0.5)


def _unary(op_type: str) -> Writes:
    return lambda s, a: s.op(op_type, a.tensor(0, "x"))


def _round(s: Scope, a: Arguments) -> Value:
    if a.plain(1, "decimals", default=0) != 0:
        raise s.fail("rounds to decimals, which is not supported")
    return s.op("Round", a.tensor(0, "x"))


def _mean(s: Scope, a: Arguments) -> Any:
    if s.net.generation == 3:
        a.args[:1] = [s.floats(a.tensor(0, "x", "input_tensor"))]
    return _reduction("ReduceMean")(s, a)


def _comparison(op_type: str, negated: bool = False) -> Writes:
    def write(s: Scope, a: Arguments) -> Value:
        y = s.op(op_type, *of_one_type(s, a, op_type))
        return s.op("Not", y) if negated else y

    return write


def _reduction(op_type: str) -> Writes:
    def write(s: Scope, a: Arguments) -> Value:
        x = a.tensor(0, "x", "input_tensor")
        keep = int(bool(a.plain(2, "keepdims", default=False)))
        axes = a.axes(s, x)
        if axes == []:
            return s.op("Identity", x)
        at = None if axes is None else s.integers(axes, "axes")
        return s.op(op_type, x, at, keepdims=keep)

    return write


def _function(name: str) -> Writes:
    return lambda s, a: FUNCTIONS_OF_KERAS[name](s, a.tensor(0, "x", "features", "logits"))


def _relu(s: Scope, a: Arguments) -> Value:
    highest = a.plain(2, "max_value")
    return relu_layer(
        s,
        a.tensor(0, "x", "features"),
        highest=None if highest is None else float(highest),
        slope=float(a.plain(1, "negative_slope", "alpha", default=0.0)),
        threshold=float(a.plain(3, "threshold", default=0.0)),
    )


def _softmax(op_type: str) -> Writes:
    def write(s: Scope, a: Arguments) -> Value:
        x, axis = a.tensor(0, "x", "logits"), a.plain(1, "axis", default=-1)
        # TensorFlow takes no axis for the last one, Keras 3 for all of them.
        if s.net.generation == 3 and (axis is None or a.named.get("axis", axis) is None):
            raise s.fail("a softmax over all axes, samples among them")
        return s.op(op_type, x, axis=-1 if axis is None else int(axis))

    return write


def _reshape(s: Scope, a: Arguments) -> Value:
    x, sizes = a.tensor(0, "x", "tensor"), a.plain(1, "newshape", "shape")
    if not all(isinstance(size, int) or size is None for size in sizes):
        raise s.fail("reshapes to sizes that are computed")
    return s.reshape(x, [-1 if size is None else int(size) for size in sizes])


def _transpose(s: Scope, a: Arguments) -> Value:
    x, perm = a.tensor(0, "x", "a"), a.plain(1, "axes", "perm")
    return s.transpose(x, [int(p) for p in perm or reversed(range(s.rank(x)))])


def _concat(s: Scope, a: Arguments) -> Value:
    parts, axis = a.plain(0, "xs", "values"), a.plain(1, "axis", default=0)
    values = [one for one in (s.value(part) for part in parts) if one is not None]
    return s.op("Concat", *values, axis=int(axis))


def _stack(s: Scope, a: Arguments) -> Value:
    parts, axis = a.plain(0, "xs", "x", "values"), int(a.plain(1, "axis", default=0))
    rank = s.rank(parts[0]) + 1
    at = s.integers([axis % rank], "axes")
    return s.op("Concat", *(s.op("Unsqueeze", one, at) for one in parts), axis=axis % rank)


def _expand(s: Scope, a: Arguments) -> Value:
    axis = a.plain(1, "axis", default=-1)
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    return s.op("Unsqueeze", a.tensor(0, "x", "input"), s.integers(axes, "axes"))


def _squeeze(s: Scope, a: Arguments) -> Value:
    x, axis = a.tensor(0, "x", "input"), a.plain(1, "axis", "squeeze_dims")
    axes = [n for n, size in enumerate(s.shape(x)) if size == 1] if axis is None else axis
    axes = axes if isinstance(axes, (list, tuple)) else [axes]
    return s.op("Squeeze", x, s.integers(axes, "axes"))


def _clip(s: Scope, a: Arguments) -> Value:
    ends = a.plain(1, "x_min", "clip_value_min"), a.plain(2, "x_max", "clip_value_max")
    if None not in ends and float(ends[0]) > float(ends[1]):
        raise s.fail(f"clips to {ends[0]}..{ends[1]}: which end wins depends on the library")
    return s.op(
        "Clip", a.tensor(0, "x", "t"), *(None if e is None else float(e) for e in ends)
    )


def _item(s: Scope, a: Arguments) -> Value:
    """Return part of a value: slices, single elements, new axes and an ellipsis."""
    x, spec = a.tensor(0, "x", "tensor"), a.plain(1, "key", "slice_spec")
    keys = [_key(one) for one in (spec if isinstance(spec, (list, tuple)) else [spec])]
    rank, given = s.rank(x), sum(key is not None for key in keys if key is not ...)
    if ... in keys:
        at = keys.index(...)
        keys[at : at + 1] = [slice(None)] * (rank - given)
    starts, ends, axes, steps, fresh = [], [], [], [], []
    gone: list[int] = []
    axis = 0
    for place, key in enumerate(keys):
        if key is None:
            fresh.append(place - len(gone))
            continue
        if isinstance(key, int):
            starts.append(key)
            ends.append(key + 1 if key != -1 else np.iinfo(np.int64).max)
            steps.append(1)
            axes.append(axis)
            gone.append(axis)
        elif key != slice(None):
            step = 1 if key.step is None else int(key.step)
            most = np.iinfo(np.int64).max
            first = (0 if step > 0 else most) if key.start is None else int(key.start)
            last = (most if step > 0 else -most) if key.stop is None else int(key.stop)
            starts.append(first)
            ends.append(last)
            steps.append(step)
            axes.append(axis)
        axis += 1
    if axes:
        x = s.op(
            "Slice",
            x,
            s.integers(starts, "starts"),
            s.integers(ends, "ends"),
            s.integers(axes, "axes"),
            s.integers(steps, "steps"),
        )
    if gone:
        x = s.op("Squeeze", x, s.integers(gone, "axes"))
    return s.op("Unsqueeze", x, s.integers(fresh, "axes")) if fresh else x


def _key(one: Any) -> Any:
    if isinstance(one, Mapping):
        if one.get("class_name") == "__ellipsis__" or one.get("class_name") == "Ellipsis":
            return ...
        return slice(one.get("start"), one.get("stop"), one.get("step"))
    return int(one) if isinstance(one, (int, float)) and not isinstance(one, bool) else one


def _matmul(s: Scope, a: Arguments) -> Value:
    x, y = a.tensor(0, "x1", "a"), a.tensor(1, "x2", "b")
    for index, name in enumerate(("transpose_a", "transpose_b")):
        if a.plain(2 + index, name):
            value = (x, y)[index]
            rank = s.rank(value)
            turned = s.transpose(value, [*range(rank - 2), rank - 1, rank - 2])
            x, y = (turned, y) if index == 0 else (x, turned)
    return s.op("MatMul", x, y)


def _cast(s: Scope, a: Arguments) -> Value:
    kinds = {"float32": 1, "int32": 6, "int64": 7, "bool": 9}
    wanted = str(a.plain(1, "dtype"))
    if wanted not in kinds:
        raise s.fail(f"casts to {wanted}")
    return s.op("Cast", a.tensor(0, "x"), to=kinds[wanted])


def _flip(s: Scope, a: Arguments) -> Value:
    x = a.tensor(0, "x", "tensor")
    axes = a.axes(s, x)
    if axes == []:
        return s.op("Identity", x)
    axes = axes or list(range(s.rank(x)))
    most = np.iinfo(np.int64).max
    return s.op(
        "Slice",
        x,
        s.integers([-1] * len(axes), "starts"),
        s.integers([-most] * len(axes), "ends"),
        s.integers(axes, "axes"),
        s.integers([-1] * len(axes), "steps"),
    )


def _pad(s: Scope, a: Arguments) -> Value:
    pads = np.asarray(a.plain(1, "pad_width", "paddings"), dtype=np.int64)
    mode = str(a.plain(2, "mode", default="constant")).lower()
    if mode not in ("constant", "reflect", "edge"):
        raise s.fail(f"pads by '{mode}'")
    ends = s.integers([*pads[:, 0], *pads[:, 1]], "pads")
    value = a.plain(3, "constant_values", default=0.0)
    return s.op("Pad", a.tensor(0, "x", "tensor"), ends, float(value or 0.0), mode=mode)


def _split(s: Scope, a: Arguments) -> Any:
    x, count = (
        a.tensor(0, "x", "value"),
        a.plain(1, "indices_or_sections", "num_or_size_splits"),
    )
    axis = int(a.plain(2, "axis", default=0))
    size = s.known(x, axis)
    if isinstance(count, int):
        parts = [size // count] * count
    elif s.net.generation == 3:
        ends = [0, *count, size]
        parts = [b - a for a, b in itertools.pairwise(ends)]
    else:
        parts = [int(n) for n in count]
    return s.ops("Split", [x, s.integers(parts, "split")], len(parts), axis=axis)


_KERAS_3: Mapping[str, Writes] = {
    "Add": _binary("Add"),
    "Subtract": _binary("Sub"),
    "Multiply": _binary("Mul"),
    "Divide": _binary("Div"),
    "TrueDivide": _binary("Div"),
    "Maximum": _binary("Max"),
    "Minimum": _binary("Min"),
    "Power": _binary("Pow"),
    "Matmul": _matmul,
    "Equal": _comparison("Equal"),
    "NotEqual": _comparison("Equal", negated=True),
    "Greater": _comparison("Greater"),
    "GreaterEqual": _comparison("GreaterOrEqual"),
    "Less": _comparison("Less"),
    "LessEqual": _comparison("LessOrEqual"),
    "LogicalAnd": _binary("And"),
    "LogicalOr": _binary("Or"),
    "LogicalNot": _unary("Not"),
    "Absolute": _unary("Abs"),
    "Abs": _unary("Abs"),
    "Negative": _unary("Neg"),
    "Sign": _unary("Sign"),
    "Round": _round,
    "Floor": _unary("Floor"),
    "Ceil": _unary("Ceil"),
    "Sqrt": _unary("Sqrt"),
    "Exp": _unary("Exp"),
    "Log": _unary("Log"),
    "Sin": _unary("Sin"),
    "Cos": _unary("Cos"),
    "Erf": _unary("Erf"),
    "Reciprocal": _unary("Reciprocal"),
    "Square": lambda s, a: s.op("Mul", a.tensor(0, "x"), a.tensor(0, "x")),
    "Rsqrt": lambda s, a: s.op("Reciprocal", s.op("Sqrt", a.tensor(0, "x"))),
    "Sum": _reduction("ReduceSum"),
    "Mean": _mean,
    "Max": _reduction("ReduceMax"),
    "Amax": _reduction("ReduceMax"),
    "Min": _reduction("ReduceMin"),
    "Amin": _reduction("ReduceMin"),
    "Prod": _reduction("ReduceProd"),
    "Any": _any,
    "Relu": _relu,
    "Relu6": _function("relu6"),
    "Sigmoid": _function("sigmoid"),
    "Tanh": _function("tanh"),
    "Softmax": _softmax("Softmax"),
    "LogSoftmax": _softmax("LogSoftmax"),
    "Softplus": _function("softplus"),
    "Softsign": _function("softsign"),
    "Silu": _function("silu"),
    "Elu": lambda s, a: s.op(
        "Elu", a.tensor(0, "x", "features"), alpha=float(a.plain(1, "alpha", default=1.0))
    ),
    "Selu": _function("selu"),
    "Gelu": lambda s, a: gelu(
        s,
        a.tensor(0, "x", "features"),
        approximate=bool(a.plain(1, "approximate", default=s.net.generation == 3)),
    ),
    "HardSigmoid": _function("hard_sigmoid"),
    "HardSilu": _function("hard_silu"),
    "HardTanh": _function("hard_tanh"),
    "LeakyRelu": lambda s, a: s.op(
        "LeakyRelu",
        a.tensor(0, "x", "features"),
        alpha=float(a.plain(1, "negative_slope", "alpha", default=0.2)),
    ),
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Concatenate": _concat,
    "Stack": _stack,
    "Split": _split,
    "ExpandDims": _expand,
    "Squeeze": _squeeze,
    "Clip": _clip,
    "GetItem": _item,
    "Where": lambda s, a: s.op(
        "Where", a.tensor(0, "condition"), a.tensor(1, "x1", "x"), a.tensor(2, "x2", "y")
    ),
    "Cast": _cast,
    "Flip": _flip,
    "Tile": lambda s, a: s.op(
        "Tile", a.tensor(0, "x", "input"), s.integers(a.plain(1, "repeats", "multiples"))
    ),
    "Pad": _pad,
    "Einsum": lambda s, a: s.op(
        "Einsum",
        *(a.tensor(place) for place in range(len(a.args))),
        equation=str(a.plain(-1, "subscripts")),
    ),
    "Take": selection.gather,
    "Argmax": selection.argument_of("ArgMax"),
    "Argmin": selection.argument_of("ArgMin"),
    "Slice": selection.cut,
    "Unstack": selection.unstack,
    "Cumsum": selection.running_sum,
    "BroadcastTo": selection.broadcast_to,
    "FloorDivide": selection.floor_divide,
    "Mod": selection.modulo,
}

_OF_TENSORFLOW: Mapping[str, Writes] = {
    "math.add_n": selection.sum_of_all,
    "math.squared_difference": selection.squared_difference,
    "math.l2_normalize": selection.l2_normalize,
    "linalg.l2_normalize": selection.l2_normalize,
    "nn.l2_normalize": selection.l2_normalize,
    "nn.bias_add": lambda s, a: s.op("Add", a.tensor(0, "value"), a.tensor(1, "bias")),
}
"""Functions of TensorFlow that are no operation of Keras 3."""

_TENSORFLOW: Mapping[str, str] = {
    **{f"math.{name}": target for name, target in {
        "add": "Add", "subtract": "Subtract", "multiply": "Multiply", "truediv": "TrueDivide",
        "divide": "Divide", "pow": "Power", "maximum": "Maximum", "minimum": "Minimum",
        "abs": "Abs", "negative": "Negative", "sign": "Sign", "round": "Round",
        "floor": "Floor", "ceil": "Ceil", "sqrt": "Sqrt", "rsqrt": "Rsqrt", "exp": "Exp",
        "log": "Log", "sin": "Sin", "cos": "Cos", "square": "Square", "erf": "Erf",
        "reciprocal": "Reciprocal", "sigmoid": "Sigmoid", "tanh": "Tanh",
        "reduce_sum": "Sum", "reduce_mean": "Mean", "reduce_max": "Max", "reduce_min": "Min",
        "reduce_prod": "Prod", "equal": "Equal", "not_equal": "NotEqual",
        "greater": "Greater", "greater_equal": "GreaterEqual", "less": "Less",
        "less_equal": "LessEqual", "logical_and": "LogicalAnd", "logical_or": "LogicalOr",
        "logical_not": "LogicalNot", "softplus": "Softplus", "argmax": "Argmax",
        "argmin": "Argmin", "cumsum": "Cumsum", "floordiv": "FloorDivide",
        "floormod": "Mod", "mod": "Mod",
    }.items()},
    **{f"__operators__.{name}": target for name, target in {
        "add": "Add", "sub": "Subtract", "mul": "Multiply", "truediv": "TrueDivide",
        "pow": "Power", "matmul": "Matmul", "getitem": "GetItem", "neg": "Negative",
        "abs": "Abs", "floordiv": "FloorDivide", "mod": "Mod",
    }.items()},
    **{f"nn.{name}": target for name, target in {
        "relu": "Relu", "relu6": "Relu6", "sigmoid": "Sigmoid", "tanh": "Tanh",
        "softmax": "Softmax", "log_softmax": "LogSoftmax", "softplus": "Softplus",
        "softsign": "Softsign", "silu": "Silu", "swish": "Silu", "elu": "Elu",
        "selu": "Selu", "gelu": "Gelu", "leaky_relu": "LeakyRelu",
    }.items()},

        "concat": "Concatenate", "stack": "Stack", "split": "Split", "reshape": "Reshape",
        "transpose": "Transpose", "expand_dims": "ExpandDims", "squeeze": "Squeeze",
        "clip_by_value": "Clip", "where": "Where", "cast": "Cast", "tile": "Tile",
        "reverse": "Flip", "pad": "Pad", "linalg.matmul": "Matmul",
        "gather": "Take", "slice": "Slice", "unstack": "Unstack",
        "broadcast_to": "BroadcastTo",
    # What TensorFlow's second generation calls inside, and what a file then names.
    **{f"compat.v1.{name}": target for name, target in {
        "transpose": "Transpose", "squeeze": "Squeeze", "pad": "Pad", "gather": "Take",
        "floor_div": "FloorDivide",
    }.items()},
}  # fmt: skip
"""Function of TensorFlow -> operation of Keras 3."""


def _tf_operation(s: Scope, use: Use) -> Any:
    name = str(use.config.get("function", ""))
    write = _OF_TENSORFLOW.get(name) or _KERAS_3.get(_TENSORFLOW.get(name, ""))
    if write is None:
        raise s.fail(f"TFOpLambda: function 'tf.{name}' is not known")
    # The names of its configuration are not arguments.
    bare = dataclasses.replace(use.layer, config={})
    return _operation(s, Use(bare, use.weights, use.args, use.kwargs), write)


def _operation(s: Scope, use: Use, write: Writes) -> Any:
    arguments = Arguments(s, use)
    result = write(s, arguments)
    arguments.require_all_read()
    return result


KINDS: Mapping[str, Kind] = {
    **{
        f"ops>{name}": Kind(functools.partial(_operation, write=write), arguments=None)
        for name, write in _KERAS_3.items()
    },
    "keras>TFOpLambda": Kind(_tf_operation, arguments=None),
    "keras>SlicingOpLambda": Kind(_tf_operation, arguments=None),
}
