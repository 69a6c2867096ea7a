"""A module's graph, from torch's ONNX exporter, with a mark where each quantizer is used.

Every quantizer proxy of a private copy is replaced by a function that leaves a node behind and
answers with what was recorded. What the nodes stand for is put in afterwards: nothing of a
quantizer has to be read out of a graph.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator, Sequence
from typing import Any

import onnx
import onnx_ir
from onnx_ir import Model

from qonnx_hub_adapters.brevitas.modules import (
    flat_tensors,
    is_quant_tensor,
    plain,
    with_values,
)
from qonnx_hub_adapters.brevitas.quantizer_sites import ACTIVATION, QuantizerProxy
from qonnx_hub_adapters.brevitas.recording import Call, Recording
from qonnx_hub_adapters.brevitas.recurrent import keep_plain_lstms
from qonnx_hub_adapters.dependencies import first_line, quiet, require
from qonnx_hub_adapters.torch_common.modules import input_names, output_names
from qonnx_hub_ir.errors import SourceError

DOMAIN = "qonnx_hub.trace"
MARK = "Mark"
INDEX = "index"
"""Attribute of a mark: the use of a quantizer that it marks."""

OPSET = 20


def trace(
    module: Any,
    sites: Sequence[QuantizerProxy],
    recording: Recording,
    args: Sequence[Any],
    torch: Any,
    *,
    dynamo: bool,
) -> Model:
    """Return the module's graph with a mark for each use of a quantizer.

    Args:
        module: A private copy; it cannot be used afterwards.
        sites: Its quantizers.
        recording: What they did on the sample.
        args: The sample.
        torch: The framework.
        dynamo: Whether to trace with torch.export instead of TorchScript.

    Raises:
        SourceError: The exporter fails, or the module makes other calls than before.
    """
    replay = _Replay(recording, torch, quantized=not dynamo)
    for site in sites:
        replay.install(site)
    if dynamo:
        for part in module.modules():
            # torch.export knows plain tensors only.
            if getattr(part, "return_quant_tensor", False):
                part.return_quant_tensor = False
    else:
        keep_plain_lstms(module, torch)
    wrapper = _wrapper(module, args, replay, torch)
    tensors = tuple(plain(arg) for arg in args)
    names = input_names(module, len(args)), output_names(len(recording.outputs))
    # A domain that nothing uses would be warned about, past Python's own streams.
    domains = {DOMAIN: 1} if recording.calls else None
    try:
        with quiet(), torch.no_grad(), _without_graph_log(torch):
            traced = _exported(wrapper, tensors, names, domains, torch, dynamo=dynamo)
    except SourceError:
        raise
    except Exception as error:  # the exporter raises whatever its parts raise
        other = "leave the option dynamo out" if dynamo else "try the option dynamo=true"
        raise SourceError(
            f"torch's ONNX exporter fails on module {type(module).__name__}: "
            f"{first_line(error.__cause__ or error)}; {other}: torch has another exporter"
        ) from error
    replay.require_complete()
    return traced


class _Replay:
    """The recorded uses of quantizers, handed out again in the same order."""

    def __init__(self, recording: Recording, torch: Any, *, quantized: bool) -> None:
        self._recording = recording
        self._torch = torch
        self._quantized = quantized
        self._excuse = (
            "the module does not do the same every time"
            if quantized
            else "its layer needs quantized tensors, which torch.export does not know; leave "
            "the option dynamo out"
        )
        self._left: dict[int, list[tuple[int, Call]]] = {}

    def start(self) -> None:
        """Begin again: a forward pass starts."""
        self._left.clear()
        for index, call in enumerate(self._recording.calls):
            self._left.setdefault(id(call.site), []).append((index, call))

    def install(self, site: QuantizerProxy) -> None:
        """Replace what a quantizer computes."""
        mark = _mark_function(self._torch)
        proxy = site.proxy

        def forward(x: Any, *_others: Any, **_named: Any) -> Any:
            index, call = self._next(site)
            value = plain(x)
            if site.kind == ACTIVATION:
                value = proxy.fused_activation_quant_proxy.activation_impl(value)
            return self._answer(call, mark(value, index, plain(call.output)))

        proxy.forward = forward

    def require_complete(self) -> None:
        """Raise unless every recorded use came up again.

        Raises:
            SourceError: One did not: the module made other calls than before.
        """
        for left in self._left.values():
            for _, call in left:
                raise SourceError(
                    f"quantizer '{call.site.path}' is used in a forward pass, but not while "
                    f"the module is traced: {self._excuse}"
                )

    def _next(self, site: QuantizerProxy) -> tuple[int, Call]:
        left = self._left.get(id(site))
        if not left:
            raise SourceError(
                f"quantizer '{site.path}' is used more often while the module is traced than "
                f"in a forward pass before: {self._excuse}"
            )
        return left.pop(0)

    def _answer(self, call: Call, marked: Any) -> Any:
        # Of a quantized tensor in groups the value is another shape of what is stored.
        grouped = hasattr(call.output, "value_")
        if not self._quantized or grouped or not is_quant_tensor(call.output):
            return marked
        return call.output.set(value=marked)


@functools.cache
def _mark_function(torch: Any) -> Any:
    """Return what marks a value: ``f(value, index, recorded value)``."""

    class Mark(torch.autograd.Function):  # type: ignore[misc]
        """A node that stands for a quantizer; it computes what was recorded."""

        @staticmethod
        def symbolic(g: Any, x: Any, index: int, _recorded: Any) -> Any:
            marked = g.op(f"{DOMAIN}::{MARK}", x, index_i=index)
            marked.setType(x.type())
            return marked

        @staticmethod
        def forward(_ctx: Any, _x: Any, _index: int, recorded: Any) -> Any:
            return recorded.clone()

    def mark(value: Any, index: int, recorded: Any) -> Any:
        if torch.jit.is_tracing():
            return Mark.apply(value, index, recorded)
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::{MARK}",
            (value,),
            {INDEX: index},
            dtype=value.dtype,
            shape=value.shape,
            version=1,
        )

    return mark


def _wrapper(module: Any, args: Sequence[Any], replay: _Replay, torch: Any) -> Any:
    class Flat(torch.nn.Module):  # type: ignore[misc]
        """The module with plain tensors as inputs and outputs."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            replay.start()
            return tuple(flat_tensors(self.module(*with_values(args, tensors))))

    return Flat().eval()


