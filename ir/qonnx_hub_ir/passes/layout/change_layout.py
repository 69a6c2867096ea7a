"""Inputs and outputs of images, channels first or channels last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from onnx_ir import Model, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir.analysis.image_layout import layout_made, layout_read
from qonnx_hub_ir.annotations import carry, permute_layout
from qonnx_hub_ir.choices import ImageLayout
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.builder import transpose_node
from qonnx_hub_ir.graph.names import free_name, value_names
from qonnx_hub_ir.graph.permutations import Perm, inverse, permuted, to_first, to_last
from qonnx_hub_ir.passes.cleanup.drop_unused import DropUnused
from qonnx_hub_ir.passes.layout.fold_weight_layout import FoldWeightLayout
from qonnx_hub_ir.passes.layout.sink_transposes import SinkTransposes
from qonnx_hub_ir.passes.shapes.infer_shapes import InferShapes

LAYOUTS: tuple[str, ...] = get_args(ImageLayout)


@dataclass(frozen=True)
class ChangeLayout(InPlacePass):
    """Convert a model's image inputs and outputs to channels first, or to channels last.

    Before -> after (``nchw``, a model that takes its images channels last)::

        y = Conv(Transpose{0,3,1,2}(x[N, H, W, C]), w)
        y = Conv(x[N, C, H, W], w)

    A Transpose is put at each end of rank 4, and those that meet their inverse inside are
    cancelled. An end that the graph reads or makes in that layout already stays as it is; one
    of which the graph tells nothing is taken for the other. Does not fire with ``keep``.

    Attributes:
        layout: "nchw", "nhwc" or "keep".
        inputs: Names of the inputs to convert; all of rank 4 by default.
        outputs: Names of the outputs to convert; all of rank 4 by default.

    Raises:
        PassError: No such layout, or a name that is no input or output of rank 4.
    """

    effect = Effect.SIGNATURE

    layout: str
    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        if self.layout not in LAYOUTS:
            raise PassError(f"unknown layout '{self.layout}'; there are: {', '.join(LAYOUTS)}")
        if self.layout == "keep":
            return PassResult(model, modified=False)
        wanted = to_first(4) if self.layout == "nchw" else to_last(4)
        inputs = _chosen(list(model.graph.inputs), self.inputs, "input")
        outputs = _chosen(list(model.graph.outputs), self.outputs, "output")
        InferShapes()(model)
        inputs = [value for value in inputs if layout_read(value) != self.layout]
        outputs = [value for value in outputs if layout_made(value) != self.layout]
        for value in inputs:
            transpose_input(model, value, wanted)
        for value in outputs:
            transpose_output(model, value, wanted)
        for step in (SinkTransposes(), FoldWeightLayout(), DropUnused(), InferShapes()):
            step(model)
        return PassResult(model, modified=bool(inputs or outputs))


def _chosen(values: list[Value], names: tuple[str, ...] | None, kind: str) -> list[Value]:
    images = {str(v.name): v for v in values if v.shape is not None and len(v.shape) == 4}
    if names is None:
        return list(images.values())
    missing = [name for name in names if name not in images]
    if missing:
        known = ", ".join(images) or "none"
        raise PassError(
            f"no {kind} of rank 4 is called {', '.join(missing)}; there are: {known}"
        )
    return [images[name] for name in names]


def transpose_input(model: Model, value: Value, perm: Perm) -> None:
    """Let an input hold its axes in another order; what reads it gets them as before.

    Args:
        model: The model, changed in place.
        value: One of its inputs.
        perm: New axis -> axis of today.
    """
    usages = [(usage.node, usage.idx) for usage in value.uses()]
    node = transpose_node(value, inverse(perm), f"{value.name}_layout")
    node.outputs[0].name = free_name(f"{value.name}_turned", value_names(model.graph))
    node.outputs[0].shape = value.shape
    value.shape = permuted(value.shape, perm)
    carry(value, node.outputs[0])
    permute_layout(value, perm)
    graph = model.graph
    if len(graph):
        graph.insert_before(graph[0], node)
    else:
        graph.append(node)
    for user, index in usages:
        user.replace_input_with(index, node.outputs[0])


def transpose_output(model: Model, value: Value, perm: Perm) -> None:
    """Let an output hold its axes in another order.

    Args:
        model: The model, changed in place.
        value: One of its outputs.
        perm: New axis -> axis of today.
    """
    graph, name = model.graph, value.name
    node = transpose_node(value, perm, f"{name}_layout")
    fresh = node.outputs[0]
    fresh.shape = permuted(value.shape, perm)
    fresh.metadata_props.update(value.metadata_props)
    graph.append(node)
    if not value.is_graph_input():
        value.name = free_name(f"{name}_before", value_names(graph))
    fresh.name = name
    graph.outputs[:] = [fresh if output is value else output for output in graph.outputs]
