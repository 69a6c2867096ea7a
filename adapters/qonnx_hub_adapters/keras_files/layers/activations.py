"""Activation layers and functions, of both generations of Keras."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx_ir import Value

from qonnx_hub_adapters.keras_files.kinds import Kind, Use
from qonnx_hub_adapters.keras_files.quantizer_configs import (
    FUNCTIONS,
    bare_name,
    is_quantizer,
    read_quantizer,
)
from qonnx_hub_adapters.keras_files.scope import Scope
from qonnx_hub_adapters.keras_files.variables import variables
from qonnx_hub_adapters.qkeras.quantizers import UnreadableQuantizerError


def activate(s: Scope, x: Value, spelled: Any, *, in_q_layer: bool = False) -> Value:
    """Return an activation, as a layer's configuration spells it.

    Args:
        s: Writes the nodes.
        x: What it reads.
        spelled: A name, an object, a text of QKeras, or ``None``.
        in_q_layer: Names of QKeras win over those of Keras.

    Raises:
        SourceError: It is not known.
    """
    if spelled is None:
        return x
    name = bare_name(spelled)
    if is_quantizer(spelled):
        try:
            return s.quantize(x, read_quantizer(spelled), name)
        except UnreadableQuantizerError as error:
            raise s.fail(f"its activation: {error}") from error
    if in_q_layer and name in FUNCTIONS:
        slope = 0.5 if name.startswith("hard") else 0.1875
        y = s.op("Clip", s.op("Add", s.op("Mul", x, slope), 0.5), 0.0, 1.0)
        return s.op("Sub", s.op("Mul", y, 2.0), 1.0) if name.endswith("tanh") else y
    write = FUNCTIONS_OF_KERAS.get(name)
    if write is None:
        raise s.fail(f"activation '{name}' is not known")
    return write(s, x)


def _hard_sigmoid(s: Scope, x: Value) -> Value:
    if s.net.generation == 2:
        return s.op("Clip", s.op("Add", s.op("Mul", x, 0.2), 0.5), 0.0, 1.0)
    return s.op("Div", s.op("Clip", s.op("Add", x, 3.0), 0.0, 6.0), 6.0)


def gelu(s: Scope, x: Value, *, approximate: bool = False) -> Value:
    """Return the Gaussian error linear unit, exact or by a hyperbolic tangent."""
    half = s.op("Mul", x, 0.5)
    if approximate:
        cube = s.op("Mul", s.op("Mul", x, x), x)
        inner = s.op("Add", x, s.op("Mul", cube, 0.044715))
        curve = s.op("Tanh", s.op("Mul", inner, math.sqrt(2 / math.pi)))
    else:
        curve = s.op("Erf", s.op("Div", x, math.sqrt(2)))
    return s.op("Mul", half, s.op("Add", curve, 1.0))


def _sparse_plus(s: Scope, x: Value) -> Value:
    more = s.op("Add", x, 1.0)
    curve = s.op("Mul", s.op("Mul", more, more), 0.25)
    inner = s.op("Where", s.op("GreaterOrEqual", x, 1.0), x, curve)
    return s.op("Where", s.op("Greater", x, -1.0), inner, s.op("Mul", x, 0.0))


def _sparsemax(s: Scope, x: Value) -> Value:
    """Return max(x - t, 0), t as Keras has it: of running sums, where one sum is meant."""
    size = s.known(x, -1)
    count = s.integers([size], "count")
    ordered = s.ops("TopK", [x, count], 2, axis=-1)[0]
    last = s.value(np.array(s.rank(x) - 1, dtype=np.int64), "last")
    total = s.op("CumSum", ordered, last)
    ranks = np.arange(1, size + 1, dtype=np.float32)
    inside = s.op("Greater", s.op("Add", s.op("Mul", ordered, ranks), 1.0), total)
    kept, at = s.op("Cast", inside, to=1), s.integers([-1], "axes")
    number = s.op("ReduceSum", kept, at, keepdims=1)
    part = s.op("ReduceSum", s.op("Mul", total, kept), at, keepdims=1)
    limit = s.op("Div", s.op("Sub", part, 1.0), number)
    return s.op("Relu", s.op("Sub", x, limit))


def _glu(s: Scope, x: Value) -> Value:
    half = s.known(x, -1) // 2
    first, second = s.ops("Split", [x, s.integers([half, half], "split")], 2, axis=-1)
    return s.op("Mul", first, s.op("Sigmoid", second))


FUNCTIONS_OF_KERAS: Mapping[str, Callable[[Scope, Value], Value]] = {
    "linear": lambda s, x: x,
    "relu": lambda s, x: s.op("Relu", x),
    "relu6": lambda s, x: s.op("Clip", x, 0.0, 6.0),
    "sigmoid": lambda s, x: s.op("Sigmoid", x),
    "tanh": lambda s, x: s.op("Tanh", x),
    "softmax": lambda s, x: s.op("Softmax", x, axis=-1),
    "log_softmax": lambda s, x: s.op("LogSoftmax", x, axis=-1),
    "softplus": lambda s, x: s.op("Softplus", x),
    "softsign": lambda s, x: s.op("Softsign", x),
    "elu": lambda s, x: s.op("Elu", x, alpha=1.0),
    "selu": lambda s, x: s.op("Selu", x),
    "gelu": gelu,
    "swish": lambda s, x: s.op("Mul", x, s.op("Sigmoid", x)),
    "silu": lambda s, x: s.op("Mul", x, s.op("Sigmoid", x)),
    "exponential": lambda s, x: s.op("Exp", x),
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": lambda s, x: s.op("Mul", x, _hard_sigmoid(s, x)),
    "hard_swish": lambda s, x: s.op("Mul", x, _hard_sigmoid(s, x)),
    "hard_tanh": lambda s, x: s.op("Clip", x, -1.0, 1.0),
    "leaky_relu": lambda s, x: s.op("LeakyRelu", x, alpha=0.2),
    "mish": lambda s, x: s.op("Mul", x, s.op("Tanh", s.op("Softplus", x))),
    "celu": lambda s, x: s.op("Celu", x, alpha=1.0),
    "log_sigmoid": lambda s, x: s.op("Neg", s.op("Softplus", s.op("Neg", x))),
    "tanh_shrink": lambda s, x: s.op("Sub", x, s.op("Tanh", x)),
    "hard_shrink": lambda s, x: s.op("Shrink", x, lambd=0.5, bias=0.0),
    "soft_shrink": lambda s, x: s.op("Shrink", x, lambd=0.5, bias=0.5),
    "glu": _glu,
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": lambda s, x: s.op(
        "Clip", s.op("Mul", s.op("Add", x, 1.0), 0.5), 0.0, 1.0
    ),
    "sparsemax": _sparsemax,
    "squareplus": lambda s, x: s.op(
        "Div", s.op("Add", x, s.op("Sqrt", s.op("Add", s.op("Mul", x, x), 4.0))), 2.0
    ),
}


def relu_layer(
    s: Scope, x: Value, *, highest: float | None, slope: float, threshold: float
) -> Value:
    """Return ``x`` above a threshold, at most the highest; a slope below the threshold.

    Source: ``keras.backend.relu``: the comparison is strict.
    """
    if threshold == 0:
        y = s.op("LeakyRelu", x, alpha=slope) if slope else s.op("Relu", x)
    else:
        above = s.op("Cast", s.op("Greater", x, threshold), to=1)
        y = s.op("Mul", x, above)
    if highest is not None:
        y = (
            s.op("Clip", y, None, highest)
            if slope and not threshold
            else (s.op("Min", y, highest))
        )
    if slope and threshold:
        below = s.op("Relu", s.op("Sub", threshold, x))
        y = s.op("Sub", y, s.op("Mul", below, slope))
    return y


def _relu(s: Scope, use: Use) -> Value:
    c = use.config
    highest = c.get("max_value")
    return relu_layer(
        s,
        use.x,
        highest=None if highest is None else float(highest),
        slope=float(c.get("negative_slope") or 0.0),
        threshold=float(c.get("threshold") or 0.0),
    )


def _prelu(s: Scope, use: Use) -> Value:
    slope = s.weight("alpha", use.weights["alpha"])
    below = s.op("Mul", slope, s.op("Relu", s.op("Neg", use.x)))
    return s.op("Sub", s.op("Relu", use.x), below)


def _softmax(s: Scope, use: Use) -> Value:
    if use.kwargs.get("mask") is not None or use.x in s.net.masks:
        raise s.fail("a softmax with a mask")
    axis = use.config.get("axis", -1)
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    if len(axes) != 1 or axes[0] is None:
        raise s.fail(f"a softmax over several axes ({axis})")
    return s.op("Softmax", use.x, axis=int(axes[0]))


KINDS: Mapping[str, Kind] = {
    "keras>Activation": Kind(lambda s, use: activate(s, use.x, use.config.get("activation"))),
    "qkeras>QActivation": Kind(
        lambda s, use: activate(s, use.x, use.config.get("activation"), in_q_layer=True)
    ),
    "keras>ReLU": Kind(_relu),
    "keras>LeakyReLU": Kind(
        lambda s, use: s.op(
            "LeakyRelu",
            use.x,
            alpha=float(
                np.asarray(use.config.get("negative_slope", use.config.get("alpha", 0.3)))
            ),
        )
    ),
    "keras>ELU": Kind(
        lambda s, use: s.op("Elu", use.x, alpha=float(use.config.get("alpha", 1.0)))
    ),
    "keras>ThresholdedReLU": Kind(
        lambda s, use: s.op(
            "Mul",
            use.x,
            s.op("Cast", s.op("Greater", use.x, float(use.config["theta"])), to=1),
        )
    ),
    "keras>PReLU": Kind(_prelu, lambda layer: variables("alpha")),
    "keras>Softmax": Kind(_softmax),
}
