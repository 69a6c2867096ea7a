"""TensorFlow to ONNX: the one module that knows tf2onnx.

The model is traced with markers in the place of its quantizers. A marker of an activation is a
``CheckNumerics`` whose message is the site's key: it is stateful, so that no optimizer moves
or drops it, keeps the shape, and carries a string. A quantized weight enters as an extra input
of the traced function, which nothing can fold away, and becomes an initializer afterwards.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from qonnx_hub_adapters.dependencies import quiet
from qonnx_hub_adapters.qkeras.framework import Framework, as_given
from qonnx_hub_adapters.qkeras.patching import (
    FOLDED_ROLES,
    QuantizerSlot,
    find_layers,
    replaced,
)
from qonnx_hub_adapters.qkeras.recording import Recorded
from qonnx_hub_ir.errors import SourceError

DOMAIN = "qonnx_hub.marker"
MARKER = "Marker"
KEY = "key"
_PREFIX = "qonnx_hub:"
_OPSET = 18
"""Newest opset that tf2onnx writes."""


@dataclass(frozen=True, slots=True)
class MarkedTrace:
    """A model as ONNX, with markers.

    Attributes:
        proto: The graph; its inputs are the model's, then one per key of ``weights``.
        weights: Keys of the quantized weights, in the order of the extra inputs.
        outputs: Number of outputs.
    """

    proto: onnx.ModelProto
    weights: tuple[str, ...]
    outputs: int


def trace(
    model: Any,
    sites: list[QuantizerSlot],
    recorded: Mapping[str, Recorded],
    signature: list[Any],
    framework: Framework,
) -> MarkedTrace:
    """Return the model as an ONNX graph with markers.

    Args:
        model: The live model; the caller preserves its state.
        sites: Places of its quantizers.
        recorded: What the weights' quantizers did.
        signature: A TensorSpec per input.
        framework: Its frameworks.

    Raises:
        SourceError: TensorFlow cannot trace the model, or tf2onnx cannot convert the trace.
    """
    tf = framework.tf
    weights = [s for s in sites if s.key in recorded and s.role not in FOLDED_ROLES]
    extra = [
        tf.TensorSpec(recorded[site.key].quantized.shape, tf.float32, name=f"weight_{index}")
        for index, site in enumerate(weights)
    ]
    outputs = 0

    def function(*args: Any) -> list[Any]:
        nonlocal outputs
        inputs, values = args[: len(signature)], args[len(signature) :]
        constants = {site.key: value for site, value in zip(weights, values, strict=True)}
        marker = _marker(constants, recorded, tf)
        with replaced(sites, marker) as patches, _stateless(framework):
            _still(model, patches, framework)
            result = model(as_given(model, inputs, tf), training=False)
        flat = [tf.identity(one) for one in tf.nest.flatten(result)]
        outputs = len(flat)
        return flat

    proto = _convert(tf.function(function, autograph=False), [*signature, *extra], model)
    return MarkedTrace(proto, tuple(site.key for site in weights), outputs)


def _marker(
    constants: Mapping[str, Any], recorded: Mapping[str, Recorded], tf: Any
) -> Callable[[QuantizerSlot], Callable[..., Any]]:
    """Return what stands in the place of each quantizer while the model is traced."""

    def replacement(site: QuantizerSlot) -> Callable[..., Any]:
        def call(x: Any, *_: Any, **__: Any) -> Any:
            if site.key in constants:
                return constants[site.key]
            if site.key in recorded:
                return tf.constant(recorded[site.key].quantized)
            x = tf.cast(x, tf.float32)
            return tf.raw_ops.CheckNumerics(tensor=x, message=_PREFIX + site.key)

        plain: Callable[..., Any] = tf.autograph.experimental.do_not_convert(call)
        return plain

    return replacement


@contextlib.contextmanager
def _stateless(framework: Framework) -> Iterator[None]:
    """Keep assignments of Keras 3 variables, and compiled functions, out of the trace."""
    config = framework.tf.config
    eager = config.functions_run_eagerly()
    # Keras wraps grouped convolutions in a compiled function, which cannot be converted.
    config.run_functions_eagerly(True)
    is_3 = framework.generation == 3
    try:
        with framework.keras.StatelessScope() if is_3 else contextlib.nullcontext():
            yield
    finally:
        config.run_functions_eagerly(eager)


class _Counter:
    """Stands for a step counter: what is read stays, what is written is dropped."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def assign_add(self, _: Any) -> None:
        """Do nothing: inference counts no steps."""


