"""Pooling layers."""

from __future__ import annotations

from collections.abc import Mapping

from onnx_ir import Value

from qonnx_hub_adapters.keras_files.kinds import Kind, Use, Writes
from qonnx_hub_adapters.keras_files.layers.convolutions import (
    SlidingWindow,
    channels_first,
    numbers,
    pads_of,
    restored,
)
from qonnx_hub_adapters.keras_files.layers.core import spatial_axes
from qonnx_hub_adapters.keras_files.scope import Scope


def pool_window(use: Use, count: int) -> SlidingWindow:
    """Return the window of a pooling layer."""
    size = numbers(use.config["pool_size"], count)
    strides = use.config.get("strides")
    return SlidingWindow(
        tuple(size),
        tuple(size if strides is None else numbers(strides, count)),
        (1,) * count,
        str(use.config.get("padding", "valid")),
        use.config.get("data_format") == "channels_first",
    )


def pooled(s: Scope, use: Use, op_type: str, count: int) -> Value:
    """Return a value pooled; averages leave the padding out."""
    window = pool_window(use, count)
    x = channels_first(s, use.x, window)
    y = s.op(
        op_type,
        x,
        kernel_shape=list(window.kernel),
        strides=list(window.strides),
        **pads_of(s, x, window),
    )
    return restored(s, y, window)


def _pool(op_type: str, count: int) -> Kind:
    return Kind(lambda s, use: pooled(s, use, op_type, count))


def global_pool(op_type: str) -> Writes:
    """Return what reduces all spatial axes."""

    def write(s: Scope, use: Use) -> Value:
        axes = spatial_axes(use, s.rank(use.x))
        # Keras 2 divides whole numbers.
        is_cast = s.net.generation == 3 and op_type == "ReduceMean"
        x = s.floats(use.x) if is_cast else use.x
        keep = int(bool(use.config.get("keepdims", False)))
        mask = use.kwargs.get("mask")
        mask = s.net.masks.get(use.x) if mask is None else mask
        if mask is not None and op_type == "ReduceMean" and s.rank(use.x) == 3:
            if axes != [1]:
                raise s.fail("averages masked steps behind the channels")
            weights = s.op("Unsqueeze", s.op("Cast", mask, to=1), s.integers([2], "axes"))
            total = s.op(
                "ReduceSum",
                s.op("Mul", x, weights),
                s.integers(axes, "axes"),
                keepdims=keep,
            )
            count = s.op("ReduceSum", weights, s.integers(axes, "axes"), keepdims=keep)
            return s.op("Div", total, count)
        return s.op(op_type, x, s.integers(axes, "axes"), keepdims=keep)

    return write


KINDS: Mapping[str, Kind] = {
    **{f"keras>MaxPooling{n}D": _pool("MaxPool", n) for n in (1, 2, 3)},
    **{f"keras>AveragePooling{n}D": _pool("AveragePool", n) for n in (1, 2, 3)},
    **{f"keras>GlobalMaxPooling{n}D": Kind(global_pool("ReduceMax")) for n in (1, 2, 3)},
    **{f"keras>GlobalAveragePooling{n}D": Kind(global_pool("ReduceMean")) for n in (1, 2, 3)},
}
