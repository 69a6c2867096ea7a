"""Layers of HGQ2, as they really compute.

``y = oq(act(op(iq(x), kq(W)) + bq(b)))``; the quantizers of input and output only where the
layer has them.

Source: ``hgq.layers`` of HGQ2 0.2.0.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx_ir import Value

from qonnx_hub_adapters.keras_files.hgq import (
    applied,
    grid_of,
    quantized,
    quantizer_variables,
    read_bits,
)
from qonnx_hub_adapters.keras_files.kinds import Kind, Use, Writes, kind_of
from qonnx_hub_adapters.keras_files.layers.activations import activate
from qonnx_hub_adapters.keras_files.layers.attention import equation, explicit, refuse_masks
from qonnx_hub_adapters.keras_files.layers.convolutions import (
    convolved,
    groups_of,
    kernel_layout,
    window_of,
)
from qonnx_hub_adapters.keras_files.layers.hgq_variables import (
    SHARED_INPUT,
    STATISTICS,
    attention_variables,
    gamma_beta,
    holding,
    kernel_and_bias,
    normalized,
    nothing,
    recurrent_variables,
    softmax_variables_of,
    table_variables,
)
from qonnx_hub_adapters.keras_files.layers.normalization import along, one_axis
from qonnx_hub_adapters.keras_files.layers.recurrent import bias_row, run_cells
from qonnx_hub_adapters.keras_files.scope import Scope
from qonnx_hub_adapters.keras_files.variables import LayerWeights, Variables
from qonnx_hub_ir.quantizers import Array

_EPSILON = 1e-7
"""Keras' epsilon."""


def quantize(s: Scope, use: Use, x: Value, name: str) -> Value:
    """Return a value behind a quantizer of a layer ("iq", "oq" ...), if there is one."""
    spelled = use.config.get(f"{name}_conf")
    if spelled is None or name not in use.weights.parts:
        return x
    return quantized(s, x, read_bits(s, spelled, use.weights.parts[name]))


def constant(
    s: Scope,
    use: Use,
    role: str,
    values: Array,
    name: str,
    layout: Any = lambda values: values,
) -> Value:
    """Return a stored weight behind its quantizer."""
    spelled = use.config.get(f"{name}_conf")
    q = None if spelled is None else read_bits(s, spelled, use.weights.parts[name])
    if q is None:
        return s.stored(role, layout(values), None)
    result = applied(q, np.asarray(values, dtype=np.float32))
    return s.stored(role, layout(result), grid_of(q, result))


def _bias(s: Scope, use: Use, values: Array | None = None) -> Value | None:
    bias = use.weights.get("bias") if values is None else values
    return None if bias is None else constant(s, use, "bias", bias, "bq")


def _finish(s: Scope, use: Use, y: Value) -> Value:
    return quantize(s, use, activate(s, y, use.config.get("activation")), "oq")


def _dense(s: Scope, use: Use) -> Value:
    x = quantize(s, use, use.x, "iq")
    y = s.op("MatMul", x, constant(s, use, "kernel", use.weights["kernel"], "kq"))
    bias = _bias(s, use)
    return _finish(s, use, y if bias is None else s.op("Add", y, bias))


def _factor(use: Use, epsilon: float) -> Array:
    w = use.weights
    root = np.sqrt((w["moving_variance"] + np.float32(epsilon)).astype(np.float32))
    gamma = w.get("gamma")
    return np.asarray((np.float32(1) if gamma is None else gamma) / root, dtype=np.float32)


def _batchnorm_dense(s: Scope, use: Use) -> Value:
    """Write a dense layer that normalizes its inputs; its bias takes the raw kernel."""
    w = use.weights
    factor = _factor(use, float(use.config["epsilon"]))
    kernel = (factor[:, None] * w["kernel"]).astype(np.float32)
    bias = (w["bias"] + -np.dot(w["moving_mean"], w["kernel"])).astype(np.float32)
    x = quantize(s, use, use.x, "iq")
    y = s.op("MatMul", x, constant(s, use, "kernel", kernel, "kq"))
    return _finish(s, use, s.op("Add", y, constant(s, use, "bias", bias, "bq")))


