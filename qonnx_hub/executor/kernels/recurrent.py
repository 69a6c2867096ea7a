"""Numpy kernels of recurrent layers: RNN, GRU and LSTM.

Shapes: T steps, B samples, I inputs, H hidden units, D directions, G gates. Inside, time comes
first in either ``layout``, and directions run one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from qonnx_hub.executor.kernels._numbers import scalar_like, widened
from qonnx_hub.executor.kernels.activation import FUNCTIONS
from qonnx_hub.executor.kernels.elementwise import served
from qonnx_hub.executor.kernels.indexing import reversed_steps
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec, KernelTable

Function = Callable[[Array], Array]
State = tuple[Array, ...]
Step = Callable[[Array, State], State]
"""(inputs times weight plus bias: (B, G * H), state) -> next state, output first."""


@dataclass(frozen=True, slots=True)
class _Direction:
    """The parameters of one direction.

    Attributes:
        weight: (I, G * H).
        recurrence: (H, G * H).
        input_bias: (G * H,).
        recurrence_bias: (G * H,).
        peepholes: (3 * H,) of an LSTM that has them.
    """

    weight: Array
    recurrence: Array
    input_bias: Array
    recurrence_bias: Array
    peepholes: Array | None


Cell = Callable[[_Direction, list[Function]], tuple[Array, Step]]
"""(parameters, activations) -> bias that is added to all inputs at once, and the step."""


_STANDARD = (
    *("Elu", "HardSigmoid", "LeakyRelu", "Sigmoid", "Softplus", "Softsign"),
    "ThresholdedRelu",
)
_ACTIVATIONS: dict[str, tuple[Callable[..., Any], Iterable[float | None]]] = {
    **{op.lower(): (FUNCTIONS[op][0], FUNCTIONS[op][1].values()) for op in _STANDARD},
    "affine": (lambda x, a, b: x * scalar_like(a, x) + scalar_like(b, x), (None, None)),
    "relu": (lambda x: np.maximum(x, scalar_like(0.0, x)), ()),
    "scaledtanh": (
        lambda x, a, b: scalar_like(a, x) * np.tanh(scalar_like(b, x) * x),
        (None, None),
    ),
    "tanh": (np.tanh, ()),
}
"""Functions of (x, alpha, beta), with the defaults of those that they take.