def _still(model: Any, patches: Any, framework: Framework) -> None:
    """Take the step counters and the time loops out of the trace.

    A trace that assigns to a variable cannot be frozen; the folded layers of Keras 2 count
    their steps at inference as well. Recurrent layers over a known number of steps are
    unrolled, so that the graph needs no Loop.
    """
    for _, layer in find_layers(model):
        held = vars(layer)
        if framework.generation == 2 and "_iteration" in held:
            patches.set(layer, "_iteration", _Counter(0))
            patches.set(layer, "ema_freeze_delay", None)
        if held.get("unroll") is False:
            patches.set(layer, "call", _unrolled(layer, layer.call))


_LONGEST_UNROLLED = 64


def _unrolled(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return the call of a recurrent layer, unrolled where the number of steps is known."""

    def wrapped(sequences: Any, *args: Any, **kwargs: Any) -> Any:
        first = sequences[0] if isinstance(sequences, (list, tuple)) else sequences
        steps = first.shape[0 if getattr(layer, "time_major", False) else 1]
        unroll = steps is not None and int(steps) <= _LONGEST_UNROLLED
        object.__setattr__(layer, "unroll", unroll)
        try:
            return call(sequences, *args, **kwargs)
        finally:
            object.__setattr__(layer, "unroll", False)

    return wrapped


def _convert(function: Any, signature: list[Any], model: Any) -> onnx.ModelProto:
    tf2onnx = importlib.import_module("tf2onnx")
    importlib.import_module("tf2onnx.convert")
    handlers: dict[str, Any] = {
        "CheckNumerics": (_write_marker, []),
        "BiasAdd": (_write_bias_add, []),
        "Erfc": (_write_with_one("Erf", "erf", one_first=True), []),
        "Expm1": (_write_with_one("Exp", "exp", one_first=False), []),
    }
    try:
        with quiet():
            proto, _ = tf2onnx.convert.from_function(
                function,
                input_signature=signature,
                opset=_OPSET,
                custom_op_handlers=handlers,
                extra_opset=[helper.make_opsetid(DOMAIN, 1)],
            )
    except SourceError:
        raise
    except Exception as error:  # TensorFlow and tf2onnx raise whatever they raise
        raise SourceError(
            f"model '{model.name}' cannot be traced and converted to ONNX: "
            f"{type(error).__name__}: {str(error).strip()[:600]}"
        ) from error
    result: onnx.ModelProto = proto
    # TensorFlow has traced the function once, and gives the same trace again.
    captures = function.get_concrete_function(*signature).graph.captures
    _set_captured(result.graph, captures)
    return result


def _set_captured(graph: onnx.GraphProto, captures: Sequence[tuple[Any, Any]]) -> None:
    """Turn inputs that stand for tensors from outside of the function into initializers."""
    held = {inner.name: outer for outer, inner in captures if hasattr(outer, "numpy")}
    for value in [one for one in graph.input if one.name in held]:
        array = np.asarray(held[value.name].numpy())
        graph.initializer.append(numpy_helper.from_array(array, value.name))
        graph.input.remove(value)


def _write_marker(ctx: Any, node: Any, name: str, args: Any) -> None:
    """Turn a CheckNumerics with our message into a marker, any other into an Identity."""
    del ctx, name, args
    message = node.get_attr_value("message")
    text = message.decode() if isinstance(message, bytes) else str(message)
    if not text.startswith(_PREFIX):
        node.type = "Identity"
        return
    node.type = MARKER
    node.domain = DOMAIN
    node.set_attr(KEY, text.removeprefix(_PREFIX))


def _write_bias_add(ctx: Any, node: Any, name: str, args: Any) -> None:
    """Turn a BiasAdd into an Add; tf2onnx's own does not align a bias that is no constant."""
    del args
    node.type = "Add"
    if node.is_nhwc():
        return
    rank = len(ctx.get_shape(node.input[0]))
    axes = ctx.make_const(f"{name}_axes", np.arange(1, rank - 1, dtype=np.int64))
    aligned = ctx.make_node("Unsqueeze", [node.input[1], axes.output[0]], name=f"{name}_bias")
    ctx.replace_input(node, node.input[1], aligned.output[0], 1)


def _write_with_one(op_type: str, label: str, *, one_first: bool) -> Callable[..., None]:
    """Return what turns an Erfc into ``1 - Erf``, an Expm1 into ``Exp - 1``."""

    def write(ctx: Any, node: Any, name: str, args: Any) -> None:
        del args
        one = ctx.make_const(f"{name}_one", np.array(1, dtype=np.float32)).output[0]
        inner = ctx.make_node(op_type, [node.input[0]], name=f"{name}_{label}").output[0]
        node.type = "Sub"
        ctx.replace_inputs(node, [one, inner] if one_first else [inner, one])

    return write
