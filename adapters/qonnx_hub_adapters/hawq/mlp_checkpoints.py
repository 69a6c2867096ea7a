"""Checkpoints of multi-layer perceptrons, read without building a module."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx_ir import Model

from qonnx_hub_adapters.hawq.bit_widths import (
    ASYMMETRIC,
    SYMMETRIC,
    BitConfig,
    act_candidates,
    in_words,
    read_bits,
    scale_of,
    smallest_bits,
    symmetric_integers,
    weight_candidates,
    weight_range,
)
from qonnx_hub_adapters.hawq.forms import assemble
from qonnx_hub_adapters.hawq.graph import UNIT
from qonnx_hub_adapters.hawq.options import HawqOptions
from qonnx_hub_adapters.hawq.trace_data import (
    RANK,
    ActCall,
    Call,
    ForwardTrace,
    PlainCall,
    Ref,
    SourceGrid,
    WeightCall,
    shaped,
)
from qonnx_hub_ir.errors import SourceError, UsageError
from qonnx_hub_ir.quantizers import Array

_OPERATORS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "relu": ("Relu", {}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "softmax": ("Softmax", {"axis": 1}),
    "log_softmax": ("LogSoftmax", {"axis": 1}),
}
_NOT_NEGATIVE = frozenset({"relu", "sigmoid", "softmax"})
_EPSILON = 1e-5
"""What torch's batch norm adds to the variance by default; a checkpoint does not hold it."""


def import_chain(
    state: Mapping[str, Array], path: str, options: HawqOptions, *, complete: bool
) -> Model:
    """Return a chain of layers as a verified IR model.

    Args:
        state: The checkpoint's numbers by dotted name.
        path: Its file, for messages.
        options: With the chain, and how it is to be read.
        complete: Whether the trained weights and ranges are in the checkpoint.

    Raises:
        UsageError: A layer that neither the checkpoint nor this function knows.
        SourceError: Bit widths that can neither be recovered nor were given.
    """
    names = list(options.chain or ())
    acts = frozenset(name for name in names if f"{name}.act_scaling_factor" in state)
    bits = read_bits(options.bits, acts)
    unknown = sorted(set(bits) - set(names))
    if unknown:
        raise UsageError(f"bits name layers outside of the chain: {', '.join(unknown)}")
    chain = _Chain(state, path, complete, bits, options.weight_scales)
    for name in names:
        chain.add(name)
    inputs, calls = (("x", (1, chain.features)),), tuple(chain.calls)
    trace = ForwardTrace("chain", inputs, calls, (chain.value,), {}, {}, open_batch=True)
    for note in chain.notes:
        warnings.warn(note, stacklevel=5)
    return assemble(trace, options.mode, merge=options.merge_requant).model