def _batchnorm(s: Scope, use: Use) -> Value:
    w, rank = use.weights, s.rank(use.x)
    axis = one_axis(s, use.config.get("axis", -1), rank)
    factor = _factor(use, float(use.config.get("epsilon", 1e-3)))
    # Without a shift of its own the layer adds 1.
    beta = w.get("beta")
    shift = (np.float32(1) if beta is None else beta) - w["moving_mean"] * factor
    x = quantize(s, use, use.x, "iq")

    def layout(values: Array) -> Array:
        return along(values, axis, rank)

    y = s.op("Mul", x, constant(s, use, "factor", factor, "kq", layout))
    y = s.op("Add", y, constant(s, use, "shift", shift.astype(np.float32), "bq", layout))
    return quantize(s, use, y, "oq")


def _conv(s: Scope, use: Use) -> Value:
    kernel, x = use.weights["kernel"], use.x
    window = window_of(use.config, kernel.shape[:-2])
    if window.padding == "causal":
        # Padded before the quantizer of the input.
        reach = (window.kernel[0] - 1) * window.dilations[0]
        rank, axis = s.rank(x), 2 if window.first else 1
        pads = [0] * (2 * rank)
        pads[axis] = reach
        x = s.op("Pad", x, s.integers(pads, "pads"))
        window = dataclasses.replace(window, padding="valid")
    x = quantize(s, use, x, "iq")
    weight = constant(s, use, "kernel", kernel, "kq", kernel_layout)
    groups = groups_of(s, x, kernel, window)
    return _finish(s, use, convolved(s, x, weight, _bias(s, use), window, groups))


def _projection(s: Scope, use: Use, x: Value) -> Value:
    x = quantize(s, use, x, "iq")
    kernel = constant(s, use, "kernel", use.weights["kernel"], "kq")
    y = equation(s, x, kernel, str(use.config["equation"]))
    bias = _bias(s, use)
    return y if bias is None else s.op("Add", y, bias)


def _einsum_batchnorm(s: Scope, use: Use) -> Value:
    """Write a folded EinsumDense: Keras' epsilon counts, whatever the layer was given."""
    w = use.weights
    factor = _factor(use, _EPSILON)
    text = explicit(s, use.x, str(use.config["equation"]))
    kernel_axes, _, right = text.partition(",")[2].partition("->")
    axes = str(use.config.get("normalize_axes") or use.config["bias_axes"])
    own = "".join(letter for letter in kernel_axes if letter in axes)
    kernel = np.einsum(f"{kernel_axes},{own}->{kernel_axes}", w["kernel"], factor)
    offset = (-w["moving_mean"] * factor).astype(np.float32)
    first = min(right.index(letter) for letter in own)
    sizes = [
        offset.shape[own.index(letter)] if letter in own else 1 for letter in right[first:]
    ]
    bias = (w["bias"] + offset.reshape(sizes)).astype(np.float32)
    x = quantize(s, use, use.x, "iq")
    weight = constant(s, use, "kernel", kernel.astype(np.float32), "kq")
    y = equation(s, x, weight, str(use.config["equation"]))
    return _finish(s, use, s.op("Add", y, constant(s, use, "bias", bias, "bq")))


def _behind_inputs(name: str) -> Writes:
    """Return what writes the layer of Keras behind quantizers of its inputs."""

    def write(s: Scope, use: Use) -> Value:
        kind = kind_of(f"keras>{name}")
        assert kind is not None
        x: Any = use.x
        x = _each(s, use) if isinstance(x, list) else quantize(s, use, x, "iq")
        y = kind.writes(s, dataclasses.replace(use, args=(x, *use.args[1:])))
        return quantize(s, use, y, "oq")

    return write


def _each(s: Scope, use: Use) -> list[Value]:
    """Return several inputs behind their quantizers."""
    confs = use.config.get("iq_confs")
    if not confs or not use.config.get("enable_iq"):
        return list(use.x)
    parts = (use.weights.parts[f"iq_{n}"] for n in range(len(use.x)))
    return [
        quantized(s, x, read_bits(s, conf, part))
        for x, conf, part in zip(use.x, confs, parts, strict=True)
    ]


def _average(s: Scope, use: Use) -> Value:
    values = _each(s, use)
    y = values[0]
    for value in values[1:]:
        y = s.op("Add", y, value)
    y = s.op("Mul", y, 2.0 ** round(math.log2(1.0 / len(values))))
    return quantize(s, use, y, "oq")


