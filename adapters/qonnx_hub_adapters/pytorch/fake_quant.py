"""Quantizers read from the nodes of an exported graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qonnx_hub_adapters.pytorch.affine import Affine
from qonnx_hub_adapters.pytorch.constants import schema_of
from qonnx_hub_adapters.torch_common.modules import array_of
from qonnx_hub_ir.quantizers import Array

_FUSED = "aten::fused_moving_avg_obs_fake_quant"
FAKE = frozenset(
    {
        "aten::fake_quantize_per_tensor_affine",
        "aten::fake_quantize_per_channel_affine",
        "aten::fake_quantize_per_tensor_affine_cachemask",
        "aten::fake_quantize_per_channel_affine_cachemask",
        "aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
        "aten::_fake_quantize_learnable_per_tensor_affine",
        "aten::_fake_quantize_learnable_per_channel_affine",
        _FUSED,
    }
)
_DECOMPOSED = "quantized_decomposed"
QUANTIZE, DEQUANTIZE = (
    {f"{_DECOMPOSED}::{verb}_per_tensor", f"{_DECOMPOSED}::{verb}_per_channel"}
    | {f"torchao::{verb}_affine"}
    for verb in ("quantize", "dequantize")
)
_FUSED_STATE = ("running_min", "running_max", "scale", "zero_point")
_FUSED_NUMBERS = (
    *("averaging_const", "quant_min", "quant_max", "axis"),
    *("per_row_fake_quant", "symmetric_quant"),
)

_SPELLINGS: Mapping[str, str] = {
    "self": "x",
    "input": "x",
    "scales": "scale",
    "zero_points": "zero_point",
    "ch_axis": "axis",
    "fake_quant_on": "fake_quant_enabled",
}

Known = Callable[[Any], Any]
"""Returns the tensor of a node that depends on no input, ``None`` for others."""


class UnreadableError(Exception):
    """A quantizer that cannot be read; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a node quantizes, and how.

    Attributes:
        x: The node that is quantized.
        affine: The quantizer; ``None`` where it is switched off.
    """

    x: Any
    affine: Affine | None


def operator_name(node: Any) -> str:
    """Return "namespace::name" of the operator that a node calls, without the overload."""
    schema = schema_of(node)
    return "" if schema is None else str(schema.name)


def arguments(node: Any) -> dict[str, Any]:
    """Return the arguments of an operator by name, with defaults, in one spelling."""
    found: dict[str, Any] = {}
    for index, formal in enumerate(schema_of(node).arguments):
        name = _SPELLINGS.get(formal.name, formal.name)
        if index < len(node.args):
            found[name] = node.args[index]
        elif formal.name in node.kwargs:
            found[name] = node.kwargs[formal.name]
        elif formal.has_default_value():
            found[name] = formal.default_value
    return found


def read(node: Any, known: Known) -> Reading:
    """Return what a quantizing node does.

    Args:
        node: A node of one of the operators listed above.
        known: Gives the tensors that depend on no input.

    Raises:
        UnreadableError: It is computed at run time, or has a form that is not known here.
    """
    given, name = arguments(node), operator_name(node)
    if name == _FUSED and _number(given["observer_on"], known, "the switch of its observer"):
        raise UnreadableError(
            "its observer is on: the scale changes at every call; export the program with "
            "observers disabled (torch.ao.quantization.disable_observer)"
        )
    enabled = given.get("fake_quant_enabled")
    if enabled is not None and not _number(enabled, known, "the switch of the quantizer"):
        return Reading(given["x"], None)
    low, high = int(given["quant_min"]), int(given["quant_max"])
    if low >= high:
        raise UnreadableError(f"its range {low}..{high} holds no two codes")
    if name == _FUSED:
        known = _with_fused_parameters(node, given, known)
    scale, inverse = _scales(given["scale"], known, exact=not name.startswith("aten::"))
    point = given.get("zero_point")
    zero = _numbers(0 if point is None else point, known, "its zero point").astype(np.float64)
    if "learnable" in name:
        zero = np.clip(np.rint(zero), low, high)
    elif not np.array_equal(zero, np.rint(zero)):
        raise UnreadableError("its zero points are fractions")
    elif name.startswith("aten::") and "axis" in given and np.any(zero):
        tensor = known(point)
        if tensor is not None and tensor.dtype.is_floating_point:
            raise UnreadableError(
                "its zero points are floats, which are added before rounding"
            )
    tiny = np.finfo(np.float32).tiny
    if not np.all(np.isfinite(scale) & (scale >= tiny)):
        raise UnreadableError("its scale is not above zero, or too small for float32")
    if not np.all(np.isfinite(inverse) & (inverse >= tiny)):
        raise UnreadableError("its scale is too large for float32 to hold 1/scale")
    sizes = given["x"].meta["val"].shape
    shape = tuple(size if isinstance(size, int) else None for size in sizes)
    scale, inverse, zero = (_placed(part, given, shape) for part in (scale, inverse, zero))
    return Reading(given["x"], Affine(scale, inverse, zero, low, high))


def _with_fused_parameters(node: Any, given: Mapping[str, Any], known: Known) -> Known:
    """Return ``known`` with the scale and zero point that the fused operator works out.

    It does so from the range it has seen at every call, and writes them into its arguments.
    """
    tensors = {}
    for name in ("observer_on", "fake_quant_enabled", *_FUSED_STATE):
        tensor = known(given[name])
        if tensor is None:
            raise UnreadableError(f"its {name} is computed at run time")
        tensors[name] = tensor.detach().clone()
    numbers = [given[name] for name in _FUSED_NUMBERS]
    channels = tensors["running_min"].numel()
    axis = given["axis"] if given["per_row_fake_quant"] else 0
    example = tensors["running_min"].new_zeros(channel_example(channels, axis))
    node.target(example, *tensors.values(), *numbers)
    updated = {given[name]: tensors[name] for name in ("scale", "zero_point")}
    return lambda argument: updated.get(argument, known(argument))


def channel_example(channels: int, axis: int) -> list[int]:
    """Return the smallest shape with these channels; a negative axis is the first."""
    first = max(int(axis), 0)
    return [channels if k == first else 1 for k in range(max(first + 1, 2))]


def _number(argument: Any, known: Known, what: str) -> float:
    return float(_numbers(argument, known, what).reshape(-1)[0])


def _numbers(argument: Any, known: Known, what: str) -> Array:
    """Return a number as float64, or the tensor of a node."""
    if isinstance(argument, (int, float)):
        return np.asarray(argument, dtype=np.float64)
    tensor = known(argument)
    if tensor is None:
        raise UnreadableError(f"{what} is computed at run time")
    return array_of(tensor)


def _scales(argument: Any, known: Known, *, exact: bool) -> tuple[Array, Array]:
    """Return scale and inverse as torch computes them.

    Args:
        argument: A number, or a node.
        known: Gives the tensors that depend on no input.
        exact: Whether a number is inverted as it is, before it is rounded to float32.
    """
    given = _numbers(argument, known, "its scale")
    if given.dtype == np.float64 and given.size > 1:
        raise UnreadableError("its scales are of double precision")
    scale = given.astype(np.float32)
    with np.errstate(all="ignore"):
        if exact and given.size == 1:
            return scale, np.asarray(1.0 / given.astype(np.float64), dtype=np.float32)
        return scale, np.asarray(np.float32(1) / scale)


def _placed(part: Array, given: Mapping[str, Any], shape: Sequence[int | None]) -> Array:
    """Return one parameter in a shape that broadcasts to the quantized value."""
    if part.size == 1:
        return part.reshape(())
    if "block_size" in given:
        return _in_blocks(part, given["block_size"], shape)
    axis = int(given["axis"]) % max(len(shape), 1)
    if part.ndim != 1 or shape[axis] not in {None, part.size}:
        raise UnreadableError(
            f"{part.size} scales do not fit axis {axis} of shape {list(shape)}"
        )
    return part.reshape([part.size if k == axis else 1 for k in range(len(shape))])


def _in_blocks(part: Array, blocks: Sequence[int], shape: Sequence[int | None]) -> Array:
    """Return parameters of blocks: one number per channel, or repeated for every element."""
    counts = [
        1 if size == block else (size or 0) // block
        for size, block in zip(shape, blocks, strict=True)
    ]
    if part.size != math.prod(counts):
        raise UnreadableError(f"blocks of {list(blocks)} do not fit shape {list(shape)}")
    whole = part.reshape(counts)
    for axis, (count, block) in enumerate(zip(counts, blocks, strict=True)):
        if count > 1 and block > 1:
            whole = np.repeat(whole, block, axis=axis)
    return whole
