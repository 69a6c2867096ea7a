"""What is written down of a call of one of HAWQ's layers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from qonnx_hub_adapters.hawq.functions import (
    UntraceableError,
    adaptive_window,
    average_attributes,
    conv_attributes,
)
from qonnx_hub_adapters.hawq.layers import ACT, AVERAGE_POOL, LINEAR, SCALE_BUFFERS, kind_of
from qonnx_hub_adapters.hawq.trace_data import (
    ActCall,
    Call,
    PoolCall,
    Ref,
    Requantization,
    WeightCall,
)
from qonnx_hub_ir.errors import Gap, SourceError
from qonnx_hub_ir.quantizers import Array


class Recorder(Protocol):
    """The part of the tracer that layers are written down with."""

    calls: list[Call]
    gaps: list[Gap]
    notes: list[str]

    def fresh(self) -> Ref:
        """Return a new value."""

    def bind(self, tensor: Any, ref: Ref) -> None:
        """Say that a tensor is a value from now on."""

    def find(self, tensor: Any) -> Ref | None:
        """Return the value that a tensor is."""

    def overwrite(self, tensor: Any, by: str, *, also_itself: bool = False) -> None:
        """Note that a call wrote into a tensor."""

    def record(self, tensor: Any, ref: Ref) -> None:
        """Keep what the module computed."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call before it runs, when tensors still are what they were.

    Attributes:
        kind: The layer's class.
        layer: Its name.
        x: The value it works on.
        data: The tensor of that value.
        shape: Its shape.
        scale: The scale that came with it: tensor, list of tensors, or ``None``.
        channels: Channels of each branch, where the scale is a list.
        identity: The other branch of a residual sum.
        rest: Further arguments, in the order of the signature.
    """

    kind: str
    layer: str
    x: Ref
    data: Any
    shape: tuple[int, ...]
    scale: Any
    channels: tuple[int, ...] = ()
    identity: Ref | None = None
    rest: tuple[Any, ...] = ()


def bind(signature: inspect.Signature, args: Sequence[Any], kwargs: Any) -> tuple[Any, ...]:
    """Return all arguments of a call in the order of the signature."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return tuple(bound.arguments.values())


def data_of(x: Any) -> Any:
    """Return the activation of a layer's first argument: HAWQ packs it with its scale."""
    return x[0] if type(x) is tuple else x


def _scale_of(given: Sequence[Any]) -> Any:
    if type(given[0]) is tuple:
        return given[0][1]
    return given[1] if len(given) > 1 else None


def is_recorded(kind: str, module: Any, given: Sequence[Any]) -> bool:
    """Return whether the call quantizes; others pass their input through, or only pool it."""
    if kind == ACT:
        return not module.full_precision_flag
    return kind != AVERAGE_POOL or _scale_of(given) is not None


def prepare(tracer: Recorder, kind: str, layer: str, given: Sequence[Any], x: Ref) -> Prepared:
    """Return what must be known of a call before it runs.

    Raises:
        SourceError: It has no scale where HAWQ needs one, or a residual branch is a constant.
    """
    data, scale = data_of(given[0]), _scale_of(given)
    if scale is None and kind != ACT:
        raise SourceError(
            f"layer '{layer}': {kind} is called without the scale of its input; "
            "pass what the QuantAct before it returned"
        )
    channels: tuple[int, ...] = ()
    identity = None
    if kind == ACT:
        if isinstance(scale, list):
            channels = tuple(int(count) for count in given[0][2])
        if len(given) > 3 and given[3] is not None:
            identity = tracer.find(given[3])
            if identity is None:
                raise SourceError(f"layer '{layer}': the residual branch is a constant")
    shape = tuple(int(size) for size in data.shape)
    return Prepared(kind, layer, x, data, shape, scale, channels, identity, tuple(given[2:]))


def array_of(tensor: Any) -> Array:
    """Return a tensor's numbers as a float32 array of its own."""
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float32)


def along_channels(values: Array, rank: int) -> Array:
    """Return values so that they go along axis 1, as HAWQ shapes them; single ones as scalars.

    HAWQ reshapes for 2 and 4 axes only; otherwise the values stay as they are.
    """
    if values.size == 1:
        return values.reshape(())
    return values.reshape(1, -1, *(1,) * (rank - 2)) if rank in (2, 4) else values


def _requantization(act: Any, weight: Any, rank: int) -> Requantization:
    weights = np.ones((), dtype=np.float32) if weight is None else array_of(weight)
    return Requantization(along_channels(array_of(act), rank), along_channels(weights, rank))


def _of_branches(scales: Sequence[Any], channels: Sequence[int], rank: int) -> Requantization:
    """Return one requantization whose scales go along the channels of all branches."""
    parts = [
        np.broadcast_to(array_of(scale).reshape(-1), (count,))
        for scale, count in zip(scales, channels, strict=True)
    ]
    joined = along_channels(np.concatenate(parts).astype(np.float32), rank)
    return Requantization(joined, np.ones((), dtype=np.float32))


