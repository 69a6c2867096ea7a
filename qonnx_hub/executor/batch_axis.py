"""The batch axis: running more samples than the file's batch holds, where that is proven safe.

Many exporters freeze batch 1. One rule per operator, over the whole graph, decides whether
such a graph keeps samples apart along the first axis; where a rule is missing or fails,
samples are computed one by one instead. Speed may be lost, correctness is not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub.executor.plan import Plan
from qonnx_hub.executor.planner import make_plan
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.dialect import ONNXRUNTIME_DOMAIN
from qonnx_hub_ir.errors import PassError, UsageError
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.graph.queries import attribute, input_of
from qonnx_hub_ir.graph.subgraphs import bodies
from qonnx_hub_ir.operators import Batch, Family
from qonnx_hub_ir.passes import InferShapes
from qonnx_hub_ir.quantizers import Array

OPENED = "qonnx_hub_batch"
"""Name of a first axis that the file freezes and the executor opens."""

_Rule = Callable[[Node, set[Value]], bool]
"""(node, values that keep samples apart) -> whether its outputs do."""

_Test = Callable[[Node], bool]
"""Whether the outputs keep samples apart where the first input alone does."""


class Batcher:
    """The batch axis of a model: whether it is free, and plans for any number of samples.

    Attributes:
        file_batch: Samples per run that the file asks for; 1 where it leaves that open.
        still: Names of the outputs asked for that depend on no input: they have no axis for
            samples.
    """

    def __init__(self, model: Model, outputs: Sequence[str] | None = None) -> None:
        """Read the batch that the file asks for.

        Args:
            model: A verified IR model.
            outputs: Names of the values that a run returns; the graph's outputs by default.
        """
        self._model = model
        first = [d for v in model.graph.inputs if isinstance(d := _first_dim(v), int)]
        self.file_batch = first[0] if first else 1
        self._outputs = None if outputs is None else tuple(outputs)
        self.still = frozenset(outputs or ()) - facts_of(model).dynamic

    @cached_property
    def free_shapes(self) -> Mapping[Node, Array] | None:
        """Shapes for Reshape nodes with which the model itself runs any number of samples.

        ``None`` where it mixes samples, or where only :attr:`wide_model` can tell.
        """
        shapes = self._shapes
        is_free = shapes is not None and self._keeps_apart(self._model, shapes)
        return shapes if is_free else None

    @cached_property
    def _shapes(self) -> Mapping[Node, Array] | None:
        if not _is_plain(self._model):
            return None
        shapes = _free_shapes(self._model, self.file_batch)
        computed = _computed_shapes(self._model)
        return None if shapes is None or computed is None else {**shapes, **computed}

    def is_apart(self) -> bool:
        """Return whether samples are proven to stay apart along the first axis."""
        if self._shapes is not None:
            return self.free_shapes is not None
        return self.wide_model is not None

    @cached_property
    def wide_model(self) -> Model | None:
        """The model for any number of samples, or ``None`` where none is right."""
        wide = _widen(self._model, self.file_batch)
        return wide if wide is not None and self._keeps_apart(wide, None) else None

    def widened(self, *, keep_all: bool) -> Plan | None:
        """Return a plan for any number of samples, or ``None`` where none is proven right."""
        if not self.is_apart():
            return None
        shapes = self.free_shapes
        model = self._model if shapes is not None else self.wide_model
        assert model is not None  # one of the two is what keeps samples apart
        outputs = self.values_of(model)
        return make_plan(model, keep_all=keep_all, outputs=outputs, shapes=shapes)

    def values_of(self, model: Model) -> Sequence[Value] | None:
        """Return the outputs asked for in a model; ``None`` where they are the graph's own.

        Raises:
            UsageError: The graph does not have one of them.
        """
        if self._outputs is None:
            return None
        own = {str(value.name): value for value in model.graph.outputs}
        known = {**own, **facts_of(model).values}
        unknown = [name for name in self._outputs if name not in known]
        if unknown:
            raise UsageError(f"the graph has no values {', '.join(unknown)} to return")
        return [known[name] for name in self._outputs]

    def _keeps_apart(self, model: Model, shapes: Mapping[Node, Array] | None) -> bool:
        outputs = self.values_of(model) or model.graph.outputs
        moving = [value for value in outputs if value.name not in self.still]
        return _keeps_samples_apart(model, moving, shapes)


def batcher_of(model: Model) -> Batcher:
    """Return the batcher of a model, made once."""
    return facts_of(model).remember("batcher", lambda: Batcher(model))


def _first_dim(value: Value | None) -> Any:
    return value.shape[0] if value is not None and value.shape else None


def _is_plain(model: Model) -> bool:
    """Return whether first axes follow from the shapes that the file has.

    They may not where nodes hold graphs or have outputs of several kinds; and shapes are
    trusted only as inference left them.
    """
    return facts_of(model).has_inferred_shapes and all(
        node.domain in {"", dialect.DOMAIN}
        and (len(node.outputs) == 1 or node.op_type == "Split")
        and not bodies(node)
        and node.op_type != "Resize"
        and all(value.shape is not None for value in node.outputs)
        for node in model.graph
    )


def _widen(model: Model, file_batch: int) -> Model | None:
    """Return a copy whose first axis is symbolic, or ``None`` where shapes forbid it."""
    shapes = _free_shapes(model, file_batch)
    if shapes is None:
        return None
    copy = model.clone()
    for node, twin in zip(model.graph, copy.graph, strict=True):
        if node in shapes:
            name = f"{node.name}_free_shape"
            shape = dialect.add_initializer(copy.graph, name, shapes[node])
            twin.replace_input_with(1, shape)
    for node in copy.graph:
        for value in node.outputs:
            value.shape = None
    for value in copy.graph.inputs:
        if value.shape is not None:
            value.shape = onnx_ir.Shape([OPENED, *list(value.shape)[1:]])
    try:
        InferShapes()(copy)
    except PassError:
        return None
    return copy


def _free_shapes(model: Model, file_batch: int) -> dict[Node, Array] | None:
    """Return shapes that copy the first axis, for Reshapes to the file's batch.

    ``None`` where a Reshape cannot be freed from that batch, or an input has no first axis.
    """
    if any(_first_dim(value) is None for value in model.graph.inputs):
        return None
    shapes: dict[Node, Array] = {}
    for node in model.graph:
        if node.op_type != "Reshape":
            continue
        target = dialect.constant_value(node.inputs[1])
        if target is None or target.size == 0:
            continue
        if attribute(node, "allowzero", 0):
            return None
        data = node.inputs[0]
        if int(target[0]) in (0, -1) or (data is not None and data.is_initializer()):
            continue
        if _first_dim(data) != file_batch or int(target[0]) != file_batch:
            return None
        shapes[node] = np.array([0, *target[1:]], dtype=np.int64)
    return shapes


_COPIED = -(1 << 62)
"""Stands for the size of the first axis among sizes that are computed."""


def _computed_shapes(model: Model) -> dict[Node, Array] | None:
    """Return shapes that copy the first axis, for Reshapes to sizes that the graph reads.

    ``None`` where sizes are more than picked and put together.
    """
    sizes: dict[Value, Array] = {}
    shapes: dict[Node, Array] = {}
    dynamic = facts_of(model).dynamic
    for node in model.graph:
        if node.op_type == "Reshape" and node.inputs[1] in sizes:
            target = sizes[node.inputs[1]]
            if attribute(node, "allowzero", 0) or _COPIED in target[1:]:
                return None
            shapes[node] = np.where(target == _COPIED, 0, target).astype(np.int64)
        elif node.op_type == "Shape" or any(value in sizes for value in node.inputs):
            found = _sizes_of(node, sizes, dynamic)
            if found is None:
                return None
            sizes[node.outputs[0]] = found
    return shapes


def _sizes_of(
    node: Node, sizes: Mapping[Value, Array], dynamic: Collection[str]
) -> Array | None:
    """Return the sizes that a node makes of known ones; ``None`` where that is not known."""
    data = node.inputs[0]
    if node.op_type == "Shape":
        if data is None or data.shape is None:
            return None
        dims = list(data.shape)
        if dims and data.name in dynamic:
            dims[0] = _COPIED
        if not all(isinstance(size, int) for size in dims):
            return None
        picked = np.array(dims, dtype=np.int64)
        return picked[attribute(node, "start", 0) : attribute(node, "end", None)]
    known = [
        dialect.constant_value(v) if v is None or v not in sizes else sizes[v]
        for v in node.inputs
    ]
    arrays = [array for array in known if array is not None and array.ndim < 2]
    if len(arrays) != len(known):
        return None
    if node.op_type == "Gather" and not attribute(node, "axis", 0) and arrays[0].ndim:
        return np.take(arrays[0], arrays[1].astype(np.int64))
    if node.op_type == "Concat":
        return np.concatenate(arrays)
    rank = _rank(node.outputs[0])
    if operators.reshapes(node) and arrays[0].size == 1 and rank in (0, 1):
        return arrays[0].reshape((1,) * rank)
    return arrays[0] if node.op_type == "Cast" or operators.is_identity(node) else None


def _keeps_samples_apart(
    model: Model, outputs: Iterable[Value], shapes: Mapping[Node, Array] | None
) -> bool:
    """Return whether samples that lie apart in the inputs lie apart in the outputs.

    Args:
        model: A model whose first axes are symbolic; with ``shapes``, one that is plain.
        outputs: The values that must keep samples apart.
        shapes: Shapes of Reshape nodes in a plain model, in place of their own.
    """
    apart: set[Value] = set(model.graph.inputs)
    from_shape: set[Value] = set()
    for node in model.graph:
        inputs = [v for v in node.inputs if v is not None]
        if any(v in from_shape for v in inputs) and not _is_shape_use(node, apart, from_shape):
            return False
        if node.op_type == "Shape" and inputs[0] in apart:
            from_shape.update(node.outputs)
            continue
        if not any(v in apart for v in inputs):
            if any(v in from_shape for v in inputs):
                from_shape.update(node.outputs)
            continue
        if not _keeps_apart(node, apart):
            return False
        if node.op_type == "Reshape" and not _copies_first_axis(node, shapes):
            return False
        if shapes is None and any(
            isinstance(_first_dim(v), int) for v in node.outputs if v.name
        ):
            return False
        apart.update(node.outputs)
    return all(v in apart for v in outputs)


def _copies_first_axis(node: Node, shapes: Mapping[Node, Array] | None) -> bool:
    """Return whether the first axis of a Reshape is proven to be that of its input."""
    if shapes is not None:
        target = shapes.get(node, dialect.constant_value(node.inputs[1]))
        return target is not None and target.size > 0 and int(target[0]) == 0
    before, after = _first_dim(node.inputs[0]), _first_dim(node.outputs[0])
    return after is not None and str(after) == str(before) and str(after) != "None"


def _is_shape_use(node: Node, apart: set[Value], from_shape: set[Value]) -> bool:
    """Return whether values computed from a shape are used as nothing but a shape."""
    if node.op_type == "Reshape":
        return node.inputs[0] not in from_shape and node.inputs[1] in from_shape
    known = operators.is_elementwise(node) or operators.moves_values(node)
    return known and not any(v in apart for v in node.inputs)


def _rank(value: Value | None) -> int:
    return -1 if value is None or value.shape is None else len(value.shape)


def _broadcasts(node: Node, operands: Iterable[Value | None], apart: set[Value]) -> bool:
    rank = _rank(node.outputs[0])
    for value in operands:
        if value is None:
            continue
        if value in apart:
            if _rank(value) != rank:
                return False
        elif _rank(value) < 0 or (_rank(value) == rank and _first_dim(value) != 1):
            return False
    return rank > 0


def _matmul(node: Node, apart: set[Value]) -> bool:
    left, right = node.inputs[:2]
    if left in apart and right in apart:
        return _rank(left) == _rank(right) and _rank(left) > 2
    if left in apart:
        return _rank(left) >= 2 and 0 < _rank(right) <= 2
    return _rank(right) > 2 and 0 < _rank(left) <= 2


def _gather(node: Node, apart: set[Value]) -> bool:
    data, indices = node.inputs[:2]
    if indices in apart and data not in apart:
        return int(attribute(node, "axis", 0)) == 0 and _rank(indices) > 0
    return _only_first_input(node, apart) and _other_axis(node)


def _integer_pair(node: Node, apart: set[Value]) -> bool:
    """Keep apart the samples of two operands, each followed by its scale and zero point."""
    operands = [node.inputs[0], node.inputs[3]]
    parameters = [v for i, v in enumerate(node.inputs) if i not in (0, 3)]
    return not any(v in apart for v in parameters) and _broadcasts(node, operands, apart)


def _concat(operands: slice) -> _Rule:
    """Return the rule of a concatenation of some of a node's inputs."""

    def rule(node: Node, apart: set[Value]) -> bool:
        rank = _rank(node.outputs[0])
        all_apart = all(v in apart for v in node.inputs[operands])
        return all_apart and rank > 1 and int(attribute(node, "axis", 0)) not in (0, -rank)

    return rule