def _exported(
    wrapper: Any,
    args: tuple[Any, ...],
    names: tuple[list[str], list[str]],
    domains: dict[str, int] | None,
    torch: Any,
    *,
    dynamo: bool,
) -> Model:
    """Return what one of torch's exporters writes; the names are inputs and outputs."""
    common = {
        "dynamo": dynamo,
        "opset_version": OPSET,
        "input_names": names[0],
        "output_names": names[1],
    }
    if dynamo:
        require("onnxscript", needed_by="option 'dynamo'", extra="brevitas")
        program: Any = torch.onnx.export(wrapper, args, None, verbose=False, **common)
        proto: onnx.ModelProto = program.model_proto
        return onnx_ir.from_proto(proto)
    written = io.BytesIO()
    torch.onnx.export(
        wrapper,
        args,
        written,
        keep_initializers_as_inputs=False,
        do_constant_folding=False,
        # Neither may the exporter fold batch norms into weights: that rounds differently.
        training=torch.onnx.TrainingMode.PRESERVE,
        custom_opsets=domains,
        **common,
    )
    return onnx_ir.from_proto(onnx.load_from_string(written.getvalue()))


@contextlib.contextmanager
def _without_graph_log(torch: Any) -> Iterator[None]:
    """Keep the TorchScript exporter from writing out its graph, past Python's own streams.

    It does so when it fails, for it switches its log on where it means to ask whether it is on
    (torch 2.7 to 2.13).
    """
    switch = getattr(torch._C, "_jit_set_onnx_log_enabled", None)
    if switch is None:
        yield
        return
    was_on = torch._C._jit_is_onnx_log_enabled()
    switch(False)
    torch._C._jit_set_onnx_log_enabled = lambda _on: None
    try:
        yield
    finally:
        torch._C._jit_set_onnx_log_enabled = switch
        switch(was_on)
