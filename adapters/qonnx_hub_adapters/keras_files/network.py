"""A Keras graph becomes an ONNX graph, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir
from onnx_ir import Graph, Model, Value

from qonnx_hub_adapters.dependencies import one_line
from qonnx_hub_adapters.keras_files.graph import (
    KerasGraph,
    Layer,
    LayerCall,
    Nested,
    Reference,
    references,
    replaced,
)
from qonnx_hub_adapters.keras_files.kinds import Kind, Use, kind_of
from qonnx_hub_adapters.keras_files.masks import hand_on
from qonnx_hub_adapters.keras_files.plain_forms import write_plain_forms
from qonnx_hub_adapters.keras_files.scope import OPSET, Net
from qonnx_hub_adapters.keras_files.variables import (
    Identity,
    LayerWeights,
    Store,
    Variables,
    snake,
)
from qonnx_hub_adapters.qkeras.naming import names_of_ends
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import Gap, SourceError, UnsupportedGraphError
from qonnx_hub_ir.graph.names import free_name

Custom = Mapping[str, Kind]
_ALIASES = {"GroupQueryAttention": "GroupedQueryAttention"}
"""Class as configurations spell it -> its own name, which groups of weights have."""

_TYPES = {
    "float32": onnx_ir.DataType.FLOAT,
    "int32": onnx_ir.DataType.INT32,
    "int64": onnx_ir.DataType.INT64,
    "uint8": onnx_ir.DataType.UINT8,
    "int8": onnx_ir.DataType.INT8,
    "bool": onnx_ir.DataType.BOOL,
}


def build(keras: KerasGraph, store: Store, generation: int, custom: Custom) -> Model:
    """Return a Keras graph as an ONNX model, not yet cleaned.

    Args:
        keras: The graph.
        store: Its weights.
        generation: Of Keras.
        custom: Class -> what is known of it, from the caller.

    Raises:
        UnsupportedGraphError: Classes that are not known; all of them are listed.
        SourceError: A layer cannot be written, or its weights do not fit.
    """
    gaps = list(_unknown(keras, custom, ""))
    if gaps:
        raise UnsupportedGraphError(
            f"model '{keras.name}' has layers that are not known:", gaps
        )
    layouts = [(layer.name, _layout(layer, custom)) for layer in keras.layers]
    weights = store.read(layouts)
    graph = Graph([], [], nodes=[], opset_imports={}, name=keras.name)
    builder = _Builder(Net(graph, generation), custom)
    outputs = builder.run(keras, weights, None, "")
    _set_outputs(builder.net, outputs, keras)
    # A layer inside another is written behind it, and read by it.
    graph.sort()
    model = Model(graph, ir_version=9)
    model.opset_imports[""] = OPSET
    model.opset_imports[dialect.DOMAIN] = dialect.DOMAIN_VERSION
    write_plain_forms(builder.net, model)
    return model


def _unknown(keras: KerasGraph, custom: Custom, prefix: str) -> list[Gap]:
    found = []
    for layer in keras.layers:
        if layer.model is not None:
            found += _unknown(layer.model, custom, f"{prefix}{layer.name}/")
        elif layer.kind != "keras>InputLayer" and _kind(layer, custom) is None:
            found.append(Gap(prefix + layer.name, layer.class_name, *_reason(layer)))
    return found


def _reason(layer: Layer) -> tuple[str, str]:
    if layer.class_name == "Lambda":
        return "holds code, which is not run", "--allow-code runs it in Keras; trust it first"
    return (
        f"class '{layer.kind}' is not known to the reader of files",
        "give it as custom_objects, or convert the live model, both with Keras installed",
    )


def _kind(layer: Layer, custom: Custom) -> Kind | None:
    return custom.get(layer.class_name) or kind_of(layer.kind)


def layout_of(layer: Layer) -> Variables:
    """Return what a layer inside a wrapper holds."""
    return _layout(layer, {}, nested=True)


def _layout(layer: Layer, custom: Custom, *, nested: bool = False) -> Variables:
    """Return what a layer holds; everything inside, for nested models."""
    is_operation = layer.kind.startswith("ops>")
    name = "" if is_operation else snake(_ALIASES.get(layer.class_name, layer.class_name))
    frozen = nested and layer.config.get("trainable") is False
    if layer.model is not None:
        inner = [(one.name, _layout(one, custom, nested=True)) for one in layer.model.layers]
        held = Variables((), tuple(inner))
    else:
        kind = _kind(layer, custom)
        held = Variables() if kind is None else kind.holds(layer)
    settings = (layer.name, layer.kind, layer.config)
    identity = Identity(settings, layer.is_shared, layer.generation)
    return Variables(held.own, held.parts, frozen, name, identity=identity)


class _Builder:
    """Walks through graphs and writes their layers."""

    def __init__(self, net: Net, custom: Custom) -> None:
        self.net, self._custom = net, custom
        self._uses: dict[str, int] = {}
        net.write = self.write

    def run(
        self,
        keras: KerasGraph,
        weights: Mapping[str, LayerWeights],
        given: Sequence[Value] | None,
        prefix: str,
    ) -> Any:
        """Return the outputs of a graph, nested as it gives them.

        Args:
            keras: The graph.
            weights: Arrays by layer.
            given: Its inputs in order; ``None`` makes them inputs of the whole graph.
            prefix: What names of layers begin with.

        Raises:
            SourceError: A call reads what no other call gives.
        """
        values: dict[Reference, Value] = {}
        taken: set[str] = set()
        ends = zip(references(keras.inputs), _names(keras.inputs), strict=True)
        for number, (reference, wanted) in enumerate(ends):
            if given is None:
                layer = next(one for one in keras.layers if one.name == reference.layer)
                values[reference] = self._input(layer, free_name(wanted, taken))
            else:
                values[reference] = given[number]
        waiting = [
            (layer, number, call)
            for layer in keras.layers
            if layer.kind != "keras>InputLayer"
            for number, call in enumerate(layer.calls)
        ]
        while waiting:
            later = []
            for layer, number, call in waiting:
                if not _is_ready(call, values):
                    later.append((layer, number, call))
                    continue
                result = self._call(layer, number, call, values, weights, prefix)
                flat = result if isinstance(result, list) else [result]
                if isinstance(result, dict):
                    flat = [result[key] for key in sorted(result)]
                for tensor, value in enumerate(flat):
                    values[Reference(layer.name, number, tensor)] = value
            if len(later) == len(waiting):
                break
            waiting = later
        missing = [one for one in references(keras.outputs) if one not in values]
        if missing:
            _require_known(keras, [call for _, _, call in waiting])
            one = missing[0]
            raise SourceError(
                f"output '{one.layer}' (call {one.node}) of model '{keras.name}' is computed "
                "by no call: the configuration is broken, or its calls form a cycle"
            )
        return replaced(keras.outputs, values.__getitem__)

    def _call(
        self,
        layer: Layer,
        number: int,
        call: LayerCall,
        values: Mapping[Reference, Value],
        weights: Mapping[str, LayerWeights],
        prefix: str,
    ) -> Any:
        args = tuple(replaced(one, values.__getitem__) for one in call.args)
        kwargs = replaced(dict(call.kwargs), values.__getitem__)
        return self.write(layer, weights[layer.name], args, kwargs, prefix)

    def write(
        self,
        layer: Layer,
        weights: LayerWeights,
        args: tuple[Any, ...],
        kwargs: Any,
        prefix: str,
    ) -> Any:
        """Return what a layer, or a model inside the model, makes of its arguments."""
        name = prefix + layer.name
        if layer.model is not None:
            out = self.run(layer.model, weights.parts, list(_values(args)), f"{name}/")
            return list(_values(out)) if isinstance(out, (list, dict)) else out
        kind = _kind(layer, self._custom)
        if kind is None:
            raise SourceError(f"layer '{name}': class '{layer.kind}' is not known")
        count = self._uses.get(name, 0)
        self._uses[name] = count + 1
        scope = self.net.scope(name, count)
        if kwargs.get("training") not in (None, False, 0):
            raise scope.fail("is called with training=True: it answers as in training")
        use = Use(layer, weights, args, kwargs)
        if unread := kind.unread(use):
            told = ", ".join(map(repr, unread))
            raise scope.fail(f"is called with the argument {told}, which is not supported")
        try:
            result = kind.writes(scope, use)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {one_line(error)[:200]}"
            raise scope.fail(f"its settings or weights are broken: {what}") from error
        hand_on(scope, use, _values(args), _values(result))
        scope.close()
        for value in _values(result):
            if not (value.is_graph_input() or value.is_initializer()):
                value.metadata_props.setdefault(dialect.PROVENANCE, name)
        return result

    def _input(self, layer: Layer, name: str) -> Value:
        c = layer.config
        shape = c.get("batch_shape", c.get("batch_input_shape"))
        if shape is None:
            raise SourceError(
                f"input '{layer.name}' has no shape: the model was never built; build it, "
                "and save it again"
            )
        dtype = c.get("dtype", "float32")
        held = dtype["config"]["name"] if isinstance(dtype, Mapping) else str(dtype)
        if held not in _TYPES:
            raise SourceError(f"input '{layer.name}' holds {held}, which is not supported")
        names = ["batch", *(f"{name}_{axis}" for axis in range(1, len(shape)))]
        sizes = [
            n if size is None else int(size) for n, size in zip(names, shape, strict=True)
        ]
        kind = onnx_ir.TensorType(_TYPES[held])
        value = Value(name=name, shape=onnx_ir.Shape(sizes), type=kind)
        self.net.graph.inputs.append(value)
        return value


def _is_ready(call: LayerCall, values: Mapping[Reference, Value]) -> bool:
    return all(one in values for one in references([list(call.args), dict(call.kwargs)]))


def _require_known(keras: KerasGraph, waiting: Sequence[LayerCall]) -> None:
    """Refuse calls that read what is in no layer of the model."""
    calls = {one.name: max(len(one.calls), 1) for one in keras.layers}
    for one in references([[list(call.args), dict(call.kwargs)] for call in waiting]):
        if one.node >= calls.get(one.layer, 0):
            raise SourceError(
                f"model '{keras.name}' reads call {one.node} of layer '{one.layer}', which it "
                "does not have: the configuration is broken"
            )


def _values(nested: Any) -> list[Value]:
    """Return the values in a nested result, dicts by sorted keys."""
    if isinstance(nested, Value):
        return [nested]
    if isinstance(nested, Mapping):
        return [value for key in sorted(nested) for value in _values(nested[key])]
    if isinstance(nested, (list, tuple)):
        return [value for one in nested for value in _values(one)]
    return []


def _names(ends: Nested) -> list[str]:
    """Return the names of inputs or outputs: those of layers, or the keys of a dict."""
    if isinstance(ends, Mapping):
        return names_of_ends(ends)
    return [one.layer for one in references(ends)]


def _set_outputs(net: Net, outputs: Any, keras: KerasGraph) -> None:
    """Make values outputs of the graph, called after layers or the keys of a dict."""
    names = _names(keras.outputs)
    taken = {str(value.name) for value in net.graph.inputs}
    for value, wanted in zip(_values(outputs), names, strict=True):
        name = free_name(wanted, taken)
        scope = net.scope(f"{name}_result")
        result = scope.op("Identity", value)
        scope.close()
        result.name = name
        result.metadata_props[dialect.PROVENANCE] = wanted
        net.graph.outputs.append(result)
