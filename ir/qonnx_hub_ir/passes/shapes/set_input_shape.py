"""The shape of an input."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir
from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.constants import constant_shape
from qonnx_hub_ir.graph.queries import attribute, dims, is_standard
from qonnx_hub_ir.passes.shapes.change_batch import ChangeBatch
from qonnx_hub_ir.passes.shapes.infer_shapes import InferShapes


@dataclass(frozen=True)
class SetInputShape(InPlacePass):
    """Give an input other sizes, and infer what follows from them.

    Before -> after (``shape=1,3,64,64``): ``x[1, 3, 32, 32]`` -> ``x[1, 3, 64, 64]``.

    The first axis is changed as the batch of the whole model, by :class:`ChangeBatch`. Other
    sizes must fit what the graph has written down: weights, shapes of Reshape. Does not fire
    where the input has that shape already.

    Attributes:
        shape: The sizes, as many as the input has axes.
        input: Name of the input; the first one by default.

    Raises:
        PassError: No such input, another number of axes, sizes below 1 or that do not fit the
            model. The model is left as it was.
    """

    effect = Effect.SIGNATURE

    shape: tuple[int, ...]
    input: str = ""

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        value = _input(model, self.input)
        own = dims(value)
        if own == self.shape:
            return PassResult(model, modified=False)
        if own is None or len(own) != len(self.shape) or any(size < 1 for size in self.shape):
            raise PassError(f"input '{value.name}' has the sizes {own}, not {self.shape}")
        _change(model.clone(), str(value.name), self.shape)
        _change(model, str(value.name), self.shape)
        return PassResult(model, modified=True)


def _input(model: Model, name: str) -> Value:
    inputs = {str(value.name): value for value in model.graph.inputs}
    if name and name not in inputs:
        raise PassError(f"no input is called '{name}'; there are: {', '.join(inputs)}")
    if not inputs:
        raise PassError("the model has no input")
    return inputs[name] if name else next(iter(inputs.values()))


def _change(model: Model, name: str, shape: tuple[int, ...]) -> None:
    value = _input(model, name)
    own = dims(value) or ()
    if own[0] != shape[0]:
        ChangeBatch(shape[0])(model)
    value.shape = onnx_ir.Shape(shape)
    for node in model.graph.all_nodes():
        for made in node.outputs:
            made.shape = None
    try:
        InferShapes()(model)
    except PassError as error:
        told = f"input '{name}' cannot have the sizes {list(shape)}: {error}"
        raise PassError(told) from error
    for node in model.graph.all_nodes():
        if (problem := _channel_problem(node)) is not None:
            raise PassError(f"input '{name}' cannot have the sizes {list(shape)}: {problem}")


def _channel_problem(node: Node) -> str | None:
    """Return why a convolution cannot read its input: inference does not look at channels."""
    if not is_standard(node, "Conv"):
        return None
    sizes, weight = dims(node.inputs[0]), constant_shape(node.inputs[1])
    if not sizes or weight is None or not isinstance(sizes[1], int):
        return None
    needed = weight[1] * int(attribute(node, "group", 1))
    if sizes[1] == needed:
        return None
    return f"Conv '{node.name}' reads {needed} channels, not {sizes[1]}"
