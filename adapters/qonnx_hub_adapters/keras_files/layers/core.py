"""Dense layers, shapes and what does nothing at inference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx_ir import Value

from qonnx_hub_adapters.keras_files.graph import Layer
from qonnx_hub_adapters.keras_files.kinds import Kind, Use
from qonnx_hub_adapters.keras_files.layers.activations import activate
from qonnx_hub_adapters.keras_files.scope import Scope
from qonnx_hub_adapters.keras_files.variables import Variables, variables


def with_bias(layer: Layer, *names: str) -> Variables:
    """Return variables with a bias at the end, where the layer has one."""
    return variables(*names, *(("bias",) if layer.config.get("use_bias", True) else ()))


def _dense(s: Scope, use: Use) -> Value:
    y = s.op("MatMul", s.floats(use.x), s.weight("kernel", use.weights["kernel"]))
    bias = use.weights.get("bias")
    if bias is not None:
        y = s.op("Add", y, s.weight("bias", bias))
    return activate(s, y, use.config.get("activation"))


def _flatten(s: Scope, use: Use) -> Value:
    x, sizes = use.x, s.shape(use.x)
    if use.config.get("data_format") == "channels_first" and len(sizes) > 2:
        x = s.transpose(x, [0, *range(2, len(sizes)), 1])
    if len(sizes) < 2:
        return s.op("Unsqueeze", x, s.integers([1]))
    inner = sizes[1:]
    total = math.prod(size for size in inner if size is not None)
    return s.reshape(x, [0 if sizes[0] is None else sizes[0], -1 if None in inner else total])


def to_shape(s: Scope, x: Value, target: Sequence[int]) -> Value:
    """Return a value in another shape behind the batch; -1 is worked out where it can be."""
    sizes, wanted = s.shape(x)[1:], [int(size) for size in target]
    if wanted.count(-1) > 1:
        raise s.fail("reshapes to several open sizes")
    if -1 in wanted and None not in sizes:
        known = math.prod(size for size in wanted if size != -1)
        wanted[wanted.index(-1)] = math.prod(int(z) for z in sizes if z is not None) // known
    return s.reshape(x, [-1 if -1 not in wanted else 0, *wanted])


def pairs(value: Any, count: int) -> list[tuple[int, int]]:
    """Return (in front, behind) per axis: of one number, one per axis, or pairs."""
    if isinstance(value, int):
        return [(value, value)] * count
    if count == 1:
        if len(value) == 1:
            return pairs(value[0], 1) if isinstance(value[0], int) else [tuple(value[0])]
        return [(int(value[0]), int(value[1]))]
    return [(v, v) if isinstance(v, int) else (int(v[0]), int(v[1])) for v in value]


def spatial_axes(use: Use, rank: int) -> list[int]:
    """Return the axes that are neither samples nor channels."""
    if use.config.get("data_format") == "channels_first":
        return list(range(2, rank))
    return list(range(1, rank - 1))


def _zero_padding(s: Scope, use: Use) -> Value:
    rank = s.rank(use.x)
    axes = spatial_axes(use, rank)
    ends = pairs(use.config["padding"], len(axes))
    pads = [0] * (2 * rank)
    for axis, (front, behind) in zip(axes, ends, strict=True):
        pads[axis], pads[rank + axis] = front, behind
    return s.op("Pad", use.x, s.integers(pads, "pads"))


def _cropping(s: Scope, use: Use) -> Value:
    axes = spatial_axes(use, s.rank(use.x))
    ends = pairs(use.config["cropping"], len(axes))
    most = np.iinfo(np.int64).max
    starts = [front for front, _ in ends]
    stops = [-behind if behind else most for _, behind in ends]
    return s.op(
        "Slice",
        use.x,
        s.integers(starts, "starts"),
        s.integers(stops, "ends"),
        s.integers(axes, "axes"),
    )


def _up_sampling(s: Scope, use: Use) -> Value:
    rank = s.rank(use.x)
    axes = spatial_axes(use, rank)
    size = use.config["size"]
    factors = [int(size)] * len(axes) if isinstance(size, int) else [int(n) for n in size]
    mode = use.config.get("interpolation", "nearest")
    first = use.config.get("data_format") == "channels_first"
    # Runtimes resize images with their channels first.
    x = use.x if first else s.transpose(use.x, [0, rank - 1, *range(1, rank - 1)])
    scales = np.array([1, 1, *factors], dtype=np.float32)
    if mode == "nearest":
        y = s.op(
            "Resize",
            x,
            None,
            scales,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    elif mode == "bilinear":
        y = s.op(
            "Resize",
            x,
            None,
            scales,
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
    else:
        raise s.fail(f"interpolation '{mode}'")
    return y if first else s.transpose(y, [0, *range(2, rank), 1])


def _embedding(s: Scope, use: Use) -> Value:
    table = s.weight("embeddings", use.weights["embeddings"])
    indices = s.op("Cast", use.x, to=7)
    if use.config.get("mask_zero"):
        y = s.op("Gather", table, indices, axis=0)
        zero = s.value(np.zeros((), dtype=np.int64), "nothing")
        s.net.masks[y] = s.op("Not", s.op("Equal", indices, zero))
        return y
    return s.op("Gather", table, indices, axis=0)


def _masking(s: Scope, use: Use) -> Value:
    differs = s.op("Not", s.op("Equal", use.x, float(use.config.get("mask_value", 0.0))))
    some = s.op("Cast", differs, to=1)
    kept = s.op("ReduceMax", some, s.integers([-1], "axes"), keepdims=1)
    y = s.op("Mul", use.x, kept)
    flat = s.op("Squeeze", kept, s.integers([-1], "axes"))
    s.net.masks[y] = s.op("Cast", flat, to=9)
    return y


_DENSE = Kind(_dense, lambda layer: with_bias(layer, "kernel"))
_IDENTITIES = (
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianNoise"),
    *("GaussianDropout", "AlphaDropout", "ActivityRegularization", "Identity"),
)

KINDS: Mapping[str, Kind] = {
    "keras>Dense": _DENSE,
    **{f"keras>{name}": Kind(lambda s, use: use.x) for name in _IDENTITIES},
    "keras>Flatten": Kind(_flatten),
    "keras>Reshape": Kind(lambda s, use: to_shape(s, use.x, use.config["target_shape"])),
    "keras>Permute": Kind(
        lambda s, use: s.transpose(use.x, [0, *(int(axis) for axis in use.config["dims"])])
    ),
    "keras>RepeatVector": Kind(
        lambda s, use: s.op(
            "Tile",
            s.op("Unsqueeze", use.x, s.integers([1])),
            s.integers([1, int(use.config["n"]), 1]),
        )
    ),
    **{f"keras>ZeroPadding{n}D": Kind(_zero_padding) for n in (1, 2, 3)},
    **{f"keras>Cropping{n}D": Kind(_cropping) for n in (1, 2, 3)},
    **{f"keras>UpSampling{n}D": Kind(_up_sampling) for n in (1, 2, 3)},
    "keras>Embedding": Kind(_embedding, lambda layer: variables("embeddings")),
    "keras>Masking": Kind(_masking),
    "keras>Rescaling": Kind(
        lambda s, use: s.op(
            "Add",
            s.op("Mul", s.floats(use.x), np.asarray(use.config["scale"], dtype=np.float32)),
            np.asarray(use.config.get("offset", 0.0), dtype=np.float32),
        )
    ),
}
