"""Products of numbers -1 and +1 as counts of equal bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.analysis.integer_sums import FLOAT32_WHOLE
from qonnx_hub_ir.annotations import DATATYPE, annotate, annotations_of
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import attribute, is_standard, only_reader
from qonnx_hub_ir.graph.rewriting import rewrite_nodes


@dataclass(frozen=True)
class BipolarToXnor(InPlacePass):
    """Replace a MatMul of bipolar numbers by a count of equal bits, an affine step behind it.

    Before -> after (K is the length of the sums)::

        p = MultiThreshold{2, -1}(x);   y = MatMul(p, w)
        b = MultiThreshold{1, 0}(x);    y = Add(Mul(XnorPopcountMatMul(b, (w + 1) / 2), 2), -K)

    All numbers are whole and below 2**24, so that the values are the same bit for bit. Fires
    where both sides are annotated BIPOLAR, the weight holds -1 and +1 only, and the threshold
    has no other reader: its values change.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        return PassResult(model, modified=rewrite_nodes(model.graph, _rewrite, bodies=False))


def _rewrite(node: Node) -> bool:
    if not is_standard(node, "MatMul"):
        return False
    left, right = node.inputs
    weight = dialect.constant_value(right)
    if left is None or right is None or weight is None or weight.ndim != 2:
        return False
    threshold = left.producer()
    if threshold is None or not _is_bipolar_threshold(threshold) or not only_reader(left):
        return False
    if not (_says_bipolar(left) and _says_bipolar(right)):
        return False
    if not np.all(np.abs(weight) == 1) or weight.shape[0] >= FLOAT32_WHOLE:
        return False
    threshold.attributes["out_dtype"] = onnx_ir.AttrString("out_dtype", "BINARY")
    threshold.attributes["out_scale"] = onnx_ir.AttrFloat32("out_scale", 1.0)
    threshold.attributes["out_bias"] = onnx_ir.AttrFloat32("out_bias", 0.0)
    annotate(left, {DATATYPE: "BINARY"})
    emit, depth = Emitter(node), weight.shape[0]
    bits = emit.constant("bits", np.asarray((weight + 1) / 2, dtype=np.float32))
    annotate(bits, {DATATYPE: "BINARY"})
    counts = emit.custom("XnorPopcountMatMul", [left, bits], {})
    counts.type, counts.shape = node.outputs[0].type, node.outputs[0].shape
    annotate(counts, {DATATYPE: "UINT32"})
    two = emit.constant("two", np.asarray(2, dtype=np.float32))
    doubled = emit.add("Mul", [counts, two], node.outputs[0])
    length = emit.constant("length", np.asarray(-depth, dtype=np.float32))
    emit.replace_with(emit.add("Add", [doubled, length]))
    return True


def _is_bipolar_threshold(node: Node) -> bool:
    """Return whether there is one threshold per channel, and the results are -1 and +1."""
    table = dialect.constant_value(node.inputs[1]) if dialect.is_thresholds(node) else None
    return (
        table is not None
        and table.ndim == 2
        and table.shape[1] == 1
        and attribute(node, "out_scale", 1.0) == 2.0
        and attribute(node, "out_bias", 0.0) == -1.0
    )


def _says_bipolar(value: Value) -> bool:
    said = annotations_of(value).get(DATATYPE)
    maker = value.producer()
    declared = None if maker is None else attribute(maker, "out_dtype", None)
    return said == "BIPOLAR" or (said is None and declared == "BIPOLAR")
