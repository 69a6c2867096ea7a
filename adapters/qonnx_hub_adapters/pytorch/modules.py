"""Modules at inference: copies in evaluation mode with fixed quantizers, and their answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from qonnx_hub_adapters.dependencies import first_line, quiet
from qonnx_hub_adapters.hawq.layers import kind_of
from qonnx_hub_adapters.pytorch.constants import schema_of
from qonnx_hub_adapters.pytorch.fake_quant import channel_example
from qonnx_hub_adapters.pytorch.naming import FROZEN
from qonnx_hub_adapters.pytorch.reference import call_fake_quantization, is_reference
from qonnx_hub_adapters.pytorch.tracing import traced_inputs
from qonnx_hub_adapters.torch_common.modules import (
    answer_in_pieces,
    array_of,
    classes_from,
    private_copy,
    unwrapped,
)
from qonnx_hub_ir.errors import ExecutionError, Gap, UnsupportedGraphError
from qonnx_hub_ir.quantizers import Array

_CONVERTED = (
    "torch.ao.nn.quantized",
    "torch.ao.nn.intrinsic.quantized",
    "torch.ao.nn.quantizable",
    "torch.ao.nn.sparse",
)
_FAKE = "FakeQuantizeBase"
_FUSED = "FusedMovingAvgObsFakeQuantize"
_PLAIN = frozenset({"FakeQuantize", _FUSED})
_LEARNABLE = frozenset({"_LearnableFakeQuantize", "LearnableFakeQuantize"})
_OBSERVER = "ObserverBase"


def inference_copy(source: Any, torch: Any) -> Any:
    """Return a copy on the CPU, in evaluation mode, whose observers are off.

    Args:
        source: A module; not changed.
        torch: The framework.

    Raises:
        SourceError: It cannot be copied.
        UnsupportedGraphError: It holds layers that cannot be converted; all are listed.
    """
    own = _evaluated_copy(source, torch)
    for child in own.modules():
        if _is_fake_quantizer(child):
            child.observer_enabled.zero_()
        if _forward_owner(child) in _LEARNABLE:
            child.static_enabled.zero_()
    return own


def frozen_copy(source: Any, torch: Any) -> Any:
    """Return a copy for inference whose fake quantizers are plain calls of torch's functions.

    The originals decide by the values of buffers what they do, which ``torch.export`` cannot
    follow.

    Raises:
        SourceError: It cannot be copied.
        UnsupportedGraphError: It holds layers that cannot be converted; all are listed.
    """
    own = _evaluated_copy(source, torch)
    _require_calibrated(own)
    call_fake_quantization(own, torch)
    replaced: dict[int, Any] = {}
    # FX gives one quantizer several names; each of them is a place to replace it in.
    for name, child in list(own.named_modules(remove_duplicate=False)):
        fresh = _plain_form(child, torch) if name else None
        if fresh is None:
            continue
        fresh = replaced.setdefault(id(child), fresh)
        parent, _, leaf = name.rpartition(".")
        setattr(own.get_submodule(parent), leaf, fresh)
    return own


def _plain_form(child: Any, torch: Any) -> Any:
    """Return the replacement of a quantizer or observer, ``None`` for other modules."""
    owner = _forward_owner(child)
    if owner in _LEARNABLE or (owner in _PLAIN and _is_fake_quantizer(child)):
        is_on = int(child.fake_quant_enabled[0]) == 1
        call = _function_call(child, owner, torch) if is_on else None

        def forward(self: Any, x: Any) -> Any:
            return x if call is None else call[0](x, *call[1])

        # The name of its class marks it.
        return type(FROZEN, (torch.nn.Module,), {"forward": forward})()
    if _OBSERVER in classes_from(child, "torch", "torchao"):
        return torch.nn.Identity()
    return None


def _function_call(child: Any, owner: str, torch: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the function that a quantizer's own forward calls, and what it gives it."""
    holder = child if hasattr(child, "quant_min") else child.activation_post_process
    bounds = int(holder.quant_min), int(holder.quant_max)
    if owner in _LEARNABLE:
        # The module bounds its scale before every call.
        scale = child.scale.detach().abs().clamp(min=float(child.eps[0]))
        zero = child.zero_point.detach().clone()
        if child.qscheme in (torch.per_channel_symmetric, torch.per_tensor_symmetric):
            zero = torch.zeros_like(zero)
        if child.qscheme in (torch.per_channel_symmetric, torch.per_channel_affine):
            function = torch._fake_quantize_learnable_per_channel_affine
            return function, (scale, zero, child.ch_axis, *bounds, 1.0)
        return torch._fake_quantize_learnable_per_tensor_affine, (scale, zero, *bounds, 1.0)
    per_channel = getattr(child, "is_per_channel", False)
    if owner == _FUSED:
        # It works out its scale from the range it has seen at every call, and keeps it.
        child.observer_enabled.zero_()
        channels = child.activation_post_process.min_val.numel()
        child(torch.zeros(channel_example(channels, child.ch_axis if per_channel else 0)))
    scale, zero = child.scale.detach().clone(), child.zero_point.detach().clone()
    if per_channel:
        return torch.fake_quantize_per_channel_affine, (scale, zero, child.ch_axis, *bounds)
    return torch.fake_quantize_per_tensor_affine, (scale, zero, *bounds)


