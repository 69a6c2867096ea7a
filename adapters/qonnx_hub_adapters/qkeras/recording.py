"""One eager pass over a model that writes down the quantized value of every weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from qonnx_hub_adapters.qkeras.framework import Framework, as_given
from qonnx_hub_adapters.qkeras.patching import QuantizerSlot, replaced
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.quantizers import Array

_TRIED_SIZES = (16, 32, 64, 8, 28, 128, 224, 4, 1)
"""Sizes tried for axes that the model leaves open; only weights are recorded."""


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """What one quantizer did to one weight.

    Attributes:
        given: The values that reached it.
        quantized: The values it returned.
        scale: Its scale after the call, or ``None``.
    """

    given: Array
    quantized: Array
    scale: Array | None


def record(
    model: Any, sites: list[QuantizerSlot], signature: list[Any], framework: Framework
) -> dict[str, Recorded]:
    """Return what the quantizers of all weights did, by the site's key.

    Args:
        model: The live model; the caller preserves its state.
        sites: Places of its quantizers.
        signature: A TensorSpec per input.
        framework: Its frameworks.

    Raises:
        SourceError: The model does not run on zeros of any size tried, or a weight's quantizer
            is called with different values in one pass.
    """
    recorded: dict[str, Recorded] = {}

    def recorder(site: QuantizerSlot) -> Callable[..., Any]:
        def call(x: Any, *args: Any, **kwargs: Any) -> Any:
            y = site.quantizer(x, *args, **kwargs)
            _note(recorded, site, x, y)
            return y

        return call

    constant = [site for site in sites if site.is_constant]
    with replaced(constant, recorder):
        _run_on_zeros(model, signature, framework, recorded)
    return recorded


def _run_on_zeros(
    model: Any, signature: list[Any], framework: Framework, recorded: dict[str, Recorded]
) -> None:
    error: Exception | None = None
    for feeds in _zeros(signature, framework):
        recorded.clear()
        try:
            model(as_given(model, feeds, framework.tf), training=False)
        except SourceError:
            raise
        except Exception as failure:  # a layer raises whatever its framework raises
            error = failure
        else:
            return
    shapes = ", ".join(str(tuple(spec.shape)) for spec in signature)
    raise SourceError(
        f"model '{model.name}' fails on zeros of shape {shapes}: {error}"
    ) from error


def _zeros(signature: list[Any], framework: Framework) -> Iterator[list[Any]]:
    open_axes = any(None in tuple(spec.shape)[1:] for spec in signature)
    for size in _TRIED_SIZES if open_axes else _TRIED_SIZES[:1]:
        feeds = []
        for spec in signature:
            shape = [1 if spec.shape[0] is None else spec.shape[0]] if spec.shape.rank else []
            shape += [size if dim is None else dim for dim in tuple(spec.shape)[1:]]
            feeds.append(framework.tf.zeros(shape, spec.dtype))
        yield feeds


def _note(recorded: dict[str, Recorded], site: QuantizerSlot, x: Any, y: Any) -> None:
    held = (getattr(site.quantizer, name, None) for name in ("quantization_scale", "scale"))
    scale = next((_array(value) for value in held if value is not None), None)
    entry = Recorded(_array(x), _array(y), scale)
    known = recorded.setdefault(site.key, entry)
    same = known.given.shape == entry.given.shape and np.array_equal(known.given, entry.given)
    if not same:
        raise SourceError(
            f"layer '{site.layer}': its {site.role} quantizer is called with different values "
            "in one pass: no constant can stand for them"
        )


def _array(value: Any) -> Array:
    array = value.numpy() if hasattr(value, "numpy") else value
    return np.array(array, dtype=np.float32)


def signature_of(model: Any, args: tuple[Any, ...], framework: Framework) -> list[Any]:
    """Return a TensorSpec per input of the model.

    Args:
        model: The live model.
        args: Sample inputs, for a model without declared inputs.
        framework: Its frameworks.

    Raises:
        SourceError: The model is not built and no sample inputs are given.
    """
    tf = framework.tf
    inputs = tf.nest.flatten(getattr(model, "inputs", None) or [])
    kinds = [(tuple(one.shape), tf.as_dtype(one.dtype)) for one in inputs]
    if not inputs:
        kinds = [((None, *np.shape(arg)[1:]), np.asarray(arg).dtype) for arg in args]
    if not kinds:
        raise SourceError(
            f"model '{model.name}' declares no inputs (it is not built, or subclassed); "
            "give sample inputs with args=(x,)"
        )
    return [
        tf.TensorSpec(shape, dtype, name=f"input_{index}")
        for index, (shape, dtype) in enumerate(kinds)
    ]
