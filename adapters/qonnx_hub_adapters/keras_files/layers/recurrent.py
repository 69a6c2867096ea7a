"""Recurrent layers, step by step: the number of steps is known, or the layer is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx_ir import Value

from qonnx_hub_adapters.keras_files.graph import Layer, inner_layer
from qonnx_hub_adapters.keras_files.kinds import Kind, Use
from qonnx_hub_adapters.keras_files.layers.activations import activate
from qonnx_hub_adapters.keras_files.quantizer_configs import read_quantizer
from qonnx_hub_adapters.keras_files.scope import Scope
from qonnx_hub_adapters.keras_files.variables import LayerWeights, Variables, snake, variables
from qonnx_hub_adapters.qkeras.quantizers import Description, UnreadableQuantizerError

_MOST_STEPS = 2000


def bias_row(s: Scope, bias: Value | None, row: int) -> Value:
    """Return a bias, or the row of those that a GRU has two of."""
    assert bias is not None
    if s.rank(bias) == 1:
        return bias
    return s.op("Gather", bias, s.value(np.array(row, dtype=np.int64), f"row_{row}"), axis=0)


class Cell:
    """One cell of a recurrent layer, with its weights written.

    Attributes:
        units: Width of its states.
        states: How many states it has.
    """

    def __init__(self, s: Scope, layer: Layer, weights: LayerWeights, path: str) -> None:
        self.s, self.config, self._w, self._path = s, layer.config, weights, path
        self.is_q = layer.kind.startswith("qkeras")
        self.units = int(self.config["units"])
        self.kind = layer.class_name.removeprefix("Q").removesuffix("Cell")
        self.states = 2 if self.kind == "LSTM" else 1
        self.kernel = self._weight("kernel", "kernel_quantizer", of_kernel=True)
        self.recurrent = self._weight(
            "recurrent_kernel", "recurrent_quantizer", of_kernel=True
        )
        if weights["recurrent_kernel"].shape[0] != self.units:
            raise s.fail(f"has {self.units} units; its weights have another number")
        self.bias = self._bias()
        if self.kind not in ("LSTM", "GRU", "SimpleRNN"):
            raise s.fail(f"cell '{layer.class_name}' is not known")

    def _quantizer(self, name: str, *, of_kernel: bool = False) -> Description | None:
        if not self.is_q:
            return None
        try:
            return read_quantizer(self.config.get(name), of_kernel=of_kernel)
        except UnreadableQuantizerError as error:
            raise self.s.fail(f"its {name}: {error}") from error

    def _weight(self, role: str, quantizer: str, *, of_kernel: bool = False) -> Value:
        q = self._quantizer(quantizer, of_kernel=of_kernel)
        return self.s.weight(f"{self._path}{role}", self._w[role], q)

    def _bias(self) -> Value | None:
        bias = self._w.get("bias")
        if bias is None:
            return None
        return self.s.weight(f"{self._path}bias", bias, self._quantizer("bias_quantizer"))

    def active(self, x: Value, name: str) -> Value:
        """Return one of the cell's two activations of a value."""
        return activate(self.s, x, self.config.get(name), in_q_layer=self.is_q)

    def inputs(self, x: Value) -> Value:
        """Return what all steps read of the input: its product with the kernel."""
        y = self.s.op("MatMul", x, self.kernel)
        if self.bias is None or (self.kind == "LSTM" and not self.is_q):
            return y
        return self.s.op("Add", y, bias_row(self.s, self.bias, 0))

    def step(self, x: Value, states: Sequence[Value]) -> tuple[Value, list[Value]]:
        """Return the output and the new states of a step, given :meth:`inputs` of it."""
        q = self._quantizer("state_quantizer")
        own = [self.s.quantize(state, q) for state in states]
        if self.kind == "LSTM":
            return self._lstm(x, *own)
        new = self._gru(x, own[0]) if self.kind == "GRU" else self._simple(x, own[0])
        return new, [new]

    def _parts(self, z: Value, count: int) -> list[Value]:
        sizes = self.s.integers([self.units] * count, "split")
        return self.s.ops("Split", [z, sizes], count, axis=-1)

    def _lstm(self, x: Value, h: Value, c: Value) -> tuple[Value, list[Value]]:
        s = self.s
        z = s.op("Add", x, s.op("MatMul", h, self.recurrent))
        if self.bias is not None and not self.is_q:
            z = s.op("Add", z, self.bias)
        i, f, g, o = self._parts(z, 4)
        i, f, o = (self.active(one, "recurrent_activation") for one in (i, f, o))
        kept, fresh = s.op("Mul", f, c), s.op("Mul", i, self.active(g, "activation"))
        new = s.op("Add", kept, fresh)
        out = s.op("Mul", o, self.active(new, "activation"))
        return out, [out, new]

    def _gru(self, x: Value, h: Value) -> Value:
        s = self.s
        xz, xr, xh = self._parts(x, 3)
        if self.config.get("reset_after", self.s.net.generation == 3 and not self.is_q):
            inner = s.op("MatMul", h, self.recurrent)
            if self.bias is not None:
                inner = s.op("Add", inner, bias_row(self.s, self.bias, 1))
            hz, hr, hh = self._parts(inner, 3)
            z = self.active(s.op("Add", xz, hz), "recurrent_activation")
            r = self.active(s.op("Add", xr, hr), "recurrent_activation")
            candidate = s.op("Add", xh, s.op("Mul", r, hh))
        else:
            parts = self.s.integers([self.units] * 3, "split")
            kz, kr, kh = s.ops("Split", [self.recurrent, parts], 3, axis=1)
            z = s.op("Add", xz, s.op("MatMul", h, kz))
            z = self.active(z, "recurrent_activation")
            r = s.op("Add", xr, s.op("MatMul", h, kr))
            r = self.active(r, "recurrent_activation")
            candidate = s.op("Add", xh, s.op("MatMul", s.op("Mul", r, h), kh))
        fresh = s.op("Mul", s.op("Sub", 1.0, z), self.active(candidate, "activation"))
        return s.op("Add", s.op("Mul", z, h), fresh)

    def _simple(self, x: Value, h: Value) -> Value:
        z = self.s.op("Add", x, self.s.op("MatMul", h, self.recurrent))
        return self.active(z, "activation")