``None`` where ONNX states no default.
"""


def _activations(spec: KernelSpec, standard: tuple[str, ...]) -> list[list[Function]]:
    """Return the activation functions of each direction.

    Values of activation_alpha and activation_beta go, in order, to the functions that take
    them; one that is left over is an error.

    Args:
        spec: The node.
        standard: Names of the default functions of one direction.

    Raises:
        Unserved: A function is unknown, there are too few or too many, or a parameter is
            missing or left over.
    """
    directions = 2 if spec.attr("direction", "forward") == "bidirectional" else 1
    names = spec.attr("activations") or standard * directions
    if len(names) != len(standard) * directions:
        raise spec.unserved(f"has activations {tuple(names)}")
    alphas, betas = (iter(spec.attr(f"activation_{k}", ())) for k in ("alpha", "beta"))
    functions = [_activation(spec, name, alphas, betas) for name in names]
    if next(alphas, None) is not None or next(betas, None) is not None:
        raise spec.unserved("has more parameters than activations")
    count = len(standard)
    return [functions[first : first + count] for first in range(0, len(functions), count)]


def _activation(
    spec: KernelSpec, name: str, alphas: Iterator[float], betas: Iterator[float]
) -> Function:
    key = name.lower()
    if key not in _ACTIVATIONS:
        raise spec.unserved(f"has the activation {name!r}")
    compute, defaults = _ACTIVATIONS[key]
    sources = zip((alphas, betas), defaults, strict=False)
    values = [next(source, default) for source, default in sources]
    if None in values:
        raise spec.unserved(f"{name} lacks alpha or beta")
    return (lambda x: compute(x, *values)) if values else compute


def _clipper(spec: KernelSpec) -> Function:
    """Return what bounds the input of an activation function."""
    bound = spec.attr("clip")
    if bound is None:
        return lambda x: x
    return lambda x: np.clip(x, scalar_like(-bound, x), scalar_like(bound, x))


def _rnn_cell(spec: KernelSpec) -> Cell:
    clip = _clipper(spec)

    def cell(direction: _Direction, functions: list[Function]) -> tuple[Array, Step]:
        (f,) = functions

        def step(inputs: Array, state: State) -> State:
            return (f(clip(inputs + state[0] @ direction.recurrence)),)

        return direction.input_bias + direction.recurrence_bias, step

    return cell


def _gru_cell(spec: KernelSpec) -> Cell:
    clip, reset_last = _clipper(spec), bool(spec.attr("linear_before_reset", 0))

    def cell(direction: _Direction, functions: list[Function]) -> tuple[Array, Step]:
        f, g = functions
        hidden = len(direction.recurrence)
        gates, candidate = slice(0, 2 * hidden), slice(2 * hidden, None)
        gate_weight = np.ascontiguousarray(direction.recurrence[:, gates])
        candidate_weight = np.ascontiguousarray(direction.recurrence[:, candidate])
        bias = direction.input_bias + direction.recurrence_bias
        inner = direction.recurrence_bias[candidate]
        if reset_last:
            bias[candidate] = direction.input_bias[candidate]

        def step(inputs: Array, state: State) -> State:
            h = state[0]
            both = f(clip(inputs[:, gates] + h @ gate_weight))
            update, reset = both[:, :hidden], both[:, hidden:]
            if reset_last:
                past = reset * (h @ candidate_weight + inner)
            else:
                past = (reset * h) @ candidate_weight
            new = g(clip(inputs[:, candidate] + past))
            return ((np.asarray(1, h.dtype) - update) * new + update * h,)

        return bias, step

    return cell


def _lstm_cell(spec: KernelSpec) -> Cell:
    clip, coupled = _clipper(spec), bool(spec.attr("input_forget", 0))

    def cell(direction: _Direction, functions: list[Function]) -> tuple[Array, Step]:
        f, g, h = functions
        hidden = len(direction.recurrence)
        peep = direction.peepholes
        parts: list[Any] = [None] * 3 if peep is None else np.split(peep, 3)
        to_input, to_output, to_forget = parts

        def gate(total: Array, memory: Array, weight: Array | None) -> Array:
            return f(clip(total if weight is None else total + memory * weight))

        def step(inputs: Array, state: State) -> State:
            past, memory = state
            total = inputs + past @ direction.recurrence
            i, o, forget, c = (total[:, k * hidden : (k + 1) * hidden] for k in range(4))
            open_input = gate(i, memory, to_input)
            if coupled:
                keep = np.asarray(1, memory.dtype) - open_input
            else:
                keep = gate(forget, memory, to_forget)
            memory = keep * memory + open_input * g(clip(c))
            return gate(o, memory, to_output) * h(memory), memory

        return direction.input_bias + direction.recurrence_bias, step

    return cell


def _sweep(
    x: Array,
    direction: _Direction,
    cell: tuple[Array, Step],
    state: State,
    lengths: Array | None,
    *,
    backward: bool,
) -> tuple[Array, State]:
    """Return the output of all steps, zero behind a sample's end, and the last state.

    Args:
        x: (T, B, I).
        direction: Its weights.
        cell: Its bias and step.
        state: Initial state, (B, H) each.
        lengths: Steps of each sample; ``None`` for all.
        backward: Whether each sample is read from its end.

    Returns:
        (T, B, H), and (B, H) for each array of the state.
    """
    bias, step = cell
    steps, samples, width = x.shape
    flat = x.reshape(steps * samples, width) @ direction.weight + bias
    inputs = flat.reshape(steps, samples, len(bias))
    ends = np.full(samples, steps, dtype=np.int64) if lengths is None else lengths
    order = reversed_steps(steps, ends), np.arange(samples)
    outputs = np.zeros((steps, *state[0].shape), dtype=inputs.dtype)
    for t, row in enumerate(inputs[order] if backward else inputs):
        following = step(row, state)
        if lengths is None:
            outputs[t] = following[0]
            state = following
            continue
        live = (t < lengths)[:, np.newaxis]
        state = tuple(np.where(live, n, o) for n, o in zip(following, state, strict=True))
        np.copyto(outputs[t], following[0], where=live)
    return outputs[order] if backward else outputs, state


def _directions(
    w: Array, r: Array, b: Array | None, p: Array | None, hidden: int | None
) -> list[_Direction]:
    """Return the parameters of each direction, transposed for the sweep.

    Raises:
        ValueError: Weight and hidden_size disagree.
    """
    if hidden is not None and r.shape[2] != hidden:
        raise ValueError(f"a recurrence weight of {r.shape} for {hidden} hidden units")
    result = []
    for number in range(len(w)):
        width = w.shape[1]
        biases = np.zeros(2 * width, dtype=np.float32) if b is None else widened(b[number])
        result.append(
            _Direction(
                weight=np.ascontiguousarray(widened(w[number]).T),
                recurrence=np.ascontiguousarray(widened(r[number]).T),
                input_bias=biases[:width],
                recurrence_bias=biases[width:],
                peepholes=None if p is None else widened(p[number]),
            )
        )
    return result


_REVERSED = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
"""Value of ``direction`` -> whether each direction runs backward."""


def _recurrent(
    make_cell: Callable[[KernelSpec], Cell], standard: tuple[str, ...], states: int
) -> Callable[[KernelSpec], Kernel]:
    """Return a factory of kernels of one kind of recurrent node.

    Args:
        make_cell: Reads the attributes of the cell.
        standard: Default activation functions of one direction.
        states: How many arrays the state has.
    """

    def make(spec: KernelSpec) -> Kernel:
        cell, functions = make_cell(spec), _activations(spec, standard)
        backward = _REVERSED[spec.choice("direction", "forward", _REVERSED)]
        batch_first = bool(spec.choice("layout", 0, (0, 1)))
        hidden, outputs = spec.attr("hidden_size"), spec.num_outputs
        positions = (1, 2, 3, 7)
        w, r, b, p = (spec.constant(i) for i in positions)
        known = None
        if spec.is_fixed(*positions) and w is not None and r is not None:
            known = _directions(w, r, b, p, hidden)

        def kernel(x: Array, w: Array, r: Array, *rest: Array | None) -> Any:
            b, lengths, h, c, p = [*rest, None, None, None, None, None][:5]
            wide, initial = widened(x), [h, c][:states]
            if batch_first:
                wide = wide.swapaxes(0, 1)
                initial = [s if s is None else s.swapaxes(0, 1) for s in initial]
            sweeps = []
            for number, way in enumerate(known or _directions(w, r, b, p, hidden)):
                zeros = np.zeros((wide.shape[1], len(way.recurrence)), dtype=wide.dtype)
                state = tuple(zeros if s is None else widened(s[number]) for s in initial)
                built = cell(way, functions[number])
                sweeps.append(
                    _sweep(wide, way, built, state, lengths, backward=backward[number])
                )
            y = np.stack([sweep[0] for sweep in sweeps], axis=2 if batch_first else 1)
            finals = zip(*(sweep[1] for sweep in sweeps), strict=True)
            results = [y, *(np.stack(parts) for parts in finals)][:outputs]
            if batch_first:
                results = [result.swapaxes(0, 1) for result in results]
            typed = tuple(result.astype(x.dtype, copy=False) for result in results)
            return typed if outputs > 1 else typed[0]

        return kernel

    return make


_COMMON = (
    *("activation_alpha", "activation_beta", "activations"),
    *("clip", "direction", "hidden_size", "layout"),
)

KERNELS: KernelTable = {
    ("", "GRU"): served(
        _recurrent(_gru_cell, ("Sigmoid", "Tanh"), 1), "linear_before_reset", *_COMMON
    ),
    ("", "LSTM"): served(
        _recurrent(_lstm_cell, ("Sigmoid", "Tanh", "Tanh"), 2), "input_forget", *_COMMON
    ),
    ("", "RNN"): served(_recurrent(_rnn_cell, ("Tanh",), 1), *_COMMON),
}
