"""What is recorded of a call of one of HAWQ's layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
    SourceGrid,
    WeightCall,
)
from qonnx_hub_adapters.hawq.tracer import Tracer
from qonnx_hub_adapters.torch_common.modules import floats_of
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.graph.constants import along_channels
from qonnx_hub_ir.quantizers import Array

_AVERAGE_SETTINGS = frozenset(
    {"kernel_size", "stride", "padding", "count_include_pad", "divisor_override"}
)

Record = Callable[[Any], Call]
"""Returns a call that has run, from its result."""


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


def recorder(tracer: Tracer, layer: str, module: Any, given: Sequence[Any], x: Ref) -> Record:
    """Return what describes a call, from what must be known before it runs.

    Args:
        tracer: Where it is recorded.
        layer: The layer's name.
        module: The layer.
        given: All arguments, in the order of the signature.
        x: The value that the layer works on.

    Raises:
        SourceError: It has no scale where HAWQ needs one, a residual branch is a constant, or
            its input has an unfit number of axes.
    """
    kind = kind_of(module)
    if kind == ACT:
        return _act_recorder(tracer, layer, module, given, x)
    if _scale_of(given) is None:
        raise SourceError(
            f"layer '{layer}': {kind} is called without the scale of its input; "
            "pass what the QuantAct before it returned"
        )
    if kind == AVERAGE_POOL:
        return _pool_recorder(tracer, layer, module, given, x)
    return _weight_recorder(tracer, layer, module, given, x)


def _per_channel(values: Array, rank: int) -> Array:
    """Return values so that they go along axis 1, as HAWQ shapes them; single ones as scalars.

    HAWQ reshapes for 2 and 4 axes only; otherwise the values stay as they are.
    """
    if values.size == 1:
        return values.reshape(())
    return along_channels(values, rank) if rank in (2, 4) else values


def _source_grid(act: Array, weight: Any, rank: int) -> SourceGrid:
    weights = np.ones((), dtype=np.float32) if weight is None else floats_of(weight)
    return SourceGrid(_per_channel(act, rank), _per_channel(weights, rank))


def _act_recorder(
    tracer: Tracer, layer: str, module: Any, given: Sequence[Any], x: Ref
) -> Record:
    """Return what records a call of a QuantAct."""
    data, scale, rank = data_of(given[0]), _scale_of(given), data_of(given[0]).ndim
    # Scale of the weights before; the residual branch; its scale; that of its weights.
    weight, branch, beside, beside_weight = (*given[2:6], *(None,) * 4)[:4]
    identity = None if branch is None else tracer.find(branch)
    if branch is not None and identity is None:
        raise SourceError(f"layer '{layer}': the residual branch is a constant")
    is_fixed = scale is None or bool(module.fixed_point_quantization)
    counts = [int(count) for count in given[0][2]] if isinstance(scale, list) else []

    def record(result: Any) -> Call:
        source = identity_source = None
        if not is_fixed and isinstance(scale, list):
            parts = [
                np.broadcast_to(floats_of(one).reshape(-1), (count,))
                for one, count in zip(scale, counts, strict=True)
            ]
            source = _source_grid(np.concatenate(parts), None, rank)
        elif not is_fixed:
            own = getattr(module, "pre_weight_scaling_factor", None)
            known = own if weight is None and identity is None else weight
            source = _source_grid(floats_of(scale), known, rank)
        if source is not None and identity is not None:
            own = getattr(module, "identity_weight_scaling_factor", None)
            known = own if beside_weight is None else beside_weight
            identity_source = _source_grid(floats_of(beside), known, rank)
        if isinstance(scale, list):
            # HAWQ writes the integers of the branches over its input.
            tracer.overwrite(data, f"QuantAct '{layer}'", also_itself=True)
        output = tracer.fresh()
        tracer.record(result[0], output)
        return ActCall(
            layer,
            x,
            output,
            bits=int(module.activation_bit),
            signed=module.quant_mode == "symmetric",
            scale=floats_of(module.act_scaling_factor).reshape(()),
            source=source,
            identity=None if source is None else identity,
            identity_source=identity_source,
        )

    return record


def _weight_recorder(
    tracer: Tracer, layer: str, module: Any, given: Sequence[Any], x: Ref
) -> Record:
    """Return what records a call of a layer with weights."""
    kind, rank = kind_of(module), data_of(given[0]).ndim
    is_linear = kind == LINEAR

    def record(_result: Any) -> Call:
        scale = floats_of(getattr(module, SCALE_BUFFERS[kind])).reshape(-1)
        act = floats_of(_scale_of(given)).reshape(-1)
        bias = getattr(module, "bias_integer", None)
        if not is_linear and rank != 4:
            raise SourceError(f"layer '{layer}': its input has {rank} axes, 4 are needed")
        if bias is None and getattr(module, "bias", None) is not None:
            tracer.notes.append(
                f"layer '{layer}' has a bias but no bias_bit: HAWQ leaves the bias out, and "
                "so does the conversion"
            )
        # Some forks keep the settings on the layer itself.
        kernel, conv = module.weight_integer.shape[2:], getattr(module, "conv", module)
        names = () if is_linear else ("stride", "padding", "dilation", "groups")
        settings = {name: getattr(conv, name) for name in names}
        # A linear layer shapes its scales for two axes whatever its input has.
        shaped = 2 if is_linear else rank
        return WeightCall(
            layer,
            x,
            tracer.fresh(),
            weight=floats_of(module.weight_integer),
            weight_scale=scale,
            bits=int(module.weight_bit),
            bias=None if bias is None else floats_of(bias),
            bias_bits=0 if bias is None else int(module.bias_bit),
            act_scale=_per_channel(act, shaped),
            out_scale=_per_channel(scale * act, shaped),
            attributes=None if is_linear else conv_attributes(kernel, settings),
        )

    return record


def _pool_recorder(
    tracer: Tracer, layer: str, module: Any, given: Sequence[Any], x: Ref
) -> Record:
    """Return what records a call of a QuantAveragePool2d."""
    pool, before = module.final_pool, tuple(data_of(given[0]).shape)[2:]

    def record(result: Any) -> Call:
        after = tuple(int(size) for size in result[0].shape)[2:]
        op_type: str = "AveragePool"
        attributes: dict[str, Any] = {}
        try:
            if hasattr(pool, "output_size"):
                op_type, attributes = adaptive_window(before, after)
            elif vars(pool).keys() >= _AVERAGE_SETTINGS:
                attributes = average_attributes(before, after, vars(pool))
            else:
                kind = type(pool).__name__
                raise UntraceableError(f"a final_pool of type {kind}")  # noqa: TRY301
        except UntraceableError as error:
            tracer.gap(layer, kind_of(module), str(error))
        scale = floats_of(_scale_of(given))
        shaped = scale.reshape(()) if scale.size == 1 else scale.reshape(-1)
        return PoolCall(layer, x, tracer.fresh(), shaped, op_type, attributes)

    return record
