"""Types and shapes of every value, through quantizers that ONNX does not know."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx.shape_inference
import onnx_ir
from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import AddDefaultAttributesPass

from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.detach_weights import detach_weights
from qonnx_hub_ir.lowering import im2col
from qonnx_hub_ir.passes.layout.lower_channels_last import LowerChannelsLast
from qonnx_hub_ir.passes.shapes.onnxruntime_shapes import stand_in


@dataclass(frozen=True)
class InferShapes(InPlacePass):
    """Fill in type and shape of every value that ONNX's inference can tell.

    A quantizer has the type and shape of its first input; a channels-last operator those of
    its standard twin between two Transposes; onnxruntime's own operators those of the float
    operators that they stand for. What a value already says is kept where the
    inference knows nothing more. Weights are not copied.

    Before -> after: ``Quant`` output without value_info -> float32, shape of its input.

    Raises:
        PassError: Types or shapes contradict each other; the message is ONNX's own.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        skeleton = _skeleton(model)
        try:
            inferred = onnx.shape_inference.infer_shapes(
                skeleton, check_type=True, strict_mode=True, data_prop=True
            )
        except onnx.shape_inference.InferenceError as error:
            raise PassError(f"shapes do not fit together: {str(error).strip()}") from error
        return PassResult(model, modified=_take_over(model, inferred))


def _skeleton(model: Model) -> onnx.ModelProto:
    """Return a proto in which only standard operators and small constants are left."""
    copy = model.clone()
    LowerChannelsLast()(copy)
    for node in list(copy.graph.all_nodes()):
        if dialect.is_quantizer(node) or dialect.is_thresholds(node):
            _make_identity(node)
        stand_in(node)
        im2col.stand_in(node)
        for value in node.outputs:
            # What the file claims may be stale; the inference starts from the inputs alone.
            value.shape = None
    detach_weights(copy)
    # Inference through the body of a function operator stumbles over attributes left out.
    AddDefaultAttributesPass()(copy)
    return onnx_ir.to_proto(copy)


def _make_identity(node: Node) -> None:
    node.resize_inputs(1)
    node.attributes.clear()
    node.domain, node.op_type = "", "Identity"


def _take_over(model: Model, inferred: onnx.ModelProto) -> bool:
    known = {info.name: info for info in inferred.graph.value_info}
    known.update({info.name: info for info in inferred.graph.output})
    modified = False
    for node in model.graph:
        for value in node.outputs:
            info = known.get(str(value.name))
            if info is None or not info.type.HasField("tensor_type"):
                continue
            before = (value.type, value.shape)
            source = onnx_ir.serde.deserialize_value_info_proto(info, None)
            value.type = source.type or value.type
            value.shape = _sharper(value.shape, source.shape)
            modified |= before != (value.type, value.shape)
    return modified


def _sharper(old: onnx_ir.Shape | None, new: onnx_ir.Shape | None) -> onnx_ir.Shape | None:
    """Return the inferred shape, with dimensions that only the file knew."""
    if new is None or old is None or len(old) != len(new):
        return new if new is not None else old
    dims = [
        theirs if isinstance(theirs, int) or not isinstance(ours, int) else ours
        for ours, theirs in zip(old, new, strict=True)
    ]
    return onnx_ir.Shape(dims)
