"""Clean-up of graphs that tf2onnx wrote."""

from __future__ import annotations

import onnx_ir
from onnx_ir import Model, Node

from qonnx_hub_adapters.qkeras.convolutions import flatten_convolutions, fuse_bias
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter, transpose_node
from qonnx_hub_ir.graph.permutations import Perm
from qonnx_hub_ir.graph.queries import Dims, attribute, dims, input_of, is_standard
from qonnx_hub_ir.graph.rewriting import bypass, replace_node
from qonnx_hub_ir.passes import (
    DropUnused,
    FoldConstants,
    FoldWeightLayout,
    InferShapes,
    NameNodes,
    RemoveIdentity,
    SinkTransposes,
    run_passes,
)
from qonnx_hub_ir.quantizers import Array, is_whole

_TF_NEAREST = "tf_half_pixel_for_nn"
"""A coordinate mode that tf2onnx still writes and ONNX dropped at opset 13."""


def mend_resize(model: Model) -> None:
    """Write nearest-neighbour resizing with attributes that every ONNX reader knows.

    TensorFlow takes element ``floor((i + 1/2) * n_in / n_out)``: for whole factors that is
    "asymmetric" with "floor", which hardware tools look for; otherwise it is "half_pixel"
    rounded half up.
    """
    for node in model.graph.all_nodes():
        mode = attribute(node, "coordinate_transformation_mode", "")
        if node.op_type != "Resize" or mode != _TF_NEAREST:
            continue
        scales = dialect.constant_value(input_of(node, 2))
        whole = scales is not None and scales.size and is_whole(scales) and scales.min() >= 1
        modes = ("asymmetric", "floor") if whole else ("half_pixel", "round_prefer_ceil")
        names = ("coordinate_transformation_mode", "nearest_mode")
        for name, mode_name in zip(names, modes, strict=True):
            node.attributes[name] = onnx_ir.AttrString(name, mode_name)


