"""A concrete trace: one forward pass on a sample, with every call recorded.

HAWQ's layers run as they are, inside of temporary ``forward`` wrappers; torch functions
between them are seen by a ``TorchFunctionMode``. Scales are taken as the tensors seen at each
call, never inferred from the wiring: what models hand on is not always the scale of what they
hand on. Symbolic tracers of torch do not get through HAWQ's fixed-point arithmetic.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from qonnx_hub_adapters.hawq.functions import (
    UntraceableError,
    adaptive_window,
    average_attributes,
    conv_attributes,
)
from qonnx_hub_adapters.hawq.graph import UNIT
from qonnx_hub_adapters.hawq.layers import (
    ACT,
    AVERAGE_POOL,
    BN_CONV,
    LINEAR,
    SCALE_BUFFERS,
    WITH_WEIGHTS,
    kind_of,
)
from qonnx_hub_adapters.hawq.trace_data import (
    ActCall,
    Branch,
    Call,
    ForwardTrace,
    PoolCall,
    Ref,
    SourceGrid,
    WeightCall,
    shaped,
)
from qonnx_hub_adapters.hawq.tracer import Tracer, tensors_in
from qonnx_hub_adapters.torch_common.modules import floats_of, input_names
from qonnx_hub_ir.errors import HubError, SourceError, UnsupportedGraphError
from qonnx_hub_ir.graph.constants import channel_shape
from qonnx_hub_ir.quantizers import Array

_TABLES = ("_parameters", "_buffers", "_modules")
_AVERAGE_SETTINGS = frozenset(
    {"kernel_size", "stride", "padding", "count_include_pad", "divisor_override"}
)


def trace(model: Any, args: Sequence[Any], torch: Any) -> ForwardTrace:
    """Return the calls of one forward pass of a module that does not learn from it.

    Args:
        model: A module; its attributes, buffers and flags are put back at the end.
        args: Sample inputs: float32 tensors.
        torch: The framework.

    Raises:
        SourceError: The module fails on the sample, or its inputs and outputs cannot be read.
        UnsupportedGraphError: Calls that have no ONNX form here; all of them are listed.
    """
    tracer = Tracer(torch)
    tensors = [value.detach().clone() for value in args]
    for tensor in tensors:
        tracer.bind(tensor, tracer.fresh())
    shapes = [tuple(tensor.shape) for tensor in tensors]
    chance = torch.random.get_rng_state()
    with _frozen(model, torch):
        # HAWQ's layers, and modules without children.
        for name, module in model.named_modules():
            kind = kind_of(module)
            if kind or (name and next(module.children(), None) is None):
                module.__dict__["forward"] = _wrapper(tracer, name or kind, kind, module)
        try:
            with _function_mode(tracer):
                result = model(*tensors)
        except HubError:
            raise
        except Exception as error:  # whatever the user's forward raises
            where = f" in layer '{tracer.failing}'" if tracer.failing else ""
            raise SourceError(f"the module fails on the sample{where}: {error}") from error
        if tracer.gaps:
            raise UnsupportedGraphError(
                "calls of the module cannot be converted:", tracer.gaps
            )
        outputs = []
        for tensor in tensors_in(result):
            if (ref := tracer.find(tensor)) is not None:
                tracer.recorded[ref] = floats_of(tensor)
                outputs.append(ref)
    if not torch.equal(chance, torch.random.get_rng_state()):
        raise SourceError("the module draws random numbers: no graph computes the same")
    if not outputs:
        raise SourceError("no output of the module depends on its inputs")
    return ForwardTrace(
        type(model).__name__,
        tuple(zip(input_names(model, len(args)), shapes, strict=True)),
        tuple(tracer.calls),
        tuple(outputs),
        tracer.shapes,
        tracer.recorded,
        tuple(tracer.notes),
    )


@contextlib.contextmanager
def _preserved(model: Any) -> Iterator[None]:
    """Put back every attribute and buffer of the module and its children at the end.

    Buffers are both replaced (HAWQ's scales) and written into (its ranges), so the tensors are
    remembered as well as what they hold. Nothing is deep-copied: HAWQ's buffers may hang on an
    autograd graph, which refuses that.
    """
    saved = []
    for module in model.modules():
        tables = {name: dict(module.__dict__[name]) for name in _TABLES}
        buffers = [value for value in tables["_buffers"].values() if value is not None]
        numbers = [(value, value.detach().clone()) for value in buffers]
        saved.append((module.__dict__, dict(module.__dict__), tables, numbers))
    try:
        yield
    finally:
        for own, attributes, tables, numbers in saved:
            own.clear()
            own.update(attributes)
            for name, entries in tables.items():
                own[name].clear()
                own[name].update(entries)
            for value, kept in numbers:
                value.detach().copy_(kept)


@contextlib.contextmanager
def _frozen(model: Any, torch: Any) -> Iterator[None]:
    """Keep the module from learning: evaluation mode, ranges and batch norms fixed.

    HAWQ's own ``freeze_model`` misses children of a ModuleList, attributes with "norm" in
    their name, and subclasses; this goes through all modules.
    """
    with _preserved(model), torch.no_grad():
        model.eval()
        for module in model.modules():
            kind = kind_of(module)
            if kind == ACT:
                module.running_stat = False
            if kind == ACT or kind in WITH_WEIGHTS:
                module.fix_flag = True
            if kind == BN_CONV:
                module.fix_BN = True
        yield


def _function_mode(tracer: Tracer) -> Any:
    """Return what lets the tracer see all torch functions."""
    overrides: Any = tracer.torch.overrides

    class _Watch(overrides.TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return tracer.call(func, args, kwargs or {})

    return _Watch()


def _wrapper(tracer: Tracer, name: str, kind: str, module: Any) -> Callable[..., Any]:
    """Return a forward for a layer that records its calls."""
    forward = module.forward

    def named(*args: Any, **kwargs: Any) -> Any:
        with tracer.inside(name, mute=False):
            return forward(*args, **kwargs)

    def recorded(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(forward).bind(*args, **kwargs)
        bound.apply_defaults()
        given = tuple(bound.arguments.values())
        scale, x = _scale_of(given), tracer.find(_data_of(given))
        # Others pass their input through, or only pool it.
        quantizes = (kind != ACT or not module.full_precision_flag) and (
            kind != AVERAGE_POOL or scale is not None
        )
        if x is None or not quantizes:
            return named(*args, **kwargs)
        with tracer.inside(name, mute=True):
            if scale is None and kind != ACT:
                raise SourceError(
                    f"layer '{name}': {kind} is called without the scale of its input; "
                    "pass what the QuantAct before it returned"
                )
            result = forward(*args, **kwargs)
            call = _CALLS[kind](tracer, name, module, given, x, result)
            tracer.calls.append(call)
            tracer.bind(result[0] if isinstance(result, tuple) else result, call.output)
        return result

    return recorded if kind in _CALLS else named


def _data_of(given: Sequence[Any]) -> Any:
    """Return the activation of a layer's first argument: HAWQ packs it with its scale."""
    return given[0][0] if type(given[0]) is tuple else given[0]


def _scale_of(given: Sequence[Any]) -> Any:
    if type(given[0]) is tuple:
        return given[0][1]
    return given[1] if len(given) > 1 else None


def _per_channel(values: Array, rank: int) -> Array:
    """Return values so that they go along axis 1, as HAWQ shapes them; single ones as scalars.

    HAWQ reshapes for 2 and 4 axes only; otherwise the values stay as they are.
    """
    return shaped(values, channel_shape(rank) if rank in (2, 4) else values.shape)


def _source_grid(act: Array, weight: Any, rank: int) -> SourceGrid:
    weights = UNIT if weight is None else floats_of(weight)
    return SourceGrid(_per_channel(act, rank), _per_channel(weights, rank))


def _act_call(
    tracer: Tracer, layer: str, module: Any, given: Sequence[Any], x: Ref, result: Any
) -> Call:
    """Return what is recorded of a call of a QuantAct.

    Raises:
        SourceError: Its residual branch is a constant.
    """
    data, scale, rank = _data_of(given), _scale_of(given), _data_of(given).ndim
    # Scale of the weights before; the residual branch; its scale; that of its weights.
    weight, branch, beside, beside_weight = (*given[2:6], *(None,) * 4)[:4]
    identity = None if branch is None else tracer.find(branch)
    if branch is not None and identity is None:
        raise SourceError(f"layer '{layer}': the residual branch is a constant")
    is_fixed = scale is None or bool(module.fixed_point_quantization)
    source = other = None
    if not is_fixed and isinstance(scale, list):
        parts = [
            np.broadcast_to(floats_of(one).reshape(-1), (int(count),))
            for one, count in zip(scale, given[0][2], strict=True)
        ]
        source = _source_grid(np.concatenate(parts), None, rank)
    elif not is_fixed:
        own = getattr(module, "pre_weight_scaling_factor", None)
        known = own if weight is None and identity is None else weight
        source = _source_grid(floats_of(scale), known, rank)
    if source is not None and identity is not None:
        own = getattr(module, "identity_weight_scaling_factor", None)
        known = own if beside_weight is None else beside_weight
        other = Branch(identity, _source_grid(floats_of(beside), known, rank))
    if isinstance(scale, list):
        # HAWQ writes the integers of the branches over its input.
        tracer.overwrite(data, f"QuantAct '{layer}'", also_itself=True)
    output = tracer.fresh()
    tracer.recorded[output] = floats_of(result[0])
    return ActCall(
        layer,
        x,
        output,
        bits=int(module.activation_bit),
        signed=module.quant_mode == "symmetric",
        scale=floats_of(module.act_scaling_factor).reshape(()),
        source=source,
        beside=other,
    )


def _weight_call(
    tracer: Tracer, layer: str, module: Any, given: Sequence[Any], x: Ref, _result: Any
) -> Call:
    """Return what is recorded of a call of a layer with weights.

    Raises:
        SourceError: The input of a convolution has not four axes.
    """
    kind, rank = kind_of(module), _data_of(given).ndim
    is_linear = kind == LINEAR
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
    attributes = None
    if not is_linear:
        # Some forks keep the settings on the layer itself.
        conv, names = (
            getattr(module, "conv", module),
            ("stride", "padding", "dilation", "groups"),
        )
        settings = {name: getattr(conv, name) for name in names}
        attributes = conv_attributes(module.weight_integer.shape[2:], settings)
    # A linear layer shapes its scales for two axes whatever its input has.
    axes = 2 if is_linear else rank
    return WeightCall(
        layer,
        x,
        tracer.fresh(),
        weight=floats_of(module.weight_integer),
        weight_scale=scale,
        bits=int(module.weight_bit),
        bias=None if bias is None else floats_of(bias),
        bias_bits=0 if bias is None else int(module.bias_bit),
        act_scale=_per_channel(act, axes),
        out_scale=_per_channel(scale * act, axes),
        attributes=attributes,
    )


def _pool_call(
    tracer: Tracer, layer: str, module: Any, given: Sequence[Any], x: Ref, result: Any
) -> Call:
    """Return what is recorded of a call of a QuantAveragePool2d."""
    pool = module.final_pool
    before, after = (tuple(one.shape)[2:] for one in (_data_of(given), result[0]))
    op_type: str = "AveragePool"
    attributes: dict[str, Any] = {}
    try:
        if hasattr(pool, "output_size"):
            op_type, attributes = adaptive_window(before, after)
        elif vars(pool).keys() >= _AVERAGE_SETTINGS:
            attributes = average_attributes(before, after, vars(pool))
        else:
            tracer.gap(layer, AVERAGE_POOL, f"a final_pool of type {type(pool).__name__}")
    except UntraceableError as error:
        tracer.gap(layer, AVERAGE_POOL, str(error))
    scale = shaped(floats_of(_scale_of(given)), (-1,))
    return PoolCall(layer, x, tracer.fresh(), scale, op_type, attributes)


_CALLS: Mapping[str, Callable[[Tracer, str, Any, Sequence[Any], Ref, Any], Call]] = {
    **dict.fromkeys(WITH_WEIGHTS, _weight_call),
    ACT: _act_call,
    AVERAGE_POOL: _pool_call,
}
"""What is recorded of a call that has run, by the kind of its layer."""
