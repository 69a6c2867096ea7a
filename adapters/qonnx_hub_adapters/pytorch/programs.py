"""Exported programs: their quantizers become markers, each with what is known about it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from qonnx_hub_adapters.dependencies import quiet
from qonnx_hub_adapters.pytorch.affine import Affine, codes, values
from qonnx_hub_adapters.pytorch.constants import Constants, writes_into
from qonnx_hub_adapters.pytorch.fake_quant import (
    DEQUANTIZE,
    FAKE,
    QUANTIZE,
    Reading,
    UnreadableError,
    arguments,
    operator_name,
    read,
)
from qonnx_hub_adapters.pytorch.markers import marker
from qonnx_hub_adapters.pytorch.naming import Names
from qonnx_hub_adapters.torch_common.modules import array_of
from qonnx_hub_ir.errors import Gap, UnsupportedGraphError
from qonnx_hub_ir.quantizers import Array

_ASSERTIONS = frozenset({"aten::_assert_tensor_metadata"})
"""Notes of torch's own tracing, which compute nothing."""


@dataclass(frozen=True, slots=True)
class MarkedQuantizer:
    """One quantizer of a program.

    Attributes:
        affine: What it does.
        stored: The quantized values, where they are the same for all inputs, as torch computes
            them.
    """

    affine: Affine
    stored: Array | None = None


@dataclass(frozen=True, slots=True)
class MarkedProgram:
    """A program whose quantizers are markers.

    Attributes:
        program: The ExportedProgram.
        found: Key of a marker -> its quantizer.
    """

    program: Any
    found: Mapping[str, MarkedQuantizer]


def mark(program: Any, torch: Any) -> MarkedProgram:
    """Return a copy of an exported program with markers for quantizers.

    Raises:
        UnsupportedGraphError: Quantizers, or other parts, that cannot be read; all of them.
    """
    with quiet():
        own = copy.deepcopy(program)
    work = _Marking(own, torch)
    work.drop_statistics()
    work.mark_all()
    if work.gaps:
        raise UnsupportedGraphError("parts of the model cannot be converted:", work.gaps)
    own.graph_module.recompile()
    return MarkedProgram(own, work.found)


