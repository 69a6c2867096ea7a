"""Calls of a model's own functions become the nodes of the functions."""

from __future__ import annotations

import graphlib
from dataclasses import dataclass

from onnx_ir import Function, Model
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import InlinePass

from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.graph.subgraphs import every_node
from qonnx_hub_ir.limits import require_nodes
from qonnx_hub_ir.passes.names.name_nodes import NameNodes
from qonnx_hub_ir.passes.opset.raise_opset import OPSET, RaiseOpset

_IR_VERSION = 10
"""One that knows functions, for bodies on their own."""

_CALLER = "qonnx_hub.called_from"
"""Metadata of nodes while they are inlined: the name of the call."""

_NAMELESS = "qonnx_hub.nameless//"
"""Starts the names that nodes without one have while they are inlined."""

_Key = tuple[str, str, str]


@dataclass(frozen=True)
class InlineFunctions(InPlacePass):
    """Put the nodes of local functions in the place of every call, at any depth.

    Attribute references take the value that the caller gives, or the function's default. A
    model whose functions import other standard opsets is raised, functions and all, to one
    that holds for everything. Nodes without names are called after the call, the function and
    their operator.

    Before -> after: ``my::Twice(x)`` named ``call`` -> ``Add(x, x)`` named ``call/Twice/Add``.

    Raises:
        SourceError: Functions call each other in a circle, become too many nodes, cannot be
            raised, or are called in a way that the function does not take.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        if not model.functions:
            return PassResult(model, modified=False)
        _check_size(model)
        _unify_opsets(model)
        for node in every_node(model):
            called = model.functions.get((node.domain, node.op_type, node.overload))
            if called is not None and len(node.outputs) < len(called.outputs):
                # Results at the end that the caller does not take; the inliner wants them all.
                node.resize_outputs(len(called.outputs))
        _name_bodies(model)
        try:
            InlinePass()(model)
        except ValueError as error:  # what the inliner says of calls that do not fit
            raise SourceError(f"a local function cannot be inlined: {error}") from error
        model.functions.clear()  # what is left is called by nobody
        _name_after_calls(model)
        return PassResult(model, modified=True)


def _name_bodies(model: Model) -> None:
    """Name the nodes of functions that have no name, and say at every call what it is called.

    The inliner gives what it puts in the place of a call the metadata of the call.
    """
    for function in model.functions.values():
        for node in function.all_nodes():
            node.name = node.name or f"{_NAMELESS}{function.name}/{node.op_type}"
    for node in every_node(model, functions=False):
        if node.name and node.op_identifier() in model.functions:
            node.metadata_props[_CALLER] = node.name


def _name_after_calls(model: Model) -> None:
    """Put the names of calls before those that :func:`_name_bodies` gave."""
    for node in every_node(model):
        caller = node.metadata_props.pop(_CALLER, "")
        if node.name and node.name.startswith(_NAMELESS):
            inner = node.name.removeprefix(_NAMELESS)
            node.name = f"{caller}/{inner}" if caller else inner


def _words(key: _Key) -> str:
    return f"{key[0]}::{key[1]}"


def _calls(model: Model) -> dict[_Key, list[_Key]]:
    """Return, per function, the functions that its nodes call, once per call."""
    return {
        key: [
            node.op_identifier()
            for node in function.all_nodes()
            if node.op_identifier() in model.functions
        ]
        for key, function in model.functions.items()
    }


def _check_size(model: Model) -> None:
    calls = _calls(model)
    try:
        order = list(graphlib.TopologicalSorter(calls).static_order())
    except graphlib.CycleError as error:
        circle = " -> ".join(map(_words, error.args[1]))
        raise SourceError(f"local functions call each other in a circle: {circle}") from error
    sizes: dict[_Key, int] = {}
    for key in order:
        own = sum(1 for _ in model.functions[key].all_nodes())
        sizes[key] = own + sum(sizes[called] for called in calls[key])
    whole = sum(sizes.get(node.op_identifier(), 0) for node in model.graph.all_nodes())
    if not sizes:
        return
    # Some lines of functions that call each other twice would never end.
    largest = max(sizes, key=lambda key: sizes[key])
    require_nodes(
        whole,
        f"the calls of local functions (one of '{_words(largest)}' is {sizes[largest]} nodes) "
        "stand for",
    )


def _unify_opsets(model: Model) -> None:
    """Raise the model and its functions to one standard opset, where they have several."""
    versions = {
        function.opset_imports[""]
        for function in model.functions.values()
        if "" in function.opset_imports
    }
    own = model.opset_imports.get("")
    if not versions or versions == {own}:
        return
    if own is None and len(versions) == 1:
        model.opset_imports[""] = versions.pop()
        return
    target = max(OPSET, own or 0, *versions)
    for key, function in list(model.functions.items()):
        version = function.opset_imports.get("", target)
        if version < target:
            model.functions[key] = _raised(function, target)
        function.opset_imports[""] = target
    functions = dict(model.functions)
    model.functions.clear()  # the converter reads graphs, and calls stay what they are
    RaiseOpset(target)(model)
    model.functions.update(functions)


def _raised(function: Function, target: int) -> Function:
    """Return the function with its body at another opset; references to attributes stay."""
    body = Model(function.graph, ir_version=_IR_VERSION)
    NameNodes()(body)
    references = {
        (str(node.name), name): attr
        for node in function.all_nodes()
        for name, attr in node.attributes.items()
        if attr.is_ref()
    }
    imports = {**function.opset_imports, "": target}
    try:
        RaiseOpset(target)(body)
    except SourceError as error:
        raise SourceError(f"local function '{function.name}': {error}") from error
    nodes = {str(node.name): node for node in body.graph.all_nodes()}
    for (owner, name), attr in references.items():
        if owner not in nodes or name not in nodes[owner].attributes:
            raise SourceError(
                f"local function '{function.name}': attribute '{name}' of node '{owner}' is "
                f"another thing in opset {target}, and its value is that of a caller; write "
                f"the function with opset {target}"
            )
        nodes[owner].attributes[name] = attr
    body.graph.opset_imports.update(imports)
    raised = Function(
        function.domain,
        function.name,
        function.overload,
        graph=body.graph,
        attributes=function.attributes.values(),
    )
    raised.metadata_props.update(function.metadata_props)
    return raised
