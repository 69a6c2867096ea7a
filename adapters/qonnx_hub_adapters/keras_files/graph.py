"""Configurations of Keras models as graphs: layers, and the calls that connect them.

Keras 2, Keras 3 and their Sequential models spell the same in three ways; here they are one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from qonnx_hub_ir.errors import SourceError

Nested: TypeAlias = Any
"""Lists, tuples and dicts of :class:`Reference` and plain values."""

MODELS = frozenset({"Functional", "Model", "Sequential"})
_MOST_LAYERS = 200_000
SHARED_MARK = "shared_object_id"
"""What Keras writes into an object's configuration where it meets the object again."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A tensor: output ``tensor`` of call ``node`` of a layer."""

    layer: str
    node: int
    tensor: int


@dataclass(frozen=True, slots=True)
class LayerCall:
    """One use of a layer.

    Attributes:
        args: Positional arguments; tensors are references.
        kwargs: Arguments by name.
    """

    args: tuple[Nested, ...]
    kwargs: Mapping[str, Nested]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a model, or an operation of Keras 3.

    Attributes:
        name: Its name.
        kind: Package and class, as in "keras>Dense", "qkeras>QDense", "hgq>QDense"; operations
            have the package "ops".
        config: Its configuration.
        calls: Its uses, in order.
        model: The model that it is, for nested ones.
        generation: Of the Keras that wrote it, 2 or 3.
        is_shared: Whether the file says that another model holds the same object.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    calls: tuple[LayerCall, ...]
    model: KerasGraph | None = None
    generation: int = 3
    is_shared: bool = False

    @property
    def class_name(self) -> str:
        """The class without its package."""
        return self.kind.rpartition(">")[2]


@dataclass(frozen=True, slots=True)
class KerasGraph:
    """A model.

    Attributes:
        name: Its name.
        kind: "Functional" or "Sequential".
        layers: Its layers, in the order of the file.
        inputs: References to its inputs, nested as callers give them.
        outputs: References to its outputs, nested as callers get them.
    """

    name: str
    kind: str
    layers: tuple[Layer, ...]
    inputs: Nested
    outputs: Nested


def references(value: Nested) -> Iterator[Reference]:
    """Give the tensors in a nested value, dicts by sorted keys: the order of Keras."""
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, Mapping):
        for key in sorted(value):
            yield from references(value[key])
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from references(one)


