"""Models taken apart at tensors, and put together by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir
from onnx_ir import Graph, Model, Value

from qonnx_hub_ir.annotations import carry
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.names import free_name, node_names, value_names
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.graph.subgraphs import every_value, read_values
from qonnx_hub_ir.graph.unused import drop_unused


def split_model(model: Model, at: Sequence[str]) -> tuple[Model, Model]:
    """Return the part of a model before some tensors, and the part behind them.

    The tensors are outputs of the first part and inputs of the second, under their names.
    Outputs of the model that lie before the cut are outputs of the first part, the others of
    the second. The model given is not changed; both parts share its weights' memory.

    Args:
        model: An IR model.
        at: Names of the tensors. Together they must separate the second part from the rest:
            it may read the cut tensors, constants and nothing else.

    Raises:
        PassError: A name that no node computes, or something else that the second part reads.
    """
    first, second = model.clone(), model.clone()
    if not at:
        raise PassError("a model is split at one tensor or more; none is named")
    behind = _cut_off(second, at)
    outputs = {str(value.name) for value in second.graph.outputs}
    kept = [value for value in second.graph.outputs if value.name in behind]
    if not kept:
        raise PassError(f"no output of the model lies behind {', '.join(at)}")
    _require_separated(second, behind, at)
    second.graph.outputs[:] = kept
    second.graph.inputs[:] = [value for value in second.graph.inputs if value.name in at]
    values = {str(v.name): v for node in first.graph for v in node.outputs}
    early = [v for v in first.graph.outputs if v.name in outputs and v.name not in behind]
    chosen = dict.fromkeys([*(values[name] for name in at), *early])
    first.graph.outputs[:] = list(chosen)
    for part, label in ((first, "before"), (second, "behind")):
        drop_unused(part)
        part.graph.name = f"{model.graph.name}_{label}"
    return first, second


def _cut_off(model: Model, at: Sequence[str]) -> set[str]:
    """Make inputs of the cut tensors; return the names of all values that depend on them."""
    graph = model.graph
    values = {str(v.name): v for node in graph for v in node.outputs}
    missing = [name for name in at if name not in values]
    if missing:
        raise PassError(f"no node computes {', '.join(missing)}")
    behind: set[Value] = set()
    for name in dict.fromkeys(at):
        value = values[name]
        entry = Value(name=name, type=value.type, shape=value.shape)
        entry.metadata_props.update(value.metadata_props)
        carry(value, entry)
        value.replace_all_uses_with(entry, replace_graph_outputs=value.is_graph_output())
        value.name = None
        behind.add(entry)
        graph.inputs.append(entry)
    outputs = set(graph.outputs)
    for node in graph:
        if any(value in behind for value in read_values(node)):
            behind.update(node.outputs)
    # A cut tensor that is an output of the model belongs to the first part.
    return {str(v.name) for v in behind if v not in outputs or v.producer() is not None}


def _require_separated(model: Model, behind: set[str], at: Sequence[str]) -> None:
    """Refuse a second part that needs an input of the whole model beside the cut tensors."""
    needed: set[Value] = {v for v in model.graph.outputs if v.name in behind}
    for node in reversed(list(model.graph)):
        if any(value in needed for value in node.outputs):
            needed.update(read_values(node))
    leaks = [str(v.name) for v in model.graph.inputs if v in needed and v.name not in at]
    if leaks:
        raise PassError(
            f"the part behind {', '.join(at)} also needs what the inputs {', '.join(leaks)} "
            "lead to; name the tensors on these ways as well"
        )


def extract_model(
    model: Model, inputs: Sequence[str] = (), outputs: Sequence[str] = ()
) -> Model:
    """Return the part of a model between some tensors and others.

    The model given is not changed; both share its weights' memory.

    Args:
        model: An IR model.
        inputs: Tensors that become the inputs; those of the model by default.
        outputs: Tensors that become the outputs; those of the model by default.

    Raises:
        PassError: A name that no tensor has, or an input of the model that the part needs
            beside those named.
    """
    part = model.clone()
    own = {str(value.name) for value in part.graph.inputs}
    inner = [name for name in inputs if name not in own]
    values = {str(v.name): v for node in part.graph for v in node.outputs}
    missing = [name for name in outputs if name not in values]
    if missing:
        raise PassError(f"no node computes {', '.join(missing)}")
    if outputs:
        part.graph.outputs[:] = [values[name] for name in dict.fromkeys(outputs)]
    if inner:
        _cut_off(part, inner)
    drop_unused(part)
    read = {value for node in part.graph for value in read_values(node)}
    needed = [value for value in part.graph.inputs if value in read]
    leaks = [str(v.name) for v in needed if inputs and v.name not in inputs]
    if leaks:
        raise PassError(f"the part also needs what the inputs {', '.join(leaks)} lead to")
    part.graph.inputs[:] = needed
    part.graph.name = f"{model.graph.name}_part"
    return part


def merge_models(
    first: Model, second: Model, connect: Mapping[str, str] | None = None
) -> Model:
    """Return one model in which the second continues the first.

    Outputs of the first that feed nothing, and inputs of the second that nothing feeds, stay
    outputs and inputs. Values of the second whose names the first uses get a number behind
    them; inputs and outputs keep theirs. Neither model is changed.

    Args:
        first: An IR model.
        second: Another one, of the same opset.
        connect: Output of the first -> input of the second; by equal names where not given,
            or the only one where there is only one of each.

    Raises:
        PassError: Opsets, types or shapes that do not fit, unknown names, nothing to connect,
            or inputs or outputs of one name.
    """
    a, b = first.clone(), second.clone()
    pairs = _pairs(a, b, connect)
    take_imports(a, b)
    fed, fed_by = {entry for _, entry in pairs}, {out for out, _ in pairs}
    ours = [*a.graph.inputs, *(v for v in a.graph.outputs if v not in fed_by)]
    theirs = [*(v for v in b.graph.inputs if v not in fed), *b.graph.outputs]
    both = sorted({str(v.name) for v in ours} & {str(v.name) for v in theirs})
    if both:
        raise PassError(f"both models have inputs or outputs called {', '.join(both)}")
    _move(a, b, pairs)
    return a


def take_imports(a: Model, b: Model) -> None:
    """Give a model the opset imports and functions of one that becomes part of it.

    Raises:
        PassError: They import other versions of a domain, or define one function.
    """
    for name, version in b.opset_imports.items():
        if a.opset_imports.setdefault(name, version) != version:
            raise PassError(
                f"the models import versions {a.opset_imports[name]} and {version} of domain "
                f"'{name}'; raise the older one first"
            )
    if shared := sorted(".".join(key[:2]) for key in a.functions.keys() & b.functions.keys()):
        raise PassError(f"both models define {', '.join(shared)}; inline functions first")
    for key, function in b.functions.items():
        a.functions.setdefault(key, function)


def _pairs(a: Model, b: Model, connect: Mapping[str, str] | None) -> list[tuple[Value, Value]]:
    outputs = {str(v.name): v for v in a.graph.outputs}
    inputs = {str(v.name): v for v in b.graph.inputs}
    if connect is None:
        connect = {name: name for name in outputs if name in inputs}
        if not connect and len(outputs) == len(inputs) == 1:
            connect = dict(zip(outputs, inputs, strict=True))
    unknown = [name for name in connect if name not in outputs]
    unknown += [name for name in connect.values() if name not in inputs]
    if unknown or not connect:
        raise PassError(
            f"nothing to connect: {', '.join(unknown) or 'no names are equal'}; outputs of "
            f"the first model: {', '.join(outputs)}; inputs of the second: {', '.join(inputs)}"
        )
    if len(set(connect.values())) < len(connect):
        raise PassError("several outputs of the first model are connected to one input")
    pairs = [(outputs[out], inputs[name]) for out, name in connect.items()]
    for out, entry in pairs:
        if not _fits(out, entry):
            raise PassError(f"output '{out.name}' does not fit input '{entry.name}'")
    return pairs


def _fits(out: Value, entry: Value) -> bool:
    if out.dtype is not None and entry.dtype is not None and out.dtype != entry.dtype:
        return False
    given, wanted = dims(out), dims(entry)
    if given is None or wanted is None:
        return True
    sizes = zip(given, wanted, strict=False)
    return len(given) == len(wanted) and all(
        one == other for one, other in sizes if isinstance(one, int) and isinstance(other, int)
    )


def _move(a: Model, b: Model, pairs: list[tuple[Value, Value]]) -> None:
    """Move everything of ``b`` behind ``a``."""
    fed = {entry: out for out, entry in pairs}
    rest = [value for value in b.graph.inputs if value not in fed]
    outputs = list(b.graph.outputs)
    called = {entry: str(entry.name) for entry in fed}
    for entry in fed:
        entry.name = None
    free_names(a, b, {*rest, *(value for value in outputs if value not in fed)})
    b.graph.outputs.clear()
    for entry, out in fed.items():
        entry.replace_all_uses_with(out)
    initializers, nodes = list(b.graph.initializers.values()), list(b.graph)
    b.graph.inputs.clear()
    b.graph.initializers.clear()
    b.graph.remove(nodes)
    for value in initializers:
        a.graph.register_initializer(value)
    a.graph.extend(nodes)
    a.graph.inputs.extend(rest)
    kept = [value for value in a.graph.outputs if value not in fed.values()]
    passed = {v: _under(a.graph, fed[v], called[v]) for v in outputs if v in fed}
    a.graph.outputs[:] = [*kept, *(passed.get(value, value) for value in outputs)]


def _under(graph: Graph, value: Value, name: str) -> Value:
    """Return a value under the name of an output, through an Identity if it has another."""
    if value.name == name:
        return value
    label = free_name(f"{name}_identity", node_names(graph))
    node = onnx_ir.node("Identity", [value], name=label)
    made = node.outputs[0]
    made.name, made.type, made.shape = name, value.type, value.shape
    carry(value, made)
    graph.append(node)
    return made


def free_names(a: Model, b: Model, signature: set[Value]) -> None:
    """Give the values and nodes of ``b`` names that ``a`` does not have, but to some."""
    reserved = {str(value.name) for value in signature}
    taken = value_names(a.graph) | reserved
    for value in every_value(a, functions=False):
        if value.name in reserved and not value.is_graph_input():
            value.name = free_name(str(value.name), taken)
    for value in every_value(b, functions=False):
        if value not in signature:
            value.name = free_name(str(value.name), taken)
    nodes = node_names(a.graph)
    for node in b.graph.all_nodes():
        if node.name:
            node.name = free_name(node.name, nodes)