def _cells(s: Scope, use: Use) -> list[Cell]:
    """Return the cells of a layer: its own, that of an RNN, or several on one another."""
    own = use.weights.parts["cell"]
    if use.layer.class_name != "RNN":
        return [Cell(s, use.layer, own, "")]
    inner = inner_layer(use.layer, use.config["cell"])
    if inner.class_name != "StackedRNNCells":
        return [Cell(s, inner, own, "")]
    return [
        Cell(s, inner_layer(inner, one), own.parts[str(n)], f"cell_{n}_")
        for n, one in enumerate(inner.config["cells"])
    ]


def run(s: Scope, use: Use) -> Any:
    """Write a recurrent layer."""
    return run_cells(s, use, _cells(s, use))


def run_cells(s: Scope, use: Use, cells: Sequence[Any]) -> Any:
    """Write cells on one another, step by step.

    A cell has ``units``, a number of ``states``, and the methods ``inputs`` and ``step`` of
    :class:`Cell`.
    """
    c = use.config
    if c.get("stateful"):
        raise s.fail("stateful=True keeps the state between calls")
    if c.get("time_major"):
        raise s.fail("time_major=True")
    x, initial = _given(use)
    mask = use.kwargs.get("mask")
    mask = s.net.masks.get(x) if mask is None else mask
    steps = s.shape(x)[1]
    if steps is None or steps > _MOST_STEPS:
        raise s.fail(f"{use.layer.class_name} over an open or very long time axis ({steps})")
    states = _initial(s, cells, initial)
    order = list(range(steps))
    if c.get("go_backwards"):
        order.reverse()
    first = cells[0].inputs(x)
    outputs: list[Value] = []
    last: Value | None = None
    for number in order:
        own = _at(s, first, number)
        new_states = []
        y: Value = own
        for index, cell in enumerate(cells):
            y, new = cell.step(own if index == 0 else cell.inputs(y), states[index])
            new_states.append(new)
        if mask is not None:
            here = s.op("Unsqueeze", _at(s, mask, number), s.integers([1], "axes"))
            new_states = [
                [s.op("Where", here, a, b) for a, b in zip(new, old, strict=True)]
                for new, old in zip(new_states, states, strict=True)
            ]
            before = (
                s.op("Mul", y, 0.0) if last is None or c.get("zero_output_for_mask") else last
            )
            y = s.op("Where", here, y, before)
        states, last = new_states, y
        outputs.append(y)
    assert last is not None
    result = last
    if c.get("return_sequences"):
        at = s.integers([1], "axes")
        result = s.op("Concat", *(s.op("Unsqueeze", one, at) for one in outputs), axis=1)
    if not c.get("return_state"):
        return result
    return [result, *(state for own in states for state in own)]


