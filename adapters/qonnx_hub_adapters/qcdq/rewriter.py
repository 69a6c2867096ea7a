"""Replaces QDQ chains of a graph by quantizers; what stays carries the reason."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx_ir import Graph, Model, Value

from qonnx_hub_adapters.qcdq.chains import Chain, trace
from qonnx_hub_adapters.qcdq.decodings import Decoding, decode
from qonnx_hub_adapters.qcdq.dialects import KEPT
from qonnx_hub_adapters.qcdq.float_forms import match_bipolar, match_integer, match_sign
from qonnx_hub_adapters.qcdq.origins import clip_of, remember, remember_another
from qonnx_hub_adapters.qcdq.parameters import NoMatchError
from qonnx_hub_adapters.qcdq.staircases import match_staircase
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.annotations import carry
from qonnx_hub_ir.graph.builder import Emitter, copy_node
from qonnx_hub_ir.graph.names import free_name
from qonnx_hub_ir.graph.queries import is_standard
from qonnx_hub_ir.operators import Family

LINEAR_OPERATORS = operators.names(family=Family.QUANTIZER)

Limits = Mapping[str, tuple[int, int]]
"""Name of a DequantizeLinear's output -> lowest and highest code of the constants it takes."""


class ChainRewriter:
    """Replaces chains by quantizers in one graph; chains from one source share theirs."""

    def __init__(self, graph: Graph, names: set[str]) -> None:
        """Take a graph, which may be a body.

        Args:
            graph: The graph.
            names: Names of all nodes of the model; those of new ones are added.
        """
        self.graph = graph
        self._made: dict[tuple[object, ...], Value] = {}
        self._names = names

    def rewrite_chains(self, limits: Limits) -> None:
        """Replace every chain that is one quantizer; note on the others why they are not."""
        for node in list(self.graph):
            if not is_standard(node, "DequantizeLinear"):
                continue
            try:
                chain = trace(node)
                decoding = decode(chain, limits.get(str(node.outputs[0].name)))
            except NoMatchError as reason:
                node.metadata_props[KEPT] = str(reason)
                continue
            self._replace(chain, decoding)

    def rewrite_float_forms(self) -> None:
        """Replace every quantizer that is written in float operators."""
        for node in reversed(list(self.graph)):
            if not any(out.uses() or out.is_graph_output() for out in node.outputs):
                # Left over from a form that ended further down.
                self.graph.remove(node, safe=True)
                continue
            known = match_bipolar(node) or match_sign(node) or match_integer(node)
            found = known or match_staircase(node)
            if isinstance(found, str):
                node.metadata_props[KEPT] = found
            elif found is not None:
                emit = Emitter(node)
                emit.replace_with(self._quantize(Decoding(*found), emit, str(node.name)))

    def _replace(self, chain: Chain, decoding: Decoding) -> None:
        node = chain.target
        emit = Emitter(node)
        # Decodings are one where the same integers are read in the same way.
        bounds = tuple((b.shape, b.tobytes()) for b in decoding.bounds or ())
        key = (chain.codes, decoding.quant, bounds, tuple(decoding.dynamic.items()))
        is_shared = key in self._made
        if not is_shared:
            self._made[key] = self._make(chain, decoding, emit)
        made = self._made[key]
        if is_shared and not chain.moves:
            remember_another(chain, made)
        for move in chain.moves:
            copy = copy_node(move, [made, *move.inputs[1:]], name=str(move.name))
            out = copy.outputs[0]
            out.name, out.type = f"{node.name}_{copy.name}_out", made.type
            node.prepend(copy)
            made = out
        if chain.moves or not is_shared:
            emit.replace_with(made)
        elif node.outputs[0].is_graph_output():
            emit.replace_with(emit.add("Identity", [made]))
        else:
            carry(node.outputs[0], made)
            node.outputs[0].replace_all_uses_with(made)
            self.graph.remove(node, safe=True)

    def _make(self, chain: Chain, decoding: Decoding, emit: Emitter) -> Value:
        name = str(chain.target.name).replace("DequantizeLinear", "Quant")
        made = self._quantize(decoding, emit, name)
        remember(chain, made)
        held = self._hold(decoding, emit, made, clip_of(chain))
        if chain.source is not None:
            # One value alone stands for the source's: what is within the bounds.
            held.metadata_props.update(chain.codes.metadata_props)
            carry(chain.codes, held)
        return held

    def _quantize(self, decoding: Decoding, emit: Emitter, name: str) -> Value:
        # The name of the node that goes is free.
        name = name if name == emit.node.name else free_name(name, self._names)
        x = decoding.x
        if isinstance(x, np.ndarray):
            x = dialect.add_initializer(self.graph, f"{name}_values", x)
        return emit.quantizer(x, decoding.quant, name=name, dynamic=decoding.dynamic)

    def _hold(self, decoding: Decoding, emit: Emitter, value: Value, name: str) -> Value:
        """Return the value clipped to the bounds, if there are any, by a node of that name."""
        if decoding.bounds is None:
            return value
        # Bounds that are alike everywhere are scalars: Clip takes nothing else.
        low, high = (
            bound.flat[0].reshape(()) if np.all(bound == bound.flat[0]) else bound
            for bound in decoding.bounds
        )
        ends = [emit.constant("low", low), emit.constant("high", high)]
        if low.size == 1 and high.size == 1:
            held = emit.add("Clip", [value, *ends], value)
            clip = held.producer()
            if name and clip is not None:
                clip.name = name  # that of the Clip of integers, which goes
        else:
            held = emit.add("Min", [emit.add("Max", [value, ends[0]]), ends[1]], value)
        return held


def note_kept(model: Model) -> None:
    """Write on every remaining QuantizeLinear and its relatives why they stay."""
    for node in model.graph.all_nodes():
        if node.domain != "" or node.op_type not in LINEAR_OPERATORS:
            continue
        if node.metadata_props.get(KEPT):
            continue
        if node.op_type == "DynamicQuantizeLinear":
            reason = "its scale and zero point are computed from its input at run time"
        elif any(value.is_graph_output() for value in node.outputs):
            reason = "its integers are an output of the graph"
        else:
            readers = {reader.op_type for out in node.outputs for reader in out.consumers()}
            reason = f"its integers go to {', '.join(sorted(readers))}"
        node.metadata_props[KEPT] = reason