def mend_transposed_convolutions(model: Model) -> None:
    """Say by output padding what tf2onnx says by negative pads behind.

    Before -> after: ``ConvTranspose{pads=[0, 0, -1, -1]}`` -> ``{pads=[0, 0, 0, 0],
    output_padding=[1, 1]}``: where the kernel is smaller than the stride, zeros are added.
    """
    for node in model.graph.all_nodes():
        is_one = is_standard(node, "ConvTranspose")
        pads = list(attribute(node, "pads", ())) if is_one else []
        ends = pads[len(pads) // 2 :]
        if all(end >= 0 for end in ends):
            continue
        more = attribute(node, "output_padding", [0] * len(ends))
        kept = [*pads[: len(ends)], *(max(end, 0) for end in ends)]
        added = [one + max(-end, 0) for one, end in zip(more, ends, strict=True)]
        node.attributes["pads"] = onnx_ir.AttrInt64s("pads", kept)
        node.attributes["output_padding"] = onnx_ir.AttrInt64s("output_padding", added)


def separate_results(model: Model) -> None:
    """Give every result of a loop's body a value of its own.

    Before -> after: a body that returns its state ``h`` twice, as state and as output, returns
    ``h`` and ``Identity(h)``. ONNX does not define a name that is returned twice, and
    readers that keep results by name lose one.
    """
    for graph in model.graph.subgraphs():
        seen: set[str] = set()
        for index, value in enumerate(graph.outputs):
            if value.name not in seen:
                seen.add(str(value.name))
                continue
            node = Node("", "Identity", [value], name=f"{value.name}_again_{index}")
            fresh = node.outputs[0]
            fresh.name, fresh.type, fresh.shape = f"{node.name}_out", value.type, value.shape
            graph.append(node)
            graph.outputs[index] = fresh


def restore_transposes(model: Model) -> None:
    """Turn a Reshape that only moves an axis of length 1 back into the Transpose it was.

    Before -> after: ``Reshape(x[N, 9, 9, 1], [-1, 1, 9, 9])`` -> ``Transpose{0,3,1,2}(x)``.
    tf2onnx does the opposite, and the Reshape stands in the way of everything.
    """
    for node in list(model.graph):
        source = input_of(node, 0)
        if node.op_type != "Reshape" or source is None or source.shape is None:
            continue
        target = dialect.constant_value(node.inputs[1])
        perm = _moved_axis(list(source.shape), target)
        if perm is None:
            continue
        fresh = transpose_node(source, perm, str(node.name))
        node.prepend(fresh)
        replace_node(node, fresh.outputs[0])


def _moved_axis(before: list[object], target: Array | None) -> Perm | None:
    """Return the permutation between the layouts of images that a Reshape amounts to."""
    if target is None or target.size != 4 or len(before) != 4:
        return None
    for perm, one in (((0, 3, 1, 2), 3), ((0, 2, 3, 1), 1)):
        if before[one] != 1:
            continue
        sizes = [before[axis] for axis in perm]
        wanted = [int(size) for size in target.reshape(-1)]
        open_axes = [i for i, size in enumerate(sizes) if not isinstance(size, int)]
        fits = [
            size in (-1, 0) if i in open_axes else size in (-1, sizes[i])
            for i, size in enumerate(wanted)
        ]
        if open_axes in ([], [0]) and all(fits):
            return perm
    return None


def straighten_reshapes(model: Model) -> None:
    """Give every Reshape whose result is known the shape as a constant, or remove it.

    Before -> after: ``Reshape(x[batch, 6], Concat(Gather(Shape(x)), ...))`` of result
    [batch, 6] -> ``x``; of result [batch, 2, 3] -> ``Reshape(x, [-1, 2, 3])``. Keras 3
    computes its shapes at run time, although only the batch is open.
    """
    while sum(map(_straighten, [n for n in model.graph if n.op_type == "Reshape"])):
        InferShapes()(model)


def _straighten(node: Node) -> bool:
    """Give one Reshape a constant shape, or remove it; return whether shapes may follow."""
    source, emit = node.inputs[0], Emitter(node)
    before, after = dims(source), dims(node.outputs[0])
    if source is None or after is None or 0 in after:
        return False
    if sum(not isinstance(size, int) for size in after) > 1:
        return False
    if before is not None and _are_same(before, after):
        # A graph output keeps its name, and the value before it its layer's.
        if node.outputs[0].is_graph_output():
            emit.replace_with(emit.add("Identity", [source]))
        else:
            bypass(node, source)
        return False
    sizes = [size if isinstance(size, int) else -1 for size in after]
    known = dialect.constant_value(node.inputs[1])
    given = node.attributes.pop("allowzero", None)
    if given is None and known is not None and known.tolist() == sizes:
        return False
    node.replace_input_with(1, emit.integers("shape", sizes))
    return True


def _are_same(before: Dims, after: Dims) -> bool:
    """Return whether two shapes of the same number of elements are one."""
    open_axes = [not isinstance(size, int) for size in before]
    if len(before) != len(after) or sum(open_axes) > 1:
        return False
    return all(
        is_open if not isinstance(new, int) else new == old
        for old, new, is_open in zip(before, after, open_axes, strict=True)
    )


def clean_up(model: Model) -> None:
    """Remove what the way through TensorFlow left behind; values stay bit for bit."""
    run_passes(model, [RemoveIdentity()])
    straighten_reshapes(model)
    restore_transposes(model)
    run_passes(
        model,
        [
            DropUnused(),  # what only computed shapes still reads images channels last
            FoldWeightLayout(),  # kernels in the layout of Conv, quantizer in front
            SinkTransposes(),  # pairs around activations meet and go
            FoldWeightLayout(),  # biases that a Transpose went past
            InferShapes(),
        ],
    )
    flatten_convolutions(model)
    # The Transposes of one-dimensional convolutions meet only now.
    run_passes(model, [FoldWeightLayout(), SinkTransposes(), FoldWeightLayout()])
    fuse_bias(model)
    run_passes(
        model,
        [
            FoldWeightLayout(),
            FoldConstants(),  # constants that the passes before made
            RemoveIdentity(),
            DropUnused(),
            NameNodes(),
            InferShapes(),
        ],
    )
