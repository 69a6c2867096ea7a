"""A concrete trace: one forward pass on a sample, with every call recorded.

HAWQ's layers run as they are, inside of temporary ``forward`` wrappers; torch functions
between them are seen by a ``TorchFunctionMode``. Scales are taken as the tensors seen at each
call, never inferred from the wiring: what models hand on is not always the scale of what they
hand on. Symbolic tracers of torch do not get through HAWQ's fixed-point arithmetic.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qonnx_hub_adapters.hawq import recorded_calls
from qonnx_hub_adapters.hawq.layers import ACT, AVERAGE_POOL, WITH_WEIGHTS, kind_of
from qonnx_hub_adapters.hawq.trace_data import ForwardTrace
from qonnx_hub_adapters.hawq.tracer import Tracer, tensors_in
from qonnx_hub_adapters.torch_common.modules import input_names
from qonnx_hub_ir.errors import HubError, SourceError, UnsupportedGraphError

_RECORDED = WITH_WEIGHTS | {ACT, AVERAGE_POOL}


def trace(model: Any, args: Sequence[Any], torch: Any) -> ForwardTrace:
    """Return the calls of one forward pass of a frozen module.

    Args:
        model: A module, already frozen.
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
    with _watching(tracer, model):
        try:
            result = model(*tensors)
        except HubError:
            raise
        except Exception as error:  # whatever the user's forward raises
            where = f" in layer '{tracer.failing}'" if tracer.failing else ""
            raise SourceError(f"the module fails on the sample{where}: {error}") from error
    if tracer.gaps:
        raise UnsupportedGraphError("calls of the module cannot be converted:", tracer.gaps)
    outputs = []
    for tensor in tensors_in(result):
        if (ref := tracer.find(tensor)) is not None:
            tracer.record(tensor, ref)
            outputs.append(ref)
    if not outputs:
        raise SourceError("no output of the module depends on its inputs")
    return ForwardTrace(
        tuple(zip(input_names(model, len(args)), shapes, strict=True)),
        tuple(tracer.calls),
        tuple(outputs),
        tracer.shapes,
        tracer.recorded,
        tuple(tracer.notes),
    )


@contextlib.contextmanager
def _watching(tracer: Tracer, model: Any) -> Iterator[None]:
    """Wrap the layers and see all torch functions; everything is put back at the end."""
    overrides: Any = tracer.torch.overrides

    class _Watch(overrides.TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return tracer.call(func, args, kwargs or {})

    with contextlib.ExitStack() as stack:
        # HAWQ's layers, and modules without children.
        for name, module in model.named_modules():
            kind = kind_of(module)
            if kind or (name and next(module.children(), None) is None):
                stack.enter_context(_wrapped(tracer, name or kind, kind, module))
        stack.enter_context(_Watch())
        yield


@contextlib.contextmanager
def _wrapped(tracer: Tracer, name: str, kind: str, module: Any) -> Iterator[None]:
    """Give a layer a forward that records its calls."""
    own = {key: module.__dict__[key] for key in ("forward",) if key in module.__dict__}
    module.__dict__["forward"] = _wrapper(tracer, name, kind, module, module.forward)
    try:
        yield
    finally:
        module.__dict__.pop("forward", None)
        module.__dict__.update(own)


def _wrapper(
    tracer: Tracer, name: str, kind: str, module: Any, forward: Callable[..., Any]
) -> Callable[..., Any]:
    def named(*args: Any, **kwargs: Any) -> Any:
        with tracer.inside(name, mute=False):
            return forward(*args, **kwargs)

    def recorded(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(forward).bind(*args, **kwargs)
        bound.apply_defaults()
        given = tuple(bound.arguments.values())
        source = tracer.find(recorded_calls.data_of(given[0]))
        if source is None or not recorded_calls.is_recorded(kind, module, given):
            return named(*args, **kwargs)
        with tracer.inside(name, mute=True):
            record = recorded_calls.recorder(tracer, name, module, given, source)
            result = forward(*args, **kwargs)
            call = record(result)
            tracer.calls.append(call)
            tracer.bind(result[0] if isinstance(result, tuple) else result, call.output)
        return result

    return recorded if kind in _RECORDED else named