def _sum(s: Scope, use: Use) -> Value:
    x = quantize(s, use, use.x, "iq")
    rank = s.rank(x)
    axes = sorted(int(a) % rank for a in use.config["axes"])
    scale = use.config.get("scale", 1.0)
    if use.layer.class_name == "QMeanPow2":
        count = math.prod(s.known(x, axis) for axis in axes)
        scale = 2.0 ** round(math.log2(1.0 / count))
    keep = int(bool(use.config.get("keepdims", False)))
    y = s.op("ReduceSum", x, s.integers(axes, "axes"), keepdims=keep)
    return quantize(s, use, y if scale == 1 else s.op("Mul", y, float(scale)), "oq")


def _softmax(s: Scope, use: Use) -> Value:
    refuse_masks(s, use, (use.x,))
    x = quantize(s, use, use.x, "iq")
    rank = s.rank(x)
    at = s.integers(sorted(int(a) % rank for a in use.config["axes"]), "axes")
    scale = float(use.config.get("input_scaler", 1.0))
    stable = bool(use.config.get("stable", True))
    if stable:
        x = s.op("Sub", s.op("ReduceMax", x, at, keepdims=1), x)
        x = _of_table(s, use, x, "exp", "iq")
    x = s.op("Neg", x) if stable else x
    powers = s.op("Exp", x if scale == 1 else s.op("Mul", x, scale))
    powers = _of_table(s, use, powers, "exp", "oq")
    total = _of_table(s, use, s.op("ReduceSum", powers, at, keepdims=1), "inv", "iq")
    inverse = s.op("Div", 1.0, s.op("Add", total, _EPSILON))
    y = s.op("Mul", powers, _of_table(s, use, inverse, "inv", "oq"))
    return quantize(s, use, y, "oq")


def _of_table(s: Scope, use: Use, x: Value, table: str, name: str) -> Value:
    part = use.weights.parts[f"{table}_table"].parts[name]
    return quantized(s, x, read_bits(s, use.config[f"{table}_{name}_conf"], part))


class _HgqCell:
    """A cell of HGQ2's recurrent layers."""

    states = 1

    def __init__(self, s: Scope, use: Use) -> None:
        self.s, self.use = s, dataclasses.replace(use, weights=use.weights.parts["cell"])
        self.units = int(use.config["units"])
        self.gru = use.layer.class_name == "QGRU"
        w = self.use.weights
        self.kernel = constant(s, self.use, "kernel", w["kernel"], "kq")
        recurrent = w["recurrent_kernel"]
        self.recurrent = constant(s, self.use, "recurrent_kernel", recurrent, "rkq")
        self.bias = _bias(s, self.use)

    def inputs(self, x: Value) -> Value:
        s = self.s
        y = s.op("MatMul", quantize(s, self.use, x, "iq"), self.kernel)
        return y if self.bias is None else s.op("Add", y, bias_row(s, self.bias, 0))

    def _active(self, x: Value, name: str, activation: str) -> Value:
        x = quantize(self.s, self.use, x, name)
        return activate(self.s, x, self.use.config.get(activation))

    def step(self, x: Value, states: Sequence[Value]) -> tuple[Value, list[Value]]:
        h = quantize(self.s, self.use, states[0], "sq")
        new = self._gru(x, h) if self.gru else self._simple(x, h)
        return new, [new]

    def _simple(self, x: Value, h: Value) -> Value:
        y = self.s.op("Add", x, self.s.op("MatMul", h, self.recurrent))
        return self._active(y, "paq", "activation")

    def _gru(self, x: Value, h: Value) -> Value:
        s, u = self.s, self.units
        two = s.integers([2 * u, u], "two_parts")
        x_zr, x_h = s.ops("Split", [x, two], 2, axis=-1)
        after = bool(self.use.config.get("reset_after", True))
        k_zr, k_h = s.ops("Split", [self.recurrent, two], 2, axis=1)
        if after:
            inner = s.op("MatMul", h, self.recurrent)
            if self.bias is not None:
                inner = s.op("Add", inner, bias_row(s, self.bias, 1))
            h_zr, h_h = s.ops("Split", [inner, two], 2, axis=-1)
        else:
            h_zr = s.op("MatMul", h, k_zr)
        zr = self._active(s.op("Add", x_zr, h_zr), "praq", "recurrent_activation")
        z, r = s.ops("Split", [zr, s.integers([u, u], "halves")], 2, axis=-1)
        if after:
            reset = s.op("Mul", r, quantize(s, self.use, h_h, "rhq"))
        else:
            reset = s.op("MatMul", quantize(s, self.use, s.op("Mul", r, h), "rhq"), k_h)
        hh = self._active(s.op("Add", x_h, reset), "paq", "activation")
        return s.op("Add", s.op("Mul", z, h), s.op("Mul", s.op("Sub", 1.0, z), hh))