@dataclass(slots=True)
class _Chain:
    """The calls so far, and what the last ones leave behind.

    Attributes:
        state: The checkpoint's numbers by dotted name.
        path: Its file, for messages.
        complete: Whether the trained weights and ranges are in it.
        bits: What the user gave.
        weight_scales: Whether a QuantAct gets the scale of the weights, where known.
        calls: The calls so far.
        notes: Sentences that a user should read.
        features: Size of the input.
    """

    state: Mapping[str, Array]
    path: str
    complete: bool
    bits: BitConfig
    weight_scales: bool | None
    calls: list[Call] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    features: int = 0
    _act_scale: Array | None = None
    _weight_scale: Array | None = None
    _not_negative: bool = False

    def add(self, name: str) -> None:
        """Add the next layer."""
        not_negative = False
        if f"{name}.act_scaling_factor" in self.state:
            self._add_act(name)
        elif f"{name}.fc_scaling_factor" in self.state:
            self._add_linear(name)
        elif f"{name}.running_mean" in self.state:
            self._add_batch_norm(name)
        elif name in _OPERATORS:
            op_type, attributes = _OPERATORS[name]
            self.calls.append(
                PlainCall(name, op_type, (self.value,), self._next(), attributes)
            )
            not_negative = name in _NOT_NEGATIVE
        else:
            raise UsageError(
                f"'{self.path}' has no layer '{name}', and no operator has this name; "
                f"operators of a chain are {', '.join(_OPERATORS)}"
            )
        self._not_negative = not_negative

    @property
    def value(self) -> Ref:
        """What the last call makes."""
        return Ref(len(self.calls))

    def _next(self) -> Ref:
        return Ref(len(self.calls) + 1)

    def _given(self, name: str, attribute: str) -> Any:
        return self.bits.get(name, {}).get(attribute)

    def _needed(self, key: str) -> Array:
        if key not in self.state:
            raise SourceError(f"'{self.path}' has no '{key}'")
        return self.state[key]

    def _add_act(self, name: str) -> None:
        bits, mode, scale = self._act_settings(name)
        source = None
        if self._act_scale is not None:
            source = SourceGrid(self._act_scale, self._requantized_weights(name))
        signed = mode == SYMMETRIC
        self.calls.append(ActCall(name, self.value, self._next(), bits, signed, scale, source))
        self._act_scale, self._weight_scale = scale, None

    def _requantized_weights(self, name: str) -> Array:
        if self._weight_scale is None:
            return UNIT
        if self.weight_scales is None:
            raise UsageError(
                f"layer '{name}' follows a layer with weights, and the checkpoint does not "
                "say whether its forward was given their scale: give the option "
                "weight_scales=False (act(x, s), as hawq-jet-tagging does) or True "
                "(act(x, s, layer.fc_scaling_factor))"
            )
        return self._weight_scale if self.weight_scales else UNIT

    def _act_settings(self, name: str) -> tuple[int, str, Array]:
        saved = self._needed(f"{name}.act_scaling_factor").reshape(())
        bits, mode = self._given(name, "activation_bit"), self._given(name, "quant_mode")
        if not self.complete:
            if bits is None:
                raise SourceError(
                    f"layer '{name}': the range is not in '{self.path}': its bit "
                    "width cannot be recovered; give it with the option bits"
                )
            return int(bits), mode or SYMMETRIC, saved
        low = self._needed(f"{name}.x_min").reshape(())
        high = self._needed(f"{name}.x_max").reshape(())
        if low == 0 and high == 0:
            raise SourceError(f"layer '{name}' is not calibrated: its range is 0 to 0")
        if bits is None:
            bits, mode = self._recovered(name, act_candidates(low, high, saved), low)
        mode = mode or SYMMETRIC
        scale = scale_of(low, high, int(bits), mode)
        if not np.isclose(scale, saved, rtol=1e-5, atol=0):
            self.notes.append(
                f"'{self.path}': layer '{name}' was saved with the scale {float(saved):g}, "
                f"{mode} {bits} bit give {float(scale):g}; the bits given are used"
            )
        return int(bits), mode, scale

    def _recovered(
        self, name: str, found: list[tuple[int, str]], low: Array
    ) -> tuple[int, str]:
        """Return the bit width that gives the saved scale.

        Where the range begins at zero, symmetric b bits and asymmetric b - 1 bits have the
        same scale; on values that are not negative they also compute the same.
        """
        if len(found) == 1:
            return found[0]
        if len(found) == 2 and low >= 0 and self._not_negative:
            return next(one for one in found if one[1] == ASYMMETRIC)
        raise SourceError(
            f"layer '{name}': its range and scale in '{self.path}' give {in_words(found)}; "
            "give the bit width with the option bits"
        )

    def _add_linear(self, name: str) -> None:
        act = self._act_scale
        if act is None:
            raise UsageError(f"layer '{name}' needs a QuantAct before it")
        weight, scale, bits = self._weights(name)
        bias, bias_bits = self._bias(name, scale * act)
        self.features = self.features or int(weight.shape[1])
        steps = shaped(scale, (1, -1))
        out_scale = np.asarray(steps * act, dtype=np.float32)
        parts = weight, scale, bits, bias, bias_bits, act, out_scale
        self.calls.append(WeightCall(name, self.value, self._next(), *parts))
        self._weight_scale = steps

    def _weights(self, name: str) -> tuple[Array, Array, int]:
        scale = self._needed(f"{name}.fc_scaling_factor").reshape(-1)
        saved = self._needed(f"{name}.weight_integer")
        bits = self._given(name, "weight_bit")
        if not self.complete:
            return saved, scale, int(bits or smallest_bits(saved))
        weight = self._needed(f"{name}.weight")
        per_channel = scale.size > 1
        if bits is None:
            found = weight_candidates(weight, scale, per_channel=per_channel)
            if len(found) != 1:
                raise SourceError(
                    f"layer '{name}': weights and scale in '{self.path}' give "
                    f"{in_words(found)}; give the bit width with the option bits"
                )
            bits = found[0]
        low, high = weight_range(weight, per_channel=per_channel)
        scale = scale_of(low, high, int(bits), SYMMETRIC)
        codes = self._coded(name, "weight", scale.reshape(-1, 1), int(bits))
        return codes, scale, int(bits)

    def _bias(self, name: str, scale: Array) -> tuple[Array, int]:
        saved = self._needed(f"{name}.bias_integer")
        bits = self._given(name, "bias_bit")
        if bits is None or not self.complete:
            # The saved integers are clamped already: any width that holds them will do.
            return saved, int(bits or smallest_bits(saved))
        return self._coded(name, "bias", scale.reshape(-1), int(bits)), int(bits)

    def _coded(self, name: str, part: str, scale: Array, bits: int) -> Array:
        """Return the integers of a parameter, and note where others were saved."""
        codes = symmetric_integers(self._needed(f"{name}.{part}"), scale, bits)
        if not np.array_equal(codes, self._needed(f"{name}.{part}_integer")):
            self.notes.append(
                f"'{self.path}': {part}_integer of layer '{name}' was saved with another bit "
                f"width or range; computed anew with {bits} bit"
            )
        return codes

    def _add_batch_norm(self, name: str) -> None:
        parts = ("weight", "bias", "running_mean", "running_var")
        numbers = [self._needed(f"{name}.{part}") for part in parts]
        self.notes.append(
            f"'{self.path}' does not say the eps of batch norm '{name}': {_EPSILON:g}, "
            "torch's default, is used"
        )
        op_type, attributes = "BatchNormalization", {"epsilon": _EPSILON, RANK: 2}
        call = PlainCall(name, op_type, (self.value, *numbers), self._next(), attributes)
        self.calls.append(call)
