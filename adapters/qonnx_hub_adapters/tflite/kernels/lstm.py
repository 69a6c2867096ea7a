"""UNIDIRECTIONAL_SEQUENCE_LSTM on codes: 8-bit data and weights, a cell of 16 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qonnx_hub_adapters.tflite.kernels import gemmlowp
from qonnx_hub_adapters.tflite.kernels.fixed_point import Factor, factor, rescale, shift_right
from qonnx_hub_adapters.tflite.net import KernelCall
from qonnx_hub_ir.quantizers import Array

GATES = ("input", "forget", "cell", "output")
"""In the order of the operator's inputs."""

_PEEPHOLE, _PROJECTION, _STATES, _NORMS = (9, 10, 11), (16, 17), (18, 19), (20, 21, 22, 23)
UNREAD = (*_PEEPHOLE, *_PROJECTION, *_NORMS)
"""Inputs of variants that are not read."""


@dataclass(frozen=True, slots=True, eq=False)
class _Gate:
    """One gate: its weights, and the factors of its two sums."""

    data: Array
    state: Array
    data_offset: Array
    state_offset: Array
    data_factor: Factor
    state_factor: Factor


def lstm(call: KernelCall, *given: Array | None) -> Array:
    """Return the sequence of hidden codes; states start as the variables hold them."""
    x = _present(given[0])
    if not call.options.get("time_major"):
        x = np.swapaxes(x, 0, 1)
    gates = {name: _gate(call, given, i) for i, name in enumerate(GATES) if call.has(1 + i)}
    hidden, cell = (_present(given[i]).astype(np.int64) for i in _STATES)
    exponent = int(np.frexp(call.tensor(19).scale)[1]) - 1
    grid = call.intermediates[4] if len(call.intermediates) > 4 else call.tensor(18)
    by = factor(float(np.float32(2.0**-15)) / float(grid.scale) * 2.0**-15)
    clip = round(call.options.get("cell_clip", 0.0) / float(call.tensor(19).scale))
    steps = []
    for step in x:
        sums = {name: _sum(gate, step, hidden) for name, gate in gates.items()}
        opened = {n: gemmlowp.logistic(s, 3) for n, s in sums.items() if n != "cell"}
        new = gemmlowp.tanh(sums["cell"], 3)
        entered = opened.get("input", 32767 - opened["forget"])
        kept = shift_right(opened["forget"] * cell, 15)
        cell = _short(kept + shift_right(entered * new, 30 + exponent))
        cell = np.clip(cell, -clip, clip) if clip > 0 else cell
        shown = gemmlowp.tanh(cell, 15 + exponent) * opened["output"]
        hidden = np.clip(rescale(shown, by) + grid.zero, -128, 127)
        steps.append(hidden)
    made = np.stack(steps).astype(np.int8)
    return made if call.options.get("time_major") else np.swapaxes(made, 0, 1)


def _gate(call: KernelCall, given: tuple[Array | None, ...], index: int) -> _Gate:
    data = _present(given[1 + index]).astype(np.int64)
    state = _present(given[5 + index]).astype(np.int64)
    bias = given[12 + index]
    x, h, made = call.tensor(0), call.tensor(18), 2.0**-12
    data_scale = float(np.float32(call.tensor(1 + index).scale * x.scale)) / made
    state_scale = float(np.float32(call.tensor(5 + index).scale * h.scale)) / made
    added = 0 if bias is None else bias.astype(np.int64)
    return _Gate(
        data,
        state,
        added - x.zero * data.sum(axis=1),
        -h.zero * state.sum(axis=1),
        factor(data_scale),
        factor(state_scale),
    )


def _sum(gate: _Gate, x: Array, hidden: Array) -> Array:
    """Return the argument of a gate's function, with three integer bits."""
    of_data = rescale(x.astype(np.int64) @ gate.data.T + gate.data_offset, gate.data_factor)
    of_state = rescale(hidden @ gate.state.T + gate.state_offset, gate.state_factor)
    return _short(_short(of_data) + of_state)


def _short(x: Array) -> Array:
    return np.clip(x, -(2**15), 2**15 - 1)


def _present(x: Array | None) -> Array:
    if x is None:
        raise IndexError("UNIDIRECTIONAL_SEQUENCE_LSTM: an input is left out")
    return x
