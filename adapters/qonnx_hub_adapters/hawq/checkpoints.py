"""Checkpoints: numbers without topology, put into a module or into a chain of layers."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx_ir import Model

from qonnx_hub_adapters.hawq import modules
from qonnx_hub_adapters.hawq.bit_widths import (
    BitConfig,
    act_candidates,
    in_words,
    read_bits,
    weight_candidates,
)
from qonnx_hub_adapters.hawq.layers import (
    ACT,
    BN_CONV,
    SCALE_BUFFERS,
    WITH_WEIGHTS,
    find_layers,
    kind_of,
)
from qonnx_hub_adapters.hawq.mlp_checkpoints import import_chain
from qonnx_hub_adapters.hawq.options import HawqOptions
from qonnx_hub_adapters.torch_common.framework import require_torch
from qonnx_hub_adapters.torch_common.modules import floats_of, is_module, unwrapped
from qonnx_hub_adapters.torch_common.weights import read_state, without_wrapper
from qonnx_hub_ir.errors import SourceError, UsageError
from qonnx_hub_ir.limits import require_memory

SUFFIXES = (".pth.tar", ".pth", ".pt")
_MARK = b"act_scaling_factor"
_LARGEST_HEADER = 1 << 20

_DERIVED = frozenset(
    {
        *("weight_integer", "bias_integer", "num_batches_tracked", "act_zero_point"),
        *("act_scaling_factor", "pre_act_scaling_factor", "prev_act_scaling_factor"),
        *("pre_weight_scaling_factor", "identity_weight_scaling_factor"),
        *("correct_output_scale", "convbn_scaled_bias", *SCALE_BUFFERS.values()),
    }
)
"""Buffers that a forward pass computes anew, or that are ones."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The numbers of a checkpoint.

    Attributes:
        path: Its file, for messages.
        tensors: By dotted name.
        complete: Whether the trained weights and ranges are there, not only integers.
    """

    path: str
    tensors: Mapping[str, Any]
    complete: bool


def is_checkpoint(source: object) -> bool:
    """Return whether the source is a checkpoint file with HAWQ's buffers, without torch."""
    if not isinstance(source, (str, Path)) or not str(source).endswith(SUFFIXES):
        return False
    path = Path(source)
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as stream:
                return _MARK in stream.read(_LARGEST_HEADER)
        with zipfile.ZipFile(path) as archive:
            tables = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            unpacked = sum(archive.getinfo(name).file_size for name in tables)
            require_memory(unpacked, f"'{path}': the table of its tensors")
            return any(_MARK in archive.read(name) for name in tables)
    except (OSError, zipfile.BadZipFile, zlib.error):
        return False


def import_checkpoint(source: object, args: Sequence[Any], options: HawqOptions) -> Model:
    """Return a checkpoint as a verified IR model.

    Args:
        source: Path of its file.
        args: Sample inputs, for the module that the builder makes.
        options: The adapter's options.

    Raises:
        UsageError: Neither a builder nor a chain is given, or both are.
        SourceError: The file cannot be read, or does not fit the builder or the chain.
    """
    if (options.builder is None) == (options.chain is None):
        raise UsageError(
            "a checkpoint holds no topology: give the option builder (a callable that makes "
            "the module) or chain (the layers of a multi-layer perceptron in order)"
        )
    state = read_checkpoint(str(source))
    if options.chain is not None:
        arrays = {k: floats_of(v) for k, v in state.tensors.items()}
        return import_chain(arrays, state.path, options, complete=state.complete)
    if not state.complete:
        raise SourceError(
            f"'{state.path}' holds integers and scales only: no module can be loaded from it; "
            "use the training checkpoint, or the option chain"
        )
    module = options.builder() if options.builder is not None else None
    if not is_module(module):
        raise UsageError(f"the builder made a {type(module).__name__}, not a torch module")
    module = unwrapped(module)
    layers = find_layers(module)
    acts = frozenset(name for name, layer in layers.items() if kind_of(layer) == ACT)
    bits = read_bits(options.bits, acts)
    _apply(bits, layers)
    load_state(module, state)
    _cross_check(layers, bits, state.path)
    return modules.import_module(module, args, options)