def _source_of(call: Prepared, module: Any, rank: int) -> Requantization | None:
    if call.scale is None or module.fixed_point_quantization:
        return None
    if isinstance(call.scale, list):
        return _of_branches(call.scale, call.channels, rank)
    weight = call.rest[0] if call.rest else None
    if weight is None and call.identity is None:
        weight = getattr(module, "pre_weight_scaling_factor", None)
    return _requantization(call.scale, weight, rank)


def record_act(tracer: Recorder, module: Any, call: Prepared, result: Any) -> None:
    """Write down a call of a QuantAct that has run."""
    rank = len(call.shape)
    source = _source_of(call, module, rank)
    identity, identity_source = (None, None) if source is None else (call.identity, None)
    if identity is not None:
        # The arguments after the identity are its activation's scale and its weights' scale.
        scale, weight = (*call.rest[2:4], None, None)[:2]
        if weight is None:
            weight = getattr(module, "identity_weight_scaling_factor", None)
        identity_source = _requantization(scale, weight, rank)
    output = tracer.fresh()
    tensor = result[0]
    tracer.calls.append(
        ActCall(
            call.layer,
            call.x,
            output,
            bits=int(module.activation_bit),
            signed=module.quant_mode == "symmetric",
            scale=array_of(module.act_scaling_factor).reshape(()),
            source=source,
            identity=identity,
            identity_source=identity_source,
        )
    )
    if isinstance(call.scale, list):
        # HAWQ writes the integers of the branches over its input.
        tracer.overwrite(call.data, f"QuantAct '{call.layer}'", also_itself=True)
    tracer.bind(tensor, output)
    tracer.record(tensor, output)


def record_weights(tracer: Recorder, module: Any, call: Prepared, result: Any) -> None:
    """Write down a call of a layer with weights that has run."""
    scale = array_of(getattr(module, SCALE_BUFFERS[call.kind])).reshape(-1)
    act = array_of(call.scale).reshape(-1)
    rank = len(call.shape)
    bias = getattr(module, "bias_integer", None)
    if call.kind != LINEAR and rank != 4:
        raise SourceError(f"layer '{call.layer}': its input has {rank} axes, 4 are needed")
    if bias is None and getattr(module, "bias", None) is not None:
        tracer.notes.append(
            f"layer '{call.layer}' has a bias but no bias_bit: HAWQ leaves the bias out, and "
            "so does the conversion"
        )
    output = tracer.fresh()
    # A linear layer shapes its scales for two axes whatever its input has.
    shaped = rank if call.kind != LINEAR else 2
    weighted = WeightCall(
        call.layer,
        call.x,
        output,
        weight=array_of(module.weight_integer),
        weight_scale=scale,
        bits=int(module.weight_bit),
        bias=None if bias is None else array_of(bias),
        bias_bits=None if bias is None else int(module.bias_bit),
        act_scale=along_channels(act, shaped),
        out_scale=along_channels(scale * act, shaped),
        attributes=None if call.kind == LINEAR else _conv_attributes(tracer, module, call),
    )
    tracer.calls.append(weighted)
    tracer.bind(result[0] if isinstance(result, tuple) else result, output)


def _conv_attributes(tracer: Recorder, module: Any, call: Prepared) -> dict[str, Any]:
    # Some forks keep the settings on the layer itself.
    conv = getattr(module, "conv", module)
    kernel = module.weight_integer.shape[2:]
    try:
        return conv_attributes(kernel, conv.stride, conv.padding, conv.dilation, conv.groups)
    except UntraceableError as error:
        tracer.gaps.append(Gap(call.layer, call.kind, str(error)))
        return {}


def record_pool(tracer: Recorder, module: Any, call: Prepared, result: Any) -> None:
    """Write down a call of a QuantAveragePool2d that has run."""
    pool, tensor = module.final_pool, result[0]
    before, after = call.shape[2:], tuple(int(size) for size in tensor.shape)[2:]
    names = ("kernel_size", "stride", "padding", "count_include_pad", "divisor_override")
    op_type = "AveragePool"
    attributes: dict[str, Any] = {}
    try:
        if hasattr(pool, "output_size"):
            op_type, attributes = adaptive_window(before, after)
        elif all(hasattr(pool, name) for name in names):
            settings = {name: getattr(pool, name) for name in names}
            attributes = average_attributes(before, after, settings)
        else:
            raise UntraceableError(f"a final_pool of type {type(pool).__name__}")  # noqa: TRY301
    except UntraceableError as error:
        tracer.gaps.append(Gap(call.layer, kind_of(module), str(error)))
    output = tracer.fresh()
    scale = array_of(call.scale)
    shaped = scale.reshape(()) if scale.size == 1 else scale.reshape(-1)
    tracer.calls.append(PoolCall(call.layer, call.x, output, shaped, op_type, attributes))
    tracer.bind(tensor, output)