def _only_first_input(node: Node, apart: set[Value]) -> bool:
    return node.inputs[0] in apart and not any(v in apart for v in node.inputs[1:])


def _gemm_with_bias_at(position: int) -> _Test:
    def test(node: Node) -> bool:
        bias = input_of(node, position)
        flat_bias = bias is None or _rank(bias) in (0, 1) or _first_dim(bias) == 1
        return not attribute(node, "transA", 0) and flat_bias

    return test


def _other_axis(node: Node) -> bool:
    rank, axis = _rank(node.inputs[0]), attribute(node, "axis", operators.default_axis(node))
    return rank > 1 and axis is not None and int(axis) not in (0, -rank)


def _other_axes(node: Node) -> bool:
    index = operators.axes_input(node)
    axes = None if index is None else dialect.constant_value(input_of(node, index))
    rank = max(_rank(node.inputs[0]), _rank(node.outputs[0]))
    if axes is None or axes.size == 0 or rank < 1:
        return False
    return 0 not in {int(a) % rank for a in axes.reshape(-1)}


def _pad(node: Node) -> bool:
    pads, rank = dialect.constant_value(input_of(node, 1)), _rank(node.inputs[0])
    if pads is None or input_of(node, 3) is not None or pads.size != 2 * rank:
        return False
    return int(pads[0]) == 0 and int(pads[rank]) == 0


