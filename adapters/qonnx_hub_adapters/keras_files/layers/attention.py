"""Attention and dense layers that are written as an equation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx_ir import Value

from qonnx_hub_adapters.keras_files.graph import Layer
from qonnx_hub_adapters.keras_files.kinds import Kind, Use
from qonnx_hub_adapters.keras_files.layers.activations import activate
from qonnx_hub_adapters.keras_files.scope import Scope
from qonnx_hub_adapters.keras_files.variables import LayerWeights, Variables, variables


def einsum_dense(s: Scope, use: Use) -> Value:
    """Write an EinsumDense."""
    kernel = s.weight("kernel", use.weights["kernel"])
    y = equation(s, use.x, kernel, str(use.config["equation"]))
    bias = use.weights.get("bias")
    if bias is not None:
        y = s.op("Add", y, s.weight("bias", bias))
    return activate(s, y, use.config.get("activation"))


def equation(s: Scope, x: Value, kernel: Value, text: str) -> Value:
    """Return the product that an equation names: as a MatMul where it is one."""
    text = explicit(s, x, text)
    left, _, right = text.partition("->")
    first, second = left.split(",")
    plain = first[:-1] + second[1:]
    if first[-1] == second[0] and right == plain and s.rank(kernel) == 2:
        return s.op("MatMul", x, kernel)
    return s.op("Einsum", x, kernel, equation=text)


def explicit(s: Scope, x: Value, text: str) -> str:
    """Return an equation with letters in the place of an ellipsis."""
    text = text.replace(" ", "")
    if "..." not in text:
        return text
    free = [one for one in "ZYXWVUTSRQPONML" if one not in text]
    count = s.rank(x) - len(text.partition(",")[0].replace("...", ""))
    return text.replace("...", "".join(free[:count]))


def _heads(s: Scope, x: Value, weights: LayerWeights, role: str) -> Value:
    """Return (samples, heads, steps, width) of a projection (features, heads, width)."""
    kernel = weights["kernel"]
    if s.rank(x) != 3:
        raise s.fail(f"attention of an input of {s.rank(x)} axes")
    features, heads, width = kernel.shape
    y = s.op("MatMul", x, s.weight(f"{role}_kernel", kernel.reshape(features, heads * width)))
    bias = weights.get("bias")
    if bias is not None:
        y = s.op("Add", y, s.weight(f"{role}_bias", bias.reshape(-1)))
    steps = s.known(x, 1)
    return s.transpose(s.reshape(y, [-1, steps, heads, width]), [0, 2, 1, 3])


def _attended(s: Scope, q: Value, k: Value, v: Value, scale: float) -> Value:
    """Return softmax(q k') v of values (samples, heads, steps, width)."""
    rank = s.rank(q)
    turned = s.transpose(k, [*range(rank - 2), rank - 1, rank - 2])
    scores = s.op("MatMul", q if scale == 1 else s.op("Mul", q, scale), turned)
    return s.op("MatMul", s.op("Softmax", scores, axis=-1), v)


def _projected(s: Scope, y: Value, weights: LayerWeights) -> Value:
    kernel = weights["kernel"]
    if kernel.ndim != 3:
        raise s.fail("attention whose output has several axes of features")
    heads, width, features = kernel.shape
    steps = s.known(y, 2)
    flat = s.reshape(s.transpose(y, [0, 2, 1, 3]), [-1, steps, heads * width])
    role = "output_kernel"
    out = s.op("MatMul", flat, s.weight(role, kernel.reshape(heads * width, features)))
    bias = weights.get("bias")
    return out if bias is None else s.op("Add", out, s.weight("output_bias", bias))


def refuse_masks(s: Scope, use: Use, values: Sequence[Any]) -> None:
    """Raise where attention is masked, by an argument or by what its inputs carry.

    Raises:
        SourceError: It is.
    """
    if any(isinstance(one, Value) and one in s.net.masks for one in values):
        raise s.fail(f"{use.layer.class_name} of inputs with a mask")
    if use.kwargs.get("mask") is not None:
        raise s.fail(f"{use.layer.class_name} with mask")


def _multi_head(s: Scope, use: Use) -> Value:
    c = use.config
    if (
        c.get("use_gate")
        or c.get("sliding_window")
        or list(c.get("attention_axes") or [1]) != [1]
    ):
        raise s.fail("MultiHeadAttention with a gate, a window or other axes")
    query, value = use.args[0], use.args[1] if len(use.args) > 1 else use.kwargs["value"]
    key = use.args[2] if len(use.args) > 2 else use.kwargs.get("key")
    key = value if key is None else key
    refuse_masks(s, use, (query, value, key))
    parts = use.weights.parts
    q, k, v = (
        _heads(s, x, parts[f"{role}_dense"], role)
        for x, role in ((query, "query"), (key, "key"), (value, "value"))
    )
    y = _attended(s, q, k, v, 1 / math.sqrt(float(c["key_dim"])))
    return _projected(s, y, parts["output_dense"])


def _grouped(s: Scope, use: Use) -> Value:
    c = use.config
    if c.get("use_gate") or c.get("sliding_window"):
        raise s.fail("GroupedQueryAttention with a gate or a window")
    query, value = use.args[:2]
    key = use.args[2] if len(use.args) > 2 else use.kwargs.get("key")
    key = value if key is None else key
    refuse_masks(s, use, (query, value, key))
    parts = use.weights.parts
    q = _heads(s, query, parts["_query_dense"], "query")
    k = _heads(s, key, parts["_key_dense"], "key")
    v = _heads(s, value, parts["_value_dense"], "value")
    heads, groups = int(c["num_query_heads"]), int(c["num_key_value_heads"])
    owner = s.value(np.repeat(np.arange(groups), heads // groups), "owners")
    k, v = (s.op("Gather", one, owner, axis=1) for one in (k, v))
    y = _attended(s, q, k, v, 1 / math.sqrt(float(c["head_dim"])))
    return _projected(s, y, parts["_output_dense"])


def _attention(s: Scope, use: Use) -> Value:
    refuse_masks(s, use, use.x)
    if use.config.get("score_mode", "dot") != "dot":
        raise s.fail("Attention with score_mode 'concat'")
    if use.config.get("causal"):
        raise s.fail("Attention with causal=True")
    query, value = use.x[0], use.x[1]
    key = use.x[2] if len(use.x) > 2 else value
    turned = s.transpose(key, [0, 2, 1])
    scores = s.op("MatMul", query, turned)
    scale = use.weights.get("scale")
    if scale is not None:
        scores = s.op("Mul", scores, s.weight("scale", scale))
    return s.op("MatMul", s.op("Softmax", scores, axis=-1), value)


def dense_variables(use_bias: Any) -> Variables:
    """Return the variables of a projection."""
    return variables("kernel", *(("bias",) if use_bias else ()))


def _attention_variables(prefix: str) -> Any:
    def holds(layer: Layer) -> Variables:
        one = dense_variables(layer.config.get("use_bias", True))
        hidden = "_" if layer.generation == 2 and not prefix else ""
        names = (f"{prefix}{role}_dense" for role in ("query", "key", "value", "output"))
        parts = ((n, dataclasses.replace(one, path=f"{hidden}{n}")) for n in names)
        return Variables((), tuple(parts))

    return holds


_SIDES = frozenset({"value", "key"})

KINDS: Mapping[str, Kind] = {
    "keras>EinsumDense": Kind(
        einsum_dense, lambda layer: dense_variables(layer.config.get("bias_axes") is not None)
    ),
    "keras>MultiHeadAttention": Kind(
        _multi_head, _attention_variables(""), arguments=3, named=_SIDES
    ),
    **dict.fromkeys(
        ("keras>GroupQueryAttention", "keras>GroupedQueryAttention"),
        Kind(_grouped, _attention_variables("_"), arguments=3, named=frozenset({"key"})),
    ),
    "keras>Attention": Kind(
        _attention,
        lambda layer: variables("scale") if layer.config.get("use_scale") else Variables(),
    ),
}
