"""A concrete trace: one forward pass on a sample, with every call written down.

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

from qonnx_hub_adapters.hawq import recorded_calls
from qonnx_hub_adapters.hawq.functions import (
    HANDLERS,
    READS_NUMBERS,
    FunctionCall,
    UntraceableError,
)
from qonnx_hub_adapters.hawq.layers import ACT, AVERAGE_POOL, WITH_WEIGHTS, kind_of
from qonnx_hub_adapters.hawq.trace_data import Call, PlainCall, Ref, Trace
from qonnx_hub_ir.errors import Gap, HubError, SourceError, UnsupportedGraphError
from qonnx_hub_ir.quantizers import Array


def trace(model: Any, args: Sequence[Any], torch: Any) -> Trace:
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
    names = input_names(model, len(args))
    tensors = [value.detach().clone() for value in args]
    inputs = []
    for name, tensor in zip(names, tensors, strict=True):
        tracer.bind(tensor, tracer.fresh())
        inputs.append((name, tuple(tensor.shape)))
    with tracer.watching(model):
        try:
            result = model(*tensors)
        except HubError:
            raise
        except Exception as error:  # whatever the user's forward raises
            where = f" in layer '{tracer.failing}'" if tracer.failing else ""
            raise SourceError(f"the module fails on the sample{where}: {error}") from error
    if tracer.gaps:
        raise UnsupportedGraphError("calls of the module cannot be converted:", tracer.gaps)
    outputs = tuple(_outputs(result, tracer))
    if not outputs:
        raise SourceError("no output of the module depends on its inputs")
    return Trace(
        tuple(inputs),
        tuple(tracer.calls),
        outputs,
        tracer.shapes,
        tracer.recorded,
        tuple(tracer.notes),
    )


class Tracer:
    """Which tensor is which traced value, and the calls so far."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.calls: list[Call] = []
        self.gaps: list[Gap] = []
        self.notes: list[str] = []
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.recorded: dict[int, Array] = {}
        self.failing = ""
        self._layers: list[str] = []
        self._numbers: dict[int, Ref] = {}
        # Strong references: a freed tensor's id would be given to another one.
        self._kept: dict[int, Any] = {}
        self._stale: dict[int, str] = {}
        self._muted = 0
        self._count = 0

    def fresh(self) -> Ref:
        """Return a new value."""
        self._count += 1
        return Ref(self._count - 1)

    def bind(self, tensor: Any, ref: Ref) -> None:
        """Say that a tensor is a value from now on."""
        self._numbers[id(tensor)] = ref
        self._kept[id(tensor)] = tensor
        self._stale.pop(id(tensor), None)
        self.shapes[ref.index] = tuple(tensor.shape)

    def find(self, tensor: Any) -> Ref | None:
        """Return the value that a tensor is, ``None`` for constants.

        Raises:
            SourceError: It was overwritten through another tensor since.
        """
        ref = self._numbers.get(id(tensor))
        if ref is not None and id(tensor) in self._stale:
            raise SourceError(
                f"a value is used again after {self._stale[id(tensor)]} overwrote it in "
                "place; clone it before, or do not work in place"
            )
        return ref

    def overwrite(self, tensor: Any, by: str, *, also_itself: bool = False) -> None:
        """Note that a call wrote into a tensor: others that share its memory are no more."""
        place = tensor.untyped_storage().data_ptr()
        for key, other in self._kept.items():
            if other is tensor and not also_itself:
                continue
            if other.untyped_storage().data_ptr() == place:
                self._stale[key] = by

    def record(self, tensor: Any, ref: Ref) -> None:
        """Keep what the module computed, to compare the graph with."""
        self.recorded[ref.index] = np.array(tensor.detach().cpu().numpy(), dtype=np.float32)

    @contextlib.contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """Wrap the layers and see all torch functions; everything is put back at the end."""
        wrapped = _wrap(self, model)
        try:
            with _mode(self):
                yield
        finally:
            for module, had, forward in reversed(wrapped):
                module.__dict__.pop("forward", None)
                if had:
                    module.__dict__["forward"] = forward

    @property
    def layer(self) -> str:
        """The outermost layer that is running, "" between layers."""
        return self._layers[0] if self._layers else ""

    @contextlib.contextmanager
    def inside(self, layer: str, *, mute: bool) -> Iterator[None]:
        """Be inside of a layer: calls have its name, or are not seen at all."""
        self._layers.append(layer)
        self._muted += mute
        try:
            yield
        except Exception:
            self.failing = self.failing or self.layer
            raise
        finally:
            self._layers.pop()
            self._muted -= mute

    def call(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a torch function and write it down if it works on traced values."""
        if self._muted:
            return func(*args, **kwargs)
        given = [value for value in _tensors((args, kwargs)) if id(value) in self._numbers]
        if not given:
            return func(*args, **kwargs)
        name = _name_of(func)
        if name in READS_NUMBERS:
            self._gap(name, "the program reads computed values, and may depend on them")
        before = {id(value): self.find(value) for value in given}
        versions = [(value, value._version) for value in _tensors((args, kwargs))]
        result = func(*args, **kwargs)
        written = [value for value, version in versions if value._version != version]
        if any(value is not result or id(value) not in before for value in written):
            self._gap(name, "writes into a tensor that it does not return")
        if isinstance(result, self.torch.Tensor):
            self._written_down(name, args, kwargs, result, before)
        elif any(True for _ in _tensors(result)):
            self._gap(name, "a function with several results")
            for tensor in _tensors(result):
                self.bind(tensor, self.fresh())
        return result

    def _written_down(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        result: Any,
        before: dict[int, Ref | None],
    ) -> None:
        handler = HANDLERS.get(name)
        function = FunctionCall(
            name, args, kwargs, result, lambda t: before.get(id(t)), self._emitter(name)
        )
        in_place = id(result) in before
        try:
            if handler is None:
                raise UntraceableError("has no ONNX form here")  # noqa: TRY301
            ref = handler(function)
        except UntraceableError as error:
            self._gap(name, str(error))
            ref = self.fresh()
        if in_place and ref != before[id(result)]:
            self.overwrite(result, name)
        self.bind(result, ref)

    def _emitter(self, name: str) -> Callable[..., Ref]:
        def emit(op_type: str, *inputs: Any, **attributes: Any) -> Ref:
            output = self.fresh()
            layer = self.layer or name.strip("_")
            self.calls.append(PlainCall(layer, op_type, inputs, output, attributes))
            return output

        return emit

    def _gap(self, name: str, reason: str) -> None:
        gap = Gap(self.layer or "the module itself", f"torch function '{name}'", reason)
        if gap not in self.gaps:
            self.gaps.append(gap)


def _mode(tracer: Tracer) -> Any:
    overrides: Any = tracer.torch.overrides

    class _Watch(overrides.TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return tracer.call(func, args, kwargs or {})

    return _Watch()


def _wrap(tracer: Tracer, model: Any) -> list[tuple[Any, bool, Any]]:
    """Give HAWQ's layers, and modules without children, a forward that tells the tracer."""
    wrapped = []
    for name, module in model.named_modules():
        kind = kind_of(module)
        if not kind and (not name or next(module.children(), None) is not None):
            continue
        had = "forward" in module.__dict__
        wrapped.append((module, had, module.__dict__.get("forward")))
        module.__dict__["forward"] = _wrapper(
            tracer, name or kind, kind, module, module.forward
        )
    return wrapped


_RECORDERS: Mapping[str, Callable[..., None]] = {
    ACT: recorded_calls.record_act,
    AVERAGE_POOL: recorded_calls.record_pool,
    **dict.fromkeys(WITH_WEIGHTS, recorded_calls.record_weights),
}


def _wrapper(
    tracer: Tracer, name: str, kind: str, module: Any, forward: Callable[..., Any]
) -> Callable[..., Any]:
    recorder = _RECORDERS.get(kind)

    def named(*args: Any, **kwargs: Any) -> Any:
        with tracer.inside(name, mute=False):
            return forward(*args, **kwargs)

    if recorder is None:
        return named

    def recorded(*args: Any, **kwargs: Any) -> Any:
        given = recorded_calls.bind(inspect.signature(forward), args, kwargs)
        x = recorded_calls.data_of(given[0])
        source = tracer.find(x)
        if source is None or not recorded_calls.is_recorded(kind, module, given):
            return named(*args, **kwargs)
        with tracer.inside(name, mute=True):
            prepared = recorded_calls.prepare(tracer, kind, name, given, source)
            result = forward(*args, **kwargs)
            recorder(tracer, module, prepared, result)
        return result

    return recorded


def _name_of(func: Any) -> str:
    name = str(getattr(func, "__name__", func))
    # A property such as .data is called through its __get__.
    return str(func.__self__.__name__) if name == "__get__" else name


def _tensors(value: Any) -> Iterator[Any]:
    if hasattr(value, "untyped_storage"):
        yield value
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)


def _outputs(result: Any, tracer: Tracer) -> Iterator[Ref]:
    for tensor in _tensors(result):
        ref = tracer.find(tensor)
        if ref is None:
            continue
        tracer.record(tensor, ref)
        yield ref


def input_names(model: Any, count: int) -> list[str]:
    """Return the names of the inputs: those of the parameters of ``forward``."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    named = [
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(named) >= count:
        return named[:count]
    return [f"input_{index}" for index in range(count)]