def _evaluated_copy(source: Any, torch: Any) -> Any:
    """Return a copy in evaluation mode of a module all of whose layers can be read."""
    module = unwrapped(source)
    gaps: list[Gap] = []
    for name, child in module.named_modules():
        # Parts of a refused layer need no message of their own.
        if not any(name.startswith(f"{gap.node}.") for gap in gaps):
            gaps.extend(_gaps(name, child))
        if gaps and not name:
            break
    if gaps:
        raise UnsupportedGraphError("layers of the module cannot be converted:", gaps)
    own = private_copy(module)
    try:
        own.eval()
    except NotImplementedError:
        # A module out of torch.export refuses; its operators are switched one by one.
        for child in own.modules():
            child.training = False
    for child in own.modules():
        if isinstance(child, torch.fx.GraphModule):
            _set_operators_to_evaluation(child)
    return own


def _set_operators_to_evaluation(module: Any) -> None:
    """Tell the operators of a traced graph that training is over."""
    for node in module.graph.nodes:
        schema = schema_of(node)
        name = "" if schema is None else str(schema.name)
        if not name.startswith("aten::") or not ("batch_norm" in name or "dropout" in name):
            continue
        for index, formal in enumerate(schema.arguments):
            if formal.name not in {"training", "train"}:
                continue
            if index < len(node.args):
                node.update_arg(index, False)
            elif formal.name in node.kwargs:
                node.update_kwarg(formal.name, False)
    module.recompile()


def _forward_owner(child: Any) -> str:
    """Return the name of the class that defines what the module computes."""
    return next((kind.__name__ for kind in type(child).__mro__ if "forward" in vars(kind)), "")


def _is_fake_quantizer(child: Any) -> bool:
    return _FAKE in classes_from(child, "torch", "torchao")


def _gaps(name: str, child: Any) -> Iterator[Gap]:
    kind = type(child).__name__
    where = name or kind
    if "ScriptModule" in classes_from(child, "torch.jit"):
        remedy = "give the module that it was made of"
        yield Gap(where, kind, "is compiled TorchScript, which cannot be traced", remedy)
    elif classes_from(child, "brevitas"):
        yield Gap(where, kind, "is a layer of Brevitas", "read the model with --from brevitas")
    elif kind_of(child):
        yield Gap(where, kind, "is a layer of HAWQ", "read the model with --from hawq")
    elif type(child).__module__.startswith(_CONVERTED) and not is_reference(child):
        remedy = "give the model as it was before convert_fx or convert"
        yield Gap(where, kind, "holds packed integers of one CPU backend", remedy)


def _require_calibrated(module: Any) -> None:
    """Raise if a quantizer is on whose observer has not seen a value yet."""
    remedy = "run the model on samples before, or disable its observer"
    gaps = []
    for name, child in module.named_modules():
        if not _is_fake_quantizer(child) or _forward_owner(child) in _LEARNABLE:
            continue
        observing = getattr(child, "observer_enabled", None)
        lowest = getattr(getattr(child, "activation_post_process", None), "min_val", None)
        if observing is None or lowest is None:
            continue
        is_on = int(observing[0]) == 1 and int(child.fake_quant_enabled[0]) == 1
        if is_on and (lowest.numel() == 0 or math.isinf(float(lowest.reshape(-1)[0]))):
            kind = type(child).__name__
            gaps.append(Gap(name, kind, "has seen no data, its scale means nothing", remedy))
    if gaps:
        raise UnsupportedGraphError("quantizers of the module are not calibrated:", gaps)


def answer(module: Any, args: Sequence[Array], torch: Any) -> dict[str, Array]:
    """Return the outputs of a module under the names that its IR model uses.

    A graph that was traced with a fixed batch is run batch by batch.

    Raises:
        ExecutionError: It fails.
    """

    def forward(arrays: list[Array]) -> list[Array]:
        result = module(*(torch.from_numpy(np.array(array)) for array in arrays))
        leaves = torch.utils._pytree.tree_leaves(result)
        return [array_of(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)]

    first = [x.shape[0] for x in traced_inputs(module, torch) if x is not None and x.ndim]
    batch = next((size for size in first if isinstance(size, int)), 0)
    try:
        with quiet(), torch.no_grad():
            return answer_in_pieces(forward, args, batch)
    except Exception as error:  # whatever the user's forward raises
        raise ExecutionError(f"the model itself fails: {first_line(error)}") from error


def layers(module: Any, args: Sequence[Array], torch: Any) -> dict[str, Array]:
    """Return what the modules inside of one give in one forward pass, by their names.

    Shown are those whose outputs are values of the graph under that name: quantizers, and
    modules without children. In others, what their own operators give need not be what they
    return. Of several calls of one module, the graph calls the first quantizer like its module
    and numbers the others, and gives the module's name to the last of other layers.

    Args:
        module: Our own copy.
        args: The inputs.
        torch: The framework.

    Raises:
        ExecutionError: The forward pass fails.
    """
    found: dict[str, Array] = {}
    calls: dict[str, int] = {}
    with ExitStack() as hooks:
        for name, child in module.named_modules():
            is_leaf = next(child.children(), None) is None
            if not name or not (is_leaf or _is_fake_quantizer(child)):
                continue

            def note(owner: Any, _a: Any, result: Any, name: str = name) -> None:
                if not isinstance(result, torch.Tensor):
                    return
                calls[name] = calls.get(name, -1) + 1
                numbered = calls[name] > 0 and hasattr(owner, "fake_quant_enabled")
                found[f"{name}_{calls[name]}" if numbered else name] = array_of(result)

            hooks.enter_context(child.register_forward_hook(note))
        answer(module, args, torch)
    return found