def _resize(node: Node) -> bool:
    scales = dialect.constant_value(input_of(node, 2))
    if scales is None or scales.size != _rank(node.inputs[0]) or input_of(node, 3) is not None:
        return False
    # Axes may name the batch at any place, and a crop cuts the batch at any scale.
    crops = attribute(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize"
    return attribute(node, "axes", None) is None and not crops and float(scales[0]) == 1.0


def _integer_product(right: int, *parameters: int) -> _Test:
    """Return the rule of a product of integers, of a matrix or more by a matrix.

    Args:
        right: Position of the right factor.
        parameters: Positions of what could be given row by row of the left factor.
    """

    def test(node: Node) -> bool:
        given = [value for i in parameters if (value := input_of(node, i)) is not None]
        return (
            _rank(node.inputs[0]) >= 2
            and 0 < _rank(node.inputs[right]) <= 2
            and all(_rank(value) == 0 for value in given)
        )

    return test


def _quantize_linear(node: Node) -> bool:
    per_tensor = _rank(node.inputs[1]) == 0 or _first_dim(node.inputs[1]) == 1
    rank = _rank(node.inputs[0])
    other_axis = rank > 1 and int(attribute(node, "axis", 1)) not in (0, -rank)
    return not attribute(node, "block_size", 0) and (per_tensor or other_axis)


_RULES: Mapping[tuple[str, str], _Rule] = {
    **{
        (row.domain, row.name): _integer_pair
        for row in operators.where(domain=ONNXRUNTIME_DOMAIN, family=Family.ARITHMETIC)
    },
    ("", "Concat"): _concat(slice(None)),
    ("", "Gather"): _gather,
    ("", "MatMul"): _matmul,
    (ONNXRUNTIME_DOMAIN, "QLinearConcat"): _concat(slice(2, None, 3)),
}
"""Operators that may keep apart the samples of more inputs than the first."""

_TESTS: Mapping[tuple[str, str], _Test] = {
    **{
        (row.domain, row.name): _quantize_linear
        for row in operators.where(lambda row: row.axis, domain=None, family=Family.QUANTIZER)
    },
    ("", "Flatten"): lambda node: int(attribute(node, "axis", 1)) == 1,
    ("", "Gemm"): _gemm_with_bias_at(2),
    ("", "MatMulInteger"): _integer_product(1, 2),
    ("", "Pad"): _pad,
    ("", "QLinearMatMul"): _integer_product(3, 1, 2, 6, 7),
    ("", "Reshape"): lambda node: True,
    ("", "Resize"): _resize,
    ("", "Transpose"): lambda node: list(attribute(node, "perm", ()))[:1] == [0],
    (ONNXRUNTIME_DOMAIN, "MatMulIntegerToFloat"): _integer_product(1, 2, 4),
    (ONNXRUNTIME_DOMAIN, "QGemm"): _gemm_with_bias_at(6),
}
"""Operators that keep apart the samples of their first input where a test holds."""

_BY_BATCH: Mapping[Batch, _Test] = {
    Batch.FIRST_INPUT: lambda node: True,
    Batch.OTHER_AXIS: _other_axis,
    Batch.OTHER_AXES: _other_axes,
}
"""The tests of all other operators, by the batch rule of the table of operators."""


def _keeps_apart(node: Node, apart: set[Value]) -> bool:
    """Return whether a node keeps apart the samples that lie apart in its inputs."""
    key = node.domain, node.op_type
    if key in _RULES:
        return _RULES[key](node, apart)
    batch = operators.batch_rule(node)
    if key not in _TESTS and batch is Batch.BROADCAST:
        return operators.is_elementwise(node) and _broadcasts(node, node.inputs, apart)
    test = _TESTS.get(key) or _BY_BATCH.get(batch)
    return test is not None and _only_first_input(node, apart) and test(node)
