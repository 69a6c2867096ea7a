"""Reference modules of torch's FX quantization: weights and values quantized, layers in float.

``convert_to_reference_fx`` writes ``quantize_per_tensor(x, scale, zero point, type)`` followed
by ``dequantize``, and layers that do the same with their weight. Both are the value that
torch's fake quantization gives, which is what is traced.
"""

from __future__ import annotations

import types
from typing import Any

from qonnx_hub_adapters.pytorch.naming import FROZEN
from qonnx_hub_adapters.torch_common.modules import classes_from

_REFERENCE = "torch.ao.nn.quantized.reference"


def is_reference(child: Any) -> bool:
    """Return whether a layer quantizes its weight at every call, and computes in float."""
    return "ReferenceQuantizedModule" in classes_from(child, _REFERENCE)


def call_fake_quantization(module: Any, torch: Any) -> None:
    """Let reference layers and graphs call torch's fake quantization, in place.

    What it does not give to the bit stays as it is, and is refused when it is traced.

    Args:
        module: Our own copy.
        torch: The framework.
    """
    for child in module.modules():
        if is_reference(child):
            _quantize_weight(child, torch)
        elif isinstance(child, torch.fx.GraphModule):
            _rewrite(child, torch)


def _limits(dtype: Any, torch: Any) -> tuple[int, int] | None:
    known = {
        torch.qint8: (-128, 127),
        torch.quint8: (0, 255),
        torch.int8: (-128, 127),
        torch.uint8: (0, 255),
    }
    return known.get(dtype)


def _quantize_weight(layer: Any, torch: Any) -> None:
    limits = _limits(layer.weight_dtype, torch)
    if getattr(layer, "is_decomposed", False) and layer.weight_quant_min is not None:
        limits = int(layer.weight_quant_min), int(layer.weight_quant_max)
    if limits is None:
        return
    scale, zero = layer.weight_scale.detach().float(), layer.weight_zero_point.detach()
    if layer.weight_qscheme in (torch.per_channel_affine, torch.per_channel_symmetric):
        function = torch.fake_quantize_per_channel_affine
        settings: tuple[Any, ...] = (scale, zero.to(torch.int32), int(layer.weight_axis_int))
    elif layer.weight_qscheme in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        function = torch.fake_quantize_per_tensor_affine
        settings = (float(scale), int(zero))
    else:
        return

    def get_weight(self: Any) -> Any:
        return function(self.weight, *settings, *limits)

    with torch.no_grad():
        if torch.equal(layer.get_weight(), get_weight(layer)):
            layer.get_weight = types.MethodType(get_weight, layer)


def _rewrite(module: Any, torch: Any) -> None:
    """Put fake quantization in the place of quantize_per_tensor and its dequantize."""
    for node in list(module.graph.nodes):
        if node.op != "call_function" or node.target is not torch.quantize_per_tensor:
            continue
        readers = list(node.users)
        back = [r for r in readers if r.op == "call_method" and r.target == "dequantize"]
        scale, zero = (_number(module, node.args[index]) for index in (1, 2))
        limits = _limits(node.args[3], torch) if len(node.args) == 4 else None
        if limits is None or scale is None or zero is None or len(back) != len(readers):
            continue
        name = str(node.name)
        module.add_submodule(name, _frozen(float(scale), int(zero), limits, torch))
        with module.graph.inserting_before(node):
            fresh = module.graph.call_module(name, (node.args[0],))
        for reader in back:
            reader.replace_all_uses_with(fresh)
            module.graph.erase_node(reader)
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()


def _frozen(scale: float, zero: int, limits: tuple[int, int], torch: Any) -> Any:
    """Return a module that quantizes; the name of its class marks it."""

    def forward(self: Any, x: Any) -> Any:
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, *limits)

    return type(FROZEN, (torch.nn.Module,), {"forward": forward})()


def _number(module: Any, argument: Any) -> float | None:
    """Return a number of a graph, given as it is or as a buffer of one element."""
    if isinstance(argument, (int, float)):
        return argument
    if getattr(argument, "op", "") != "get_attr":
        return None
    owner, _, leaf = str(argument.target).rpartition(".")
    value = getattr(module.get_submodule(owner), leaf)
    return value.item() if value.numel() == 1 else None