def _recurrent(s: Scope, use: Use) -> Any:
    if use.config.get("enable_oq"):
        raise s.fail(f"{use.layer.class_name} with a quantizer of its output")
    return run_cells(s, use, [_HgqCell(s, use)])


def _inner(use: Use, part: str, **config: Any) -> Use:
    """Return the use of a layer inside a layer."""
    layer = dataclasses.replace(use.layer, config=config)
    return Use(layer, use.weights.parts[part], (), {})


def _attention(s: Scope, use: Use) -> Value:
    c = use.config
    if list(c.get("attention_axes") or [1]) != [1] or c.get("use_gate"):
        raise s.fail("QMultiHeadAttention with a gate or other axes")
    given = [*use.args, *([None] * 3)]
    query = given[0]
    value = given[1] if given[1] is not None else use.kwargs.get("value", query)
    key = given[2] if given[2] is not None else use.kwargs.get("key")
    key = value if key is None else key
    refuse_masks(s, use, (query, value, key))
    q, k, v = (
        s.transpose(_one_projection(s, use, x, role, "btf,fhk->bthk"), [0, 2, 1, 3])
        for x, role in ((query, "query"), (key, "key"), (value, "value"))
    )
    scale = 1.0 / math.sqrt(float(c["key_dim"]))
    scores = s.op("MatMul", q, s.transpose(k, [0, 1, 3, 2]))
    inner = _inner(
        use,
        "_softmax",
        axes=[-1],
        stable=c.get("stable_softmax", True),
        input_scaler=scale,
        iq_conf=c["softmax_iq_conf"],
        oq_conf=c["softmax_oq_conf"],
        **{f"{t}_{n}_conf": c[f"softmax_{t}_{n}_conf"] for t in ("exp", "inv") for n in _IO},
    )
    weights = _softmax(s, dataclasses.replace(inner, args=(scores,)))
    y = s.transpose(s.op("MatMul", weights, v), [0, 2, 1, 3])
    return quantize(s, use, _one_projection(s, use, y, "output", "bthv,hvf->btf"), "oq")


_IO = ("iq", "oq")


def _one_projection(s: Scope, use: Use, x: Value, role: str, text: str) -> Value:
    c, part = use.config, f"{role}_dense"
    inner = _inner(
        use,
        part,
        equation=text,
        **{f"{n}_conf": c[f"qkvo_{n}_conf"] for n in ("iq", "kq", "bq", "oq")},
    )
    shared = use.weights.parts.get(SHARED_INPUT)
    if shared is not None and role != "output" and "iq" not in inner.weights.parts:
        inner.weights.parts["iq"] = shared
    scope = s.within(role)
    y = quantize(scope, inner, _projection(scope, inner, x), "oq")
    scope.close()
    return y


def _dense_table(s: Scope, use: Use) -> Value:
    """Write a dense layer of tables: a small net per pair of input and output."""
    c, w = use.config, use.weights
    rank, inputs, outputs = s.rank(use.x), s.known(use.x, -1), int(c["n_out"])
    x = s.op("Unsqueeze", use.x, s.integers([rank], "axes"))
    x = s.op("Mul", x, np.ones((inputs, outputs), dtype=np.float32))
    x = quantize(s, use, x, "iq")
    x = s.op("Unsqueeze", x, s.integers([rank + 1], "axes"))
    letters = "ABCDEFGH"[: rank - 1]
    module = w.parts["module"]
    for number in range(int(c["n_hl"]) + 1):
        last = number == int(c["n_hl"])
        inner = module.parts[f"{number}"]
        kernel = s.stored(f"table_{number}", inner["kernel"], None)
        right = "io" if last else "ioD"
        text = f"{letters}iod,{'iod' if last else 'iodD'}->{letters}{right}"
        x = s.op("Einsum", x, kernel, equation=text)
        bias = inner.get("bias")
        if bias is not None:
            x = s.op("Add", x, s.stored(f"table_bias_{number}", bias, None))
        if not last:
            x = activate(s, x, c.get("subnn_activation"))
    if c.get("batch_norm"):
        norm = w.parts["bn_module"]
        root = np.sqrt(norm["moving_variance"] + np.float32(c.get("bn_epsilon", 1e-3)))
        gamma, beta = norm.get("gamma"), norm.get("beta")
        factor = ((1 if gamma is None else gamma) / root).astype(np.float32)
        shift = (0 if beta is None else beta) - norm["moving_mean"] * factor
        x = s.op("Add", s.op("Mul", x, factor), shift.astype(np.float32))
        x = s.op("Div", x, math.sqrt(inputs))
    x = quantize(s, use, x, "toq")
    y = s.op("ReduceSum", x, s.integers([rank - 1], "axes"), keepdims=0)
    return _finish(s, use, y)