def _given(use: Use) -> tuple[Value, list[Value]]:
    """Return the sequence and the initial states that a call gives."""
    x, *initial = use.x if isinstance(use.x, list) else [use.x]
    more = use.kwargs.get("initial_state")
    initial += list(more) if isinstance(more, list) else [more] * (more is not None)
    return x, initial


def _at(s: Scope, x: Value, step: int) -> Value:
    index = s.value(np.array(step, dtype=np.int64), f"step_{step}")
    return s.op("Gather", x, index, axis=1)


def _initial(s: Scope, cells: Sequence[Any], given: list[Value]) -> list[list[Value]]:
    states = []
    for cell in cells:
        if given:
            states.append([given.pop(0) for _ in range(cell.states)])
            continue
        zeros = s.value(np.zeros((1, cell.units), dtype=np.float32), f"zeros_{cell.units}")
        assert zeros is not None
        states.append([zeros] * cell.states)
    return states


def _bidirectional(s: Scope, use: Use) -> Any:
    forward = inner_layer(use.layer, use.config["layer"])
    spelled = use.config.get("backward_layer")
    if spelled is not None:
        backward = inner_layer(use.layer, spelled)
    else:
        turned = {**forward.config, "go_backwards": not forward.config.get("go_backwards")}
        backward = dataclasses.replace(forward, config=turned)
    x, initial = _given(use)
    half = len(initial) // 2
    results = []
    for layer, part, states in (
        (forward, "forward_layer", initial[:half]),
        (backward, "backward_layer", initial[half:]),
    ):
        inner = s.within(part)
        # Keras sets this in both, whatever their own configuration says.
        config = {
            **layer.config,
            "zero_output_for_mask": layer.config.get("return_sequences", False),
        }
        layer = dataclasses.replace(layer, config=config)
        kwargs = {**use.kwargs, "initial_state": states}
        results.append(run(inner, Use(layer, use.weights.parts[part], (x,), kwargs)))
        inner.close()
    firsts = [r[0] if isinstance(r, list) else r for r in results]
    if forward.config.get("return_sequences"):
        most = np.iinfo(np.int64).max
        firsts[1] = s.op(
            "Slice",
            firsts[1],
            s.integers([-1], "starts"),
            s.integers([-most], "ends"),
            s.integers([1], "axes"),
            s.integers([-1], "steps"),
        )
    mode = use.config.get("merge_mode", "concat")
    if mode is None:
        merged: list[Value] = firsts
    elif mode == "concat":
        merged = [s.op("Concat", *firsts, axis=-1)]
    elif mode in ("sum", "ave"):
        total = s.op("Add", *firsts)
        merged = [s.op("Div", total, 2.0) if mode == "ave" else total]
    else:
        merged = [s.op("Mul", *firsts)]
    states = [one for r in results if isinstance(r, list) for one in r[1:]]
    return [*merged, *states] if states or len(merged) > 1 else merged[0]