class _Marking:
    """The work on one program, changed in place."""

    def __init__(self, program: Any, torch: Any) -> None:
        self.torch = torch
        self.graph = program.graph
        self.constants = Constants(program, torch)
        self.names = Names(program)
        self.found: dict[str, MarkedQuantizer] = {}
        self.gaps: list[Gap] = []

    def drop_statistics(self) -> None:
        """Remove what only counts or averages for training; list what else has a state."""
        for node in reversed(list(self.graph.nodes)):
            if operator_name(node) in _ASSERTIONS and not node.users:
                self.graph.erase_node(node)
        for node in list(self.graph.nodes):
            written = writes_into(node)
            if written is None or written.op != "placeholder":
                continue
            name = self.names.tensor(written)
            if set(written.users) == {node} and not node.users and name:
                self.graph.erase_node(node)
            else:
                reason = f"writes into '{name or written.name}': a graph keeps no state"
                self._gap(node, reason)

    def mark_all(self) -> None:
        """Replace every quantizer; list what cannot be replaced."""
        for node in list(self.graph.nodes):
            name = operator_name(node)
            try:
                if name in FAKE:
                    self._fake(node)
                elif name in DEQUANTIZE:
                    self._dequantize(node)
                elif name in QUANTIZE:
                    self._require_paired(node)
                else:
                    self._require_inference(node, name)
            except UnreadableError as error:
                self._gap(node, str(error))
        # The last readers first: what they read may be left without a reader by then.
        for node in reversed(list(self.graph.nodes)):
            if operator_name(node) in FAKE | QUANTIZE | DEQUANTIZE and not node.users:
                self.graph.erase_node(node)

    def _fake(self, node: Any) -> None:
        result = _first_output(node)
        if result is None:
            return
        reading = read(node, self.constants.tensor)
        if reading.affine is None:
            result.replace_all_uses_with(reading.x)
            return
        self._replace(result, reading, node)

    def _dequantize(self, node: Any) -> None:
        if self.constants.tensor(node) is not None:
            reading = read(node, self.constants.tensor)
            self._replace(node, reading, node)
            return
        source = arguments(node)["x"]
        if operator_name(source) not in QUANTIZE:
            raise UnreadableError(
                "reads integers that no quantize operator writes: between quantize and "
                "dequantize nothing may stand"
            )
        into = read(source, self.constants.tensor)
        out = read(node, self.constants.tensor)
        # How their scales were given may differ, and with it what torch multiplies with.
        first, second = into.affine, out.affine
        if first is None or second is None or replace(first, inverse=second.inverse) != second:
            raise UnreadableError("has other parameters than the quantize operator before it")
        self._replace(node, into, source)

    def _require_paired(self, node: Any) -> None:
        if self.constants.tensor(node) is not None:
            return
        others = [user for user in node.users if operator_name(user) not in DEQUANTIZE]
        if others or not node.users:
            by = f"{operator_name(others[0])} '{others[0].name}'" if others else "the output"
            raise UnreadableError(f"its integers are read by {by}, not by dequantize")

    def _require_inference(self, node: Any, name: str) -> None:
        if node.op != "call_function" or not name:
            return
        if name.startswith("aten::") and "batch_norm" in name:
            if arguments(node).get("training", arguments(node).get("train")) is True:
                raise UnreadableError(
                    "normalizes by the statistics of the batch: export the program in "
                    "evaluation mode"
                )
        elif _is_random(node, self.torch):
            raise UnreadableError("draws random values: export the program in evaluation mode")
        elif name.startswith("quantized_decomposed::choose_qparams"):
            raise UnreadableError(
                "chooses scales at run time; only static ones can be converted"
            )

    def _replace(self, node: Any, reading: Reading, source: Any) -> None:
        """Replace a node by a marker."""
        if reading.affine is None:
            raise UnreadableError("a dequantize operator cannot be switched off")
        dtype = node.meta["val"].dtype
        if dtype != self.torch.float32:
            raise UnreadableError(f"gives {dtype}; only float32 models can be converted")
        stored = self._stored(node, reading.x, reading.affine)
        key = self.names.quantizer(node, reading.x, source, constant=stored is not None)
        self.found[key] = MarkedQuantizer(reading.affine, stored)
        with self.graph.inserting_before(node):
            fresh = self.graph.call_function(marker(self.torch), (reading.x, key))
        fresh.meta = dict(node.meta)
        node.replace_all_uses_with(fresh)

    def _stored(self, node: Any, x: Any, affine: Affine) -> Array | None:
        """Return the quantized values of a constant, ``None`` for what depends on inputs."""
        result = self.constants.tensor(node)
        if result is not None:
            return array_of(result)
        given = self.constants.tensor(x)
        # An operator that could also update its observer is not run for its result.
        return None if given is None else values(codes(array_of(given), affine), affine)

    def _gap(self, node: Any, reason: str) -> None:
        self.gaps.append(Gap(self.names.node(node), str(node.target), reason))


def _first_output(node: Any) -> Any:
    """Return what gives the quantized values: the node, or the first of its two outputs.

    Raises:
        UnreadableError: The other output, which gradients need, is read.
    """
    if not operator_name(node).endswith(("_cachemask", "_cachemask_tensor_qparams")):
        return node
    chosen = None
    for user in list(node.users):
        if user.args[1] != 0:
            raise UnreadableError("its mask is read, which is made for gradients")
        chosen = user
    return chosen


def _is_random(node: Any, torch: Any) -> bool:
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    given = arguments(node)
    # Attention and dropout draw only in training.
    if given.get("train", given.get("training")) is False:
        return False
    return float(given.get("dropout_p", given.get("p", 1.0)) or 0.0) > 0