def _fixed_point_1(s: Scope, use: Use) -> Value:
    """Write the quantizer of HGQ 1: bits and integers count the sign."""
    w, c = use.weights, use.config
    k = w["keep_negative"].astype(np.float32)
    conf = {
        "class_name": "QuantizerConfig",
        "config": {
            "q_type": "kif",
            "round_mode": c.get("RND", "RND"),
            "overflow_mode": c.get("SAT", "WRAP"),
        },
    }
    whole = w["integers"].astype(np.float32)
    bits = {"k": k, "i": whole - k, "f": w["bits"].astype(np.float32) - whole}
    return quantized(s, use.x, read_bits(s, conf, LayerWeights(bits, {})))


_PLAIN = holding(nothing)
_MERGES = ("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Dot")
_POOLS = [
    f"{kind}Pooling{n}D"
    for kind in ("Max", "Average", "GlobalMax", "GlobalAverage")
    for n in (1, 2, 3)
]

KINDS: Mapping[str, Kind] = {
    "hgq>QDense": Kind(_dense, holding(kernel_and_bias, "kq", "bq")),
    **{f"hgq>QConv{n}D": Kind(_conv, holding(kernel_and_bias, "kq", "bq")) for n in (1, 2, 3)},
    "hgq>QEinsumDense": Kind(
        lambda s, use: _finish(s, use, _projection(s, use, use.x)),
        holding(kernel_and_bias, "kq", "bq"),
    ),
    "hgq>QBatchNormDense": Kind(
        _batchnorm_dense, holding(normalized, "kq", "bq", fixed=STATISTICS)
    ),
    "hgq>QEinsumDenseBatchnorm": Kind(
        _einsum_batchnorm, holding(normalized, "kq", "bq", fixed=STATISTICS)
    ),
    "hgq>QBatchNormalization": Kind(
        _batchnorm, holding(gamma_beta, "kq", "bq", fixed=STATISTICS)
    ),
    "hgq>Quantizer": Kind(
        lambda s, use: quantized(
            s, use.x, read_bits(s, use.config["config"], use.weights.parts["quantizer"])
        ),
        lambda layer: Variables(
            (), (("quantizer", quantizer_variables(layer.config["config"], "quantizer")),)
        ),
    ),
    **{f"hgq>Q{name}": Kind(_behind_inputs(name), _PLAIN) for name in (*_MERGES, *_POOLS)},
    "hgq>QAveragePow2": Kind(_average, _PLAIN),
    "hgq>QSum": Kind(_sum, _PLAIN),
    "hgq>QMeanPow2": Kind(_sum, _PLAIN),
    "hgq>QEinsum": Kind(
        lambda s, use: quantize(
            s, use, s.op("Einsum", *_each(s, use), equation=str(use.config["equation"])), "oq"
        ),
        _PLAIN,
    ),
    "hgq>QUnaryFunctionLUT": Kind(
        lambda s, use: quantize(
            s,
            use,
            activate(s, quantize(s, use, use.x, "iq"), use.config.get("activation")),
            "oq",
        ),
        _PLAIN,
    ),
    "hgq>QSoftmax": Kind(_softmax, softmax_variables_of),
    "hgq>QGRU": Kind(_recurrent, recurrent_variables),
    "hgq>QSimpleRNN": Kind(_recurrent, recurrent_variables),
    "hgq>QMultiHeadAttention": Kind(
        _attention, attention_variables, arguments=3, named=frozenset({"value", "key"})
    ),
    "hgq>QDenseT": Kind(_dense_table, table_variables),
    "hgq1>FixedPointQuantizer": Kind(
        _fixed_point_1,
        lambda layer: Variables(
            (("keep_negative", False), ("bits", False), ("integers", False))
        ),
    ),
}
