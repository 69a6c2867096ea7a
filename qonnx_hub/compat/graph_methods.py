"""What the qonnx package's ModelWrapper answers about a ModelProto, without that package."""

from __future__ import annotations

import ast
import copy
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    ValueInfoProto,
    helper,
    numpy_helper,
    serialization,
)

from qonnx_hub.compat.data_types import datatype_class
from qonnx_hub.compat.pass_runs import run_pass
from qonnx_hub.io.atomic import replacing
from qonnx_hub_adapters.dependencies import require
from qonnx_hub_ir.annotations import DATATYPE, LAYOUT, SPARSITY
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.quantizers import Array

_ROUNDS = 1000
"""A transformation that changes something every time is stopped after so many."""


class GraphMethods:
    """A ModelProto with questions and changes by tensor name; nodes are changed in place.

    Names, parameters and answers are those of ``qonnx.core.modelwrapper.ModelWrapper``.

    Attributes:
        model: The ModelProto.
        fix_float64: Whether float64 constants become float32 before every transformation.
    """

    def __init__(
        self,
        model: ModelProto,
        make_deepcopy: bool = False,
        fix_float64: bool = False,
        fix_missing_initializer_valueinfo: bool = True,
    ) -> None:
        """Take a model, which is changed in place unless a copy is asked for."""
        self.model = copy.deepcopy(model) if make_deepcopy else model
        self.fix_float64 = fix_float64
        if fix_missing_initializer_valueinfo:
            self.check_all_tensor_shapes_specified(fix_missing_init_shape=True)

    @property
    def graph(self) -> GraphProto:
        """Return the graph of the model."""
        return self.model.graph

    @graph.setter
    def graph(self, value: GraphProto) -> None:
        self.model.graph.CopyFrom(value)

    def save(self, filename: str | Path) -> None:
        """Write the model to a file."""
        kind = serialization.registry.get_format_from_file_extension(Path(filename).suffix)
        with replacing(filename) as temporary:
            onnx.save(self.model, str(temporary), format=kind)

    def analysis(
        self, analysis_fxn: Callable[..., Any], apply_to_subgraphs: bool = False
    ) -> Any:
        """Return what a function says of this wrapper."""
        inside = (apply_to_subgraphs,) if apply_to_subgraphs else ()
        return analysis_fxn(self, *inside)

    def transform(
        self,
        transformation: Any,
        make_deepcopy: bool = True,
        cleanup: bool = True,
        apply_to_subgraphs: bool = False,
        use_preorder_traversal: bool = True,
    ) -> Any:
        """Return a wrapper of the transformed model.

        Args:
            transformation: An object whose ``apply(wrapper)`` returns a wrapper, and whether
                to call it once more.
            make_deepcopy: Transform a copy.
            cleanup: Call :meth:`cleanup` afterwards.
            apply_to_subgraphs: Transform the bodies of nodes as well, as models of their own.
            use_preorder_traversal: Do so after the graph around them, not before.

        Raises:
            PassError: It does not come to an end.
        """
        found = copy.deepcopy(self) if make_deepcopy else self
        if found.fix_float64:
            found.model.CopyFrom(run_pass(found.model, "double_to_single"))
        how = (transformation, make_deepcopy, cleanup, True, use_preorder_traversal)
        if apply_to_subgraphs and not use_preorder_traversal:
            found.transform_subgraphs(*how)
        for _ in range(_ROUNDS):
            found, changed = transformation.apply(found)
            if not changed:
                break
        else:
            what = (
                f"{type(transformation).__name__} changed something {_ROUNDS} times in a row"
            )
            raise PassError(f"{what}: it does not end")
        if cleanup:
            found.cleanup()
        if apply_to_subgraphs and use_preorder_traversal:
            found.transform_subgraphs(*how)
        return found

    def transform_subgraphs(
        self,
        transformation: Any,
        make_deepcopy: bool = True,
        cleanup: bool = True,
        apply_to_subgraphs: bool = False,
        use_preorder_traversal: bool = True,
    ) -> None:
        """Transform the bodies of nodes in place; see :meth:`transform`."""
        how = (make_deepcopy, cleanup, apply_to_subgraphs, use_preorder_traversal)
        for node in self.graph.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.GRAPH:
                    inner = self.make_subgraph_modelwrapper(attribute.g)
                    attribute.g.CopyFrom(inner.transform(transformation, *how).graph)

    def make_subgraph_modelwrapper(self, subgraph: GraphProto) -> Any:
        """Return a wrapper of a graph, with the domains that this model imports."""
        imports = list(self.model.opset_import)
        return type(self)(helper.make_model(subgraph, opset_imports=imports))

    def get_customop_wrapper(self, node: NodeProto, fallback_customop_version: int = 1) -> Any:
        """Return the qonnx package's object for a node of its domains.

        Raises:
            MissingDependencyError: That package is not installed.
        """
        registry = require("qonnx.custom_op.registry", needed_by="a CustomOp", extra="qonnx")
        version = self.get_opset_imports().get(node.domain, fallback_customop_version)
        return registry.getCustomOp(node, onnx_opset_version=version)

    def cleanup(self) -> Any:
        """Sort, drop what nobody reads, and give each reader constants of its own."""
        for step in ("drop_unused", "sort_commutative", "unique_parameters"):
            self.model.CopyFrom(run_pass(self.model, step))
        return self

    # What a tensor is.

    def get_tensor_valueinfo(self, tensor_name: str) -> ValueInfoProto | None:
        """Return the tensor's ValueInfoProto, ``None`` without one."""
        graph = self.graph
        held = (*graph.input, *graph.output, *graph.value_info)
        return next((one for one in held if one.name == tensor_name), None)

    def get_tensor_shape(
        self, tensor_name: str, fix_missing_init_shape: bool = False
    ) -> list[int] | None:
        """Return the tensor's sizes, 0 for an open one; ``None`` where nothing is known.

        Args:
            tensor_name: The tensor.
            fix_missing_init_shape: Write down the shape of an initializer that has none.
        """
        info = self.get_tensor_valueinfo(tensor_name)
        if info is not None:
            return [size.dim_value for size in info.type.tensor_type.shape.dim]
        held = self._initializer(tensor_name)
        if held is None:
            return None
        if fix_missing_init_shape:
            self.set_tensor_shape(tensor_name, held.dims, held.data_type)
        return list(held.dims)

    def set_tensor_shape(
        self, tensor_name: str, tensor_shape: Sequence[int], dtype: int | None = None
    ) -> None:
        """Set the tensor's sizes, and its element type where one is given."""
        info = self.get_tensor_valueinfo(tensor_name)
        if dtype is None:
            dtype = onnx.TensorProto.FLOAT if info is None else info.type.tensor_type.elem_type
        fresh = helper.make_tensor_value_info(tensor_name, dtype, list(tensor_shape))
        if info is None:
            self.graph.value_info.append(fresh)
        else:
            info.type.CopyFrom(fresh.type)

    def get_tensor_datatype(self, tensor_name: str) -> Any:
        """Return the annotated datatype; FLOAT16 or FLOAT32 by the elements without one."""
        datatypes, text = datatype_class(), self._note(tensor_name, DATATYPE)
        if text:
            return datatypes[text]
        info, held = self.get_tensor_valueinfo(tensor_name), self._initializer(tensor_name)
        kind = held.data_type if held is not None else 0
        kind = info.type.tensor_type.elem_type if info is not None else kind
        return datatypes["FLOAT16" if kind == onnx.TensorProto.FLOAT16 else "FLOAT32"]

    def set_tensor_datatype(self, tensor_name: str, datatype: Any) -> None:
        """Annotate a datatype; ``None`` takes the annotation away."""
        self._set_note(tensor_name, DATATYPE, None if datatype is None else datatype.name)

    def get_tensor_layout(self, tensor_name: str) -> list[str] | None:
        """Return the annotated letters of the axes."""
        text = self._note(tensor_name, LAYOUT)
        return None if text is None else list(ast.literal_eval(text))

    def set_tensor_layout(self, tensor_name: str, data_layout: list[str]) -> None:
        """Annotate the letters of the axes."""
        self._set_note(tensor_name, LAYOUT, str(list(data_layout)))

    def get_tensor_sparsity(self, tensor_name: str) -> Any:
        """Return the annotated sparsity."""
        text = self._note(tensor_name, SPARSITY)
        return None if text is None else ast.literal_eval(text)

    def set_tensor_sparsity(self, tensor_name: str, sparsity_dict: Any) -> None:
        """Annotate a sparsity."""
        self._set_note(tensor_name, SPARSITY, str(sparsity_dict))

    def _note(self, tensor_name: str, key: str) -> str | None:
        for note in self.graph.quantization_annotation:
            if note.tensor_name == tensor_name:
                for entry in note.quant_parameter_tensor_names:
                    if entry.key == key:
                        return str(entry.value)
        return None

    def _set_note(self, tensor_name: str, key: str, text: str | None) -> None:
        notes = self.graph.quantization_annotation
        note = next((one for one in notes if one.tensor_name == tensor_name), None)
        if note is None:
            if text is None:
                return
            note = notes.add(tensor_name=tensor_name)
        entries = note.quant_parameter_tensor_names
        entry = next((one for one in entries if one.key == key), None)
        if text is None:
            if entry is not None:
                entries.remove(entry)
        elif entry is None:
            entries.add(key=key, value=text)
        else:
            entry.value = text

    # Constants.

    def _initializer(self, tensor_name: str) -> onnx.TensorProto | None:
        held = self.graph.initializer
        return next((one for one in held if one.name == tensor_name), None)

    def get_initializer(self, tensor_name: str, return_dtype: bool = False) -> Any:
        """Return the constant's array, ``None`` without one.

        Args:
            tensor_name: The constant.
            return_dtype: Return the pair of array and TensorProto type.
        """
        held = self._initializer(tensor_name)
        array = None if held is None else numpy_helper.to_array(held)
        if not return_dtype:
            return array
        return array, None if held is None else held.data_type

    def set_initializer(self, tensor_name: str, tensor_value: Array) -> None:
        """Set a constant, and the tensor's shape and type with it."""
        self.del_initializer(tensor_name)
        fresh = numpy_helper.from_array(np.asarray(tensor_value), tensor_name)
        self.graph.initializer.append(fresh)
        self.set_tensor_shape(tensor_name, fresh.dims, fresh.data_type)

    def del_initializer(self, initializer_name: str) -> None:
        """Take a constant away; its shape stays known."""
        held = self._initializer(initializer_name)
        if held is not None:
            self.graph.initializer.remove(held)

    def rename_tensor(self, old_name: str, new_name: str) -> None:
        """Give a tensor another name, wherever it is named."""
        graph = self.graph
        for held in (graph.input, graph.output, graph.value_info, graph.initializer):
            for one in held:
                if one.name == old_name:
                    one.name = new_name
        for note in graph.quantization_annotation:
            if note.tensor_name == old_name:
                note.tensor_name = new_name
        for node in graph.node:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == old_name:
                        names[place] = new_name

    # Nodes.

    def find_producer(self, tensor_name: str) -> NodeProto | None:
        """Return the node that makes a tensor."""
        return next((node for node in self.graph.node if tensor_name in node.output), None)

    def find_consumers(self, tensor_name: str) -> list[NodeProto]:
        """Return the nodes that read a tensor, once per input."""
        return [n for n in self.graph.node for name in n.input if name == tensor_name]

    def find_consumer(self, tensor_name: str) -> NodeProto | None:
        """Return the first node that reads a tensor."""
        return next(iter(self.find_consumers(tensor_name)), None)

    def find_upstream(
        self,
        tensor_name: str,
        finder_fxn: Callable[[NodeProto], bool],
        keep_if_not_found: bool = False,
    ) -> list[NodeProto] | None:
        """Return the nodes up to the first that a function accepts, along first inputs.

        Args:
            tensor_name: Where to start.
            finder_fxn: Says whether a node ends the search.
            keep_if_not_found: Return the nodes on the way where none was accepted.
        """
        visited: list[NodeProto] = []
        node = self.find_producer(tensor_name)
        while node is not None:
            visited.append(node)
            if finder_fxn(node):
                return visited
            if not node.input:
                return visited if keep_if_not_found else None
            node = self.find_producer(node.input[0])
        return visited if keep_if_not_found else []

    def find_direct_successors(self, node: NodeProto) -> list[NodeProto] | None:
        """Return the nodes that read what a node makes; ``None`` for none."""
        return [n for name in node.output for n in self.find_consumers(name)] or None

    def find_direct_predecessors(self, node: NodeProto) -> list[NodeProto] | None:
        """Return the nodes that make what a node reads; ``None`` for none."""
        makers = (self.find_producer(name) for name in node.input)
        return [maker for maker in makers if maker is not None] or None

    def is_fork_node(self, node: NodeProto) -> bool:
        """Return whether several read what a node makes; a graph output counts as one."""
        readers = self.find_direct_successors(node) or []
        return len(readers) > (0 if _is_among(self.graph.output, node.output[0]) else 1)

    def is_join_node(self, node: NodeProto) -> bool:
        """Return whether a node reads what several make; a graph input counts as one."""
        makers = self.find_direct_predecessors(node) or []
        return len(makers) > (0 if _is_among(self.graph.input, node.input[0]) else 1)

    def get_nodes_by_op_type(self, op_type: str) -> list[NodeProto]:
        """Return the nodes of an operator."""
        return [node for node in self.graph.node if node.op_type == op_type]

    def get_finn_nodes(self) -> list[NodeProto]:
        """Return the nodes whose domain is one of FINN's or qonnx'."""
        return [node for node in self.graph.node if _is_finn(node)]

    def get_non_finn_nodes(self) -> list[NodeProto]:
        """Return the other nodes."""
        return [node for node in self.graph.node if not _is_finn(node)]

    def get_node_index(self, node: NodeProto) -> int | None:
        """Return the place of a node in the graph."""
        return next((i for i, one in enumerate(self.graph.node) if one == node), None)

    def get_node_from_name(self, node_name: str) -> NodeProto | None:
        """Return the node of that name."""
        return next((one for one in self.graph.node if one.name == node_name), None)

    # Names and the rest.

    def get_all_tensor_names(self) -> list[str]:
        """Return the names of all tensors of which a type is written down."""
        graph = self.graph
        return [one.name for one in (*graph.value_info, *graph.input, *graph.output)]

    def get_first_global_in(self) -> str:
        """Return the name of the first input."""
        return str(self.graph.input[0].name)

    def get_first_global_out(self) -> str:
        """Return the name of the first output."""
        return str(self.graph.output[0].name)

    def make_new_valueinfo_name(self) -> str:
        """Return a tensor name that nobody has."""
        taken = {*self.get_all_tensor_names(), *(one.name for one in self.graph.initializer)}
        name = ""
        while not name or name in taken:
            name = f"t{secrets.token_hex(4)}"
        return name

    def make_empty_exec_context(self) -> dict[str, Array | None]:
        """Return an array for every tensor: constants, zeros for the rest, "" -> ``None``."""
        context: dict[str, Array | None] = {"": None}
        for info in (*self.graph.input, *self.graph.output, *self.graph.value_info):
            kind = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
            sizes = [size.dim_value for size in info.type.tensor_type.shape.dim]
            context[info.name] = np.zeros(sizes, dtype=kind)
        held = self.graph.initializer
        return {**context, **{one.name: numpy_helper.to_array(one) for one in held}}

    def check_all_tensor_shapes_specified(self, fix_missing_init_shape: bool = False) -> bool:
        """Return whether every tensor that a node reads or makes has a shape."""
        names = [n for node in self.graph.node for n in (*node.input, *node.output) if n]
        fix = fix_missing_init_shape
        return all([self.get_tensor_shape(name, fix) is not None for name in names])  # noqa: C419

    def get_tensor_fanout(self, tensor_name: str) -> int:
        """Return how many nodes read a tensor."""
        return sum(tensor_name in node.input for node in self.graph.node)

    def get_metadata_prop(self, key: str) -> str | None:
        """Return an entry of the model's metadata."""
        found = (one.value for one in self.model.metadata_props if one.key == key)
        return next(found, None)

    def set_metadata_prop(self, key: str, value: str) -> None:
        """Set an entry of the model's metadata."""
        for one in self.model.metadata_props:
            if one.key == key:
                one.value = value
                return
        self.model.metadata_props.add(key=key, value=value)

    def get_opset_imports(self) -> dict[str, int]:
        """Return domain -> version."""
        return {one.domain: one.version for one in self.model.opset_import}

    def set_opset_import(self, domain: str, version: int) -> None:
        """Set the version that is imported of a domain."""
        for one in self.model.opset_import:
            if one.domain == domain:
                one.version = version
                return
        self.model.opset_import.add(domain=domain, version=version)


def _is_among(held: Iterable[ValueInfoProto], name: str) -> bool:
    return any(one.name == name for one in held)


def _is_finn(node: NodeProto) -> bool:
    return node.domain.split(".")[0] in ("finn", "qonnx") or node.domain == "onnx.brevitas"