def read_checkpoint(path: str) -> Checkpoint:
    """Return the numbers of a checkpoint file.

    Raises:
        SourceError: It is missing, cut off, or no checkpoint.
    """
    tables = read_state(path, require_torch("hawq"))
    # HAWQ's own quantized checkpoint has one table for each kind of buffer.
    complete = not all(isinstance(value, Mapping) for value in tables.values())
    if not complete:
        tables = {name: value for table in tables.values() for name, value in table.items()}
    tensors = {str(k): v for k, v in tables.items() if hasattr(v, "untyped_storage")}
    if not any(name.endswith(_MARK.decode()) for name in tensors):
        raise SourceError(f"'{path}' holds no QuantAct: it is no checkpoint of HAWQ's")
    return Checkpoint(path, without_wrapper(tensors), complete)


def _apply(bits: BitConfig, layers: Mapping[str, Any]) -> None:
    unknown = sorted(set(bits) - set(layers))
    if unknown:
        raise UsageError(
            f"bits name layers that the module does not have: {', '.join(unknown)}; "
            f"it has {', '.join(layers)}"
        )
    for name, entries in bits.items():
        for attribute, value in entries.items():
            if not hasattr(layers[name], attribute):
                kind = kind_of(layers[name])
                raise UsageError(f"layer '{name}', a {kind}, has no {attribute}")
            setattr(layers[name], attribute, value)


def load_state(module: Any, state: Checkpoint) -> None:
    """Put a checkpoint's numbers into a module that was made for it.

    Scales are saved in other shapes than fresh modules have, and layers with dots in their
    names are unknown to torch's own loading; both are allowed here.

    Raises:
        SourceError: Numbers that have no place, or places without numbers.
    """
    places = {
        f"{owner}.{name}".removeprefix("."): (table, name)
        for owner, child in module.named_modules()
        for table in (child._parameters, child._buffers)
        for name in table
    }
    problems = []
    for key, tensor in state.tensors.items():
        if key not in places:
            if key.rpartition(".")[2] not in _DERIVED:
                problems.append(f"'{key}' has no place in the module")
            continue
        table, name = places[key]
        own = table[name]
        if name in _DERIVED or own is None:
            table[name] = tensor.clone()
        elif own.shape != tensor.shape:
            problems.append(
                f"'{key}' is {list(tensor.shape)}, the module has {list(own.shape)}"
            )
        else:
            own.data = tensor.clone().to(own.dtype)
    problems += [
        f"'{key}' is not in the checkpoint"
        for key, (table, name) in places.items()
        if key not in state.tensors and name not in _DERIVED and table[name] is not None
    ]
    if problems:
        raise SourceError(
            f"'{state.path}' does not fit the module that the builder made: "
            + "; ".join(problems)
        )


def _cross_check(layers: Mapping[str, Any], given: BitConfig, path: str) -> None:
    """Hold the layers' bit widths against the scales in the checkpoint.

    Raises:
        SourceError: A bit width that the builder chose does not give the scale saved.
    """
    refused = []
    for name, layer in layers.items():
        reason = _contradiction(layer, kind_of(layer))
        if reason is not None and name in given:
            note = f"'{path}': layer '{name}' {reason}; the bits given are used"
            warnings.warn(note, stacklevel=5)
        elif reason is not None:
            refused.append(f"layer '{name}' {reason}")
    if refused:
        raise SourceError(
            f"'{path}' was saved with other bit widths than the builder chose: "
            f"{'; '.join(refused)}; give the right ones with the option bits"
        )


def _contradiction(layer: Any, kind: str) -> str | None:
    """Return how the saved scale contradicts the bit width, ``None`` if it does not."""
    if kind == ACT:
        scale = floats_of(layer.act_scaling_factor)
        if layer.full_precision_flag or not bool(np.all(scale > 0)):
            return None
        found = act_candidates(floats_of(layer.x_min), floats_of(layer.x_max), scale)
        if not found or (layer.activation_bit, layer.quant_mode) in found:
            return None
        own = f"{layer.quant_mode} {layer.activation_bit} bit"
        return f"is {own}, its scale says {in_words(found)}"
    if kind not in WITH_WEIGHTS or layer.weight_percentile:
        return None
    scale = floats_of(getattr(layer, SCALE_BUFFERS[kind]))
    if not bool(np.all(scale > 0)):
        return None
    if kind == BN_CONV:
        deviation = np.sqrt(floats_of(layer.bn.running_var) + np.float32(layer.bn.eps))
        factor = floats_of(layer.bn.weight) / deviation
        weight = floats_of(layer.conv.weight) * factor.reshape(-1, 1, 1, 1)
    else:
        weight = floats_of(layer.weight)
    candidates = weight_candidates(weight, scale, per_channel=bool(layer.per_channel))
    if not candidates or layer.weight_bit in candidates:
        return None
    return f"has {layer.weight_bit} bit weights, their scale says {in_words(candidates)} bit"