def replaced(value: Nested, find: Callable[[Reference], Any]) -> Nested:
    """Return a nested value with something else in the place of its references."""
    if isinstance(value, Reference):
        return find(value)
    if isinstance(value, Mapping):
        return {key: replaced(one, find) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [replaced(one, find) for one in value]
    return value


def read_graph(config: Mapping[str, Any], generation: int) -> KerasGraph:
    """Return the graph of a model's configuration.

    Args:
        config: ``{"class_name": ..., "config": ...}``.
        generation: Of Keras, 2 or 3.

    Raises:
        SourceError: It is no functional or sequential model, or broken; the place is named.
    """
    kind = _class_of(config, generation).rpartition(">")[2]
    if kind not in MODELS:
        raise SourceError(
            f"the model is of class '{kind}': only functional and sequential models say in "
            "their file what they compute; convert the live model instead"
        )
    try:
        return _model(config, generation, 0)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise SourceError(f"the model's configuration is broken: {error!r}") from error


def _model(config: Mapping[str, Any], generation: int, depth: int) -> KerasGraph:
    if depth > 40:
        raise SourceError("models are nested more than 40 deep")
    kind = _class_of(config, generation).rpartition(">")[2]
    inner = config["config"]
    if kind == "Sequential":
        return _sequential(inner, generation, depth)
    layers = inner["layers"]
    if len(layers) > _MOST_LAYERS:
        raise SourceError(f"the model has {len(layers)} layers")
    offsets = _offsets(inner, generation)
    read = [_layer(one, generation, offsets, depth) for one in layers]
    at_ends = offsets if generation == 2 else _offsets_at_ends(inner)
    ends = [_ends(inner[key], at_ends) for key in ("input_layers", "output_layers")]
    graph = KerasGraph(str(inner.get("name", "model")), kind, tuple(read), *ends)
    if generation == 2:
        _require_own_calls(graph, layers)
    return graph


def _require_own_calls(graph: KerasGraph, spelled: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a model that has lost calls of a layer which a model inside it holds too.

    In ``.h5`` files of Keras 2 a layer is described once for all models that hold it, so that
    the calls of the model that is described last stand in all of them.

    Raises:
        SourceError: Calls are read that are not there, or there that nothing reads.
    """
    inside: dict[str, list[Any]] = {}
    shared = []
    for one in reversed(spelled):
        name, calls = str(one.get("name")), one.get("inbound_nodes")
        if one.get(SHARED_MARK) is not None and calls in inside.get(name, ()):
            shared.append(name)
        for other, theirs in _calls_inside(one["config"]):
            inside.setdefault(other, []).append(theirs)
    if not shared:
        return
    are_read = [[list(c.args), dict(c.kwargs)] for one in graph.layers for c in one.calls]
    read = {(one.layer, one.node) for one in references([are_read, graph.outputs])}
    given = {(one.name, number) for one in graph.layers for number in range(len(one.calls))}
    inputs = {(one.name, 0) for one in graph.layers if one.kind == "keras>InputLayer"}
    if read - inputs != given:
        raise SourceError(
            f"model '{graph.name}' has lost calls of its layers: where a model inside it "
            f"holds the same layer ({', '.join(sorted(shared))}), Keras 2 writes the calls of "
            "that model in their place; save the live model as '.keras', which has them all"
        )


def _calls_inside(value: Any) -> Iterator[tuple[str, Any]]:
    """Give name and calls of every layer in a configuration."""
    if isinstance(value, Mapping):
        if value.get("inbound_nodes"):
            yield str(value.get("name")), value["inbound_nodes"]
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _calls_inside(one)


def _sequential(inner: Any, generation: int, depth: int) -> KerasGraph:
    """Return a chain; old files are a list, with the input's shape in its first layer."""
    listed = inner if isinstance(inner, list) else inner["layers"]
    name = "sequential" if isinstance(inner, list) else str(inner.get("name", "sequential"))
    if not listed:
        raise SourceError(f"model '{name}' has no layers")
    layers: list[Layer] = []
    if _class_of(listed[0], generation) != "keras>InputLayer":
        first = listed[0]["config"]
        shape = first.get("batch_input_shape", first.get("batch_shape"))
        if shape is None and isinstance(inner, Mapping):
            shape = inner.get("build_input_shape")
        config = {"name": f"{first.get('name', 'layer')}_input", "batch_shape": shape}
        layers.append(Layer(str(config["name"]), "keras>InputLayer", config, ()))
    for one in listed:
        before = (Reference(layers[-1].name, 0, 0),) if layers else ()
        made = _layer({**one, "inbound_nodes": []}, generation, {}, depth)
        calls = (LayerCall(before, {}),) if before else ()
        layers.append(dataclasses.replace(made, calls=calls))
    ends = [Reference(layers[0].name, 0, 0)], Reference(layers[-1].name, 0, 0)
    return KerasGraph(name, "Sequential", tuple(layers), *ends)


def inner_layer(outer: Layer, spelled: Mapping[str, Any]) -> Layer:
    """Return the layer that a wrapper's configuration holds.

    Raises:
        SourceError: It is broken.
    """
    try:
        return _layer({**spelled, "inbound_nodes": []}, outer.generation, {}, 1)
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"layer '{outer.name}': what it wraps is broken: {error!r}"
        ) from error


def _layer(
    one: Mapping[str, Any], generation: int, offsets: Mapping[str, int], depth: int
) -> Layer:
    kind = _class_of(one, generation)
    config = one["config"]
    model = None
    if kind.rpartition(">")[2] in MODELS:
        model = _model(one, generation, depth + 1)
    name = one.get("name")
    if name is None:
        name = model.name if model is not None else config["name"]
    calls = tuple(_calls(one.get("inbound_nodes") or [], offsets))
    plain = config if isinstance(config, Mapping) else {}
    is_shared = one.get(SHARED_MARK) is not None
    if model is None and kind != "keras>InputLayer" and not kind.startswith("ops>"):
        _require_float32(str(name), plain.get("dtype"))
    return Layer(str(name), kind, plain, calls, model, generation, is_shared)


def _require_float32(name: str, policy: Any) -> None:
    """Refuse a layer that computes in another type; the policy is a name or an object."""
    if isinstance(policy, Mapping):
        # Policies of quantized layers, and maps of policies, have no name.
        settings = policy.get("config", {})
        policy = settings.get("name") or settings.get("mode") or policy.get("class_name")
    if policy not in (None, "float32"):
        raise SourceError(
            f"layer '{name}' computes in {policy}, not in float32: set its dtype policy to "
            "float32, and save the model again"
        )


_OTHERS = {"FixedPointQuantizer": "hgq1", "PruneLowMagnitude": "tfmot"}


def _class_of(one: Mapping[str, Any], generation: int) -> str:
    """Return package and class: never by the bare class, which packages share."""
    name, module = str(one["class_name"]), str(one.get("module") or "")
    registered = str(one.get("registered_name") or "")
    for text in (name, registered):
        package, sign, bare = text.rpartition(">")
        if sign:
            package = "hgq" if package.startswith("hgq") else package
            known = package in {"qkeras", "hgq", "keras"}
            return f"{package}>{bare}" if known else f"{package or 'custom'}>{bare}"
    if ".ops" in module:
        return f"ops>{name}"
    for package in ("qkeras", "hgq"):
        if module.startswith(package):
            return f"{package}>{name}"
    if module and not module.startswith(("keras", "tensorflow", "tf_keras")):
        return f"{module}>{name}"
    if name in _OTHERS:
        return f"{_OTHERS[name]}>{name}"
    # Without modules (.h5), the settings of a layer tell it from an operation of its name.
    settings = one.get("config")
    nameless = generation == 3 and not module and name not in {"InputLayer", *MODELS}
    if nameless and isinstance(settings, Mapping) and "trainable" not in settings:
        return f"ops>{name}"
    is_theirs = name[:1] == "Q" and name[1:2].isupper()
    return f"qkeras>{name}" if generation == 2 and is_theirs else f"keras>{name}"


def _offsets(inner: Mapping[str, Any], generation: int) -> dict[str, int]:
    """Return, by nested model, what is subtracted from the node of a reference to it.

    In Keras 2 node 0 of a nested model is its own construction, while the file lists its calls
    from 0 on.
    """
    if generation != 2:
        return {}
    found = {}
    used: dict[str, set[int]] = {}
    for layer in inner["layers"]:
        for name, node in _raw_references(layer.get("inbound_nodes") or []):
            used.setdefault(name, set()).add(node)
    for key in ("input_layers", "output_layers"):
        for name, node in _raw_references(inner[key]):
            used.setdefault(name, set()).add(node)
    for layer in inner["layers"]:
        name = str(layer.get("name", ""))
        nodes = used.get(name, set())
        if str(layer["class_name"]) in MODELS and nodes and 0 not in nodes:
            found[name] = 1
    return found


def _offsets_at_ends(inner: Mapping[str, Any]) -> dict[str, int]:
    """Return the same for the outputs of a model of Keras 3, whose calls count from 0."""
    named = {
        str(layer["name"]): str(layer["class_name"])
        for layer in inner["layers"]
        if layer.get("name")
    }
    nodes = [*_raw_references(inner["output_layers"])]
    from_0 = {name for name, node in nodes if node == 0}
    return {name: 1 for name, _ in nodes if named.get(name) == "Functional"} | dict.fromkeys(
        from_0, 0
    )


def _is_reference(value: Any) -> bool:
    """Return whether a list is a reference as Keras 2 writes it: layer, node, tensor."""
    return (
        isinstance(value, list)
        and 3 <= len(value) <= 4
        and isinstance(value[0], str)
        and all(isinstance(n, int) and not isinstance(n, bool) for n in value[1:3])
        and value[0] != "_CONSTANT_VALUE"
    )


def _raw_references(value: Any) -> Iterator[tuple[str, int]]:
    if _is_reference(value):
        yield value[0], value[1]
        if len(value) == 4:
            yield from _raw_references(value[3])
    elif isinstance(value, dict):
        for one in value.values():
            yield from _raw_references(one)
    elif isinstance(value, list):
        for one in value:
            yield from _raw_references(one)


def _calls(nodes: Sequence[Any], offsets: Mapping[str, int]) -> Iterator[LayerCall]:
    for node in nodes:
        if isinstance(node, dict):
            args, kwargs = _of_keras_3(node["args"]), _of_keras_3(node["kwargs"])
            yield LayerCall(tuple(args), kwargs)
        else:
            yield _call_of_keras_2(node, offsets)


def _of_keras_3(value: Any) -> Nested:
    if isinstance(value, dict):
        kind = value.get("class_name")
        if kind == "__keras_tensor__":
            layer, node, tensor = value["config"]["keras_history"]
            return Reference(str(layer), int(node), int(tensor))
        if kind == "__slice__":
            config = value["config"]
            return slice(config.get("start"), config.get("stop"), config.get("step"))
        if kind == "__tuple__":
            return _of_keras_3(value["config"] if "config" in value else value["items"])
        if kind == "__numpy__":
            return value["config"]["value"]
        return {key: _of_keras_3(one) for key, one in value.items()}
    return [_of_keras_3(one) for one in value] if isinstance(value, list) else value


def _call_of_keras_2(node: Any, offsets: Mapping[str, int]) -> LayerCall:
    """Return a call: references with arguments by name, the first one's, beside them.

    The call of a TensorFlow operation is one reference, whose first entry may be a constant.
    """
    kwargs: dict[str, Nested] = {}

    def argument(one: Any) -> Nested:
        if isinstance(one, list) and one and one[0] == "_CONSTANT_VALUE":
            if len(one) > 3 and isinstance(one[3], dict):
                kwargs.update(_of_keras_2(one[3], offsets))
            return one[2]
        if _is_reference(one):
            if len(one) == 4 and isinstance(one[3], dict):
                kwargs.update(_of_keras_2(one[3], offsets))
            return _reference(one, offsets)
        return [argument(inner) for inner in one] if isinstance(one, list) else one

    if _is_reference(node) or (isinstance(node, list) and node[:1] == ["_CONSTANT_VALUE"]):
        return LayerCall((argument(node),), kwargs)
    if isinstance(node, dict):
        return LayerCall((_of_keras_2(node, offsets),), {})
    given = [argument(one) for one in node]
    return LayerCall(tuple(given) if len(given) == 1 else (given,), kwargs)


def _of_keras_2(value: Any, offsets: Mapping[str, int]) -> Nested:
    if _is_reference(value):
        return _reference(value, offsets)
    if isinstance(value, dict):
        if set(value) == {"start", "stop", "step"}:
            parts = (_of_keras_2(value[key], offsets) for key in ("start", "stop", "step"))
            return slice(*parts)
        return {key: _of_keras_2(one, offsets) for key, one in value.items()}
    return [_of_keras_2(one, offsets) for one in value] if isinstance(value, list) else value


def _reference(value: Sequence[Any], offsets: Mapping[str, int]) -> Reference:
    return Reference(value[0], value[1] - offsets.get(value[0], 0), value[2])


def _ends(value: Any, offsets: Mapping[str, int]) -> Nested:
    """Return inputs or outputs of a model: one reference, a list or a dict of them."""
    if _is_reference(value):
        return _reference(value, offsets)
    if isinstance(value, dict):
        return {key: _ends(one, offsets) for key, one in value.items()}
    return [_ends(one, offsets) for one in value]