def _time_distributed(s: Scope, use: Use) -> Value:
    """Write a layer on every step: steps become samples, and samples steps again."""
    inner = inner_layer(use.layer, use.config["layer"])
    sizes = s.shape(use.x)
    if None in sizes[1:]:
        raise s.fail("TimeDistributed over open sizes")
    whole = [int(size) for size in sizes[1:] if size is not None]
    flat = s.reshape(use.x, [-1, *whole[1:]])
    y = s.net.write(inner, use.weights.parts["layer"], (flat,), {}, f"{s.name}/")
    after = [int(size) for size in s.shape(y)[1:] if size is not None]
    return s.reshape(y, [-1, whole[0], *after])


def cell_variables(layer: Layer) -> Variables:
    """Return the variables of a cell."""
    names = ["kernel", "recurrent_kernel"]
    return variables(*names, *(["bias"] if layer.config.get("use_bias", True) else []))


def _recurrent_variables(layer: Layer) -> Variables:
    if layer.class_name != "RNN":
        return variables(cell=cell_variables(layer))
    inner = inner_layer(layer, layer.config["cell"])
    if inner.class_name != "StackedRNNCells":
        return variables(cell=cell_variables(inner))
    return variables(cell=_stacked_variables(inner))


def _stacked_variables(stacked: Layer) -> Variables:
    parts, counts = [], dict[str, int]()
    for number, one in enumerate(stacked.config["cells"]):
        cell = inner_layer(stacked, one)
        name = snake(cell.class_name)
        count = counts.get(name, 0)
        counts[name] = count + 1
        held = cell_variables(cell)
        path = f"cells/{name}" + (f"_{count}" if count else "")
        parts.append((f"{number}", Variables(held.own, held.parts, False, "", path)))
    return Variables((), tuple(parts))


def _wrapped_variables(layer: Layer) -> Variables:
    from qonnx_hub_adapters.keras_files.network import layout_of

    inner = inner_layer(layer, layer.config["layer"])
    part = layout_of(inner)
    return Variables((), (("layer", Variables(part.own, part.parts, part.frozen, "")),))


def _bidirectional_variables(layer: Layer) -> Variables:
    forward = layer.config["layer"]
    backward = layer.config.get("backward_layer") or forward
    held = (_recurrent_variables(inner_layer(layer, one)) for one in (forward, backward))
    return Variables((), tuple(zip(("forward_layer", "backward_layer"), held, strict=True)))


_LAYERS = (
    *("keras>LSTM", "keras>GRU", "keras>SimpleRNN", "keras>RNN"),
    *("qkeras>QLSTM", "qkeras>QGRU", "qkeras>QSimpleRNN"),
)

_STATES = frozenset({"initial_state"})

KINDS: Mapping[str, Kind] = {
    **{name: Kind(run, _recurrent_variables, named=_STATES) for name in _LAYERS},
    "keras>Bidirectional": Kind(_bidirectional, _bidirectional_variables, named=_STATES),
    "qkeras>QBidirectional": Kind(_bidirectional, _bidirectional_variables, named=_STATES),
    "keras>TimeDistributed": Kind(_time_distributed, _wrapped_variables),
    "tfmot>PruneLowMagnitude": Kind(
        lambda s, use: s.net.write(
            inner_layer(use.layer, use.config["layer"]),
            use.weights.parts["layer"],
            use.args,
            use.kwargs,
            f"{s.name}/",
        ),
        lambda layer: Variables(
            (("mask", False), ("threshold", False), ("pruning_step", False)),
            _wrapped_variables(layer).parts,
        ),
        arguments=None,
    ),
}
