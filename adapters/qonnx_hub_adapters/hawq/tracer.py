"""Which tensor is which traced value: what a forward pass is recorded in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from qonnx_hub_adapters.hawq.functions import (
    HANDLERS,
    READS_NUMBERS,
    FunctionCall,
    UntraceableError,
)
from qonnx_hub_adapters.hawq.trace_data import Call, PlainCall, Ref
from qonnx_hub_ir.errors import Gap, SourceError
from qonnx_hub_ir.quantizers import Array


class Tracer:
    """Which tensor is which traced value, and the calls so far."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.calls: list[Call] = []
        self.gaps: list[Gap] = []
        self.notes: list[str] = []
        self.shapes: dict[Ref, tuple[int, ...]] = {}
        self.recorded: dict[Ref, Array] = {}
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
        self.shapes[ref] = tuple(tensor.shape)

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

    @property
    def layer(self) -> str:
        """The outermost layer that is running, "" between layers."""
        return self._layers[0] if self._layers else ""

    def gap(self, layer: str, kind: str, reason: str) -> None:
        """Note once that a call cannot be converted."""
        gap = Gap(layer, kind, reason)
        if gap not in self.gaps:
            self.gaps.append(gap)

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
        """Run a torch function and record it if it works on traced values."""
        if self._muted:
            return func(*args, **kwargs)
        given = [value for value in tensors_in((args, kwargs)) if id(value) in self._numbers]
        if not given:
            return func(*args, **kwargs)
        name = str(getattr(func, "__name__", func))
        if name == "__get__":  # of a property, such as .data
            name = str(func.__self__.__name__)
        elif name == "__set__" and func.__self__.__name__ != "requires_grad":
            self._gap(str(func.__self__.__name__), "an attribute of a computed value is set")
        if name in READS_NUMBERS:
            self._gap(name, "the program reads computed values, and may depend on them")
        before = {id(value): self.find(value) for value in given}
        versions = [(value, value._version) for value in tensors_in((args, kwargs))]
        result = func(*args, **kwargs)
        written = [value for value, version in versions if value._version != version]
        if any(value is not result or id(value) not in before for value in written):
            self._gap(name, "writes into a tensor that it does not return")
        if isinstance(result, self.torch.Tensor):
            self._record_function(name, args, kwargs, result, before)
        elif any(True for _ in tensors_in(result)):
            self._gap(name, "a function with several results")
            for tensor in tensors_in(result):
                self.bind(tensor, self.fresh())
        return result

    def _record_function(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        result: Any,
        before: dict[int, Ref | None],
    ) -> None:
        def emit(op_type: str, *inputs: Any, **attributes: Any) -> Ref:
            output = self.fresh()
            layer = self.layer or name.strip("_")
            self.calls.append(PlainCall(layer, op_type, inputs, output, attributes))
            return output

        function = FunctionCall(args, kwargs, result, lambda t: before.get(id(t)), emit)
        in_place = id(result) in before
        try:
            if name not in HANDLERS:
                raise UntraceableError("has no ONNX form here")  # noqa: TRY301
            if result.dtype != self.torch.float32:
                raise UntraceableError(f"gives {result.dtype}")  # noqa: TRY301
            ref = HANDLERS[name](function)
        except UntraceableError as error:
            self._gap(name, str(error))
            ref = self.fresh()
        if in_place and ref != before[id(result)]:
            self.overwrite(result, name)
        self.bind(result, ref)

    def _gap(self, name: str, reason: str) -> None:
        self.gap(self.layer or "the module itself", f"torch function '{name}'", reason)


def tensors_in(value: Any) -> Iterator[Any]:
    """Yield the tensors in nested tuples, lists and dicts."""
    if hasattr(value, "untyped_storage"):
        yield value
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from tensors_in(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from tensors_in(one)
